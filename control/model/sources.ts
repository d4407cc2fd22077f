// Who may ask the load-balancer VIPs of a service port (§8). Knows nothing of frontends: the ranges
// guard VIPs alone, and whoever looks one up applies them (§8.1).
import { type AddressRange, addressFamily, formatRange, isInRange, parseRange } from "./address.ts";
import type { NodePortAddresses } from "./nodeaddresses.ts";
import type { Family, SourceRow } from "./rows.ts";

export interface SourceContext {
  family: Family;
  /** The VIPs of the service port, all of that family. */
  vips: readonly string[];
  /** This node's primary addresses. */
  primary: NodePortAddresses;
}

function hostRange(address: string): string {
  return `${address}/${addressFamily(address) === 4 ? 32 : 128}`;
}

/**
 * What a family's VIPs accept; undefined if they are open: no range of the family, or one of length
 * 0 (§8.2), or no VIP. If some range contains this node's primary address, the VIPs are sources
 * too, for they may be bound on the node (§8.4).
 */
export function makeSources(
  ranges: readonly AddressRange[],
  { family, vips, primary }: SourceContext,
): SourceRow | undefined {
  if (ranges.length === 0 || vips.length === 0) return undefined;
  const ofFamily = ranges.filter((range) => range.family === family);
  if (ofFamily.length === 0) return undefined;
  if (ofFamily.some(({ prefixLength }) => prefixLength === 0)) return undefined;
  const [own] = family === 4 ? primary.ipv4 : primary.ipv6;
  const nodeAllowed = own !== undefined && ofFamily.some((range) => isInRange(own, range));
  const texts = [...ofFamily.map(formatRange), ...(nodeAllowed ? vips.map(hostRange) : [])];
  return { ranges: [...new Set(texts)].sort(), nodeAllowed };
}

/** True if a canonical address lies in one of these "address/length" ranges. */
export function isInAny(address: string, ranges: readonly string[]): boolean {
  return ranges.some((text) => {
    const range = parseRange(text);
    return range !== undefined && isInRange(address, range);
  });
}
