// How each device is to be served and why so, and which of this node's addresses stands for it
// towards whoever is behind it: pure.
import { type Link, xdpMode } from "../../../bindings/rtnetlink.ts";
import type { Family } from "../../model/rows.ts";
import type { DeviceRoute, NetworkState, OwnAddress } from "./network.ts";
import { hasEthernet, type NamedUplinks, type Role } from "./roles.ts";

/** Which XDP is wanted on a device; TC serves every device in any case. */
export type XdpWish = "native" | "generic" | "none";

/** Why a device is not served as it usually would be: the words of enum device_note. */
export type Note =
  | "none"
  | "asked"
  | "veth"
  | "no_ethernet"
  | "foreign"
  | "refused"
  | "not_loaded"
  | "no_tc";

export interface WantedDevice {
  link: Link;
  role: Role;
  xdp: XdpWish;
  note: Note;
  ipv4: string | undefined;
  ipv6: string | undefined;
}

export interface WantOptions {
  roles: ReadonlyMap<number, Role>;
  uplinks: NamedUplinks | undefined;
  /** This Node's primary addresses. */
  primary: readonly string[];
  /** Whether an XDP program with this id was attached by us. */
  isOwnXdp: (programId: number) => boolean;
}

/** What is wanted of each device that has a role, in the order of their ifindex. */
export function wantDevices(state: NetworkState, options: WantOptions): WantedDevice[] {
  const { roles } = options;
  const links = state.links.filter(({ ifindex }) => roles.has(ifindex));
  const sourceOf = findSources(state, options);
  return links
    .toSorted((a, b) => a.ifindex - b.ifindex)
    .map((link) => {
      const role = roles.get(link.ifindex)!;
      const ipv4 = sourceOf(link, 4);
      const ipv6 = sourceOf(link, 6);
      return { link, role, ...chooseXdp(link, { ...options, role }), ipv4, ipv6 };
    });
}

/**
 * Native XDP on uplinks, generic XDP only where asked for: it loses GSO traffic. Not unasked on a
 * veth: what XDP sends to an end whose peer has no NAPI vanishes.
 */
function chooseXdp(
  link: Link,
  { role, uplinks, isOwnXdp }: Pick<WantOptions, "uplinks" | "isOwnXdp"> & { role: Role },
): { xdp: XdpWish; note: Note } {
  if (role !== "uplink") return { xdp: "none", note: "none" };
  const asked = uplinks?.get(link.name) ?? "auto";
  if (asked === "tc") return { xdp: "none", note: "asked" };
  if (!hasEthernet(link)) return { xdp: "none", note: "no_ethernet" };
  const { mode, programId } = link.xdp;
  if (mode !== xdpMode.NONE && !isOwnXdp(programId)) return { xdp: "none", note: "foreign" };
  if (asked === "generic") return { xdp: "generic", note: "asked" };
  if (asked === "xdp") return { xdp: "native", note: "asked" };
  return link.kind === "veth" ? { xdp: "none", note: "veth" } : { xdp: "native", note: "none" };
}

/**
 * The address that this node has towards whoever is behind a device: the source that its routes
 * prefer if they agree, else its first address, else that of the bridge that it is a port of, else
 * the Node's primary one, else an uplink's.
 */
function findSources(
  { links, addresses, routes }: NetworkState,
  { roles, primary }: WantOptions,
): (link: Link, family: Family) => string | undefined {
  const own = new Set(addresses.map(({ address }) => address));
  const ofDevice = groupByDevice(addresses);
  const preferred = preferredSources(routes);
  const usable = (ifindex: number, family: Family) =>
    ofDevice.get(ifindex)?.find((each) => each.isUsable && each.family === family)?.address;
  const direct = (ifindex: number, family: Family) => {
    const source = preferred.get(`${ifindex}/${family}`);
    return source !== undefined && own.has(source) ? source : usable(ifindex, family);
  };
  const general = (family: Family) => {
    const isOfFamily = (address: string) => address.includes(":") === (family === 6);
    const named = primary.find((address) => isOfFamily(address) && own.has(address));
    if (named !== undefined) return named;
    const uplinks = links.filter(({ ifindex }) => roles.get(ifindex) === "uplink");
    return uplinks.map(({ ifindex }) => usable(ifindex, family)).find((each) => each !== undefined);
  };
  const generals = { 4: general(4), 6: general(6) };
  return ({ ifindex, master }, family) =>
    direct(ifindex, family) ?? direct(master, family) ?? generals[family];
}

function groupByDevice(addresses: readonly OwnAddress[]): Map<number, OwnAddress[]> {
  const groups = new Map<number, OwnAddress[]>();
  for (const address of addresses) {
    const group = groups.get(address.ifindex);
    if (group) group.push(address);
    else groups.set(address.ifindex, [address]);
  }
  return groups;
}

/** By "ifindex/family", the source of all routes that prefer one; left out where they disagree. */
function preferredSources(routes: readonly DeviceRoute[]): Map<string, string> {
  const agreed = new Map<string, string | undefined>();
  for (const { ifindex, family, source } of routes) {
    if (source === undefined) continue;
    const key = `${ifindex}/${family}`;
    agreed.set(key, agreed.has(key) && agreed.get(key) !== source ? undefined : source);
  }
  const found = new Map<string, string>();
  for (const [key, source] of agreed) if (source !== undefined) found.set(key, source);
  return found;
}
