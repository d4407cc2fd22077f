// Makes the maps say what the model says, in the only safe order: backends, slots, tables,
// frontends, prune frontends, then what is free. A crash between two steps leaves a serving
// dataplane; what programs may still read is used again only after a grace period. Knows rows and
// maps, not Kubernetes.
import { backendState } from "../../bindings/layout.ts";
import type { ServiceRow } from "../model/rows.ts";
import type { Extent } from "./extents.ts";
import { Extents } from "./extents.ts";
import { extentsOf, type Held } from "./held.ts";
import { Ids } from "./ids.ts";
import type { Maps } from "./maps.ts";
import { CapacityError, isSettled, type Plan, type Pools, planService } from "./plan.ts";
import { restore, serviceIdOf } from "./restore.ts";
import { bytesToText, Table, type TableError } from "./table.ts";

/** A service row that is not, or not wholly, in the kernel. It stays pending. */
export interface RowError {
  key: string;
  message: string;
}

/** Ids, extents and places that nothing refers to, but a program may. */
interface Quarantine {
  places: (() => void)[];
  backends: { id: number; service: number }[];
  extents: Extent[];
  services: number[];
}

const EMPTY = (): Quarantine => ({ places: [], backends: [], extents: [], services: [] });

export class Dataplane {
  readonly #maps: Maps;
  readonly #pools: Pools;
  readonly #frontends: Table;
  readonly #names: Table;
  readonly #held: Map<string, Held>;
  /** Rows to be programmed, or to be removed (undefined). */
  readonly #dirty = new Map<string, ServiceRow | undefined>();
  #closing: Held[];
  #quarantine = EMPTY();
  #releasing = false;

  /** Takes over what the maps hold. */
  constructor(maps: Maps) {
    this.#maps = maps;
    this.#pools = {
      services: new Ids(maps.serviceCapacity),
      backends: new Ids(maps.backendCapacity),
      extents: new Extents(maps.slotCapacity),
    };
    this.#frontends = new Table(maps.storage.frontends);
    this.#names = new Table(maps.storage.names);
    const restored = restore({
      maps,
      pools: this.#pools,
      frontends: this.#frontends,
      names: this.#names,
    });
    this.#held = restored.held;
    this.#closing = [];
    this.#quarantine.backends = restored.leaving;
    for (const held of restored.closing) this.#close(held);
  }

  /** Service rows in the maps. */
  get size(): number {
    return this.#held.size;
  }

  /** True while something waits to be written: for room, or for a write to succeed. */
  get isPending(): boolean {
    return this.#dirty.size + this.#frontends.pendingCount + this.#names.pendingCount > 0;
  }

  /** True while ids wait for a grace period. */
  get hasQuarantine(): boolean {
    return Object.values(this.#quarantine).some((waiting) => waiting.length > 0);
  }

  /** Wants these rows, in place of earlier ones of the same key. Nothing is written yet. */
  replace(rows: Iterable<ServiceRow>): void {
    for (const row of rows) this.#dirty.set(row.key, row);
  }

  /** No longer wants these rows. Nothing is written yet. */
  remove(keys: Iterable<string>): void {
    for (const key of keys) this.#dirty.set(key, undefined);
  }

  /** No longer wants any row but those replaced since the start: ends a restart. */
  removeOthers(): void {
    for (const key of this.#held.keys()) if (!this.#dirty.has(key)) this.#dirty.set(key, undefined);
  }

  /** Writes all that differs. Returns the rows that could not be written; they stay pending. */
  flush(): RowError[] {
    const errors: RowError[] = [];
    const plans = this.#plan(errors);
    const writes = plans.some((plan) => !isSettled(plan, this.#maps));
    const tables = this.#frontends.pendingCount + this.#names.pendingCount;
    if (!writes && tables + this.#closing.length === 0) {
      this.#maps.storage.mark(false); // An agent before this one may have been killed in mid-write.
      return errors;
    }
    this.#maps.storage.mark(true);
    for (const plan of plans) this.#writeBackends(plan);
    for (const { slots } of plans)
      for (const extent of slots) this.#maps.writeSlots(extent.offset, extent.slots);
    for (const plan of plans) this.#flip(plan);
    let failed = this.#frontends.writeAdditions();
    failed.push(...this.#frontends.writeRemovals());
    if (failed.length > 0) failed = this.#frontends.writeAdditions();
    for (const plan of plans) this.#settle(plan);
    this.#finishClosing();
    const reuse = this.#maps.storage.frontends.giveUp?.();
    if (reuse) this.#quarantine.places.push(reuse);
    failed.push(...this.#names.writeAdditions(), ...this.#names.writeRemovals());
    this.#maps.storage.mark(false);
    errors.push(...this.#explain(failed));
    return errors;
  }

  /**
   * Waits for a grace period and then makes what was given up usable again. Returns true if rows
   * that found no room may fit now.
   */
  async release(): Promise<boolean> {
    if (this.#releasing || !this.hasQuarantine) return false;
    this.#releasing = true;
    const waiting = this.#quarantine;
    this.#quarantine = EMPTY();
    try {
      await this.#maps.storage.grace();
    } catch (error) {
      this.#requarantine(waiting);
      throw error;
    } finally {
      this.#releasing = false;
    }
    this.#free(waiting);
    return this.#dirty.size > 0;
  }

  /** After the grace period: nothing refers to these any more, and nobody is still reading them. */
  #free({ places, backends, extents, services }: Quarantine): void {
    this.#maps.storage.mark(true);
    for (const reuse of places) reuse();
    const gone = new Set(services);
    for (const { id, service } of backends) {
      if (!gone.has(service)) this.#maps.addDeparted(service, this.#maps.backendConnections(id));
      const entry = this.#maps.readBackend(id);
      this.#maps.writeBackendWord(id, { ...entry, state: backendState.BACKEND_FREE, listed: 0 });
      this.#pools.backends.release(id);
    }
    for (const extent of extents) this.#pools.extents.release(extent);
    for (const id of services) {
      this.#maps.clearService(id);
      this.#pools.services.release(id);
    }
    this.#maps.storage.mark(false);
  }

  #requarantine({ places, backends, extents, services }: Quarantine): void {
    this.#quarantine.places.push(...places);
    this.#quarantine.backends.push(...backends);
    this.#quarantine.extents.push(...extents);
    this.#quarantine.services.push(...services);
  }

  /** Plans every dirty row; removals first, so that they make room. */
  #plan(errors: RowError[]): Plan[] {
    for (const [key, row] of this.#dirty) {
      if (row) continue;
      this.#dirty.delete(key);
      const held = this.#held.get(key);
      if (held) this.#close(held);
    }
    const plans: Plan[] = [];
    for (const [key, row] of this.#dirty) {
      try {
        const plan = planService(row!, this.#held.get(key), {
          maps: this.#maps,
          pools: this.#pools,
          frontends: this.#frontends,
        });
        this.#setFrontends(plan);
        plans.push(plan);
        this.#dirty.delete(key);
      } catch (error) {
        if (!(error instanceof CapacityError)) throw error;
        errors.push({ key, message: error.message });
      }
    }
    return plans;
  }

  #setFrontends(plan: Plan): void {
    const { held, frontends } = plan;
    for (const key of held.frontends) if (!frontends.has(key)) this.#disown(key, held.id);
    for (const [key, value] of frontends) this.#frontends.set(key, value);
    held.frontends = new Set(frontends.keys());
    this.#names.set(idText(held.id), plan.name);
  }

  /** Removes a frontend unless another service has taken it over. */
  #disown(key: string, id: number): void {
    const value = this.#frontends.desired(key);
    if (value !== undefined && serviceIdOf(value) === id) this.#frontends.remove(key);
  }

  #writeBackends({ held, isNew, backends }: Plan): void {
    if (isNew) this.#maps.clearService(held.id);
    for (const [name, { id, isNew, entry }] of backends) {
      if (isNew) this.#maps.writeBackend(id, entry);
      else this.#writeListed(id, { ...entry, listed: entry.listed | this.#listed(id) });
      held.backends.set(name, id);
    }
  }

  #listed(id: number): number {
    return this.#maps.readBackend(id).listed;
  }

  #writeListed(id: number, entry: { listed: number; state: number }): void {
    const actual = this.#maps.readBackend(id);
    if (actual.listed === entry.listed && actual.state === entry.state) return;
    this.#maps.writeBackendWord(id, { ...actual, listed: entry.listed, state: entry.state });
  }

  #flip({ held, tables, flips, affinitySeconds }: Plan): void {
    if (this.#maps.readAffinity(held.id) !== affinitySeconds)
      this.#maps.writeAffinity(held.id, affinitySeconds);
    for (const which of flips) this.#maps.writeTable(held.id, which, tables[which]!);
    held.tables = tables;
    this.#held.set(held.key, held);
  }

  /** After the flip: what is no longer listed says so, and waits for the grace period. */
  #settle({ held, backends, leavingBackends, leavingExtents }: Plan): void {
    for (const { id, entry } of backends.values()) this.#writeListed(id, entry);
    for (const name of leavingBackends) this.#unlist(held, name);
    this.#quarantine.extents.push(...leavingExtents);
  }

  #unlist(held: Held, name: string): void {
    const id = held.backends.get(name)!;
    held.backends.delete(name);
    this.#writeListed(id, { ...this.#maps.readBackend(id), listed: 0 });
    this.#quarantine.backends.push({ id, service: held.id });
  }

  #close(held: Held): void {
    if (this.#held.get(held.key) === held) this.#held.delete(held.key);
    for (const key of held.frontends) this.#disown(key, held.id);
    this.#names.remove(idText(held.id));
    this.#closing.push(held);
  }

  /** A service whose frontends are gone from the kernel has no more readers than those at work. */
  #finishClosing(): void {
    this.#closing = this.#closing.filter((held) => {
      for (const key of held.frontends) {
        const value = this.#frontends.actual.get(key);
        if (value !== undefined && serviceIdOf(value) === held.id) return true;
      }
      for (const name of [...held.backends.keys()]) this.#unlist(held, name);
      this.#quarantine.extents.push(...extentsOf(held.tables));
      this.#quarantine.services.push(held.id);
      return false;
    });
  }

  /** Whose frontend or name a failed write was. */
  #explain(failed: TableError[]): RowError[] {
    const byId = new Map<number, string>();
    if (failed.length > 0) for (const held of this.#held.values()) byId.set(held.id, held.key);
    return failed.map(({ key, error }) => {
      const value = this.#frontends.desired(key) ?? this.#frontends.actual.get(key);
      const id = value === undefined ? serviceIdOf(key) : serviceIdOf(value);
      return { key: byId.get(id) ?? `service id ${id}`, message: error.message };
    });
  }
}

function idText(id: number): string {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, id, true);
  return bytesToText(bytes);
}
