// From a desired service row to the writes that make the maps say so. Takes ids and extents, writes
// nothing; a row that does not fit takes nothing and is named.
import { emptyAction, table as tableNumber } from "../../bindings/layout.ts";
import { maglevLength, maglevTable } from "../model/maglev.ts";
import { PROTOCOLS, type ServiceRow, type TableRow } from "../model/rows.ts";
import { CapacityError } from "./errors.ts";
import type { Extent, Extents } from "./extents.ts";
import { backendName, extentsOf, type Held, newHeld } from "./held.ts";
import type { Ids } from "./ids.ts";
import {
  addressBytes,
  type BackendEntry,
  encodeFrontend,
  encodeFrontendKey,
  encodeName,
  encodeSlot,
  encodeSource,
  type Maps,
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

/** A row's backend with its id and what its entry should be once the row is in force. */
export interface PlannedBackend {
  id: number;
  isNew: boolean;
  entry: BackendEntry;
}

export interface Plan {
  held: Held;
  isNew: boolean;
  affinitySeconds: number;
  guard: number;
  externalLocal: number;
  backends: Map<string, PlannedBackend>;
  /** The tables as they will be; those in `flips` differ from the kernel's. */
  tables: TableWord[];
  flips: number[];
  slots: { offset: number; slots: Uint32Array }[];
  frontends: Map<string, string>;
  sources: Set<string>;
  name: string;
  /** What is free once no program uses the old tables. */
  leavingBackends: string[];
  leavingExtents: Extent[];
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
    const backends = planBackends(row, own, { maps, taken });
    const tables = planTables(row, own, { maps, taken, backends });
    const kept = new Set(tables.words.map((word) => (word.length > 0 ? word.offset : -1)));
    return {
      held: own,
      isNew: held === undefined,
      affinitySeconds: row.affinitySeconds,
      guard: guardOf(row.sources),
      externalLocal: row.externalPolicy === "Local" ? 1 : 0,
      backends,
      tables: tables.words,
      flips: tables.words.flatMap((word, which) =>
        sameWord(word, own.tables[which]) ? [] : [which],
      ),
      slots: tables.slots,
      frontends: planFrontends(row, own, frontends),
      sources: planSources(row, own, options.sources),
      name: planName(row),
      leavingBackends: [...own.backends.keys()].filter((name) => !backends.has(name)),
      leavingExtents: extentsOf(own.tables).filter(({ offset }) => !kept.has(offset)),
    };
  } catch (error) {
    taken.giveBack();
    throw error;
  }
}

/** True if the plan writes nothing into the arrays (its frontends and name are compared later). */
export function isSettled(plan: Plan, maps: Maps): boolean {
  if (plan.isNew || plan.flips.length > 0 || plan.leavingBackends.length > 0) return false;
  if (maps.readAffinity(plan.held.id) !== plan.affinitySeconds) return false;
  if (maps.readGuard(plan.held.id) !== plan.guard) return false;
  if (maps.readExternalLocal(plan.held.id) !== plan.externalLocal) return false;
  for (const { id, isNew, entry } of plan.backends.values()) {
    if (isNew) return false;
    const actual = maps.readBackend(id);
    if (!sameEntry(actual, entry)) return false;
  }
  return true;
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
 * The backends that some table lists, with the bit of each such table; and those that none lists
 * any more but that still serve.
 */
function planBackends(
  row: ServiceRow,
  held: Held,
  { maps, taken }: { maps: Maps; taken: Taken },
): Map<string, PlannedBackend> {
  const listed = new Uint8Array(row.backends.length);
  [row.internal, row.inside, row.outside].forEach((table, which) => {
    for (const member of table.members) listed[member]! |= 1 << which;
  });
  const planned = new Map<string, PlannedBackend>();
  row.backends.forEach((backend, index) => {
    const name = backendName(backend);
    const known = held.backends.get(name);
    if (listed[index] === 0) {
      if (known === undefined) return;
      listed[index] = 1 << tableNumber.TABLE_NONE;
    }
    const id = known ?? taken.backend();
    const generation = maps.readBackend(id).generation;
    planned.set(name, {
      id,
      isNew: known === undefined,
      entry: {
        address: addressBytes(backend.address),
        port: backend.port,
        state: BACKEND_STATES[backend.state],
        listed: listed[index]!,
        generation: known === undefined ? (generation + 1) >>> 0 || 1 : generation,
        service: held.id,
        local: backend.local ? 1 : 0,
      },
    });
  });
  return planned;
}

/** The three table words; equal tables of one row share an extent, unchanged ones keep theirs. */
function planTables(
  row: ServiceRow,
  held: Held,
  options: { maps: Maps; taken: Taken; backends: Map<string, PlannedBackend> },
): { words: TableWord[]; slots: { offset: number; slots: Uint32Array }[] } {
  const { maps, taken } = options;
  const written: { offset: number; slots: Uint32Array }[] = [];
  const present = extentsOf(held.tables).map(({ offset, length }) => ({
    offset,
    slots: maps.readSlots(offset, length),
  }));
  const words = [row.internal, row.inside, row.outside].map((table): TableWord => {
    const slots = tableSlots(row, table, options.backends);
    const whenEmpty =
      table.whenEmpty === "drop" ? emptyAction.EMPTY_DROP : emptyAction.EMPTY_REFUSE;
    if (slots.length === 0) return { offset: 0, length: 0, whenEmpty };
    const same = [...written, ...present].find((extent) => sameSlots(extent.slots, slots));
    if (same) return { offset: same.offset, length: slots.length, whenEmpty };
    const offset = taken.extent(slots.length);
    written.push({ offset, slots });
    return { offset, length: slots.length, whenEmpty };
  });
  return { words, slots: written };
}

function tableSlots(
  row: ServiceRow,
  table: TableRow,
  backends: Map<string, PlannedBackend>,
): Uint32Array {
  const slotOf = table.members.map((member) => {
    const planned = backends.get(backendName(row.backends[member]!))!;
    return encodeSlot(planned.id, planned.entry.generation);
  });
  if (table.kind === "uniform" || slotOf.length === 0) return Uint32Array.from(slotOf);
  const members = table.members.map((member) => row.backends[member]!);
  return maglevTable(members, maglevLength(members.length)).map((member) => slotOf[member]!);
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
function planSources(row: ServiceRow, held: Held, sources: Table): Set<string> {
  const ranges = row.sources?.ranges ?? [];
  const planned = new Set(ranges.map((range) => bytesToText(encodeSource(held.id, range))));
  const added = [...planned].filter((key) => sources.desired(key) === undefined).length;
  const { maxEntries } = sources;
  if (added > 0 && sources.desiredSize + added > maxEntries)
    throw new CapacityError("svc_sources", maxEntries);
  return planned;
}

function planName(row: ServiceRow): string {
  return bytesToText(
    encodeName({ ...row, protocol: PROTOCOLS[row.protocol], type: SERVICE_TYPES[row.type] }),
  );
}

/** What of a backend's entry can change while it is in use. */
export function sameEntry(
  actual: BackendEntry,
  wanted: Pick<BackendEntry, "listed" | "state" | "local">,
): boolean {
  return (
    actual.listed === wanted.listed &&
    actual.state === wanted.state &&
    actual.local === wanted.local
  );
}

function sameSlots(a: Uint32Array, b: Uint32Array): boolean {
  return a.length === b.length && a.every((slot, index) => slot === b[index]);
}

function sameWord(a: TableWord, b: TableWord | undefined): boolean {
  return a.offset === b?.offset && a.length === b.length && a.whenEmpty === b.whenEmpty;
}
