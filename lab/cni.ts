// How pods are connected, in the three ways that CNIs have, as lines for `ip -batch`: what a node
// needs beside its uplink and what a pod needs. Makes nothing; the rest of the map is topology.ts.
import {
  type Addresses,
  memberOf,
  nodeAddresses,
  podAddresses,
  podPrefixesOf,
  withLengths,
} from "./addresses.ts";

/**
 * - routed: each pod on a veth of its own with a route to it; between nodes by routes (Calico).
 * - bridge: pods on the bridge cni0; between nodes by routes (kubenet, CNI's bridge, host-gw).
 * - vxlan: pods on the bridge cni0; between nodes by VXLAN, set up as flannel does.
 */
export type Network = "routed" | "bridge" | "vxlan";

/** A node as its plan needs it. */
export interface NodePlace {
  /** From 0. */
  index: number;
  nodeCount: number;
  pods: readonly string[];
}

/** What a node needs for its pods; see Space in topology.ts. */
export interface NodePart {
  settings: string[];
  devices: string[];
  setup: string[];
  fdb: string[];
}

export interface Cni {
  /** Of the pods' devices, as many bytes as the way between nodes can carry of 1500. */
  podMtu: number;
  /** Whether what is outside, or underneath, has routes to pods. */
  podsAreRoutable: boolean;
  planNode(place: NodePlace): NodePart;
  planPod(node: number, pod: number): string[];
}

/** Gives a device its addresses and takes it up. */
export function up(device: string, addresses: readonly string[]): string[] {
  // A tentative address answers nobody and is no route's source: no duplicate detection.
  return [
    ...addresses.map((address) => {
      const nodad = address.includes(":") ? " nodad" : "";
      return `address replace ${address} dev ${device}${nodad}`;
    }),
    `link set ${device} up`,
  ];
}

/** Whether what bridges carry passes iptables too, which kubeadm asks of a node. */
export function bridgeCalls(value: 0 | 1): string[] {
  return ["iptables", "ip6tables"].map((name) => `bridge/bridge-nf-call-${name}=${value}`);
}

function hexByte(value: number): string {
  return value.toString(16).padStart(2, "0");
}

function otherNodes({ index, nodeCount }: NodePlace): number[] {
  return Array.from({ length: nodeCount }, (_, node) => node).filter((node) => node !== index);
}

/** Routes to the pods of a node by its own address, from the router or, with `from`, a node. */
export function routesToPods(node: number, from?: Addresses): string[] {
  const via = nodeAddresses(node);
  const { ipv4, ipv6 } = podPrefixesOf(node);
  return [
    `route replace ${ipv4} via ${via.ipv4} ${from ? `src ${from.ipv4}` : ""}`,
    `route replace ${ipv6} via ${via.ipv6} ${from ? `src ${from.ipv6}` : ""}`,
  ];
}

// Every node's end of a routed pod's cable, as a gateway that means the same on each of them.
const gateway = { ipv4: "169.254.1.1", ipv6: "fe80::1" };

const routed: Cni = {
  podMtu: 1500,
  podsAreRoutable: true,
  planNode: (place) => {
    const own = nodeAddresses(place.index);
    // Without src, traffic of the node to its pods would come from the gateway's address.
    const setup = place.pods.flatMap((name, pod) => {
      const { ipv4, ipv6 } = podAddresses(place.index, pod);
      return [
        ...up(name, [`${gateway.ipv4}/32`, `${gateway.ipv6}/64`]),
        `route replace ${ipv4}/32 dev ${name} src ${own.ipv4}`,
        `route replace ${ipv6}/128 dev ${name} src ${own.ipv6}`,
      ];
    });
    setup.push(...otherNodes(place).flatMap((node) => routesToPods(node, own)));
    return { settings: [], devices: [], setup, fdb: [] };
  },
  planPod: (node, pod) => [
    ...up("eth0", [...withLengths(podAddresses(node, pod), [32, 128]), "fe80::2/64"]),
    `route replace ${gateway.ipv4} dev eth0`,
    `route replace default via ${gateway.ipv4}`,
    `route replace default via ${gateway.ipv6} dev eth0`,
  ],
};

/** The bridge with the node's pods as its ports; a pod may be sent what it sent (hairpin). */
function planBridge({ index, pods }: NodePlace, mtu: number): NodePart {
  const addresses = withLengths(memberOf(podPrefixesOf(index), 1), [24, 64]);
  const mac = `0a:58:0a:f4:${hexByte(index + 1)}:01`;
  return {
    settings: bridgeCalls(1),
    devices: [`link add cni0 address ${mac} mtu ${mtu} type bridge`],
    setup: [
      ...pods.flatMap((pod) => [
        `link set ${pod} master cni0`,
        `link set ${pod} type bridge_slave hairpin on`,
        `link set ${pod} up`,
      ]),
      ...up("cni0", [...addresses, "fe80::1/64"]),
    ],
    fdb: [],
  };
}

function planBridgedPod(node: number, pod: number): string[] {
  const { ipv4, ipv6 } = memberOf(podPrefixesOf(node), 1);
  const own = withLengths(podAddresses(node, pod), [24, 64]);
  return [
    ...up("eth0", [...own, `fe80::${(pod + 2).toString(16)}/64`]),
    `route replace default via ${ipv4}`,
    `route replace default via ${ipv6}`,
  ];
}

const bridge: Cni = {
  podMtu: 1500,
  podsAreRoutable: false,
  planNode: (place) => {
    const part = planBridge(place, bridge.podMtu);
    part.setup.push(...otherNodes(place).flatMap((node) => routesToPods(node)));
    return part;
  },
  planPod: planBridgedPod,
};

const tunnelMtu = 1450;

const tunnels = [
  { device: "flannel.1", family: "ipv4", macPart: "04", length: 32 },
  { device: "flannel-v6.1", family: "ipv6", macPart: "06", length: 128 },
] as const;

/**
 * One end of the tunnel as flannel's backend makes it: no learning, its address the pod prefix's
 * own one, and for each other node a neighbour, a forwarding entry and an onlink route. Its MTU is
 * 50 less than the uplink's for both families, though over IPv6 a packet grows by 70.
 */
function planTunnel(tunnel: (typeof tunnels)[number], place: NodePlace): NodePart {
  const { device, family, macPart, length } = tunnel;
  const endOf = (node: number) => memberOf(podPrefixesOf(node), 0)[family];
  const macOf = (node: number) => `0e:00:00:00:${macPart}:${hexByte(node + 1)}`;
  const local = nodeAddresses(place.index)[family];
  const ethernet = `address ${macOf(place.index)} mtu ${tunnelMtu}`;
  const vxlan = `type vxlan id 1 local ${local} dev eth0 dstport 8472 nolearning`;
  const others = otherNodes(place);
  return {
    settings: [],
    devices: [`link add ${device} ${ethernet} ${vxlan}`],
    setup: [
      ...up(device, [`${endOf(place.index)}/${length}`]),
      ...others.flatMap((node) => [
        `neighbor replace ${endOf(node)} lladdr ${macOf(node)} dev ${device} nud permanent`,
        `route replace ${podPrefixesOf(node)[family]} via ${endOf(node)} dev ${device} onlink`,
      ]),
    ],
    fdb: others.map((node) => {
      const underlay = nodeAddresses(node)[family];
      return `fdb replace ${macOf(node)} dev ${device} dst ${underlay} self permanent`;
    }),
  };
}

const vxlan: Cni = {
  podMtu: tunnelMtu,
  podsAreRoutable: false,
  planNode: (place) => {
    const parts = [
      planBridge(place, tunnelMtu),
      ...tunnels.map((tunnel) => planTunnel(tunnel, place)),
    ];
    return {
      settings: parts.flatMap(({ settings }) => settings),
      devices: parts.flatMap(({ devices }) => devices),
      setup: parts.flatMap(({ setup }) => setup),
      fdb: parts.flatMap(({ fdb }) => fdb),
    };
  },
  planPod: planBridgedPod,
};

export const cnis: Readonly<Record<Network, Cni>> = { routed, bridge, vxlan };
