// On which addresses of this node its node ports are served (§9), and which address of each family
// is its primary one (§9.6). Knows nothing of devices: what the kernel calls local is an argument.
import { type AddressRange, addressFamily, isInRange, isLoopback } from "./address.ts";
import type { ProxyConfig } from "./config.ts";
import type { NodeObject } from "./objects.ts";

/** Canonical addresses, family by family. */
export interface NodePortAddresses {
  ipv4: readonly string[];
  ipv6: readonly string[];
}

/** This node's addresses as far as they are known. All canonical. */
export interface HostAddresses {
  /** At most one of each family. */
  primary: NodePortAddresses;
  /** Every address that the kernel calls local; loopback may be among them. */
  local: readonly string[];
}

/** Sorts canonical addresses by family. */
export function groupByFamily(addresses: readonly string[]): NodePortAddresses {
  const distinct = [...new Set(addresses)];
  return {
    ipv4: distinct.filter((address) => addressFamily(address) === 4),
    ipv6: distinct.filter((address) => addressFamily(address) === 6),
  };
}

/** The first address of each family. */
export function firstOfFamily({ ipv4, ipv6 }: NodePortAddresses): NodePortAddresses {
  return { ipv4: ipv4.slice(0, 1), ipv6: ipv6.slice(0, 1) };
}

/**
 * The primary address of each family: the first InternalIP, else the first ExternalIP (§9.6).
 * Undefined if the Node names no address at all, so that the caller falls back.
 */
export function primaryAddresses(node: NodeObject): NodePortAddresses | undefined {
  const internal = node.addresses.filter(({ type }) => type === "InternalIP");
  const external = node.addresses.filter(({ type }) => type === "ExternalIP");
  const grouped = groupByFamily([...internal, ...external].map(({ address }) => address));
  if (grouped.ipv4.length === 0 && grouped.ipv6.length === 0) return undefined;
  return firstOfFamily(grouped);
}

/** Primary addresses with a given one, canonical or "", in the place of its family's (§9.6). */
export function overridePrimary(
  { ipv4, ipv6 }: NodePortAddresses,
  { primaryAddress }: Pick<ProxyConfig, "primaryAddress">,
): NodePortAddresses {
  if (primaryAddress === "") return { ipv4, ipv6 };
  if (addressFamily(primaryAddress) === 4) return { ipv4: [primaryAddress], ipv6 };
  return { ipv4, ipv6: [primaryAddress] };
}

/**
 * The ranges that restrict a family's node ports. Undefined if nothing does: no entry of the family
 * or one of length 0 (§9.1).
 */
export function restrictingRanges(
  ranges: readonly AddressRange[],
  { family }: { family: 4 | 6 },
): readonly AddressRange[] | undefined {
  const ofFamily = ranges.filter((range) => range.family === family);
  const isOpen = ofFamily.length === 0 || ofFamily.some(({ prefixLength }) => prefixLength === 0);
  return isOpen ? undefined : ofFamily;
}

/** The ranges that a setting means on a node of these primary addresses. */
function rangesOf(
  wanted: ProxyConfig["nodePortAddresses"],
  primary: NodePortAddresses,
): readonly AddressRange[] {
  return wanted === "primary" ? primaryRanges(primary) : wanted;
}

/** The primary addresses as ranges of one address each, none on a loopback address (§9.2). */
function primaryRanges({ ipv4, ipv6 }: NodePortAddresses): AddressRange[] {
  return [...ipv4, ...ipv6]
    .filter((address) => !isLoopback(address))
    .map((address) => {
      const family = addressFamily(address);
      return { family, address, prefixLength: family === 4 ? 32 : 128 };
    });
}

/**
 * The addresses that serve node ports: of each family the local ones within its ranges, or all of
 * them if nothing restricts it; of loopback those that are called localhost, if that is asked for
 * and no range leaves them out (§9.4, §9.5).
 */
export function nodePortAddresses(
  {
    nodePortAddresses: wanted,
    localhostNodePorts,
  }: Pick<ProxyConfig, "nodePortAddresses" | "localhostNodePorts">,
  { primary, local }: HostAddresses,
): NodePortAddresses {
  const ranges = rangesOf(wanted, primary);
  // The Node object says that its primary address is this node's, whoever translates to it.
  const own = wanted === "primary" ? [...primary.ipv4, ...primary.ipv6, ...local] : local;
  const candidates = groupByFamily(own.filter((address) => !isLoopback(address)));
  const choose = (addresses: readonly string[], localhost: string) => {
    const restricting = restrictingRanges(ranges, { family: addressFamily(localhost) });
    const isWithin = (address: string) =>
      restricting === undefined || restricting.some((range) => isInRange(address, range));
    const chosen = addresses.filter(isWithin);
    const hasLocalhost = localhostNodePorts && (wanted === "primary" || isWithin(localhost));
    return hasLocalhost ? [...chosen, localhost] : chosen;
  };
  return { ipv4: choose(candidates.ipv4, "127.0.0.1"), ipv6: choose(candidates.ipv6, "::1") };
}

/**
 * Where a port of this node is listened on for node ports' sake: the addresses that serve them, or
 * of a family that nothing restricts the wildcard (§12.2).
 */
export function listenAddresses(
  { nodePortAddresses: wanted }: Pick<ProxyConfig, "nodePortAddresses">,
  { primary, served }: { primary: NodePortAddresses; served: NodePortAddresses },
): NodePortAddresses {
  const ranges = rangesOf(wanted, primary);
  const isOpen = (family: 4 | 6) => restrictingRanges(ranges, { family }) === undefined;
  const beyond = (addresses: readonly string[]) =>
    addresses.filter((address) => !isLoopback(address));
  return {
    ipv4: isOpen(4) ? ["0.0.0.0"] : beyond(served.ipv4),
    ipv6: isOpen(6) ? ["::"] : beyond(served.ipv6),
  };
}
