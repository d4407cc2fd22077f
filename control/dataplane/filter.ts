// The bits of svc_filter: set for every frontend that a program may have to find, so that most
// connects end at one bit. A bit may be set for nothing; one that is missing would hide a Service.
import { limit } from "../../bindings/layout.ts";
import { frontendHash } from "./maps.ts";
import { textToBytes } from "./table.ts";

const BITS = 2 ** limit.FILTER_BITS;

export class Filter {
  readonly #words: Uint32Array;
  /** Frontends that share a bit keep it set until the last of them goes. */
  readonly #counts = new Uint16Array(BITS);
  readonly #keys = new Set<string>();

  /** Takes over a filter of 2^FILTER_BITS bits: keys are those in the kernel, other bits go. */
  constructor(bytes: Uint8Array, keys: Iterable<string>) {
    this.#words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (const key of keys) this.add(key);
    for (let word = 0; word < this.#words.length; word++)
      for (let rest = this.#words[word]!; rest !== 0; rest &= rest - 1) {
        const bit = word * 32 + 31 - Math.clz32(rest & -rest);
        if (this.#counts[bit] === 0) this.#clear(bit);
      }
  }

  /** Before a frontend is put into svc_frontends. */
  add(key: string): void {
    if (this.#keys.has(key)) return;
    this.#keys.add(key);
    const bit = bitOf(key);
    this.#counts[bit]!++;
    const word = this.#words[bit >>> 5]!;
    const wanted = word | (1 << (bit & 31));
    if (wanted >>> 0 !== word) Atomics.store(this.#words, bit >>> 5, wanted);
  }

  /** After a frontend is gone from svc_frontends. */
  remove(key: string): void {
    if (!this.#keys.delete(key)) return;
    const bit = bitOf(key);
    this.#counts[bit]!--;
    if (this.#counts[bit] === 0) this.#clear(bit);
  }

  #clear(bit: number): void {
    Atomics.store(this.#words, bit >>> 5, this.#words[bit >>> 5]! & ~(1 << (bit & 31)));
  }
}

function bitOf(key: string): number {
  return frontendHash(textToBytes(key)) % BITS;
}
