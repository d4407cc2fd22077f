// Has the kernel keep the MACs of next hops that are in use up to date ("managed" neighbours):
// packets that XDP sends neither confirm nor refresh a neighbour, so that nobody would notice a new
// MAC. Knows rows of svc_hops and neighbours, not who sends what.
import type { NetlinkSocket } from "../../../bindings/netlink.ts";
import {
  findNeighbour,
  listNeighbours,
  manageNeighbour,
  type Neighbour,
  neighbourState,
} from "../../../bindings/rtnetlink.ts";
import { bytesToText } from "../table.ts";
import type { UsedHop } from "./hops.ts";
import { mappedBytes } from "./network.ts";

/** Marks neighbours that are managed for us, as the protocol that made them so (rtnetlink(7)). */
const OWN_PROTOCOL = 181;
/** How long a next hop without traffic stays managed. */
const IDLE_MS = 60_000;
/** An IPv4 address in 16 bytes. */
const MAPPED_AT = 12;

interface Known {
  ifindex: number;
  address: Uint8Array;
  /** By the programs' clock and by ours. */
  checked: number | undefined;
  usedAt: number;
  /** "own": it is managed for us; "other": it needs nothing of us. */
  state: "new" | "own" | "other";
}

export class ManagedNeighbours {
  readonly #socket: NetlinkSocket;
  readonly #known = new Map<string, Known>();
  #isFirst = true;

  constructor(socket: NetlinkSocket) {
    this.#socket = socket;
  }

  /** How many are managed for us. */
  get size(): number {
    return [...this.#known.values()].filter(({ state }) => state === "own").length;
  }

  /**
   * Manages the neighbours of these hops, and no longer those that had no traffic for a minute.
   * Returns what the kernel refused, which is tried again at the next call.
   */
  look(hops: Iterable<UsedHop>, now: number): Error[] {
    const errors: Error[] = [];
    if (this.#isFirst) this.#recall(now);
    this.#isFirst = false;
    for (const hop of hops) this.#note(hop, now);
    for (const [key, known] of this.#known)
      try {
        if (now - known.usedAt < IDLE_MS) this.#manage(known);
        else {
          this.#known.delete(key);
          if (known.state === "own") this.#release(known);
        }
      } catch (error) {
        // A device that has gone took its neighbours along.
        if (codeOf(error) === "ENODEV") this.#known.delete(key);
        else errors.push(error as Error);
      }
    return errors;
  }

  /** To be told of every neighbour that changed: one that others took over or deleted is new. */
  changed(neighbour: Neighbour): void {
    const known = this.#known.get(keyOf(neighbour.ifindex, mappedBytes(neighbour.address)));
    if (known && !neighbour.isManaged) known.state = "new";
  }

  /** Releases all that were ever managed for us. Throws BpfError. */
  static releaseAll(socket: NetlinkSocket): number {
    const own = listNeighbours(socket).filter(isOwn);
    for (const neighbour of own) manageNeighbour(socket, neighbour, { isManaged: false });
    return own.length;
  }

  #recall(now: number): void {
    for (const { ifindex, address } of listNeighbours(this.#socket).filter(isOwn)) {
      const key = keyOf(ifindex, mappedBytes(address));
      this.#known.set(key, { ifindex, address, checked: undefined, usedAt: now, state: "own" });
    }
  }

  #note({ ifindex, next, checked }: UsedHop, now: number): void {
    const key = keyOf(ifindex, next);
    const known = this.#known.get(key);
    if (known === undefined) {
      const address = isMapped(next) ? next.slice(MAPPED_AT) : next.slice();
      this.#known.set(key, { ifindex, address, checked, usedAt: now, state: "new" });
    } else if (known.checked !== checked) {
      known.checked = checked;
      known.usedAt = now;
    }
  }

  #manage(known: Known): void {
    if (known.state !== "new") return;
    const found = findNeighbour(this.#socket, known);
    const { NOARP, PERMANENT } = neighbourState;
    // What somebody has set for good would not be so any more.
    if (found && (found.state & (NOARP | PERMANENT) || (found.isManaged && !isOwn(found)))) {
      known.state = "other";
      return;
    }
    const { flags, protocol } = found ?? { flags: 0, protocol: 0 };
    const marked = protocol === 0 ? OWN_PROTOCOL : protocol;
    const neighbour = { ...known, flags, protocol: marked };
    manageNeighbour(this.#socket, neighbour, { isManaged: true });
    known.state = "own";
  }

  #release(known: Known): void {
    const found = findNeighbour(this.#socket, known);
    if (found?.isManaged) manageNeighbour(this.#socket, found, { isManaged: false });
  }
}

function isOwn({ isManaged, protocol }: Neighbour): boolean {
  return isManaged && protocol === OWN_PROTOCOL;
}

function keyOf(ifindex: number, address: Uint8Array): string {
  return `${ifindex}/${bytesToText(address)}`;
}

function isMapped(address: Uint8Array): boolean {
  const prefix = address.subarray(0, MAPPED_AT);
  return prefix.every((byte, index) => byte === (index < 10 ? 0 : 0xff));
}

function codeOf(error: unknown): unknown {
  return (error as { code?: unknown }).code;
}
