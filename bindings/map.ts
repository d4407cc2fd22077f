// Maps in the kernel: elements one by one, in batches, in full, and as memory.
// It knows sizes and nothing of what keys and values mean. A buffer of a wrong size is a
// RangeError here, because C would read or write beyond its end.
import { closeSync } from "node:fs";
import { describe, openPinnedDescriptor, pinDescriptor, readName } from "./descriptor.ts";
import { BpfError, ENOTSUPP } from "./errors.ts";
import { bytesAt, lastErrno, loadLibbpf, loadLibc, type Pointer } from "./libbpf.ts";
import { possibleCpus } from "./system.ts";

/** The kernel's numbers for the kinds of maps used here (enum bpf_map_type). */
export const mapType = {
  HASH: 1,
  ARRAY: 2,
  PERCPU_HASH: 5,
  PERCPU_ARRAY: 6,
  LRU_HASH: 9,
  LRU_PERCPU_HASH: 10,
  SK_STORAGE: 24,
} as const;

/** Map flags that change what can be done with a map. */
export const mapFlag = { NO_PREALLOC: 1, MMAPABLE: 1 << 10 } as const;

const PER_CPU: ReadonlySet<number> = new Set([
  mapType.PERCPU_HASH,
  mapType.PERCPU_ARRAY,
  mapType.LRU_PERCPU_HASH,
]);
const MODES = { any: 0, create: 1, replace: 2 } as const;
const ENOENT = -2;
const E2BIG = -7;
const ENOSPC = -28;
const CREATE_OPTIONS_BYTES = 48;
const CREATE_FLAGS_AT = 28;
const NAME_LENGTH = 15;
const F_DUPFD_CLOEXEC = 1030;
const PROT_READ = 1;
const PROT_WRITE = 2;
const MAP_SHARED = 1;
const MMAP_FAILED = 2n ** 64n - 1n;

/** What the kernel says about a map; sizes in bytes. */
export interface MapInfo {
  readonly id: number;
  readonly type: number;
  readonly name: string;
  readonly keySize: number;
  readonly valueSize: number;
  readonly maxEntries: number;
  readonly flags: number;
  /** The id of the BTF it was created with, 0 if there was none. */
  readonly btfId: number;
}

export interface MapOptions {
  type: number;
  name: string;
  keySize: number;
  valueSize: number;
  maxEntries: number;
  flags?: number;
}

/** Some elements, one after the other: `count` keys of keySize, values of valueBytes. */
export interface Entries {
  keys: Uint8Array;
  values: Uint8Array;
  count: number;
}

/** One map, held by a file descriptor of its own until close(). */
export class BpfMap {
  readonly info: MapInfo;
  /**
   * Length of a value as get() returns and set() takes it: for per-CPU maps the values of all
   * possible CPUs, each rounded up to 8 bytes.
   */
  readonly valueBytes: number;
  #fd: number | undefined;

  private constructor(fd: number, subject: string) {
    this.#fd = fd;
    try {
      this.info = readMapInfo(fd, subject);
      const { type, valueSize } = this.info;
      this.valueBytes = PER_CPU.has(type) ? roundUp(valueSize) * possibleCpus() : valueSize;
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /** A new map. Throws RangeError for a name of over 15 characters, BpfError by the kernel. */
  static create({ type, name, keySize, valueSize, maxEntries, flags = 0 }: MapOptions): BpfMap {
    if (name.length > NAME_LENGTH) {
      throw new RangeError(
        `Cannot create map "${name}": its name exceeds ${NAME_LENGTH} characters`,
      );
    }
    const options = new DataView(new ArrayBuffer(CREATE_OPTIONS_BYTES));
    options.setBigUint64(0, BigInt(CREATE_OPTIONS_BYTES), true);
    options.setUint32(CREATE_FLAGS_AT, flags, true);
    const bytes = new Uint8Array(options.buffer);
    const fd = loadLibbpf().mapCreate(type, name, keySize, valueSize, maxEntries, bytes);
    if (fd < 0) throw new BpfError({ operation: "create map", subject: name, code: fd });
    return new BpfMap(fd, name);
  }

  /** The map pinned at `path`. Throws BpfError if there is none, or something else. */
  static openPinned(path: string): BpfMap {
    return new BpfMap(openPinnedDescriptor(path, "map"), path);
  }

  /** The map with this id. Throws BpfError if there is none. */
  static openById(id: number): BpfMap {
    const fd = loadLibbpf().mapFdById(id);
    if (fd < 0) throw new BpfError({ operation: "open map", subject: `id ${id}`, code: fd });
    return new BpfMap(fd, `id ${id}`);
  }

  /** A map by a copy of a descriptor that stays the caller's. Throws BpfError. */
  static fromDescriptor(fd: number, name: string): BpfMap {
    const own = loadLibc().duplicate(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0) throw new BpfError({ operation: "open map", subject: name, code: lastErrno() });
    return new BpfMap(own, name);
  }

  /** Throws if the map is closed. */
  get fd(): number {
    if (this.#fd === undefined) throw new Error(`Map "${this.info.name}" is closed`);
    return this.#fd;
  }

  /** The value of a key, undefined if there is none. Throws RangeError and BpfError. */
  get(key: Uint8Array): Uint8Array | undefined {
    this.#checkKey(key);
    const value = new Uint8Array(this.valueBytes);
    const error = loadLibbpf().lookup(this.fd, key, value);
    if (error === ENOENT) return undefined;
    if (error !== 0) throw this.#error("read", error);
    return value;
  }

  /**
   * Writes one element; "create" wants it absent, "replace" present. Throws RangeError for wrong
   * sizes, BpfError by the kernel: E2BIG if the map is full.
   */
  set(key: Uint8Array, value: Uint8Array, mode: keyof typeof MODES = "any"): void {
    this.#checkKey(key);
    this.#checkSize("value", { given: value.byteLength, wanted: this.valueBytes });
    const error = loadLibbpf().update(this.fd, key, value, MODES[mode]);
    if (error !== 0) throw this.#error("update", error);
  }

  /** Deletes a key; false if there was none. Throws RangeError and BpfError. */
  delete(key: Uint8Array): boolean {
    this.#checkKey(key);
    const error = loadLibbpf().delete(this.fd, key);
    if (error !== 0 && error !== ENOENT) throw this.#error("delete from", error);
    return error === 0;
  }

  /**
   * Writes elements laid one after the other, in order. Throws RangeError for wrong sizes; if the
   * kernel stops midway, BpfError says in `done` how many were written.
   */
  setBatch(keys: Uint8Array, values: Uint8Array): void {
    const total = this.#countKeys(keys);
    this.#checkSize("values", { given: values.byteLength, wanted: total * this.valueBytes });
    if (total === 0) return;
    const count = Uint32Array.of(total);
    const error = loadLibbpf().updateBatch(this.fd, keys, values, count, null);
    if (error === -ENOTSUPP) {
      this.#setOneByOne(keys, values);
      return;
    }
    // Where nothing was tried the kernel leaves the count as it was given.
    const done = count[0]! < total ? count[0]! : 0;
    if (error !== 0) throw this.#error("update", error, done);
  }

  /** Deletes keys laid one after the other; returns how many there were. Throws as delete(). */
  deleteBatch(keys: Uint8Array): number {
    const total = this.#countKeys(keys);
    const { keySize } = this.info;
    let deleted = 0;
    for (let next = 0; next < total; ) {
      const rest = keys.subarray(next * keySize);
      const count = Uint32Array.of(total - next);
      const error = loadLibbpf().deleteBatch(this.fd, rest, count, null);
      if (error === -ENOTSUPP) return deleted + this.#deleteOneByOne(rest);
      if (error !== 0 && error !== ENOENT) throw this.#error("delete from", error, deleted);
      deleted += count[0]!;
      // The kernel stops at a key that is missing, which is what was wanted of it.
      next += count[0]! + (error === ENOENT ? 1 : 0);
    }
    return deleted;
  }

  /**
   * All elements, in batches of about `batchSize`. What is written meanwhile may or may not be
   * seen. Throws BpfError if maps of its type cannot be listed.
   */
  *entries(batchSize = 4096): Generator<Entries> {
    const { keySize } = this.info;
    const bpf = loadLibbpf();
    let size = Math.max(1, Math.min(batchSize, this.info.maxEntries));
    let from: Uint8Array | null = null;
    for (;;) {
      // The kernel's cursor is a bucket number for hashes and a key for arrays.
      const to = new Uint8Array(Math.max(4, keySize));
      const keys = new Uint8Array(size * keySize);
      const values = new Uint8Array(size * this.valueBytes);
      const count = Uint32Array.of(size);
      const error: number = bpf.lookupBatch(this.fd, from, to, keys, values, count, null);
      if (error === -ENOTSUPP && from === null) return yield* this.#entriesOneByOne(size);
      if (error === ENOSPC && size <= this.info.maxEntries) {
        // One bucket of a hash holds more than fits.
        size *= 2;
        continue;
      }
      if (error !== 0 && error !== ENOENT) throw this.#error("list", error);
      const found = count[0]!;
      if (found > 0) yield this.#entries(keys, values, found);
      if (error === ENOENT) return;
      from = to;
    }
  }

  /**
   * All keys, one by one. Deleting the key just yielded is fine; if something else deletes it,
   * the kernel starts again from the first.
   */
  *keys(): Generator<Uint8Array> {
    const bpf = loadLibbpf();
    let key = new Uint8Array(this.info.keySize);
    let error = bpf.nextKey(this.fd, null, key);
    while (error === 0) {
      const next = new Uint8Array(this.info.keySize);
      error = bpf.nextKey(this.fd, key, next);
      yield key;
      key = next;
    }
    if (error !== ENOENT) throw this.#error("list", error);
  }

  /**
   * The array itself as bytes, its elements valueSize rounded up to 8 apart: what is written is
   * in the kernel at once. It stays mapped until the process ends, even when the map is closed.
   * Writing to one taken `readOnly` ends the process. Only for arrays with BPF_F_MMAPABLE: throws
   * RangeError for others, BpfError by the kernel.
   */
  mmap({ readOnly = false }: { readOnly?: boolean } = {}): Uint8Array {
    const { pointer, length } = this.#mmap(readOnly);
    return bytesAt(pointer, length);
  }

  /**
   * The same for the time of one call: `use` must keep nothing of the memory, since a look at it
   * afterwards ends the process. What is mapped for good would keep the map alive.
   */
  withMemory<T>(use: (memory: Uint8Array) => T): T {
    const { pointer, length } = this.#mmap(false);
    try {
      return use(bytesAt(pointer, length));
    } finally {
      loadLibc().munmap(pointer, length);
    }
  }

  /** Pins the map, so that it outlives this process. Throws BpfError. */
  pin(path: string): void {
    pinDescriptor(this.fd, path);
  }

  /** Gives the descriptor back; any use after that throws. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #mmap(readOnly: boolean): { pointer: Pointer; length: number } {
    const { name, type, flags, valueSize, maxEntries } = this.info;
    if (type !== mapType.ARRAY || (flags & mapFlag.MMAPABLE) === 0) {
      throw new RangeError(`Cannot mmap ${name}: it is no array with BPF_F_MMAPABLE`);
    }
    const length = roundUp(valueSize) * maxEntries;
    const protection = readOnly ? PROT_READ : PROT_READ | PROT_WRITE;
    const pointer = loadLibc().mmap(null, length, protection, MAP_SHARED, this.fd, 0);
    if (pointer === null || pointer === MMAP_FAILED) throw this.#error("mmap", lastErrno());
    return { pointer, length };
  }

  #setOneByOne(keys: Uint8Array, values: Uint8Array): void {
    const { keySize } = this.info;
    const total = keys.length / keySize;
    for (let index = 0; index < total; index++) {
      const key = keys.subarray(index * keySize, (index + 1) * keySize);
      const value = values.subarray(index * this.valueBytes, (index + 1) * this.valueBytes);
      const error = loadLibbpf().update(this.fd, key, value, MODES.any);
      if (error !== 0) throw this.#error("update", error, index);
    }
  }

  #deleteOneByOne(keys: Uint8Array): number {
    const { keySize } = this.info;
    let deleted = 0;
    for (let at = 0; at < keys.length; at += keySize) {
      if (this.delete(keys.subarray(at, at + keySize))) deleted++;
    }
    return deleted;
  }

  *#entriesOneByOne(batchSize: number): Generator<Entries> {
    const { keySize } = this.info;
    const keys = new Uint8Array(batchSize * keySize);
    const values = new Uint8Array(batchSize * this.valueBytes);
    let count = 0;
    for (const key of this.keys()) {
      const value = this.get(key);
      if (value === undefined) continue;
      keys.set(key, count * keySize);
      values.set(value, count * this.valueBytes);
      if (++count < batchSize) continue;
      yield this.#entries(keys.slice(), values.slice(), count);
      count = 0;
    }
    if (count > 0) yield this.#entries(keys, values, count);
  }

  #entries(keys: Uint8Array, values: Uint8Array, count: number): Entries {
    return {
      keys: keys.subarray(0, count * this.info.keySize),
      values: values.subarray(0, count * this.valueBytes),
      count,
    };
  }

  #countKeys(keys: Uint8Array): number {
    // Queues have keys of no bytes, and nothing that comes in batches.
    const count = Math.ceil(keys.byteLength / Math.max(1, this.info.keySize));
    this.#checkSize("keys", { given: keys.byteLength, wanted: count * this.info.keySize });
    return count;
  }

  #checkKey(key: Uint8Array): void {
    this.#checkSize("key", { given: key.byteLength, wanted: this.info.keySize });
  }

  #checkSize(what: string, { given, wanted }: { given: number; wanted: number }): void {
    if (given === wanted) return;
    const { name } = this.info;
    throw new RangeError(
      `Wrong size of ${what} for ${name}: ${given} bytes given, ${wanted} wanted`,
    );
  }

  #error(operation: string, code: number, done?: number): BpfError {
    const { name, maxEntries } = this.info;
    const full = code === ENOSPC || code === E2BIG;
    const reason = full ? `the map holds ${maxEntries} entries` : undefined;
    return new BpfError({ operation, subject: name, code, reason, done });
  }
}

/** struct bpf_map_info */
function readMapInfo(fd: number, subject: string): MapInfo {
  const view = describe(fd, subject);
  return {
    type: view.getUint32(0, true),
    id: view.getUint32(4, true),
    keySize: view.getUint32(8, true),
    valueSize: view.getUint32(12, true),
    maxEntries: view.getUint32(16, true),
    flags: view.getUint32(20, true),
    btfId: view.getUint32(64, true),
    name: readName(view, 24),
  };
}

/** Array elements and per-CPU values lie on multiples of 8 bytes. */
function roundUp(bytes: number): number {
  return Math.ceil(bytes / 8) * 8;
}
