// Typed reads and writes of the shared maps: what each word is called and how it is stored so that
// a program reading at the same moment sees old or new. Decides nothing, and does not know whether
// the memory below is the kernel's or a test's.
import {
  backend,
  backendState,
  frontend,
  frontendKey,
  limit,
  service,
  serviceName,
  sourceKey,
  table,
} from "../../bindings/layout.ts";
import { formatAddress, parseAddress, parseRange, writeAddress } from "../model/address.ts";

/** A hash map of fixed key and value sizes; keys and values of a batch lie end to end. */
export interface HashStore {
  readonly maxEntries: number;
  /** Throws when an entry could not be written; `done` on the error says how many were. */
  setBatch(keys: Uint8Array, values: Uint8Array): void;
  /** Keys that are missing are no error. */
  deleteBatch(keys: Uint8Array): void;
  /**
   * Room that was given up since the last call and that programs may still read: the function
   * returned makes it usable again, after a grace period. Undefined if there is none.
   */
  giveUp?(): (() => void) | undefined;
  entries(): Iterable<{ keys: Uint8Array; values: Uint8Array; count: number }>;
}

/** The memory of the maps, as opened by storage.ts or made up by a test. */
export interface Storage {
  readonly services: Uint8Array;
  readonly backends: Uint8Array;
  readonly slots: Uint8Array;
  readonly frontends: HashStore;
  readonly names: HashStore;
  /** Tells programs that an endpoint is about to be at this address (16 bytes). */
  markEndpoint(address: Uint8Array): void;
  readonly sources: HashStore;
  readonly clients: HashStore;
  /** The one element of svc_ranges. */
  readonly ranges: Uint8Array;
  /** Waits until no program still uses what was read before the call. */
  grace(): Promise<void>;
  /** Marks the maps as changing (odd) or whole (even), for readers in user space. */
  mark(writing: boolean): void;
}

/** A frontend's place in svc_frontends. */
export interface FrontendAddress {
  address: Uint8Array;
  port: number;
  protocol: number;
}

/** The part of a backend's row that is one aligned u64. */
export interface BackendWord {
  port: number;
  state: number;
  /** Bit 1 << table for each table that lists it. */
  listed: number;
  generation: number;
}

/** What of a backend's row changes while it is in use. */
export interface BackendChange extends Pick<BackendWord, "state" | "listed"> {
  /** Whether it is on this node. */
  local: boolean;
}

/** The word, plus what is written before it. */
export interface BackendEntry extends BackendWord {
  address: Uint8Array;
  service: number;
  /** 1: it is on this node. */
  local: number;
}

export interface TableWord {
  offset: number;
  length: number;
  /** emptyAction of the layout. */
  whenEmpty: number;
}

/** What is written of a backend that gets a row. */
export interface NewBackend extends BackendWord {
  address: string;
  service: number;
  local: boolean;
}

export interface ServiceRowCounters {
  departed: number;
  refused: number;
  dropped: number;
}

/** How much was written since the maps were opened: what the tests of economy count. */
export interface WriteCounts {
  backends: number;
  slots: number;
  tables: number;
}

export const TABLE_COUNT = table.TABLE_COUNT;
const WORD_BYTES = 8;
const TWO_32 = 2 ** 32;
/** The bits before an IPv4 address in its 16 bytes. */
const MAPPED_BITS = 96;
const SLOT_BYTES = 4;
const SLOT_BACKEND_MASK = 2 ** limit.SLOT_BACKEND_BITS - 1;
const SLOT_GENERATION_MASK = 2 ** limit.SLOT_GENERATION_BITS - 1;
const ROW_OFFSETS = 2 ** limit.TABLE_ROW_BIT;
const ROW_SLOTS = limit.TABLE_ROW_SLOTS;
const LENGTH_MASK = (1n << BigInt(limit.TABLE_LENGTH_BITS)) - 1n;
const LENGTH_SHIFT = BigInt(limit.TABLE_LENGTH_SHIFT);
const ACTION_SHIFT = BigInt(limit.TABLE_ACTION_SHIFT);

/** A hash of a key's address, for its position in svc_filter; address_hash() in bpf/balance.h. */
export function addressHash(key: Uint8Array): number {
  return mix(addressSum(key));
}

/** A hash of a frontend's key, for its bucket and its check; frontend_hash() in bpf/balance.h. */
export function frontendHash(key: Uint8Array): number {
  return mix(addressSum(key) + Math.imul(wordAt(key, 16), 0x165667b1));
}

function addressSum(key: Uint8Array): number {
  return (
    Math.imul(wordAt(key, 0), 0x9e3779b1) +
    Math.imul(wordAt(key, 4), 0x85ebca77) +
    Math.imul(wordAt(key, 8), 0xc2b2ae3d) +
    Math.imul(wordAt(key, 12), 0x27d4eb2f)
  );
}

/** A little-endian word, negative if its highest bit is set. */
function wordAt(bytes: Uint8Array, at: number): number {
  return bytes[at]! | (bytes[at + 1]! << 8) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 24);
}

function mix(sum: number): number {
  let hash = sum >>> 0;
  hash ^= hash >>> 15;
  hash = Math.imul(hash, 0x2c1b3c6d);
  return (hash ^ (hash >>> 12)) >>> 0;
}

/** The part of a frontend's hash that its value carries. */
export function frontendCheck(key: Uint8Array): number {
  return frontendHash(key) >>> 8;
}

/** The key of a frontend, as svc_frontends has it. */
export function encodeFrontendKey(address: FrontendAddress): Uint8Array {
  const key = new Uint8Array(frontendKey.bytes);
  frontendKey.write(new DataView(key.buffer), 0, address);
  return key;
}

/** The value of a frontend: its service, its kind and the check of its key. */
export function encodeFrontend(
  key: Uint8Array,
  { service, kind }: { service: number; kind: number },
): Uint8Array {
  const value = new Uint8Array(frontend.bytes);
  const bits = frontendCheck(key);
  const check = Uint8Array.of(bits & 0xff, (bits >>> 8) & 0xff, bits >>> 16);
  frontend.write(new DataView(value.buffer), 0, { service, kind, check });
  return value;
}

/** A slot: which backend, and which use of its id. */
export function encodeSlot(id: number, generation: number): number {
  return (((generation & SLOT_GENERATION_MASK) << limit.SLOT_BACKEND_BITS) | id) >>> 0;
}

/** The backend id of a slot. */
export function slotBackend(slot: number): number {
  return slot & SLOT_BACKEND_MASK;
}

/** The offset of a table from a place of a service's own row on, of TABLE_ROW_SLOTS. */
export function rowOffset(id: number, place: number): number {
  return ROW_OFFSETS + id * ROW_SLOTS + place;
}

/** Whether a table lies in its service's own row: if not, in svc_slots. */
export function isInRow(offset: number): boolean {
  return offset >= ROW_OFFSETS;
}

/** The parts of a table word. */
export function decodeTable(word: bigint): TableWord {
  return {
    offset: Number(word & 0xffffffffn),
    length: Number((word >> LENGTH_SHIFT) & LENGTH_MASK),
    whenEmpty: Number(word >> ACTION_SHIFT),
  };
}

export class Maps {
  readonly storage: Storage;
  readonly writes: WriteCounts = { backends: 0, slots: 0, tables: 0 };
  readonly #services: DataView;
  readonly #serviceWords: BigUint64Array;
  readonly #serviceSlots: Uint32Array;
  readonly #backends: DataView;
  readonly #backendBytes: Uint8Array;
  readonly #backendWords: BigUint64Array;
  readonly #slots: Uint32Array;
  /** What is about to be stored: each is used again for all rows, which are many. */
  readonly #address = new Uint8Array(backend.offset.port - backend.offset.address);
  readonly #word = new DataView(new ArrayBuffer(WORD_BYTES));
  readonly #wordAsOne = new BigUint64Array(this.#word.buffer);

  constructor(storage: Storage) {
    this.storage = storage;
    const { services, backends, slots } = storage;
    this.#services = new DataView(services.buffer, services.byteOffset, services.byteLength);
    this.#serviceWords = words(services);
    this.#serviceSlots = slotsIn(services);
    this.#backends = new DataView(backends.buffer, backends.byteOffset, backends.byteLength);
    this.#backendBytes = backends;
    this.#backendWords = words(backends);
    this.#slots = slotsIn(slots);
  }

  get serviceCapacity(): number {
    return this.#services.byteLength / service.bytes;
  }

  /** The largest id a slot can hold bounds the array too. */
  get backendCapacity(): number {
    return Math.min(this.#backends.byteLength / backend.bytes, SLOT_BACKEND_MASK);
  }

  get slotCapacity(): number {
    return this.#slots.length;
  }

  readBackend(id: number): BackendEntry {
    return backend.read(this.#backends, id * backend.bytes);
  }

  /** The tables that list a backend, see BackendWord. */
  backendListed(id: number): number {
    return this.#backendBytes[id * backend.bytes + backend.offset.listed]!;
  }

  backendState(id: number): number {
    return this.#backendBytes[id * backend.bytes + backend.offset.state]!;
  }

  /** Whether a backend is on this node. */
  isBackendLocal(id: number): boolean {
    return this.#backendBytes[id * backend.bytes + backend.offset.local] === 1;
  }

  backendGeneration(id: number): number {
    return this.#backends.getUint32(id * backend.bytes + backend.offset.generation, true);
  }

  /** Connections that this use of the id has had. */
  backendConnections(id: number): bigint {
    return this.#backends.getBigUint64(id * backend.bytes + backend.offset.connections, true);
  }

  /**
   * Connections of the endpoints that each service has, by its id; those that left are in its own
   * counters. No backend id from `end` on is in use.
   */
  sumConnections(end: number): Float64Array {
    const sums = new Float64Array(this.serviceCapacity);
    const { connections, service: owner, state } = backend.offset;
    for (let at = 0; at < end * backend.bytes; at += backend.bytes) {
      if (this.#backends.getUint8(at + state) === backendState.BACKEND_FREE) continue;
      const id = this.#backends.getUint32(at + owner, true);
      sums[id] = sums[id]! + readCount(this.#backends, at + connections);
    }
    return sums;
  }

  /** What programs and agent have counted in a service's row. */
  readCounters(id: number): ServiceRowCounters {
    const { departed, refused, dropped } = service.offset;
    const at = id * service.bytes;
    return {
      departed: readCount(this.#services, at + departed),
      refused: readCount(this.#services, at + refused),
      dropped: readCount(this.#services, at + dropped),
    };
  }

  /**
   * Fills a row that nothing refers to; the word that makes it readable comes last. Throws if the
   * address is none: the model made it.
   */
  writeBackend(id: number, entry: NewBackend): void {
    const at = id * backend.bytes;
    if (writeAddress(entry.address, this.#address) === undefined) throw notCanonical(entry.address);
    this.storage.markEndpoint(this.#address);
    this.#backendBytes.set(this.#address, at + backend.offset.address);
    this.#backends.setUint32(at + backend.offset.service, entry.service, true);
    this.#backends.setUint16(at + backend.offset.hop, 0, true);
    this.#backends.setBigUint64(at + backend.offset.connections, 0n, true);
    this.#backendBytes[at + backend.offset.local] = entry.local ? 1 : 0;
    this.writeBackendWord(id, entry);
  }

  /** Whether a backend's row says what may change of it while it is in use. */
  hasBackend(id: number, { state, listed, local }: BackendChange): boolean {
    if (this.backendListed(id) !== listed || this.backendState(id) !== state) return false;
    return this.isBackendLocal(id) === local;
  }

  /** Changes that, unless the row says so. */
  updateBackend(id: number, { state, listed, local }: BackendChange): void {
    if (this.hasBackend(id, { state, listed, local })) return;
    this.#backendBytes[id * backend.bytes + backend.offset.local] = local ? 1 : 0;
    const port = this.#backends.getUint16(id * backend.bytes + backend.offset.port);
    const generation = this.backendGeneration(id);
    this.writeBackendWord(id, { port, state, listed, generation });
  }

  /** Port, state, listed and generation at once. */
  writeBackendWord(id: number, entry: BackendWord): void {
    const { port } = backend.offset;
    this.#word.setUint16(0, entry.port);
    this.#word.setUint8(backend.offset.state - port, entry.state);
    this.#word.setUint8(backend.offset.listed - port, entry.listed);
    this.#word.setUint32(backend.offset.generation - port, entry.generation, true);
    const index = (id * backend.bytes + port) / WORD_BYTES;
    Atomics.store(this.#backendWords, index, this.#wordAsOne[0]!);
    this.writes.backends++;
  }

  /** Every id whose row is in use, listed or on its way out. */
  *usedBackends(): Generator<number> {
    const { state } = backend.offset;
    const count = this.#backends.byteLength / backend.bytes;
    for (let id = 0; id < count; id++)
      if (this.#backends.getUint8(id * backend.bytes + state) !== backendState.BACKEND_FREE)
        yield id;
  }

  /** In a row each slot is in force at once, after all that was written before it. */
  writeSlots(offset: number, slots: ArrayLike<number>): void {
    const { memory, at } = this.#slotsAt(offset);
    if (isInRow(offset))
      for (let index = 0; index < slots.length; index++)
        Atomics.store(memory, at + index, slots[index]!);
    else memory.set(slots, at);
    this.writes.slots += slots.length;
  }

  /** Whether just these slots are there. */
  hasSlots(offset: number, slots: ArrayLike<number>): boolean {
    const { memory, at } = this.#slotsAt(offset);
    for (let index = 0; index < slots.length; index++)
      if (memory[at + index] !== slots[index]) return false;
    return true;
  }

  /** The three table words of a service. */
  readTables(id: number): TableWord[] {
    return Array.from({ length: TABLE_COUNT }, (_, which) => this.readTable(id, which));
  }

  /** A copy of a table's slots. */
  readSlots(offset: number, length: number): Uint32Array {
    const { memory, at } = this.#slotsAt(offset);
    return memory.slice(at, at + length);
  }

  readTable(id: number, which: number): TableWord {
    return decodeTable(Atomics.load(this.#serviceWords, this.#tableIndex(id, which)));
  }

  /** Flips a table: one store, after which readers use the new slots. */
  writeTable(id: number, which: number, { offset, length, whenEmpty }: TableWord): void {
    const word =
      BigInt(offset) | (BigInt(length) << LENGTH_SHIFT) | (BigInt(whenEmpty) << ACTION_SHIFT);
    Atomics.store(this.#serviceWords, this.#tableIndex(id, which), word);
    this.writes.tables++;
  }

  readAffinity(id: number): number {
    return this.#services.getUint32(id * service.bytes + service.offset.affinitySeconds, true);
  }

  writeAffinity(id: number, seconds: number): void {
    const at = id * service.bytes + service.offset.affinitySeconds;
    this.#services.setUint32(at, seconds, true);
  }

  /** Who may ask the service's load balancer frontends: a guard of the layout. */
  readGuard(id: number): number {
    return this.#services.getUint8(id * service.bytes + service.offset.guard);
  }

  writeGuard(id: number, guard: number): void {
    this.#services.setUint8(id * service.bytes + service.offset.guard, guard);
  }

  /** Whether external frontends keep the client's address (1) or need not (0); §10.1, §10.2. */
  readExternalLocal(id: number): number {
    return this.#services.getUint8(id * service.bytes + service.offset.externalLocal);
  }

  writeExternalLocal(id: number, externalLocal: number): void {
    this.#services.setUint8(id * service.bytes + service.offset.externalLocal, externalLocal);
  }

  /** Adds the connections of an endpoint that has left to those of its service port. */
  addDeparted(id: number, connections: bigint): void {
    const at = id * service.bytes + service.offset.departed;
    this.#services.setBigUint64(at, this.#services.getBigUint64(at, true) + connections, true);
  }

  /** Zeros a row that nothing refers to. */
  clearService(id: number): void {
    for (let at = id * service.bytes; at < (id + 1) * service.bytes; at += WORD_BYTES)
      this.#services.setBigUint64(at, 0n, true);
  }

  /** What a table's offset means. */
  #slotsAt(offset: number): { memory: Uint32Array; at: number } {
    if (!isInRow(offset)) return { memory: this.#slots, at: offset };
    const place = (offset - ROW_OFFSETS) % ROW_SLOTS;
    const id = (offset - ROW_OFFSETS - place) / ROW_SLOTS;
    const at = (id * service.bytes + service.offset.slot) / SLOT_BYTES + place;
    return { memory: this.#serviceSlots, at };
  }

  #tableIndex(id: number, which: number): number {
    return (id * service.bytes + service.offset.table) / WORD_BYTES + which;
  }
}

/** What lies at a key of svc_sources. */
export const SOURCE_VALUE: Uint8Array = new Uint8Array(Uint32Array.of(1).buffer);

/** The key of svc_sources that lets a range ("address/length") ask a service. */
export function encodeSource(service: number, range: string): Uint8Array {
  const { address, bits } = rangeBytes(range);
  const key = new Uint8Array(sourceKey.bytes);
  const prefixLength = limit.SOURCE_PREFIX + bits;
  sourceKey.write(new DataView(key.buffer), 0, { prefixLength, service, address });
  return key;
}

/** The inverse of encodeSource(). */
export function decodeSource(key: Uint8Array): { service: number; range: string } {
  const { prefixLength, service, address } = sourceKey.read(viewOf(key), 0);
  return { service, range: formatRange(address, prefixLength - limit.SOURCE_PREFIX) };
}

/** The 16 bytes of a canonical address. Throws on anything else: the model made it. */
export function addressBytes(text: string): Uint8Array {
  const parsed = parseAddress(text);
  if (!parsed) throw notCanonical(text);
  return parsed.bytes;
}

function notCanonical(text: string): Error {
  return new Error(`Address "${text}" of a row is not canonical`);
}

/** A range's 16 bytes of address and how many of their 128 bits count. Throws for no range. */
export function rangeBytes(text: string): { address: Uint8Array; bits: number } {
  const range = parseRange(text);
  if (!range) throw new Error(`Range "${text}" is not "address/length"`);
  const bits = range.prefixLength + (range.family === 4 ? MAPPED_BITS : 0);
  return { address: addressBytes(range.address), bits };
}

/** The inverse of rangeBytes(), in canonical text. */
export function formatRange(address: Uint8Array, bits: number): string {
  const text = formatAddress(address);
  const isIpv4 = !text.includes(":") && bits >= MAPPED_BITS;
  return `${text}/${isIpv4 ? bits - MAPPED_BITS : bits}`;
}

/** A service's name, as svc_names has it. */
export function encodeName(name: {
  namespace: string;
  name: string;
  port: string;
  protocol: number;
  family: number;
  type: number;
}): Uint8Array {
  const bytes = new Uint8Array(serviceName.bytes);
  serviceName.write(new DataView(bytes.buffer), 0, {
    ...name,
    namespace: encoder.encode(name.namespace),
    name: encoder.encode(name.name),
    port: encoder.encode(name.port),
  });
  return bytes;
}

const encoder = new TextEncoder();

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** A u64 as a number, exact up to 2^53: no bigint, of which a scrape would make 100,000. */
function readCount(view: DataView, at: number): number {
  return view.getUint32(at + 4, true) * TWO_32 + view.getUint32(at, true);
}

function slotsIn(bytes: Uint8Array): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / SLOT_BYTES);
}

function words(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / WORD_BYTES);
}
