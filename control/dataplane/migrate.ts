// Fills the maps of this build with what another build's maps say, field by field and by name, so
// that ids, generations, extents and counters go on. New fields are zero, fields that are gone are
// left behind. Knows the meaning of rows, not where maps are pinned nor when they are in force.
import type { Field, Layouts } from "../../bindings/collect.ts";
import type { Decoded, DecodedStruct } from "../../bindings/decode.ts";
import {
  affinity,
  affinityKey,
  backend,
  backendState,
  emptyAction,
  frontendKey,
  frontendKind,
  guard,
  limit,
  reason,
  service,
  serviceName,
  serviceType,
  table,
} from "../../bindings/layout.ts";
import type { BpfMap } from "../../bindings/map.ts";
import { BtfError } from "../../bindings/reader.ts";
import type { Content } from "./described.ts";
import {
  encodeFrontend,
  encodeFrontendKey,
  encodeSlot,
  Maps,
  rowOffset,
  type Storage,
  type TableWord,
} from "./maps.ts";
import { bytesToText, textToBytes } from "./table.ts";

/** The new maps are smaller than what is in use. */
export class RoomError extends Error {
  constructor({ map, flag, needed }: { map: string; flag: string; needed: number }) {
    const fix = `give "--${flag}" at least ${needed}, or leave it out`;
    super(`${map} is too small for what is programmed: ${fix}`);
    this.name = "RoomError";
  }
}

/** Enumerators of this build by name: C has but one of each name. */
const ENUMERATORS: ReadonlyMap<string, number> = new Map<string, number>(
  [backendState, emptyAction, frontendKind, guard, serviceType].flatMap((each) =>
    Object.entries(each),
  ),
);
const TABLES = Object.entries(table).filter(([name]) => name !== "TABLE_COUNT");

/**
 * Copies everything that an agent writes. The counters that programs write stay 0: moveCounters()
 * brings them over once nobody counts there any more. The target's maps are empty. Throws
 * RoomError, and BtfError for content that cannot be understood.
 */
export function copyContent(from: Content, target: Storage): void {
  const maps = new Maps(target);
  const extents = copyServices(from, { target, maps });
  copySlots(from, { maps, extents });
  copyBackends(from, { target, maps });
  copyNames(from, target);
  copyFrontends(from, target);
}

/** Every pin of a client to an endpoint, as this build would have written it. */
export function eachAffinity(
  from: Content,
  visit: (key: Uint8Array, value: Uint8Array) => void,
): void {
  from.each("svc_affinity", (element) => {
    const key = new Uint8Array(affinityKey.bytes);
    const zeroKey = affinityKey.read(viewOf(key), 0);
    affinityKey.write(viewOf(key), 0, carry(zeroKey, element.key as DecodedStruct));
    const value = new Uint8Array(affinity.bytes);
    affinity.write(viewOf(value), 0, carry(affinity.read(viewOf(value), 0), element.value));
    visit(key, value);
  });
}

/**
 * Adds the counters that programs of another build have written to the rows they were of, and
 * leaves zeros there: nothing counts twice, whenever this is called and however often. What an
 * endpoint had whose id is now another's goes to the total of its service. `same` are the services
 * whose rows are still theirs, see sameServices().
 */
export function moveCounters(from: Content, target: Storage, same: ReadonlySet<number>): void {
  const services = wordsOf(target.services);
  const wordOf = (id: number, field: keyof typeof service.offset) =>
    (id * service.bytes + service.offset[field]) / 8;
  for (const field of ["refused", "dropped"] as const)
    takeCounters(from, { map: "svc_services", field }, ({ id, count }) => {
      if (same.has(id)) Atomics.add(services, wordOf(id, field), count);
    });
  const [generation, owner] = ["generation", "service"].map((field) => {
    const found = fieldOf(from.layouts, "svc_backends", field);
    if (found?.shape.kind !== "number" || found.shape.bits !== 32)
      throw new BtfError(`Field "backend.${field}" is no u32`);
    return found.offset;
  });
  const rows = viewOf(target.backends);
  const backends = wordsOf(target.backends);
  takeCounters(from, { map: "svc_backends", field: "connections" }, ({ id, count, row }) => {
    const its = row.getUint32(owner!, true);
    if (!same.has(its)) return;
    const at = id * backend.bytes;
    const isSameUse =
      at < rows.byteLength &&
      rows.getUint32(at + backend.offset.generation, true) === row.getUint32(generation!, true) &&
      rows.getUint32(at + backend.offset.service, true) === its;
    if (isSameUse) Atomics.add(backends, (at + backend.offset.connections) / 8, count);
    else Atomics.add(services, wordOf(its, "departed"), count);
  });
}

/** Copies how often each reason came about, on all CPUs, to where this build counts it. */
export function copyReasons(layouts: Layouts, from: BpfMap | undefined, to: BpfMap): void {
  if (from === undefined || from.valueBytes !== to.valueBytes) return;
  for (const [name, index] of Object.entries(reason)) {
    const former = numberOf(layouts, name);
    if (former === undefined || index >= to.info.maxEntries) continue;
    const value = former < from.info.maxEntries ? from.get(indexKey(former)) : undefined;
    if (value) to.set(indexKey(index), value);
  }
}

function indexKey(index: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(index).buffer);
}

/** Gives each counter of a field that is not 0, with its row, and makes it 0 in that moment. */
function takeCounters(
  from: Content,
  { map, field }: { map: string; field: string },
  take: (counter: { id: number; count: bigint; row: DataView }) => void,
): void {
  const found = fieldOf(from.layouts, map, field);
  if (found?.shape.kind !== "number" || found.shape.bits !== 64) return;
  const stride = strideOf(from.layouts, map);
  from.withMemory(map, (memory) => {
    const words = wordsOf(memory);
    const halves = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4);
    for (let at = found.offset; at < memory.length; at += stride) {
      if (halves[at / 4] === 0 && halves[at / 4 + 1] === 0) continue;
      const row = new DataView(memory.buffer, memory.byteOffset + at - found.offset, stride);
      take({
        id: (at - found.offset) / stride,
        count: Atomics.exchange(words, at / 8, 0n),
        row,
      });
    }
  });
}

/** The service ids that have the same name in both. */
export function sameServices(from: Content, { names }: Storage): Set<number> {
  const own = new Map<number, string>();
  for (const { keys, values, count } of names.entries())
    for (let index = 0; index < count; index++) {
      const value = values.subarray(index * serviceName.bytes, (index + 1) * serviceName.bytes);
      own.set(viewOf(keys).getUint32(index * 4, true), bytesToText(value));
    }
  const same = new Set<number>();
  from.each("svc_names", ({ key, value }) => {
    const name = bytesToText(encodeName(value));
    if (own.get(key as number) === name) same.add(key as number);
  });
  return same;
}

/** Returns the extents that tables lie in, as offset and length. */
function copyServices(
  from: Content,
  { target, maps }: { target: Storage; maps: Maps },
): Map<number, number> {
  const extents = new Map<number, number>();
  const decodeWord = tableWords(from.layouts);
  const inRow = rowOffsets(from.layouts);
  const convertSlot = slotConverter(from.layouts);
  from.each("svc_services", ({ key, value }) => {
    const id = key as number;
    if (id >= maps.serviceCapacity)
      throw new RoomError({ map: "svc_services", flag: "max-services", needed: id + 1 });
    const at = id * service.bytes;
    const zero = service.read(viewOf(new Uint8Array(service.bytes)), 0);
    const programs = { refused: 0n, dropped: 0n, table: zero.table };
    service.write(viewOf(target.services), at, { ...carry(zero, value), ...programs });
    const words = value.table;
    if (!Array.isArray(words)) throw new BtfError('Field "service.table" is no array');
    for (const [name, which] of TABLES) {
      const index = numberOf(from.layouts, name);
      const word = index === undefined ? undefined : words[index];
      if (typeof word !== "bigint") continue;
      const decoded = decodeWord(word);
      if (decoded.length > 0 && decoded.offset >= inRow.first) {
        const place = decoded.offset % inRow.count;
        decoded.offset = rowOffset(id, place);
        const slots = wantNumbers(value, "slot").slice(place, place + decoded.length);
        maps.writeSlots(decoded.offset, slots.map(convertSlot));
      } else if (decoded.length > 0) extents.set(decoded.offset, decoded.length);
      maps.writeTable(id, which, decoded);
    }
  });
  return extents;
}

/** How a build's table words are read: where the bits are is in its enum limit. */
function tableWords(layouts: Layouts): (word: bigint) => TableWord {
  const shift = BigInt(wantNumber(layouts, "TABLE_LENGTH_SHIFT"));
  const mask = (1n << BigInt(wantNumber(layouts, "TABLE_LENGTH_BITS"))) - 1n;
  const action = BigInt(wantNumber(layouts, "TABLE_ACTION_SHIFT"));
  const drop = wantNumber(layouts, "EMPTY_DROP");
  const { EMPTY_DROP, EMPTY_REFUSE } = emptyAction;
  return (word) => ({
    offset: Number(word & ((1n << shift) - 1n)),
    length: Number((word >> shift) & mask),
    whenEmpty: Number(word >> action) === drop ? EMPTY_DROP : EMPTY_REFUSE,
  });
}

/** From where on a build's offsets mean a place in the row, of so many: nowhere in older ones. */
function rowOffsets(layouts: Layouts): { first: number; count: number } {
  const bit = numberOf(layouts, "TABLE_ROW_BIT");
  if (bit === undefined) return { first: Number.POSITIVE_INFINITY, count: 1 };
  const count = wantNumber(layouts, "TABLE_ROW_SLOTS");
  if (count > limit.TABLE_ROW_SLOTS)
    throw new BtfError(`Rows of svc_services hold ${count} slots, more than this build's`);
  return { first: 2 ** bit, count };
}

/** What makes a build's slots this one's. */
function slotConverter(layouts: Layouts): (slot: number) => number {
  const bits = wantNumber(layouts, "SLOT_BACKEND_BITS");
  return (slot) => encodeSlot(slot % 2 ** bits, slot >>> bits);
}

function wantNumbers(value: DecodedStruct, name: string): number[] {
  const found = value[name];
  if (!Array.isArray(found)) throw new BtfError(`Field "${name}" is no array`);
  return found.map(Number);
}

function copySlots(
  from: Content,
  { maps, extents }: { maps: Maps; extents: ReadonlyMap<number, number> },
): void {
  const convertSlot = slotConverter(from.layouts);
  const field = fieldOf(from.layouts, "svc_slots", "slot");
  if (field?.shape.kind !== "array" || field.shape.stride !== 4)
    throw new BtfError("svc_slots holds no array of slots");
  const { count, stride } = field.shape;
  const perElement = strideOf(from.layouts, "svc_slots");
  from.withMemory("svc_slots", (memory) => {
    const view = viewOf(memory);
    for (const [offset, length] of extents) {
      const needed = offset + length;
      if (needed > maps.slotCapacity)
        throw new RoomError({ map: "svc_slots", flag: "max-slots", needed });
      const slots = Uint32Array.from({ length }, (_, index) => {
        const element = Math.floor((offset + index) / count);
        const place = ((offset + index) % count) * stride;
        return convertSlot(view.getUint32(element * perElement + field.offset + place, true));
      });
      maps.writeSlots(offset, slots);
    }
  });
}

/** Ids that are free are copied too: their generations go on, for those who still refer to them. */
function copyBackends(from: Content, { target, maps }: { target: Storage; maps: Maps }): void {
  const { BACKEND_FREE, BACKEND_READY } = backendState;
  const tables = TABLES.map(([name, to]) => ({ from: numberOf(from.layouts, name), to }));
  const zero = backend.read(viewOf(new Uint8Array(backend.bytes)), 0);
  from.each("svc_backends", ({ key, value }) => {
    const id = key as number;
    const isFree = value.state === "BACKEND_FREE";
    if (id >= maps.backendCapacity) {
      if (isFree) return;
      throw new RoomError({ map: "svc_backends", flag: "max-backends", needed: id + 1 });
    }
    let listed = 0;
    for (const { from, to } of tables)
      if (from !== undefined && Number(value.listed) & (1 << from)) listed |= 1 << to;
    const known = ENUMERATORS.get(String(value.state)) ?? BACKEND_READY;
    const state = isFree ? BACKEND_FREE : known;
    const row = { ...carry(zero, value), listed, state, connections: 0n };
    target.markEndpoint(row.address);
    backend.write(viewOf(target.backends), id * backend.bytes, row);
  });
}

function copyNames(from: Content, { names }: Storage): void {
  const keys: string[] = [];
  const values: string[] = [];
  from.each("svc_names", ({ key, value }) => {
    keys.push(bytesToText(indexKey(key as number)));
    values.push(bytesToText(encodeName(value)));
  });
  const needed = keys.length;
  if (needed > names.maxEntries)
    throw new RoomError({ map: "svc_names", flag: "max-services", needed });
  if (needed > 0) names.setBatch(textToBytes(keys.join("")), textToBytes(values.join("")));
}

/** From buckets of frontends and from hash maps, whichever the other build had. */
function copyFrontends(from: Content, { frontends }: Storage): void {
  let needed = 0;
  const add = (key: DecodedStruct, value: DecodedStruct) => {
    const kind = ENUMERATORS.get(String(value.kind));
    if (kind === undefined || kind === frontendKind.FRONTEND_NONE) return;
    const zero = frontendKey.read(viewOf(new Uint8Array(frontendKey.bytes)), 0);
    const bytes = encodeFrontendKey(carry(zero, key));
    needed++;
    try {
      frontends.setBatch(bytes, encodeFrontend(bytes, { service: Number(value.service), kind }));
    } catch (error) {
      if ((error as { code?: unknown }).code !== "E2BIG") throw error;
      throw new RoomError({ map: "svc_overflow", flag: "max-frontends", needed });
    }
  };
  for (const name of ["svc_frontends", "svc_overflow"])
    from.each(name, ({ key, value }) => {
      const { frontend: places, key: keys } = value;
      if (Array.isArray(places) && Array.isArray(keys))
        places.forEach((place: DecodedStruct, index) => {
          add(keys[index] as DecodedStruct, place);
        });
      else add(key as DecodedStruct, value);
    });
}

function encodeName(value: DecodedStruct): Uint8Array {
  const bytes = new Uint8Array(serviceName.bytes);
  const zero = serviceName.read(viewOf(bytes), 0);
  serviceName.write(viewOf(bytes), 0, carry(zero, value));
  return bytes;
}

/** A row of this build with every field that the other's has too. `zero` is a row of zeros. */
function carry<T extends object>(zero: T, value: DecodedStruct): T {
  const carried = Object.entries(zero).map(([name, like]) => {
    const found = value[name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)];
    return [name, found === undefined ? like : convert(found, like)];
  });
  return Object.fromEntries(carried) as T;
}

/** A value in the form that this build gives it; `like` if it has none. */
function convert(found: Decoded, like: unknown): unknown {
  if (typeof found === "string") return ENUMERATORS.get(found) ?? like;
  const isNumber = typeof found === "number" || typeof found === "bigint";
  if (isNumber && typeof like === "number") return Number(found);
  if (isNumber && typeof like === "bigint") return BigInt(found);
  if (!(found instanceof Uint8Array && like instanceof Uint8Array)) return like;
  const bytes = new Uint8Array(like.length);
  bytes.set(found.subarray(0, like.length));
  return bytes;
}

/** The value of an enumerator in some build, undefined if it has none of that name. */
function numberOf({ enums }: Layouts, name: string): number | undefined {
  for (const { values } of enums)
    for (const value of values) if (value.name === name) return Number(value.value);
  return undefined;
}

function wantNumber(layouts: Layouts, name: string): number {
  const value = numberOf(layouts, name);
  if (value === undefined) throw new BtfError(`Enumerator "${name}" is not described`);
  return value;
}

/** A field of a map's values. */
function fieldOf({ maps, structs }: Layouts, map: string, name: string): Field | undefined {
  const shape = maps.find((each) => each.name === map)?.valueShape;
  if (shape?.kind !== "struct") return undefined;
  const struct = structs.find((each) => each.name === shape.name);
  return struct?.fields.find((field) => field.name === name);
}

/** Bytes from one element of a mapped array to the next. */
function strideOf({ maps }: Layouts, map: string): number {
  const bytes = maps.find((each) => each.name === map)?.valueBytes ?? 0;
  return Math.ceil(bytes / 8) * 8;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function wordsOf(bytes: Uint8Array): BigUint64Array {
  return new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
}
