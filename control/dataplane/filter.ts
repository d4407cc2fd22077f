// svc_filter: which addresses may have frontends, so that most lookups end there. How many keys a
// bit stands for is kept here, not in the kernel. Knows keys as bytes, not what they lead to.
import { frontendKey, limit } from "../../bindings/layout.ts";
import { addressHash } from "./maps.ts";

const POSITIONS = limit.FILTER_POSITIONS;
const POSITION_BITS = 4;
const POSITION_MASK = 0xfn;
const WORD_BYTES = 8;
const HALF_BYTES = 4;
/** The bits of all positions that say FILTER_NODE. */
const NODE_BITS = 0x1111111111111111n * BigInt(limit.FILTER_NODE);
/** The bits of all positions that are not those of frontends and wildcards. */
const OTHER_BITS = 0x1111111111111111n * BigInt(limit.FILTER_ENDPOINT | limit.FILTER_NODE);

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
  readonly #words: BigUint64Array;
  /** The same memory. */
  readonly #halves: Int32Array;
  /** Keys by the number of the bit that stands for them. */
  readonly #counts = new Map<number, number>();

  /**
   * Makes the memory say that just these keys are there: a kill may have left other bits. Those of
   * endpoints stay, since sockets may remember endpoints that are gone, and those of NodeFilter.
   */
  constructor(bytes: Uint8Array, keys: Iterable<Uint8Array>) {
    this.#words = wordsOf(bytes);
    this.#halves = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / HALF_BYTES);
    const wanted = new BigUint64Array(this.#words.length);
    for (const key of keys) {
      const bit = this.#bitOf(key);
      this.#counts.set(bit, (this.#counts.get(bit) ?? 0) + 1);
      wanted[wordOf(bit)]! |= maskOf(bit);
    }
    for (const [index, word] of wanted.entries()) {
      const before = this.#words[index]!;
      const after = word | (before & OTHER_BITS);
      if (before !== after) Atomics.store(this.#words, index, after);
    }
  }

  /** To be called before a new key is written. */
  add(key: Uint8Array): void {
    const bit = this.#bitOf(key);
    const count = this.#counts.get(bit) ?? 0;
    if (count === 0) Atomics.or(this.#words, wordOf(bit), maskOf(bit));
    this.#counts.set(bit, count + 1);
  }

  /** To be called before an endpoint at this address (16 bytes) is written. */
  markEndpoint(address: Uint8Array): void {
    const bit = bitOf(this.#words, address, limit.FILTER_ENDPOINT);
    // Halves of a word, and so no bigints: endpoints are many.
    const half = bit >>> 5;
    const mask = 1 << (bit & 31);
    if (!(this.#halves[half]! & mask)) Atomics.or(this.#halves, half, mask);
  }

  /** To be called once a key that was added is gone. */
  remove(key: Uint8Array): void {
    const bit = this.#bitOf(key);
    const count = this.#counts.get(bit)! - 1;
    if (count > 0) this.#counts.set(bit, count);
    else {
      this.#counts.delete(bit);
      Atomics.and(this.#words, wordOf(bit), ~maskOf(bit));
    }
  }

  #bitOf(key: Uint8Array): number {
    const { port, protocol } = frontendKey.offset;
    const isWildcard = key[port] === 0 && key[port + 1] === 0 && key[protocol] === 0;
    const flag = isWildcard ? limit.FILTER_WILDCARD : limit.FILTER_FRONTEND;
    return bitOf(this.#words, key, flag);
  }
}

/** Which addresses are this node's own to programs: the bits FILTER_NODE, and no others. */
export class NodeFilter {
  readonly #words: BigUint64Array;

  constructor(bytes: Uint8Array) {
    this.#words = wordsOf(bytes);
  }

  /** Makes the memory say just these addresses (16 bytes each), new ones first. */
  set(addresses: Iterable<Uint8Array>): void {
    const wanted = new Map<number, bigint>();
    for (const address of addresses) {
      const bit = bitOf(this.#words, address, limit.FILTER_NODE);
      wanted.set(wordOf(bit), (wanted.get(wordOf(bit)) ?? 0n) | maskOf(bit));
    }
    for (const [word, mask] of wanted) Atomics.or(this.#words, word, mask);
    for (let word = 0; word < this.#words.length; word++) {
      const extra = this.#words[word]! & NODE_BITS & ~(wanted.get(word) ?? 0n);
      if (extra !== 0n) Atomics.and(this.#words, word, ~extra);
    }
  }
}

function wordsOf(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / WORD_BYTES);
}

/** The number of an address's bit among all; a key that begins with the address will do. */
function bitOf(words: BigUint64Array, address: Uint8Array, flag: number): number {
  const position = addressHash(address) % (words.length * POSITIONS);
  return position * POSITION_BITS + Math.log2(flag);
}

function wordOf(bit: number): number {
  return Math.floor(bit / (POSITIONS * POSITION_BITS));
}

function maskOf(bit: number): bigint {
  return 1n << BigInt(bit % (POSITIONS * POSITION_BITS));
}
