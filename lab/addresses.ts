// Which address everyone in the lab has and which prefix is whose, those of the behaviour vectors.
// Arithmetic alone; knows nothing of devices and routes.

export const families = ["ipv4", "ipv6"] as const;
export type Family = (typeof families)[number];
/** One address, prefix or other text for each family. */
export type Addresses = Record<Family, string>;

/** All pods of all nodes. */
export const podPrefixes: Addresses = { ipv4: "10.244.0.0/16", ipv6: "fd00:10:244::/56" };

/** Cluster IPs. */
export const servicePrefixes: Addresses = { ipv4: "10.96.0.0/16", ipv6: "fd00:10:96::/112" };

/** Load-balancer VIPs and external IPs, of the vectors and of examples/. */
export const vipPrefixes: Readonly<Record<Family, readonly string[]>> = {
  ipv4: ["198.51.100.0/24", "192.0.2.0/24"],
  ipv6: ["2001:db8:1b::/64", "2001:db8:aaaa::/64", "2001:db8:198::/64", "2001:db8:192::/64"],
};

/** The client outside, and further addresses that it has, whole prefixes of them. */
export const outsideAddresses: Addresses = { ipv4: "203.0.113.10", ipv6: "2001:db8:ffff::10" };
export const clientPrefixes: Addresses = {
  ipv4: "203.0.113.128/25",
  ipv6: "2001:db8:ffff:1::/64",
};

/** The nodes' network, or with `uplink` 1 their second one. */
export function nodePrefixes(uplink = 0): Addresses {
  return { ipv4: `192.168.${50 + uplink}.0/24`, ipv6: `2001:db8:${50 + uplink}::/64` };
}

export function routerAddresses(uplink = 0): Addresses {
  return memberOf(nodePrefixes(uplink), 1);
}

/** Of the node with this index, from 0. */
export function nodeAddresses(node: number, uplink = 0): Addresses {
  return memberOf(nodePrefixes(uplink), node + 2);
}

/** The pods of one node; its member 1 is the node's bridge where it has one. */
export function podPrefixesOf(node: number): Addresses {
  const third = node + 1;
  return { ipv4: `10.244.${third}.0/24`, ipv6: `fd00:10:244:${third.toString(16)}::/64` };
}

/** Of the pod with this index on its node, from 0. */
export function podAddresses(node: number, pod: number): Addresses {
  return memberOf(podPrefixesOf(node), pod + 2);
}

/** The address of this number in prefixes that end with a part for it; 0 is the prefix's own. */
export function memberOf({ ipv4, ipv6 }: Addresses, number: number): Addresses {
  return {
    ipv4: ipv4.replace(/0\/\d+$/, String(number)),
    ipv6: ipv6.replace(/\/\d+$/, number === 0 ? "" : number.toString(16)),
  };
}

/** The same addresses with prefix lengths behind them, such as "10.244.1.2/32". */
export function withLengths({ ipv4, ipv6 }: Addresses, lengths: [number, number]): string[] {
  return [`${ipv4}/${lengths[0]}`, `${ipv6}/${lengths[1]}`];
}
