// Makes the maps say what the model says, in the only safe order: row by row backends, slots,
// source ranges, tables; then frontends, prune frontends, and what is free. A crash between two
// steps leaves a serving dataplane; what programs may still read is used again only after a grace
// period. Knows rows and maps, not Kubernetes.
import { backendState, sourceKey } from "../../bindings/layout.ts";
import { type AddressRow, PROTOCOLS, type ServiceRow } from "../model/rows.ts";
import { Addresses, addressOf, isWildcard } from "./addresses.ts";
import { CapacityError, type RowError } from "./errors.ts";
import type { Extent } from "./extents.ts";
import { Extents } from "./extents.ts";
import type { Serves } from "./flows.ts";
import { backendName, extentsOf, type Held, protocolOf } from "./held.ts";
import { Ids } from "./ids.ts";
import { addressBytes, decodeSource, encodeFrontendKey, type Maps, SOURCE_VALUE } from "./maps.ts";
import {
  isSettled,
  nameOf,
  type Plan,
  type PlannedBackend,
  type Pools,
  planService,
} from "./plan.ts";
import { ServiceRanges } from "./ranges.ts";
import { restore, serviceIdOf } from "./restore.ts";
import { bytesToText, type MapUsage, Table, type TableError, textToBytes } from "./table.ts";

export interface RowCounters {
  key: string;
  connections: number;
  refused: number;
  dropped: number;
}

/** Ids, extents and places that nothing refers to, but a program may. */
interface Quarantine {
  places: (() => void)[];
  backends: { id: number; service: number }[];
  extents: Extent[];
  services: Held[];
}

const { BACKEND_FREE } = backendState;
const EMPTY = (): Quarantine => ({ places: [], backends: [], extents: [], services: [] });

export class Dataplane {
  readonly #maps: Maps;
  readonly #pools: Pools;
  readonly #frontends: Table;
  readonly #names: Table;
  readonly #sources: Table;
  readonly #addresses: Addresses;
  readonly #ranges: ServiceRanges;
  readonly #held: Map<string, Held>;
  /** Rows to be programmed, or to be removed (undefined). */
  readonly #dirty = new Map<string, ServiceRow | undefined>();
  #closing: Held[];
  #quarantine = EMPTY();
  #releasing = false;
  #hasUdpDeparture = false;

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
    this.#sources = new Table(maps.storage.sources);
    this.#addresses = new Addresses(this.#frontends);
    this.#ranges = new ServiceRanges(maps.storage.ranges);
    const restored = restore({
      maps,
      pools: this.#pools,
      frontends: this.#frontends,
      names: this.#names,
      sources: this.#sources,
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

  /** How full each map is that the agent fills. */
  usage(): MapUsage[] {
    const { services, backends, extents } = this.#pools;
    const pool = (map: string, { used, capacity }: { used: number; capacity: number }) => {
      return { map, entries: used, capacity };
    };
    return [
      this.#frontends.usage("svc_frontends"),
      pool("svc_services", services),
      pool("svc_backends", backends),
      pool("svc_slots", extents),
      this.#names.usage("svc_names"),
      this.#sources.usage("svc_sources"),
      this.#ranges.usage(),
    ];
  }

  /** What each service row has counted since it was first programmed, by its key. */
  *counters(): Generator<RowCounters> {
    const sums = this.#maps.sumConnections(this.#pools.backends.end);
    for (const { key, id } of this.#held.values()) {
      const { departed, refused, dropped } = this.#maps.readCounters(id);
      yield { key, connections: sums[id]! + departed, refused, dropped };
    }
  }

  /** True while something waits to be written: for room, or for a write to succeed. */
  get isPending(): boolean {
    const isShort = this.#dirty.size > 0 || this.#addresses.isPending || this.#ranges.isPending;
    return isShort || this.#tablesPending > 0;
  }

  get #tablesPending(): number {
    const tables = [this.#frontends, this.#names, this.#sources];
    return tables.reduce((sum, { pendingCount }) => sum + pendingCount, 0);
  }

  /** True while ids wait for a grace period. */
  get hasQuarantine(): boolean {
    return Object.values(this.#quarantine).some((waiting) => waiting.length > 0);
  }

  /** Whether an endpoint of UDP has left since the last call: sockets may be connected to it. */
  takeUdpDeparture(): boolean {
    const taken = this.#hasUdpDeparture;
    this.#hasUdpDeparture = false;
    return taken;
  }

  /**
   * Whether an endpoint still serves those who asked a frontend, be it for them alone (§14.2), as
   * far as the maps say. Of a service that came since this was called, it says that it does.
   */
  servesFlows(): Serves {
    const byId = new Map(Array.from(this.#held.values(), (held) => [held.id, held]));
    const names = new WeakMap<Held["backends"], Set<string>>();
    return ({ protocol, frontend: { address, port }, backend }) => {
      const number = PROTOCOLS[protocol];
      const key = encodeFrontendKey({ address: addressBytes(address), port, protocol: number });
      const value = this.#frontends.actual.get(bytesToText(key));
      if (value === undefined || isWildcard(value)) return false;
      const held = byId.get(serviceIdOf(value));
      if (held === undefined || this.#held.get(held.key) !== held) return true;
      const known = names.get(held.backends) ?? new Set(held.backends.map(backendName));
      names.set(held.backends, known);
      return known.has(backendName(backend));
    };
  }

  /** Wants these rows, in place of earlier ones of the same key. Nothing is written yet. */
  replace(rows: Iterable<ServiceRow>): void {
    for (const row of rows) this.#dirty.set(row.key, row);
  }

  /** No longer wants these rows. Nothing is written yet. */
  remove(keys: Iterable<string>): void {
    for (const key of keys) this.#dirty.set(key, undefined);
  }

  /** Wants these addresses' undefined ports treated so (§7.5, §7.6). Nothing is written yet. */
  replaceAddresses(rows: Iterable<AddressRow>): void {
    this.#addresses.replace(rows);
  }

  /** No longer wants anything of these addresses' undefined ports. Nothing is written yet. */
  removeAddresses(addresses: Iterable<string>): void {
    this.#addresses.remove(addresses);
  }

  /**
   * Wants just these ranges ("address/length") to be for Services alone (§7.6): what nobody owns
   * there is dropped. Of more than there is room for, the first. Nothing is written yet. Throws
   * for what is no range.
   */
  setServiceRanges(ranges: Iterable<string>): void {
    this.#ranges.set(ranges);
  }

  /**
   * No longer wants any row, address or Service range but those replaced or set since the start:
   * ends a restart. To be called before the first flush.
   */
  removeOthers(): void {
    for (const key of this.#held.keys()) if (!this.#dirty.has(key)) this.#dirty.set(key, undefined);
    this.#addresses.removeOthers();
    this.#ranges.removeOthers();
  }

  /** Writes all that differs. Returns what could not be written; it stays pending. */
  flush(): RowError[] {
    const errors: RowError[] = [];
    this.#closeRemoved();
    // Each row is written before the next is planned: plans for all would take much memory.
    this.#writeRows(errors);
    errors.push(...this.#addresses.plan(), ...this.#ranges.errors());
    if (this.#tablesPending + this.#closing.length > 0 || this.#ranges.differs)
      errors.push(...this.#explain(this.#writeTables()));
    // Even if nothing was written: an agent before this one may have been killed in mid-write.
    this.#maps.storage.mark(false);
    return errors;
  }

  /**
   * Waits for a grace period and then makes what was given up usable again. Returns true if there
   * is more to do then: rows that found no room may fit, or something was given up meanwhile. Of
   * calls while one waits only that one says so.
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
    if (this.#dirty.size > 0 || this.hasQuarantine) return true;
    return this.#addresses.isPending || this.#ranges.differs;
  }

  /**
   * What rows share: frontends, whose services are in place by now, then what is no longer wanted.
   * Returns the writes that failed.
   */
  #writeTables(): TableError[] {
    this.#maps.storage.mark(true);
    const refused = this.#sources.writeAdditions();
    this.#ranges.writeRemovals();
    let failed = this.#frontends.writeAdditions();
    this.#ranges.writeAdditions();
    failed.push(...this.#frontends.writeRemovals());
    if (failed.length > 0) failed = this.#frontends.writeAdditions();
    failed.push(...this.#pruneSources(refused));
    this.#finishClosing();
    this.#giveUp();
    failed.push(...this.#names.writeAdditions(), ...this.#names.writeRemovals());
    return failed;
  }

  /**
   * Removes source ranges that are no longer wanted, once the new ones are in place: unless it is
   * the old ones that take their room, a client of both is let in throughout.
   */
  #pruneSources(refused: TableError[]): TableError[] {
    const { actual, maxEntries } = this.#sources;
    if (refused.length > 0 && actual.size < maxEntries) return refused;
    const failed = this.#sources.writeRemovals();
    return refused.length > 0 ? [...failed, ...this.#sources.writeAdditions()] : failed;
  }

  #giveUp(): void {
    for (const store of [this.#maps.storage.frontends, this.#ranges]) {
      const reuse = store.giveUp?.();
      if (reuse) this.#quarantine.places.push(reuse);
    }
  }

  /** After the grace period: nothing refers to these any more, and nobody is still reading them. */
  #free({ places, backends, extents, services }: Quarantine): void {
    this.#maps.storage.mark(true);
    for (const reuse of places) reuse();
    const gone = new Set(services.map(({ id }) => id));
    for (const { id, service } of backends) {
      if (!gone.has(service)) this.#maps.addDeparted(service, this.#maps.backendConnections(id));
      this.#maps.updateBackend(id, { state: BACKEND_FREE, listed: 0, local: false });
      this.#pools.backends.release(id);
    }
    for (const extent of extents) this.#pools.extents.release(extent);
    this.#freeServices(services);
    this.#maps.storage.mark(false);
  }

  /** Source ranges stay as long as readers of their service do, and its id as long as they. */
  #freeServices(services: readonly Held[]): void {
    for (const { sources } of services) for (const key of sources) this.#sources.remove(key);
    this.#sources.writeRemovals();
    for (const held of services) {
      this.#maps.clearService(held.id);
      if (held.sources.some((key) => this.#sources.actual.has(key))) this.#closing.push(held);
      else this.#pools.services.release(held.id);
    }
  }

  #requarantine({ places, backends, extents, services }: Quarantine): void {
    this.#quarantine.places.push(...places);
    this.#quarantine.backends.push(...backends);
    this.#quarantine.extents.push(...extents);
    this.#quarantine.services.push(...services);
  }

  /** Takes out the rows that are to be removed, so that they make room. */
  #closeRemoved(): void {
    for (const [key, row] of this.#dirty) {
      if (row) continue;
      this.#dirty.delete(key);
      const held = this.#held.get(key);
      if (held) this.#close(held);
    }
  }

  /** Plans and writes every dirty row. */
  #writeRows(errors: RowError[]): void {
    for (const [key, row] of this.#dirty) {
      try {
        const plan = planService(row!, this.#held.get(key), {
          maps: this.#maps,
          pools: this.#pools,
          frontends: this.#frontends,
          sources: this.#sources,
        });
        this.#dirty.delete(key);
        this.#setFrontends(plan);
        this.#setSources(plan);
        this.#setName(row!, plan);
        const isSettledRow = isSettled(plan, this.#maps) && this.#sources.pendingCount === 0;
        if (!isSettledRow) this.#maps.storage.mark(true);
        this.#writeRow(plan);
      } catch (error) {
        if (!(error instanceof CapacityError)) throw error;
        errors.push({ key, message: error.message });
      }
    }
  }

  #setFrontends({ held, frontends }: Plan): void {
    for (const key of held.frontends) if (!frontends.has(key)) this.#disown(key, held.id);
    for (const [key, value] of frontends) this.#frontends.set(key, value);
    held.frontends = [...frontends.keys()];
  }

  #setSources({ held, sources }: Plan): void {
    for (const key of held.sources) if (!sources.includes(key)) this.#sources.remove(key);
    for (const key of sources) this.#sources.set(key, bytesToText(SOURCE_VALUE));
    held.sources = sources;
  }

  /** All of a name but the type is in the key. */
  #setName(row: ServiceRow, { held }: Plan): void {
    if (held.type === row.type) return;
    this.#names.set(idText(held.id), nameOf(row));
    held.type = row.type;
  }

  /** Removes a frontend unless another service has taken it over. */
  #disown(key: string, id: number): void {
    const value = this.#frontends.desired(key);
    if (value !== undefined && serviceIdOf(value) === id) this.#frontends.remove(key);
  }

  #writeRow(plan: Plan): void {
    const { held, backends, sources, slots } = plan;
    this.#writeBackends(plan);
    for (const { offset, slots: extent } of slots) this.#maps.writeSlots(offset, extent);
    // Those that are refused are tried again, and told, with what rows share.
    if (sources.length > 0) this.#sources.writeAdditions();
    this.#flip(plan);
    // After the flip: what is no longer listed says so, and waits for the grace period.
    for (const planned of backends) if (planned) this.#maps.updateBackend(planned.id, planned);
    for (const id of plan.leavingBackends) this.#unlist(held, id);
    this.#quarantine.extents.push(...plan.leavingExtents);
    const kept = backends.filter((planned): planned is PlannedBackend => planned !== undefined);
    held.backends = kept.map(({ backend }) => backend);
    held.ids = kept.map(({ id }) => id);
    this.#held.set(held.key, held);
  }

  #writeBackends({ held, isNew, backends }: Plan): void {
    if (isNew) this.#maps.clearService(held.id);
    for (const planned of backends) {
      if (!planned) continue;
      const { id, backend, state, listed, local, generation } = planned;
      if (planned.isNew)
        this.#maps.writeBackend(id, {
          address: backend.address,
          port: backend.port,
          state,
          listed,
          local,
          generation,
          service: held.id,
        });
      else
        this.#maps.updateBackend(id, {
          state,
          local,
          listed: listed | this.#maps.backendListed(id),
        });
    }
  }

  #flip({ held, tables, flips, affinitySeconds, guard, externalLocal }: Plan): void {
    if (this.#maps.readAffinity(held.id) !== affinitySeconds)
      this.#maps.writeAffinity(held.id, affinitySeconds);
    if (this.#maps.readGuard(held.id) !== guard) this.#maps.writeGuard(held.id, guard);
    if (this.#maps.readExternalLocal(held.id) !== externalLocal)
      this.#maps.writeExternalLocal(held.id, externalLocal);
    for (const which of flips) this.#maps.writeTable(held.id, which, tables[which]!);
  }

  #unlist(held: Held, id: number): void {
    const local = this.#maps.isBackendLocal(id);
    this.#maps.updateBackend(id, { state: this.#maps.backendState(id), listed: 0, local });
    this.#quarantine.backends.push({ id, service: held.id });
    if (protocolOf(held.key) === "UDP") this.#hasUdpDeparture = true;
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
      for (const id of held.ids) this.#unlist(held, id);
      held.ids = held.backends = [];
      this.#quarantine.extents.push(...extentsOf(this.#maps.readTables(held.id)));
      this.#quarantine.services.push(held);
      return false;
    });
  }

  /** Whose frontend, source range or name a failed write was. */
  #explain(failed: TableError[]): RowError[] {
    const byId = new Map<number, string>();
    if (failed.length > 0) for (const held of this.#held.values()) byId.set(held.id, held.key);
    return failed.map(({ key, error: { message } }) => {
      const value = this.#frontends.desired(key) ?? this.#frontends.actual.get(key);
      if (value !== undefined && isWildcard(value)) return { key: addressOf(key), message };
      const id = value === undefined ? ownerOf(key) : serviceIdOf(value);
      return { key: byId.get(id) ?? `service id ${id}`, message };
    });
  }
}

/** The service id in a key of svc_sources or svc_names. */
function ownerOf(key: string): number {
  return key.length === sourceKey.bytes ? decodeSource(textToBytes(key)).service : serviceIdOf(key);
}

function idText(id: number): string {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setUint32(0, id, true);
  return bytesToText(bytes);
}
