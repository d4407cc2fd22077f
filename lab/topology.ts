// The lab's map: which network namespaces there are, how they are connected, and which addresses
// and routes each gets, as lines for `ip -batch`. Pure; makes nothing.
//
//   outside ── router ══ bridge ══ node-a ── pods of node-a       Every ── is a veth pair.
//                           ╚═════ node-b ── pods of node-b       Pods are routed, /32 and /128.
import type { Addresses } from "./host.ts";

/** Node names, each with its pods' names, in the order in which addresses are given. */
export type Topology = Readonly<Record<string, readonly string[]>>;

/** Two pods on each of two nodes. */
export const twoNodes: Topology = {
  "node-a": ["pod-a1", "pod-a2"],
  "node-b": ["pod-b1", "pod-b2"],
};

/** Addresses of Services. Untranslated they lead nowhere: every host prohibits them (EACCES). */
export const servicePrefixes = ["10.96.0.0/16", "fd00:10:96::/112"] as const;

/** One network namespace. */
export interface Space {
  addresses: Addresses;
  forwards: boolean;
  /** Lines for `ip -batch` inside it, once all cables are there. */
  setup: string[];
}

export interface Plan {
  spaces: Map<string, Space>;
  /** Lines for `ip -batch` outside: the veth pairs. */
  cables: string[];
}

const router = { ipv4: "192.168.50.1", ipv6: "2001:db8:50::1" };
// Every node's end of a pod's cable, as a gateway that means the same on each of them.
const gateway = { ipv4: "169.254.1.1", ipv6: "fe80::1" };

function nodeAddresses(index: number): Addresses {
  return { ipv4: `192.168.50.${index + 2}`, ipv6: `2001:db8:50::${(index + 2).toString(16)}` };
}

function podAddresses(node: number, index: number): Addresses {
  const last = index + 2;
  return {
    ipv4: `10.244.${node + 1}.${last}`,
    ipv6: `fd00:10:244:${(node + 1).toString(16)}::${last.toString(16)}`,
  };
}

/** Where the pods of a node live, as routes to them name it. */
function podPrefixes(node: number): readonly string[] {
  return [`10.244.${node + 1}.0/24`, `fd00:10:244:${(node + 1).toString(16)}::/64`];
}

const prohibit = servicePrefixes.map((prefix) => `route add prohibit ${prefix}`);

function up(device: string, addresses: readonly string[]): string[] {
  // A tentative address answers nobody and is no route's source: no duplicate detection.
  return [
    ...addresses.map((address) =>
      address.includes(":")
        ? `address add ${address} dev ${device} nodad`
        : `address add ${address} dev ${device}`,
    ),
    `link set ${device} up`,
  ];
}

function planRouter(nodes: readonly string[]): Space {
  const setup = ["link add bridge type bridge mcast_snooping 0"];
  for (const node of nodes)
    setup.push(`link set to-${node} master bridge`, `link set to-${node} up`);
  setup.push(...up("bridge", [`${router.ipv4}/24`, `${router.ipv6}/64`, "fe80::1/64"]));
  setup.push(
    ...up("outside", ["203.0.113.1/24", "2001:db8:ffff::1/64", "fe80::1/64"]),
    ...prohibit,
  );
  for (const node of nodes.keys()) setup.push(...routesToPods(node));
  return { addresses: router, forwards: true, setup };
}

/** Routes to the pods of a node, from the router or, with `from`, from another node. */
function routesToPods(node: number, from?: Addresses): string[] {
  const via = nodeAddresses(node);
  const [ipv4, ipv6] = podPrefixes(node);
  return [
    `route add ${ipv4} via ${via.ipv4} ${from ? `src ${from.ipv4}` : ""}`,
    `route add ${ipv6} via ${via.ipv6} ${from ? `src ${from.ipv6}` : ""}`,
  ];
}

function planNode(index: number, pods: readonly string[], nodeCount: number): Space {
  const addresses = nodeAddresses(index);
  const setup = up("eth0", [
    `${addresses.ipv4}/24`,
    `${addresses.ipv6}/64`,
    `fe80::${index + 2}/64`,
  ]);
  setup.push(`route add default via ${router.ipv4}`, `route add default via ${router.ipv6}`);
  for (const [place, pod] of pods.entries()) {
    const { ipv4, ipv6 } = podAddresses(index, place);
    // Without src, traffic of the node to its pods would come from the gateway's address.
    setup.push(
      ...up(pod, [`${gateway.ipv4}/32`, `${gateway.ipv6}/64`]),
      `route add ${ipv4}/32 dev ${pod} src ${addresses.ipv4}`,
      `route add ${ipv6}/128 dev ${pod} src ${addresses.ipv6}`,
    );
  }
  for (let other = 0; other < nodeCount; other++) {
    if (other !== index) setup.push(...routesToPods(other, addresses));
  }
  return { addresses, forwards: true, setup: [...setup, ...prohibit] };
}

function planPod(addresses: Addresses): Space {
  const setup = [
    ...up("eth0", [`${addresses.ipv4}/32`, `${addresses.ipv6}/128`, "fe80::2/64"]),
    `route add ${gateway.ipv4} dev eth0`,
    `route add default via ${gateway.ipv4}`,
    `route add default via ${gateway.ipv6} dev eth0`,
    ...prohibit,
  ];
  return { addresses, forwards: false, setup };
}

function planOutside(): Space {
  const addresses = { ipv4: "203.0.113.10", ipv6: "2001:db8:ffff::10" };
  const setup = [
    ...up("eth0", [`${addresses.ipv4}/24`, `${addresses.ipv6}/64`, "fe80::10/64"]),
    "route add default via 203.0.113.1",
    "route add default via 2001:db8:ffff::1",
  ];
  return { addresses, forwards: false, setup };
}

/**
 * The namespaces "router", "outside" and one for each node and pod; `nameOf` gives the name that a
 * namespace has for `ip`. Throws when a name cannot name a device or is there twice.
 */
export function planLab(topology: Topology, nameOf: (space: string) => string): Plan {
  const nodes = Object.keys(topology);
  const spaces = new Map<string, Space>();
  const cables: string[] = [];
  const add = (name: string, space: Space) => {
    if (!/^[a-z][a-z0-9-]{0,11}$/.test(name) || spaces.has(name)) {
      throw new TypeError(
        `'${name}' cannot name a host of the lab: use up to 12 of a-z, 0-9 and '-', each name once`,
      );
    }
    spaces.set(name, space);
  };
  const connect = (one: string, device: string, other: string) => {
    const peer = `type veth peer name eth0 netns ${nameOf(other)}`;
    // Ends of equal index look like one device: their carrier is told up to a second late.
    const index = 100 + cables.length;
    cables.push(`link add name ${device} index ${index} netns ${nameOf(one)} ${peer}`);
  };
  add("router", planRouter(nodes));
  add("outside", planOutside());
  connect("router", "outside", "outside");
  for (const [index, node] of nodes.entries()) {
    const pods = topology[node] ?? [];
    add(node, planNode(index, pods, nodes.length));
    connect("router", `to-${node}`, node);
    for (const [place, pod] of pods.entries()) {
      add(pod, planPod(podAddresses(index, place)));
      connect(node, pod, pod);
    }
  }
  return { spaces, cables };
}
