// What the kernel tells of this network namespace while it changes, boiled down to what has to be
// looked at again, and which next hops may have changed. Looks at nothing itself.
import {
  NetlinkListener,
  type NetlinkMessage,
  netlinkProtocol,
} from "../../../bindings/netlink.ts";
import { decodeNeighbour, type Neighbour, routeType, rtm } from "../../../bindings/rtnetlink.ts";
import { bytesToText } from "../table.ts";
import type { UsedHop } from "./hops.ts";
import { mappedBytes } from "./network.ts";

/** RTNLGRP_* */
const GROUPS = {
  LINK: 1,
  NEIGH: 3,
  TC: 4,
  IPV4_IFADDR: 5,
  IPV4_ROUTE: 7,
  IPV4_RULE: 8,
  IPV6_IFADDR: 9,
  IPV6_ROUTE: 11,
  IPV6_RULE: 19,
  NEXTHOP: 32,
} as const;
/** Room for what comes while this process is busy: some thousand messages. */
const BUFFER_BYTES = 1 << 22;
/** What comes within this time is looked at together. */
const PAUSE_MS = 5;
/** Where rtmsg has the kind of route. */
const ROUTE_TYPE_AT = 7;
const IFINDEX_AT = 4;
/** Kinds of routes that no packet of ours takes. */
const ROUTES_OF_NO_CONCERN: ReadonlySet<number> = new Set([3, 4, 5]);

/** What may have changed. */
export class NetworkChange {
  /** Devices, addresses or routes are to be looked at again. */
  network = false;
  /** Programs on devices are. */
  filters = false;
  /** Any next hop may be another one. */
  allHops = false;
  /** Next hops by these devices may be. */
  readonly ifindexes = new Set<number>();
  readonly #neighbours = new Map<string, Neighbour>();

  /** Everything, as after messages that were lost. */
  static everything(): NetworkChange {
    const change = new NetworkChange();
    change.network = true;
    change.filters = true;
    change.allHops = true;
    return change;
  }

  add(message: NetlinkMessage): void {
    const { type, view, at } = message;
    switch (type) {
      case rtm.NEWLINK:
      case rtm.DELLINK:
      case rtm.NEWADDR:
        // Another device may get the number, without the filters.
        this.filters ||= type === rtm.DELLINK;
        this.network = true;
        this.ifindexes.add(view.getUint32(at + IFINDEX_AT, true));
        return;
      case rtm.NEWROUTE:
      case rtm.DELROUTE:
        if (ROUTES_OF_NO_CONCERN.has(view.getUint8(at + ROUTE_TYPE_AT))) return;
        this.network ||= view.getUint8(at + ROUTE_TYPE_AT) === routeType.UNICAST;
        this.allHops = true;
        return;
      case rtm.NEWRULE:
      case rtm.DELRULE:
        this.allHops = true;
        return;
      // Routes that prefer an address go with it, and the kernel does not tell.
      case rtm.DELADDR:
      case rtm.NEWNEXTHOP:
      case rtm.DELNEXTHOP:
        this.network = true;
        this.allHops = true;
        return;
      case rtm.NEWNEIGH:
      case rtm.DELNEIGH:
        this.#addNeighbour(message);
        return;
      case rtm.DELTFILTER:
      case rtm.DELQDISC:
        this.filters = true;
        return;
    }
  }

  /** Neighbours as they are now, those that are gone without a MAC. */
  get neighbours(): Iterable<Neighbour> {
    return this.#neighbours.values();
  }

  /** Whether a next hop may have changed: its device, its neighbour, or the way to it. */
  concerns({ ifindex, next, mac }: UsedHop): boolean {
    if (this.allHops || this.ifindexes.has(ifindex)) return true;
    const neighbour = this.#neighbours.get(keyOf(ifindex, next));
    return neighbour !== undefined && Buffer.compare(neighbour.mac, mac) !== 0;
  }

  /** Whether concerns() can be true of any. */
  get concernsHops(): boolean {
    return this.allHops || this.ifindexes.size + this.#neighbours.size > 0;
  }

  #addNeighbour(message: NetlinkMessage): void {
    const found = decodeNeighbour(message);
    if (found === undefined) return;
    const isGone = message.type === rtm.DELNEIGH;
    const gone = { mac: new Uint8Array(0), isManaged: false };
    const key = keyOf(found.ifindex, mappedBytes(found.address));
    this.#neighbours.set(key, isGone ? { ...found, ...gone } : found);
  }
}

/** Tells of changes, some together, until it is closed. Throws BpfError. */
export function monitorNetwork(onChange: (change: NetworkChange) => void): NetlinkListener {
  return new NetlinkListener({
    protocol: netlinkProtocol.ROUTE,
    groups: Object.values(GROUPS),
    bufferBytes: BUFFER_BYTES,
    pauseMs: PAUSE_MS,
    onMessages: (messages, state) => {
      const change = new NetworkChange();
      for (const message of messages) change.add(message);
      onChange(state.missed ? NetworkChange.everything() : change);
    },
  });
}

function keyOf(ifindex: number, address: Uint8Array): string {
  return `${ifindex}/${bytesToText(address)}`;
}
