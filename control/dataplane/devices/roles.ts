// Which devices play which role for Services, from what the network looks like: pure. What is done
// with them is for hooks.ts.
import { deviceFlag, hardwareType, type Link } from "../../../bindings/rtnetlink.ts";
import type { NetworkState } from "./network.ts";

/**
 * An uplink leads to other nodes and clients; behind a tunnel are pods of other nodes; behind a
 * pod-facing device is whoever this node routes for: pods, containers, virtual machines.
 */
export type Role = "uplink" | "tunnel" | "pod-facing";

/** How an uplink is to be served; "auto" is native XDP where it serves well. */
export type DeviceMode = "auto" | "xdp" | "tc" | "generic";

/** The uplinks that were named, with their modes; undefined: found by their routes. */
export type NamedUplinks = ReadonlyMap<string, DeviceMode>;

export interface RoleOptions {
  /** The addresses of this Node object, canonical. */
  nodeAddresses: readonly string[];
  uplinks: NamedUplinks | undefined;
}

/** Kinds of devices that put packets into packets for another node. */
const TUNNELS: ReadonlySet<string> = new Set([
  "erspan",
  "geneve",
  "gre",
  "gretap",
  "ip6erspan",
  "ip6gre",
  "ip6gretap",
  "ip6tnl",
  "ipip",
  "sit",
  "vti",
  "vti6",
  "vxlan",
  "wireguard",
  "xfrm",
]);
/** Devices that stand for those that are their ports. */
const AGGREGATES: ReadonlySet<string> = new Set(["bond", "team"]);

/** Whether a device's packets begin with an Ethernet header. */
export function hasEthernet({ hardware }: Pick<Link, "hardware">): boolean {
  return hardware === hardwareType.ETHER;
}

/** Why a device has no role whatever its routes are, undefined if it may have one. */
export function whyNoRole({ flags, portOf }: Pick<Link, "flags" | "portOf">): string | undefined {
  if (flags & deviceFlag.LOOPBACK) return "it leads to this host alone";
  return AGGREGATES.has(portOf)
    ? `it is a port of a ${portOf}, which is served in its place`
    : undefined;
}

/**
 * The role of each device that has one, by its ifindex. A device with a default route, with an
 * address of the Node, with a route through a gateway, or a network card with any route, is an
 * uplink. Of the others that have routes those are tunnels whose kind says so, and the rest is
 * pod-facing, as is every port of a bridge that is.
 */
export function findRoles(state: NetworkState, options: RoleOptions): Map<number, Role> {
  const { links } = state;
  const routed = new Set(state.routes.map(({ ifindex }) => ifindex));
  const isUplink = uplinkTest(state, { routed, options });
  const roles = new Map<number, Role>();
  for (const link of links) {
    if (whyNoRole(link) !== undefined) continue;
    if (isUplink(link)) roles.set(link.ifindex, "uplink");
    else if (routed.has(link.ifindex))
      roles.set(link.ifindex, TUNNELS.has(link.kind) ? "tunnel" : "pod-facing");
  }
  for (const { ifindex, portOf, master, kind } of links)
    if (portOf === "bridge" && !roles.has(ifindex) && roles.get(master) === "pod-facing")
      roles.set(ifindex, TUNNELS.has(kind) ? "tunnel" : "pod-facing");
  return roles;
}

function uplinkTest(
  { links, addresses, routes }: NetworkState,
  { routed, options }: { routed: ReadonlySet<number>; options: RoleOptions },
): (link: Link) => boolean {
  const { uplinks } = options;
  if (uplinks !== undefined) return ({ name }) => uplinks.has(name);
  const ofNode = new Set(options.nodeAddresses);
  const own = new Set(addresses.map(({ address }) => address));
  const leading = new Set<number>();
  for (const { ifindex, address } of addresses) if (ofNode.has(address)) leading.add(ifindex);
  const throughGateway = new Set<number>();
  for (const { ifindex, isDefault, gateway } of routes) {
    if (isDefault) leading.add(ifindex);
    // A gateway of our own leads to nobody else: some CNIs route to their devices so.
    if (gateway !== undefined && !own.has(gateway)) throughGateway.add(ifindex);
  }
  const cards = networkCards(links);
  return ({ ifindex, kind }) => {
    if (leading.has(ifindex)) return kind !== "dummy";
    if (TUNNELS.has(kind)) return false;
    return throughGateway.has(ifindex) || (cards.has(ifindex) && routed.has(ifindex));
  };
}

/** Real or emulated network cards, and what stands on one: bonds, VLANs, bridges of them. */
function networkCards(links: readonly Link[]): ReadonlySet<number> {
  const above = new Map<number, number[]>();
  for (const { ifindex, kind, master, lower } of links) {
    // The device below a tunnel carries its packets, but is not what they lead to.
    if (TUNNELS.has(kind)) continue;
    if (master !== 0) above.set(ifindex, [...(above.get(ifindex) ?? []), master]);
    if (lower !== 0) above.set(lower, [...(above.get(lower) ?? []), ifindex]);
  }
  const found = new Set<number>();
  const waiting = links.filter(({ hasParent }) => hasParent).map(({ ifindex }) => ifindex);
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    if (found.has(next)) continue;
    found.add(next);
    waiting.push(...(above.get(next) ?? []));
  }
  return found;
}

/** How much a device does in a role; to do less is no hurry. */
const RANKS: Readonly<Record<Role, number>> = { uplink: 3, tunnel: 2, "pod-facing": 1 };

/**
 * Keeps a role for a while after its reason has gone, so that programs are not taken off and put on
 * again while an address or a route is being replaced (drivers may reset a card for XDP); and as
 * long as a device is down, which has no routes then.
 */
export class RoleKeeper {
  readonly #options: { holdMs: number; uplinks: NamedUplinks | undefined };
  readonly #roles: Map<number, Role>;
  /** The master that each device had with its role: with another it is in another place. */
  readonly #masters = new Map<number, number>();
  /** Since when a device would have a lesser role, or none. */
  readonly #lessSince = new Map<number, number>();
  #isFirst = true;

  /** `known` are the roles that devices had before this process. */
  constructor(options: {
    holdMs: number;
    uplinks: NamedUplinks | undefined;
    known: ReadonlyMap<number, Role>;
  }) {
    this.#options = options;
    this.#roles = new Map(options.known);
  }

  /**
   * The roles in force, given those that were found among `links` at a time in milliseconds.
   * `again` is when to ask again though nothing changes, undefined for never.
   */
  settle(
    found: ReadonlyMap<number, Role>,
    { links, now }: { links: readonly Link[]; now: number },
  ): { roles: ReadonlyMap<number, Role>; again: number | undefined } {
    const present = new Set(links.map(({ ifindex }) => ifindex));
    for (const ifindex of this.#roles.keys()) if (!present.has(ifindex)) this.#forget(ifindex);
    for (const link of links) {
      const role = found.get(link.ifindex);
      if (this.#isHeld(link, { role, now })) continue;
      this.#forget(link.ifindex);
      if (role === undefined) continue;
      this.#roles.set(link.ifindex, role);
      this.#masters.set(link.ifindex, link.master);
    }
    this.#isFirst = false;
    const since = [...this.#lessSince.values()];
    const again = since.length === 0 ? undefined : Math.min(...since) + this.#options.holdMs;
    return { roles: new Map(this.#roles), again };
  }

  /** Whether a device keeps the role that it has. */
  #isHeld(link: Link, { role, now }: { role: Role | undefined; now: number }): boolean {
    const { holdMs, uplinks } = this.#options;
    const before = this.#roles.get(link.ifindex);
    if (before === undefined || rankOf(role) >= rankOf(before)) return false;
    if (link.master !== (this.#masters.get(link.ifindex) ?? 0)) return false;
    if (before === "uplink" && uplinks?.has(link.name) === false) return false;
    if ((link.flags & deviceFlag.UP) === 0) {
      this.#lessSince.delete(link.ifindex);
      return true;
    }
    if (this.#isFirst) return false;
    const since = this.#lessSince.get(link.ifindex) ?? now;
    this.#lessSince.set(link.ifindex, since);
    return now - since < holdMs;
  }

  #forget(ifindex: number): void {
    this.#roles.delete(ifindex);
    this.#masters.delete(ifindex);
    this.#lessSince.delete(ifindex);
  }
}

function rankOf(role: Role | undefined): number {
  return role === undefined ? 0 : RANKS[role];
}
