// svc_frontends as a hash map: buckets in mapped memory, written in an order that misleads no
// reader, svc_filter in front and svc_overflow for what finds no place. Knows keys and values as
// bytes.
import { frontendBucket, frontendKey, limit } from "../../bindings/layout.ts";
import { Filter } from "./filter.ts";
import { frontendHash, type HashStore } from "./maps.ts";
import { bytesToText, textToBytes } from "./table.ts";

const KEY_BYTES = frontendKey.bytes;
const VALUE_BYTES = 8;
const PLACES = limit.FRONTEND_PLACES;
const WORDS = frontendBucket.bytes / VALUE_BYTES;

/** The entries of a mapped svc_frontends, one at a time. */
export function* bucketEntries(
  bytes: Uint8Array,
): Generator<{ keys: Uint8Array; values: Uint8Array; count: number; place: number }> {
  const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / VALUE_BYTES);
  const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  for (let bucket = 0; bucket * WORDS < words.length; bucket++)
    for (let index = 0; index < PLACES; index++) {
      const at = bucket * WORDS + index;
      if (halves[2 * at] === 0 && halves[2 * at + 1] === 0) continue;
      const place = bucket * PLACES + index;
      const key = keyOffset(place);
      const values = new Uint8Array(BigUint64Array.of(Atomics.load(words, at)).buffer);
      yield { keys: bytes.slice(key, key + KEY_BYTES), values, count: 1, place };
    }
}

function keyOffset(place: number): number {
  const bucket = Math.floor(place / PLACES);
  const { key } = frontendBucket.offset;
  return bucket * frontendBucket.bytes + key + (place % PLACES) * frontendBucket.stride.key;
}

export class BucketStore implements HashStore {
  readonly maxEntries: number;
  readonly #bytes: Uint8Array;
  readonly #words: BigUint64Array;
  readonly #halves: Uint32Array;
  readonly #overflow: HashStore;
  readonly #filter: Filter;
  /** Where each key is: its place, or undefined for svc_overflow. */
  readonly #places = new Map<string, number | undefined>();
  /** Places whose frontend is gone, but whose key a program may be comparing. */
  readonly #resting = new Set<number>();
  /** Those of them that giveUp() has not handed out yet. */
  #givenUp: number[] = [];

  /** Takes over what the memory holds. Sizes are powers of two of buckets and of filter words. */
  constructor({
    bytes,
    filter,
    overflow,
  }: {
    bytes: Uint8Array;
    filter: Uint8Array;
    overflow: HashStore;
  }) {
    this.#bytes = bytes;
    this.#words = new BigUint64Array(
      bytes.buffer,
      bytes.byteOffset,
      bytes.byteLength / VALUE_BYTES,
    );
    this.#halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    this.#overflow = overflow;
    this.maxEntries = overflow.maxEntries;
    for (const { keys, place } of bucketEntries(bytes)) this.#places.set(bytesToText(keys), place);
    this.#countOverflow();
    this.#filter = new Filter(filter, this.#keys());
  }

  /** Writes in order. On an error of svc_overflow `done` says how many entries were written. */
  setBatch(keys: Uint8Array, values: Uint8Array): void {
    const count = keys.length / KEY_BYTES;
    for (let index = 0; index < count; index++) {
      const key = keys.subarray(index * KEY_BYTES, (index + 1) * KEY_BYTES);
      const value = values.subarray(index * VALUE_BYTES, (index + 1) * VALUE_BYTES);
      try {
        this.#set(key, value);
      } catch (error) {
        throw Object.assign(error as Error, { done: index });
      }
    }
  }

  deleteBatch(keys: Uint8Array): void {
    for (let at = 0; at < keys.length; at += KEY_BYTES) {
      const key = keys.subarray(at, at + KEY_BYTES);
      const text = bytesToText(key);
      if (!this.#places.has(text)) continue;
      const place = this.#places.get(text);
      if (place === undefined) {
        this.#overflow.deleteBatch(key);
        this.#halves[this.#overflowIndex(key)]!--;
      } else {
        Atomics.store(this.#words, wordIndex(place), 0n);
        this.#resting.add(place);
        this.#givenUp.push(place);
      }
      this.#places.delete(text);
      this.#filter.remove(key);
    }
  }

  /** To be called before an endpoint at this address (16 bytes) is written. */
  markEndpoint(address: Uint8Array): void {
    this.#filter.markEndpoint(address);
  }

  giveUp(): (() => void) | undefined {
    if (this.#givenUp.length === 0) return undefined;
    const places = this.#givenUp;
    this.#givenUp = [];
    return () => {
      for (const place of places) this.#resting.delete(place);
    };
  }

  *entries(): Generator<{ keys: Uint8Array; values: Uint8Array; count: number }> {
    yield* bucketEntries(this.#bytes);
    yield* this.#overflow.entries();
  }

  *#keys(): Generator<Uint8Array> {
    for (const text of this.#places.keys()) yield textToBytes(text);
  }

  #set(key: Uint8Array, value: Uint8Array): void {
    const text = bytesToText(key);
    const isNew = !this.#places.has(text);
    const place = isNew ? this.#freePlace(key) : this.#places.get(text);
    if (isNew) this.#filter.add(key);
    if (place !== undefined) {
      if (isNew) this.#bytes.set(key, keyOffset(place));
      const word = new DataView(value.buffer, value.byteOffset).getBigUint64(0, true);
      Atomics.store(this.#words, wordIndex(place), word);
    } else {
      // The count first: a reader that sees it 0 does not look there.
      const overflow = this.#overflowIndex(key);
      if (isNew) Atomics.add(this.#halves, overflow, 1);
      try {
        this.#overflow.setBatch(key, value);
      } catch (error) {
        if (isNew) {
          Atomics.sub(this.#halves, overflow, 1);
          this.#filter.remove(key);
        }
        throw error;
      }
    }
    this.#places.set(text, place);
  }

  #freePlace(key: Uint8Array): number | undefined {
    const first = this.#bucketOf(key) * PLACES;
    for (let place = first; place < first + PLACES; place++)
      if (this.#words[wordIndex(place)] === 0n && !this.#resting.has(place)) return place;
    return undefined;
  }

  /** Makes each bucket's count of overflowing frontends right, as after a kill between writes. */
  #countOverflow(): void {
    const counts = new Map<number, number>();
    for (const { keys, count } of this.#overflow.entries())
      for (let index = 0; index < count; index++) {
        const key = keys.slice(index * KEY_BYTES, (index + 1) * KEY_BYTES);
        const text = bytesToText(key);
        if (this.#places.has(text)) continue;
        this.#places.set(text, undefined);
        const bucket = this.#overflowIndex(key);
        counts.set(bucket, (counts.get(bucket) ?? 0) + 1);
      }
    const stride = frontendBucket.bytes / 4;
    for (let at = frontendBucket.offset.overflow / 4; at < this.#halves.length; at += stride)
      if (this.#halves[at] !== (counts.get(at) ?? 0)) this.#halves[at] = counts.get(at) ?? 0;
  }

  #bucketOf(key: Uint8Array): number {
    return frontendHash(key) % (this.#bytes.byteLength / frontendBucket.bytes);
  }

  #overflowIndex(key: Uint8Array): number {
    const { bytes, offset } = frontendBucket;
    return (this.#bucketOf(key) * bytes + offset.overflow) / 4;
  }
}

/** Where the u64 of a place is among all words of the memory. */
function wordIndex(place: number): number {
  return Math.floor(place / PLACES) * WORDS + (place % PLACES);
}
