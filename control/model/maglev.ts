// Consistent hashing tables as Eisenbud et al. describe them ("Maglev", NSDI 2016, §3.4), with
// weights. Depends on addresses and ports alone, so that every node computes the same table for
// the same backends. Knows nothing of ids, slots in memory or the hash of a packet.
import type { BackendRow } from "./rows.ts";

export type MaglevBackend = Pick<BackendRow, "address" | "port" | "weight">;

/** The ladder: primes, each with the greatest number of backends that it serves. */
const LADDER = [
  { length: 251, backends: 2 },
  { length: 1021, backends: 10 },
  { length: 4093, backends: 40 },
  { length: 16381, backends: 160 },
  { length: 65537, backends: Number.POSITIVE_INFINITY },
] as const;

/**
 * The length of the table for `count` backends, a prime; 0 for none.
 *
 * The busiest backend's excess over its fair share is about one part in the slots each backend
 * has, so the thresholds give each about 100 slots: 1 % uneven at worst below 656 backends. And
 * there are only four of them, because crossing one redistributes nearly all connections, where
 * a change between them moves little more than the changed backend's own. They lie a factor of
 * four apart, so that a Service that is scaled by a few replicas rarely meets one. Beyond 655
 * backends the last length stays, at the price of evenness: 65 slots each with 1,000.
 */
export function maglevLength(count: number): number {
  if (count <= 0) return 0;
  return LADDER.find(({ backends }) => count <= backends)!.length;
}

/** Spreads 32 bits evenly (the finalizer of MurmurHash3). */
function mix(hash: number): number {
  let mixed = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

/** Where a backend's permutation starts and how far it steps: two independent 32-bit hashes. */
function permutation(
  { address, port }: MaglevBackend,
  length: number,
): { offset: number; skip: number } {
  let first = 0x9e3779b9 ^ port;
  let second = 0x7f4a7c15 ^ Math.imul(port, 0x27d4eb2f);
  for (let i = 0; i < address.length; i++) {
    const code = address.charCodeAt(i);
    first = Math.imul(first ^ code, 0x01000193) ^ (first >>> 15);
    second = Math.imul(second ^ code, 0x5bd1e995) ^ (second >>> 13);
  }
  const offset = mix(first ^ (second >>> 7)) % length;
  const skip = (mix(second ^ Math.imul(first, 0x85ebca77)) % (length - 1)) + 1;
  return { offset, skip };
}

/** Indexes into `backends`, ordered by address and port: the order in which they take turns. */
function turnOrder(backends: readonly MaglevBackend[]): Uint32Array {
  return Uint32Array.from(backends.keys()).sort((left, right) => {
    const a = backends[left]!;
    const b = backends[right]!;
    if (a.address !== b.address) return a.address < b.address ? -1 : 1;
    return a.port - b.port;
  });
}

/**
 * A table of `length` (see maglevLength, must be prime) indexes into `backends`. A backend of
 * weight w gets a share of w over the sum; weights are whole numbers from 1. The same backends
 * get the same slots in whatever order they come. Empty without backends.
 */
export function maglevTable(backends: readonly MaglevBackend[], length: number): Uint32Array {
  const count = backends.length;
  if (count === 0 || length === 0) return new Uint32Array(0);
  const order = turnOrder(backends);
  const next = new Uint32Array(count);
  const skips = new Uint32Array(count);
  const weights = new Uint32Array(count);
  for (let turn = 0; turn < count; turn++) {
    const backend = backends[order[turn]!]!;
    const { offset, skip } = permutation(backend, length);
    next[turn] = offset;
    skips[turn] = skip;
    weights[turn] = Math.max(1, backend.weight);
  }
  return fill(length, { order, next, skips, weights });
}

interface Turns {
  order: Uint32Array;
  next: Uint32Array;
  skips: Uint32Array;
  weights: Uint32Array;
}

/**
 * Backends take turns to claim the next free slot of their permutation. One whose weight is a
 * fraction of the greatest sits out until its credit has grown to a whole turn.
 */
function fill(length: number, { order, next, skips, weights }: Turns): Uint32Array {
  const table = new Uint32Array(length);
  const taken = new Uint8Array(length);
  const credit = new Uint32Array(order.length);
  const turn = weights.reduce((greatest, weight) => Math.max(greatest, weight), 1);
  for (let filled = 0; ; ) {
    for (let i = 0; i < order.length; i++) {
      credit[i]! += weights[i]!;
      if (credit[i]! < turn) continue;
      credit[i]! -= turn;
      const skip = skips[i]!;
      let slot = next[i]!;
      // The permutation steps modulo the length; a subtraction is cheaper than a division.
      while (taken[slot] === 1) {
        slot += skip;
        if (slot >= length) slot -= length;
      }
      table[slot] = order[i]!;
      taken[slot] = 1;
      next[i] = slot;
      if (++filled === length) return table;
    }
  }
}
