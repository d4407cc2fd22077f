// On which addresses of this node its node ports are served (§9). Only the default, `primary`, is
// decided here; knows nothing of devices: addresses to fall back to are an argument.
import { addressFamily } from "./address.ts";
import type { NodeObject } from "./objects.ts";

/** Canonical addresses that serve node ports, family by family. */
export interface NodePortAddresses {
  ipv4: readonly string[];
  ipv6: readonly string[];
}

/** Sorts canonical addresses by family. */
export function groupByFamily(addresses: readonly string[]): NodePortAddresses {
  const distinct = [...new Set(addresses)];
  return {
    ipv4: distinct.filter((address) => addressFamily(address) === 4),
    ipv6: distinct.filter((address) => addressFamily(address) === 6),
  };
}

/**
 * The primary address of each family: the first InternalIP, else the first ExternalIP (§9.6).
 * Undefined if the Node names no address at all, so that the caller falls back.
 */
export function primaryAddresses(node: NodeObject): NodePortAddresses | undefined {
  const internal = node.addresses.filter(({ type }) => type === "InternalIP");
  const external = node.addresses.filter(({ type }) => type === "ExternalIP");
  const { ipv4, ipv6 } = groupByFamily([...internal, ...external].map(({ address }) => address));
  if (ipv4.length === 0 && ipv6.length === 0) return undefined;
  return { ipv4: ipv4.slice(0, 1), ipv6: ipv6.slice(0, 1) };
}
