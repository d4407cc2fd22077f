// svc_filter: which addresses may have frontends, so that most lookups end there. How many keys a
// bit stands for is kept here, not in the kernel. Knows keys as bytes, not what they lead to.
import { frontendKey, limit } from "../../bindings/layout.ts";
import { addressHash } from "./maps.ts";

const POSITIONS = limit.FILTER_POSITIONS;
const POSITION_BITS = 4;
const POSITION_MASK = 0xfn;
const HALF_BYTES = 4;
/** The bits of half a word's positions that say FILTER_NODE. */
const NODE_BITS = Math.imul(0x11111111, limit.FILTER_NODE);
/** Those that are not of frontends and wildcards. */
const OTHER_BITS = Math.imul(0x11111111, limit.FILTER_ENDPOINT | limit.FILTER_NODE);
const FRONTEND_BIT = Math.log2(limit.FILTER_FRONTEND);
const WILDCARD_BIT = Math.log2(limit.FILTER_WILDCARD);
const ENDPOINT_BIT = Math.log2(limit.FILTER_ENDPOINT);
const NODE_BIT = Math.log2(limit.FILTER_NODE);

/**
 * What a filter says of an address (16 bytes, or a key that begins with one): FILTER_FRONTEND and
 * so on, as filter_lookup() in bpf/balance.h reads it.
 */
export function filterBits(words: BigUint64Array, address: Uint8Array): number {
  const position = addressHash(address) % (words.length * POSITIONS);
  const shift = BigInt((position % POSITIONS) * POSITION_BITS);
  return Number((words[Math.floor(position / POSITIONS)]! >> shift) & POSITION_MASK);
}

export class Filter {
  readonly #halves: Int32Array;
  /** Keys by the number of the bit that stands for them. */
  readonly #counts = new Map<number, number>();

  /**
   * Makes the memory say that just these keys are there: a kill may have left other bits. Those of
   * endpoints stay, since sockets may remember endpoints that are gone, and those of NodeFilter.
   */
  constructor(bytes: Uint8Array, keys: Iterable<Uint8Array>) {
    this.#halves = halvesOf(bytes);
    const wanted = new Int32Array(this.#halves.length);
    for (const key of keys) {
      const bit = this.#bitOf(key);
      this.#counts.set(bit, (this.#counts.get(bit) ?? 0) + 1);
      wanted[halfOf(bit)]! |= maskOf(bit);
    }
    for (let half = 0; half < wanted.length; half++) {
      const before = this.#halves[half]!;
      const after = wanted[half]! | (before & OTHER_BITS);
      if (before !== after) Atomics.store(this.#halves, half, after);
    }
  }

  /** To be called before a new key is written. */
  add(key: Uint8Array): void {
    const bit = this.#bitOf(key);
    const count = this.#counts.get(bit) ?? 0;
    if (count === 0) Atomics.or(this.#halves, halfOf(bit), maskOf(bit));
    this.#counts.set(bit, count + 1);
  }

  /** To be called before an endpoint at this address (16 bytes) is written. */
  markEndpoint(address: Uint8Array): void {
    const bit = bitOf(this.#halves, address, ENDPOINT_BIT);
    const isMarked = (this.#halves[halfOf(bit)]! & maskOf(bit)) !== 0;
    if (!isMarked) Atomics.or(this.#halves, halfOf(bit), maskOf(bit));
  }

  /** To be called once a key that was added is gone. */
  remove(key: Uint8Array): void {
    const bit = this.#bitOf(key);
    const count = this.#counts.get(bit)! - 1;
    if (count > 0) this.#counts.set(bit, count);
    else {
      this.#counts.delete(bit);
      Atomics.and(this.#halves, halfOf(bit), ~maskOf(bit));
    }
  }

  #bitOf(key: Uint8Array): number {
    const { port, protocol } = frontendKey.offset;
    const isWildcard = key[port] === 0 && key[port + 1] === 0 && key[protocol] === 0;
    return bitOf(this.#halves, key, isWildcard ? WILDCARD_BIT : FRONTEND_BIT);
  }
}

/** Which addresses are this node's own to programs: the bits FILTER_NODE, and no others. */
export class NodeFilter {
  readonly #halves: Int32Array;

  constructor(bytes: Uint8Array) {
    this.#halves = halvesOf(bytes);
  }

  /** Makes the memory say just these addresses (16 bytes each), new ones first. */
  set(addresses: Iterable<Uint8Array>): void {
    const wanted = new Map<number, number>();
    for (const address of addresses) {
      const bit = bitOf(this.#halves, address, NODE_BIT);
      wanted.set(halfOf(bit), (wanted.get(halfOf(bit)) ?? 0) | maskOf(bit));
    }
    for (const [half, mask] of wanted) Atomics.or(this.#halves, half, mask);
    for (let half = 0; half < this.#halves.length; half++) {
      const extra = this.#halves[half]! & NODE_BITS & ~(wanted.get(half) ?? 0);
      if (extra !== 0) Atomics.and(this.#halves, half, ~extra);
    }
  }
}

/** The memory by halves of its words: of bigints there would be many. */
function halvesOf(bytes: Uint8Array): Int32Array {
  return new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / HALF_BYTES);
}

/** The number of an address's bit among all; a key that begins with the address will do. */
function bitOf(halves: Int32Array, address: Uint8Array, bit: number): number {
  const position = addressHash(address) % (halves.length * (POSITIONS / 2));
  return position * POSITION_BITS + bit;
}

function halfOf(bit: number): number {
  return bit >>> 5;
}

function maskOf(bit: number): number {
  return 1 << (bit & 31);
}
