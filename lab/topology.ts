// The lab's map: which network namespaces there are, how they are connected, and which addresses,
// routes, settings and rules each gets, as input of `ip`, `bridge`, iptables and nft. Pure; makes
// nothing. How pods are connected is in cni.ts.
//
//   outside ── router ══ bridge ══ node-a ── pods of node-a       Every ── is a veth pair.
//                           ╚═════ node-b ── pods of node-b
import {
  type Addresses,
  clientPrefixes,
  nodeAddresses,
  outsideAddresses,
  podAddresses,
  routerAddresses,
  servicePrefixes,
  withLengths,
} from "./addresses.ts";
import { bridgeCalls, cnis, type Network, routesToPods, up } from "./cni.ts";
import { planAntiSpoofing, planRules } from "./rules.ts";

/** Node names, each with its pods' names, in the order in which addresses are given. */
export type Topology = Readonly<Record<string, readonly string[]>>;

/** Two pods on each of two nodes. */
export const twoNodes: Topology = {
  "node-a": ["pod-a1", "pod-a2"],
  "node-b": ["pod-b1", "pod-b2"],
};

/** What kind of network a lab has. */
export interface NetworkOptions {
  /** How pods are connected; "routed" unless given. */
  network?: Network;
  /**
   * Whether nodes have the iptables rules of such a CNI (rules.ts), and with them connection
   * tracking. Unless given, they do on a bridge.
   */
  rules?: boolean;
  /** Reverse path filter of nodes and pods: off (0, unless given), strict (1), loose (2). */
  rpFilter?: 0 | 1 | 2;
}

/** One network namespace. */
export interface Space {
  addresses: Addresses;
  /** Files below /proc/sys/net and what they hold, as FILE=VALUE. Devices inherit them. */
  settings: string[];
  /** Lines for `ip -batch` inside it, once all cables are there: the devices that are no cables. */
  devices: string[];
  /** Further lines for addresses and routes; said again they put back what was lost. */
  setup: string[];
  /** Lines for `bridge -batch`. */
  fdb: string[];
  /** Input of iptables-nft-restore and ip6tables-nft-restore. */
  rules?: Addresses;
  /** Input of `nft -f`. */
  nftables?: string;
}

export interface Plan {
  spaces: Map<string, Space>;
  /** Lines for `ip -batch` outside: the veth pairs. */
  cables: string[];
  /** Kernel modules that nodes have loaded; built into some kernels. */
  modules: string[];
}

/** Untranslated, addresses of Services lead nowhere: hosts prohibit them (EACCES). */
export const prohibit = Object.values(servicePrefixes).map(
  (prefix) => `route replace prohibit ${prefix}`,
);

// The plan gives link-local addresses too: the kernel's own ones come some time after the device.
const settings = ["ipv6/conf/*/addr_gen_mode=1"];
const forwarding = ["ipv4/ip_forward=1", "ipv6/conf/all/forwarding=1"];
/** Several next hops are chosen among by addresses and ports. */
const multipath = ["ipv4", "ipv6"].map((family) => `${family}/fib_multipath_hash_policy=1`);

function planRouter(nodes: readonly string[], network: Network): Space {
  const addresses = routerAddresses();
  const setup = nodes.flatMap((node) => [
    `link set to-${node} master bridge`,
    `link set to-${node} up`,
  ]);
  setup.push(...up("bridge", [...withLengths(addresses, [24, 64]), "fe80::1/64"]));
  setup.push(
    ...up("outside", ["203.0.113.1/24", "2001:db8:ffff::1/64", "fe80::1/64"]),
    `route replace ${clientPrefixes.ipv6} via ${outsideAddresses.ipv6}`,
    ...prohibit,
  );
  const { podsAreRoutable } = cnis[network];
  if (podsAreRoutable) setup.push(...[...nodes.keys()].flatMap((node) => routesToPods(node)));
  return {
    addresses,
    settings: [
      "ipv4/conf/*/rp_filter=0",
      ...settings,
      ...forwarding,
      ...multipath,
      ...bridgeCalls(0),
    ],
    devices: ["link add bridge type bridge mcast_snooping 0"],
    setup,
    fdb: [],
    ...(podsAreRoutable ? {} : { nftables: planAntiSpoofing({ everywhere: network === "vxlan" }) }),
  };
}

function planNode(
  index: number,
  { topology, network, rules, rpFilter }: Required<NetworkOptions> & { topology: Topology },
): Space {
  const addresses = nodeAddresses(index);
  const router = routerAddresses();
  const all = Object.values(topology);
  const part = cnis[network].planNode({ index, nodeCount: all.length, pods: all[index] ?? [] });
  return {
    addresses,
    settings: [`ipv4/conf/*/rp_filter=${rpFilter}`, ...settings, ...forwarding, ...part.settings],
    devices: part.devices,
    setup: [
      ...up("eth0", [...withLengths(addresses, [24, 64]), `fe80::${index + 2}/64`]),
      `route replace default via ${router.ipv4}`,
      `route replace default via ${router.ipv6}`,
      ...part.setup,
      ...prohibit,
    ],
    fdb: part.fdb,
    ...(rules ? { rules: planRules(network, index) } : {}),
  };
}

function planPod(
  { node, pod }: { node: number; pod: number },
  { network, rpFilter, isSandboxed }: Required<NetworkOptions> & { isSandboxed: boolean },
): Space {
  return {
    addresses: podAddresses(node, pod),
    settings: [`ipv4/conf/*/rp_filter=${rpFilter}`, ...settings],
    devices: [],
    setup: [...cnis[network].planPod(node, pod), ...(isSandboxed ? [] : prohibit)],
    fdb: [],
  };
}

function planOutside(): Space {
  const { ipv4, ipv6 } = outsideAddresses;
  const setup = [
    ...up("eth0", [`${ipv4}/24`, `${ipv6}/64`, "fe80::10/64"]),
    ...Object.values(clientPrefixes).map((prefix) => `route replace local ${prefix} dev lo`),
    "route replace default via 203.0.113.1",
    "route replace default via 2001:db8:ffff::1",
  ];
  return {
    addresses: outsideAddresses,
    settings: ["ipv4/conf/*/rp_filter=0", "ipv6/ip_nonlocal_bind=1", ...settings],
    devices: [],
    setup,
    fdb: [],
  };
}

/** What a lab is made of: pods on nodes, their network, and pods apart. */
export interface LabOptions extends NetworkOptions {
  topology?: Topology;
  /**
   * Pods whose processes run in a cgroup beside the node's, as those of Kata, gVisor or a VM do: no
   * socket hook sees them. Addresses of Services leave them as they are.
   */
  sandboxed?: readonly string[];
}

function completed({ network = "routed", rules, rpFilter = 0 }: NetworkOptions) {
  return { network, rules: rules ?? network !== "routed", rpFilter };
}

/**
 * The namespaces "router", "outside" and one for each node and pod; `nameOf` gives the name that a
 * namespace has for `ip`. Throws when a name cannot name a device or is there twice.
 */
export function planLab(options: LabOptions, nameOf: (space: string) => string): Plan {
  const { topology = twoNodes, sandboxed = [] } = options;
  const network = completed(options);
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
  const connect = (one: string, device: string, [other, mtu]: [string, number]) => {
    const peer = `type veth peer name eth0 mtu ${mtu} netns ${nameOf(other)}`;
    // Ends of equal index look like one device: their carrier is told up to a second late.
    const index = 100 + cables.length;
    cables.push(`link add name ${device} index ${index} mtu ${mtu} netns ${nameOf(one)} ${peer}`);
  };
  add("router", planRouter(nodes, network.network));
  add("outside", planOutside());
  connect("router", "outside", ["outside", 1500]);
  for (const [node, name] of nodes.entries()) {
    add(name, planNode(node, { ...network, topology }));
    connect("router", `to-${name}`, [name, 1500]);
    for (const [pod, podName] of (topology[name] ?? []).entries()) {
      const isSandboxed = sandboxed.includes(podName);
      add(podName, planPod({ node, pod }, { ...network, isSandboxed }));
      connect(name, podName, [podName, cnis[network.network].podMtu]);
    }
  }
  const unknown = sandboxed.find((name) => !Object.values(topology).flat().includes(name));
  if (unknown !== undefined) throw new TypeError(`'${unknown}', to be sandboxed, is no pod`);
  const modules = network.network === "routed" ? [] : ["br_netfilter"];
  return { spaces, cables, modules };
}
