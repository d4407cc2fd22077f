// From a desired service row to the writes that make the maps say so. Takes ids and extents, writes
// nothing; a row that does not fit takes nothing and is named.
import { emptyAction, limit, table as tableNumber } from "../../bindings/layout.ts";
import { maglevLength, maglevTable } from "../model/maglev.ts";
import {
  type BackendRow,
  compareBackends,
  PROTOCOLS,
  type ServiceRow,
  type ServiceType,
  type TableRow,
} from "../model/rows.ts";
import { CapacityError } from "./errors.ts";
import type { Extent, Extents } from "./extents.ts";
import { extentsOf, type Held, newHeld } from "./held.ts";
import type { Ids } from "./ids.ts";
import {
  addressBytes,
  encodeFrontend,
  encodeFrontendKey,
  encodeName,
  encodeSlot,
  encodeSource,
  type Maps,
  rowOffset,
  TABLE_COUNT,
  type TableWord,
} from "./maps.ts";
import { bytesToText, type Table } from "./table.ts";
import { BACKEND_STATES, FRONTEND_KINDS, guardOf, SERVICE_TYPES } from "./words.ts";

/** Where ids and extents come from. */
export interface Pools {
  services: Ids;
  backends: Ids;
  extents: Extents;
}

/** A row's backend that has an id, and what its row should say once the plan is in force. */
export interface PlannedBackend {
  backend: BackendRow;
  id: number;
  isNew: boolean;
  generation: number;
  state: number;
  /** Bit 1 << table for each table that lists it. */
  listed: number;
  /** Whether it is on this node. */
  local: boolean;
}

export interface Plan {
  held: Held;
  isNew: boolean;
  type: ServiceType;
  affinitySeconds: number;
  guard: number;
  externalLocal: number;
  /** In the order of the row's; undefined: one that needs no id. */
  backends: readonly (PlannedBackend | undefined)[];
  /** The tables as they will be; those in `flips` differ from the kernel's. */
  tables: readonly TableWord[];
  flips: readonly number[];
  slots: readonly { offset: number; slots: readonly number[] }[];
  /** Keys of svc_frontends and their values, as text. */
  frontends: ReadonlyMap<string, string>;
  sources: readonly string[];
  /** What is free once no program uses the old tables. */
  leavingBackends: readonly number[];
  leavingExtents: readonly Extent[];
}

/** Plans one row. `held` is what it holds now, if anything. Throws CapacityError, nothing taken. */
export function planService(
  row: ServiceRow,
  held: Held | undefined,
  options: { maps: Maps; pools: Pools; frontends: Table; sources: Table },
): Plan {
  const { maps, pools, frontends } = options;
  const taken = new Taken(pools);
  try {
    const own = held ?? newHeld(row.key, taken.service());
    const before = held ? maps.readTables(held.id) : [];
    const { backends, leaving } = planBackends(row, own, { maps, taken });
    const { id } = own;
    const { tables, slots } = planTables(row, before, { id, maps, taken, backends });
    return {
      held: own,
      isNew: held === undefined,
      type: row.type,
      affinitySeconds: row.affinitySeconds,
      guard: guardOf(row.sources),
      externalLocal: row.externalPolicy === "Local" ? 1 : 0,
      backends,
      tables,
      flips: FLIPS.filter((which) => !sameWord(tables[which]!, before[which])),
      slots,
      frontends: planFrontends(row, own, frontends),
      sources: planSources(row, own, options.sources),
      leavingBackends: leaving,
      leavingExtents: extentsOf(before).filter(
        ({ offset }) => !tables.some((word) => word.length > 0 && word.offset === offset),
      ),
    };
  } catch (error) {
    taken.giveBack();
    throw error;
  }
}

const FLIPS: readonly number[] = Array.from({ length: TABLE_COUNT }, (_, which) => which);

/** True if the plan writes nothing into the arrays (its frontends and name are compared later). */
export function isSettled(plan: Plan, maps: Maps): boolean {
  if (plan.isNew || plan.leavingBackends.length > 0) return false;
  if (plan.flips.length > 0 || plan.slots.length > 0) return false;
  if (maps.readAffinity(plan.held.id) !== plan.affinitySeconds) return false;
  if (maps.readGuard(plan.held.id) !== plan.guard) return false;
  if (maps.readExternalLocal(plan.held.id) !== plan.externalLocal) return false;
  return plan.backends.every(
    (planned) => !planned || (!planned.isNew && maps.hasBackend(planned.id, planned)),
  );
}

/** What a plan has taken from the pools, to be given back if it does not come off. */
class Taken {
  readonly #pools: Pools;
  readonly #services: number[] = [];
  readonly #backends: number[] = [];
  readonly #extents: Extent[] = [];

  constructor(pools: Pools) {
    this.#pools = pools;
  }

  service(): number {
    const id = this.#pools.services.take();
    if (id === undefined) throw new CapacityError("svc_services", this.#pools.services.capacity);
    this.#services.push(id);
    return id;
  }

  backend(): number {
    const id = this.#pools.backends.take();
    if (id === undefined) throw new CapacityError("svc_backends", this.#pools.backends.capacity);
    this.#backends.push(id);
    return id;
  }

  extent(length: number): number {
    const offset = this.#pools.extents.take(length);
    if (offset === undefined) throw new CapacityError("svc_slots", this.#pools.extents.capacity);
    this.#extents.push({ offset, length });
    return offset;
  }

  giveBack(): void {
    for (const id of this.#services) this.#pools.services.release(id);
    for (const id of this.#backends) this.#pools.backends.release(id);
    for (const extent of this.#extents) this.#pools.extents.release(extent);
  }
}

/**
 * The backends that some table lists, with the bit of each such table, and those that none lists
 * any more but that still serve; and the ids of those that leave. Both lists of backends are in one
 * order, so that one walk along them finds who is known.
 */
function planBackends(
  row: ServiceRow,
  held: Held,
  { maps, taken }: { maps: Maps; taken: Taken },
): { backends: (PlannedBackend | undefined)[]; leaving: number[] } {
  const listings = listBackends(row);
  const leaving: number[] = [];
  let at = 0;
  const backends = row.backends.map((backend, index): PlannedBackend | undefined => {
    while (at < held.ids.length && compareBackends(held.backends[at]!, backend) < 0)
      leaving.push(held.ids[at++]!);
    const isKnown = at < held.ids.length && compareBackends(held.backends[at]!, backend) === 0;
    const listed = listings[index]!;
    if (listed === 0 && !isKnown) return undefined;
    const id = isKnown ? held.ids[at++]! : taken.backend();
    const generation = maps.backendGeneration(id);
    return {
      backend,
      id,
      isNew: !isKnown,
      generation: isKnown ? generation : (generation + 1) >>> 0 || 1,
      state: BACKEND_STATES[backend.state],
      listed: listed === 0 ? 1 << tableNumber.TABLE_NONE : listed,
      local: backend.local,
    };
  });
  for (; at < held.ids.length; at++) leaving.push(held.ids[at]!);
  return { backends, leaving };
}

/** For each backend of a row the bits of the tables that list it. */
function listBackends(row: ServiceRow): number[] {
  const listed = new Array<number>(row.backends.length).fill(0);
  for (const [which, { members }] of tablesOf(row).entries())
    for (const member of members) listed[member]! |= 1 << which;
  return listed;
}

/** Slots that some of a row's tables have in common. */
interface Content {
  slots: readonly number[];
  tables: number[];
}

/**
 * The three table words. Equal tables of one row share their slots, and unchanged ones stay where
 * they are. Others lie in the row itself if they find room, which is one wait for memory less for
 * whoever connects, else in an extent.
 */
function planTables(
  row: ServiceRow,
  before: readonly TableWord[],
  options: { id: number; maps: Maps; taken: Taken; backends: Plan["backends"] },
): Pick<Plan, "tables" | "slots"> {
  const { id, maps, taken, backends } = options;
  const written: { offset: number; slots: readonly number[] }[] = [];
  const tables = tablesOf(row).map(({ whenEmpty }): TableWord => {
    const action = whenEmpty === "drop" ? emptyAction.EMPTY_DROP : emptyAction.EMPTY_REFUSE;
    return { offset: 0, length: 0, whenEmpty: action };
  });
  for (const { slots, tables: own } of tableContents(row, backends)) {
    const { length } = slots;
    const kept = before.find(
      (word) =>
        word.length === length && maps.hasSlots(word.offset, slots) && !overlapsAny(word, tables),
    );
    const others = () => [...tables, ...before.filter((_, which) => !own.includes(which))];
    const offset = kept?.offset ?? placeInRow(id, length, others()) ?? taken.extent(length);
    if (!kept) written.push({ offset, slots });
    for (const which of own) tables[which] = { ...tables[which]!, offset, length };
  }
  return { tables, slots: written };
}

/** By enum table. */
function tablesOf({ internal, inside, outside }: ServiceRow): TableRow[] {
  return [internal, inside, outside];
}

function tableContents(row: ServiceRow, backends: Plan["backends"]): Content[] {
  const contents: Content[] = [];
  for (const [which, table] of tablesOf(row).entries()) {
    if (table.members.length === 0) continue;
    const slots = tableSlots(row, table, backends);
    const same = contents.find((content) => sameSlots(content.slots, slots));
    if (same) same.tables.push(which);
    else contents.push({ slots, tables: [which] });
  }
  return contents;
}

/**
 * An offset in a service's row, undefined if there is no room beside `others`: tables that lie
 * there from now on, and those that lay there before. But where the same tables lay, they are
 * written over slot by slot: a reader finds old ones and new ones, all of endpoints that its table
 * lists.
 */
function placeInRow(id: number, length: number, others: readonly Extent[]): number | undefined {
  for (let place = 0; place + length <= limit.TABLE_ROW_SLOTS; place++) {
    const offset = rowOffset(id, place);
    if (!overlapsAny({ offset, length }, others)) return offset;
  }
  return undefined;
}

function overlapsAny({ offset, length }: Extent, others: readonly Extent[]): boolean {
  return others.some((each) => offset < each.offset + each.length && each.offset < offset + length);
}

function tableSlots(
  row: ServiceRow,
  table: TableRow,
  backends: Plan["backends"],
): readonly number[] {
  const slots = table.members.map((member) => {
    const { id, generation } = backends[member]!;
    return encodeSlot(id, generation);
  });
  if (table.kind === "uniform") return slots;
  const members = table.members.map((member) => row.backends[member]!);
  return Array.from(maglevTable(members, maglevLength(members.length)), (at) => slots[at]!);
}

function planFrontends(row: ServiceRow, held: Held, frontends: Table): Map<string, string> {
  const planned = new Map<string, string>();
  let added = 0;
  for (const { address, port, kind } of row.frontends) {
    const protocol = PROTOCOLS[row.protocol];
    const key = encodeFrontendKey({ address: addressBytes(address), port, protocol });
    const text = bytesToText(key);
    const value = encodeFrontend(key, { service: held.id, kind: FRONTEND_KINDS[kind] });
    planned.set(text, bytesToText(value));
    if (frontends.desired(text) === undefined) added++;
  }
  const { maxEntries } = frontends;
  if (added > 0 && frontends.desiredSize + added > maxEntries)
    throw new CapacityError("svc_frontends", maxEntries);
  return planned;
}

/** Old ranges go only once the new ones are there, so that there must be room for both. */
function planSources(row: ServiceRow, held: Held, sources: Table): readonly string[] {
  if (row.sources === undefined) return NONE;
  const planned = row.sources.ranges.map((range) => bytesToText(encodeSource(held.id, range)));
  const added = planned.filter((key) => sources.desired(key) === undefined).length;
  const { maxEntries } = sources;
  if (added > 0 && sources.desiredSize + added > maxEntries)
    throw new CapacityError("svc_sources", maxEntries);
  return planned;
}

const NONE: readonly never[] = [];

/** A row's name as svc_names has it, as text. */
export function nameOf(row: ServiceRow): string {
  return bytesToText(
    encodeName({ ...row, protocol: PROTOCOLS[row.protocol], type: SERVICE_TYPES[row.type] }),
  );
}

function sameSlots(a: readonly number[], b: readonly number[]): boolean {
  return a.length === b.length && a.every((slot, index) => slot === b[index]);
}

function sameWord(a: TableWord, b: TableWord | undefined): boolean {
  return a.offset === b?.offset && a.length === b.length && a.whenEmpty === b.whenEmpty;
}
