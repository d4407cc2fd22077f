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

/** Entries of svc_frontends, their keys and values end to end, and where each is. */
export interface BucketEntries {
  keys: Uint8Array;
  values: Uint8Array;
  count: number;
  places: readonly number[];
}

/** A copy of all entries of a mapped svc_frontends, as of no one moment. */
export function bucketEntries(bytes: Uint8Array): BucketEntries {
  const places = usedPlaces(bytes);
  const count = places.length;
  const keys = new Uint8Array(count * KEY_BYTES);
  const values = new Uint8Array(count * VALUE_BYTES);
  for (let index = 0; index < count; index++) {
    const place = places[index]!;
    const value = wordIndex(place) * VALUE_BYTES;
    const key = keyOffset(place);
    for (let at = 0; at < VALUE_BYTES; at++) values[index * VALUE_BYTES + at] = bytes[value + at]!;
    for (let at = 0; at < KEY_BYTES; at++) keys[index * KEY_BYTES + at] = bytes[key + at]!;
  }
  return { keys, values, count, places };
}

function usedPlaces(bytes: Uint8Array): number[] {
  const halves = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
  const places: number[] = [];
  for (let bucket = 0; bucket * WORDS * 2 < halves.length; bucket++)
    for (let index = 0; index < PLACES; index++) {
      const at = (bucket * WORDS + index) * 2;
      if (halves[at] !== 0 || halves[at + 1] !== 0) places.push(bucket * PLACES + index);
    }
  return places;
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
  /** The keys that are in svc_overflow, as text: the others are found in the memory. */
  readonly #overflowing = new Set<string>();
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
    this.#countOverflow();
    this.#filter = new Filter(filter, this.#keys());
  }

  /** Writes in order. On an error of svc_overflow `done` says how many entries were written. */
  setBatch(keys: Uint8Array, values: Uint8Array): void {
    const count = keys.length / KEY_BYTES;
    const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
    for (let index = 0; index < count; index++) {
      const key = keys.subarray(index * KEY_BYTES, (index + 1) * KEY_BYTES);
      try {
        this.#set(key, view.getBigUint64(index * VALUE_BYTES, true));
      } catch (error) {
        throw Object.assign(error as Error, { done: index });
      }
    }
  }

  deleteBatch(keys: Uint8Array): void {
    for (let at = 0; at < keys.length; at += KEY_BYTES) {
      const key = keys.subarray(at, at + KEY_BYTES);
      const place = this.#find(key);
      if (place !== undefined) {
        Atomics.store(this.#words, wordIndex(place), 0n);
        this.#resting.add(place);
        this.#givenUp.push(place);
      } else {
        const text = bytesToText(key);
        if (!this.#overflowing.has(text)) continue;
        this.#overflow.deleteBatch(key);
        this.#halves[this.#overflowIndex(key)]!--;
        this.#overflowing.delete(text);
      }
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
    const entries = bucketEntries(this.#bytes);
    if (entries.count > 0) yield entries;
    yield* this.#overflow.entries();
  }

  *#keys(): Generator<Uint8Array> {
    const { keys } = bucketEntries(this.#bytes);
    for (let at = 0; at < keys.length; at += KEY_BYTES) yield keys.subarray(at, at + KEY_BYTES);
    for (const text of this.#overflowing) yield textToBytes(text);
  }

  #set(key: Uint8Array, word: bigint): void {
    const place = this.#find(key);
    if (place !== undefined) Atomics.store(this.#words, wordIndex(place), word);
    else if (this.#overflowing.size > 0 && this.#overflowing.has(bytesToText(key)))
      this.#overflow.setBatch(key, bytesOf(word));
    else this.#add(key, word);
  }

  #add(key: Uint8Array, word: bigint): void {
    const place = this.#freePlace(key);
    this.#filter.add(key);
    if (place !== undefined) {
      this.#bytes.set(key, keyOffset(place));
      Atomics.store(this.#words, wordIndex(place), word);
      return;
    }
    // The count first: a reader that sees it 0 does not look there.
    const overflow = this.#overflowIndex(key);
    Atomics.add(this.#halves, overflow, 1);
    try {
      this.#overflow.setBatch(key, bytesOf(word));
    } catch (error) {
      Atomics.sub(this.#halves, overflow, 1);
      this.#filter.remove(key);
      throw error;
    }
    this.#overflowing.add(bytesToText(key));
  }

  /** The place of a key, undefined if it is in none. */
  #find(key: Uint8Array): number | undefined {
    const first = this.#bucketOf(key) * PLACES;
    for (let place = first; place < first + PLACES; place++)
      if (!this.#isEmpty(place) && this.#isKeyOf(place, key)) return place;
    return undefined;
  }

  #freePlace(key: Uint8Array): number | undefined {
    const first = this.#bucketOf(key) * PLACES;
    for (let place = first; place < first + PLACES; place++)
      if (this.#isEmpty(place) && !this.#resting.has(place)) return place;
    return undefined;
  }

  #isEmpty(place: number): boolean {
    const half = wordIndex(place) * 2;
    return this.#halves[half] === 0 && this.#halves[half + 1] === 0;
  }

  #isKeyOf(place: number, key: Uint8Array): boolean {
    const from = keyOffset(place);
    for (let at = 0; at < KEY_BYTES; at++) if (this.#bytes[from + at] !== key[at]) return false;
    return true;
  }

  /** Makes each bucket's count of overflowing frontends right, as after a kill between writes. */
  #countOverflow(): void {
    const counts = new Map<number, number>();
    for (const { keys, count } of this.#overflow.entries())
      for (let index = 0; index < count; index++) {
        const key = keys.slice(index * KEY_BYTES, (index + 1) * KEY_BYTES);
        if (this.#find(key) !== undefined) continue;
        this.#overflowing.add(bytesToText(key));
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

function bytesOf(word: bigint): Uint8Array {
  return new Uint8Array(BigUint64Array.of(word).buffer);
}

/** Where the u64 of a place is among all words of the memory. */
function wordIndex(place: number): number {
  return Math.floor(place / PLACES) * WORDS + (place % PLACES);
}
