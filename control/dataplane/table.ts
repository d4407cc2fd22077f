// One hash map as two tables, desired and actual, of which the difference is written in batches.
// Errors stay here as pending entries. Knows keys and values as bytes only.
import type { HashStore } from "./maps.ts";

/** Entries to a batch: about 2 ms of work, so that the event loop is not held up. */
const BATCH = 4096;

/** Bytes as a string of one character a byte: usable as a Map key. */
export function bytesToText(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1");
}

/** The inverse of bytesToText(), in memory of its own. */
export function textToBytes(text: string): Uint8Array {
  const bytes = new Uint8Array(text.length);
  Buffer.from(bytes.buffer).write(text, "latin1");
  return bytes;
}

/** A write that the kernel refused. The entry stays pending. */
export interface TableError {
  key: string;
  error: Error;
}

/** A map that the agent fills, in entries. */
export interface MapUsage {
  map: string;
  entries: number;
  capacity: number;
  /** Writes of entries that the kernel has refused so far; absent where it has no say in them. */
  errors?: number;
}

export class Table {
  readonly #store: HashStore;
  readonly #actual = new Map<string, string>();
  /** Where desired differs from actual: the value, or undefined to remove the key. */
  readonly #pending = new Map<string, string | undefined>();
  #desiredSize: number;
  #refused = 0;

  /** Reads the map whole, once. */
  constructor(store: HashStore) {
    this.#store = store;
    for (const { keys, values, count } of store.entries()) {
      const keyBytes = keys.length / count;
      const valueBytes = values.length / count;
      for (let index = 0; index < count; index++)
        this.#actual.set(
          bytesToText(keys.subarray(index * keyBytes, (index + 1) * keyBytes)),
          bytesToText(values.subarray(index * valueBytes, (index + 1) * valueBytes)),
        );
    }
    this.#desiredSize = this.#actual.size;
  }

  /** What the kernel holds. */
  get actual(): ReadonlyMap<string, string> {
    return this.#actual;
  }

  get maxEntries(): number {
    return this.#store.maxEntries;
  }

  /** How many entries there will be once everything pending is written. */
  get desiredSize(): number {
    return this.#desiredSize;
  }

  get pendingCount(): number {
    return this.#pending.size;
  }

  /** How full the map of this name is. */
  usage(map: string): MapUsage {
    const { size: entries } = this.#actual;
    return { map, entries, capacity: this.maxEntries, errors: this.#refused };
  }

  /** Every key that is in the kernel, or meant to be. */
  keys(): Set<string> {
    return new Set([...this.#actual.keys(), ...this.#pending.keys()]);
  }

  /** What a key is meant to hold, or undefined. */
  desired(key: string): string | undefined {
    return this.#pending.has(key) ? this.#pending.get(key) : this.#actual.get(key);
  }

  set(key: string, value: string): void {
    if (this.desired(key) === undefined) this.#desiredSize++;
    if (this.#actual.get(key) === value) this.#pending.delete(key);
    else this.#pending.set(key, value);
  }

  remove(key: string): void {
    if (this.desired(key) !== undefined) this.#desiredSize--;
    if (this.#actual.has(key)) this.#pending.set(key, undefined);
    else this.#pending.delete(key);
  }

  /** Writes what is new or changed. Returns the entries that could not be written. */
  writeAdditions(): TableError[] {
    const errors: TableError[] = [];
    let entries: [string, string][] = [];
    for (const [key, value] of this.#pending) {
      if (value !== undefined) entries.push([key, value]);
      if (entries.length < BATCH) continue;
      this.#writeBatch(entries, errors);
      entries = [];
    }
    if (entries.length > 0) this.#writeBatch(entries, errors);
    return errors;
  }

  /** Removes what is no longer wanted. Returns the entries that could not be removed. */
  writeRemovals(): TableError[] {
    const errors: TableError[] = [];
    const removals: string[] = [];
    for (const [key, value] of this.#pending) if (value === undefined) removals.push(key);
    for (let from = 0; from < removals.length; from += BATCH) {
      const batch = removals.slice(from, from + BATCH);
      try {
        this.#store.deleteBatch(textToBytes(batch.join("")));
        for (const key of batch) this.#done(key, undefined);
      } catch (error) {
        for (const key of batch) errors.push({ key, error: asError(error) });
        this.#refused += batch.length;
      }
    }
    return errors;
  }

  /** A batch that fails is tried again without the entry that failed. */
  #writeBatch(entries: [string, string][], errors: TableError[]): void {
    for (let from = 0; from < entries.length; ) {
      const rest = from === 0 ? entries : entries.slice(from);
      try {
        this.#store.setBatch(
          textToBytes(rest.map(([key]) => key).join("")),
          textToBytes(rest.map(([, value]) => value).join("")),
        );
        for (const [key, value] of rest) this.#done(key, value);
        return;
      } catch (error) {
        const done = doneOf(error);
        for (const [key, value] of rest.slice(0, done)) this.#done(key, value);
        const failed = rest[done];
        if (failed) errors.push({ key: failed[0], error: asError(error) });
        this.#refused++;
        from += done + 1;
      }
    }
  }

  #done(key: string, value: string | undefined): void {
    if (value === undefined) this.#actual.delete(key);
    else this.#actual.set(key, value);
    this.#pending.delete(key);
  }
}

/** How many entries of a failed batch were written. */
function doneOf(error: unknown): number {
  const { done } = error as { done?: unknown };
  return typeof done === "number" ? done : 0;
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
