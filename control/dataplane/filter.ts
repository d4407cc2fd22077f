// svc_filter: which addresses may have frontends, so that most lookups end there. How many keys a
// bit stands for is kept here, not in the kernel. Knows keys as bytes, not what they lead to.
import { frontendKey, limit } from "../../bindings/layout.ts";
import { addressHash } from "./maps.ts";

const POSITIONS = limit.FILTER_POSITIONS;
const WORD_BYTES = 8;

export class Filter {
  readonly #words: BigUint64Array;
  /** Keys by the number of the bit that stands for them. */
  readonly #counts = new Map<number, number>();

  /** Makes the memory say that just these keys are there: a kill may have left other bits. */
  constructor(bytes: Uint8Array, keys: Iterable<Uint8Array>) {
    this.#words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / WORD_BYTES);
    const wanted = new BigUint64Array(this.#words.length);
    for (const key of keys) {
      const bit = this.#bitOf(key);
      this.#counts.set(bit, (this.#counts.get(bit) ?? 0) + 1);
      wanted[wordOf(bit)]! |= maskOf(bit);
    }
    for (const [index, word] of wanted.entries())
      if (this.#words[index] !== word) Atomics.store(this.#words, index, word);
  }

  /** To be called before a new key is written. */
  add(key: Uint8Array): void {
    const bit = this.#bitOf(key);
    const count = this.#counts.get(bit) ?? 0;
    if (count === 0) Atomics.or(this.#words, wordOf(bit), maskOf(bit));
    this.#counts.set(bit, count + 1);
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

  /** FILTER_FRONTEND is the lower bit of a position, FILTER_WILDCARD the upper one. */
  #bitOf(key: Uint8Array): number {
    const position = addressHash(key) % (this.#words.length * POSITIONS);
    const { port, protocol } = frontendKey.offset;
    const isWildcard = key[port] === 0 && key[port + 1] === 0 && key[protocol] === 0;
    return position * 2 + (isWildcard ? 1 : 0);
  }
}

function wordOf(bit: number): number {
  return Math.floor(bit / (POSITIONS * 2));
}

function maskOf(bit: number): bigint {
  return 1n << BigInt(bit % (POSITIONS * 2));
}
