// Makes the maps say what the model says, in the only safe order: backends, slots, source ranges,
// tables, frontends, prune frontends, then what is free. A crash between two steps leaves a serving
// dataplane; what programs may still read is used again only after a grace period. Knows rows and
// maps, not Kubernetes.
import { backendState, sourceKey } from "../../bindings/layout.ts";
import { type AddressRow, PROTOCOLS, type ServiceRow } from "../model/rows.ts";
import { Addresses, addressOf, isWildcard } from "./addresses.ts";
import { CapacityError, type RowError } from "./errors.ts";
import type { Extent } from "./extents.ts";
import { Extents } from "./extents.ts";
import type { Serves } from "./flows.ts";
import { backendName, extentsOf, type Held, protocolOf } from "./held.ts";
import { Ids } from "./ids.ts";
import {
  addressBytes,
  type BackendEntry,
  decodeSource,
  encodeFrontendKey,
  type Maps,
  SOURCE_VALUE,
} from "./maps.ts";
import { isSettled, type Plan, type Pools, planService, sameEntry } from "./plan.ts";
import { ServiceRanges } from "./ranges.ts";
import { restore, serviceIdOf } from "./restore.ts";
import { bytesToText, Table, type TableError, textToBytes } from "./table.ts";

/** Ids, extents and places that nothing refers to, but a program may. */
interface Quarantine {
  places: (() => void)[];
  backends: { id: number; service: number }[];
  extents: Extent[];
  services: Held[];
}

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
   * far as the maps say. Good until the next flush.
   */
  servesFlows(): Serves {
    const byId = new Map(Array.from(this.#held.values(), (held) => [held.id, held]));
    return ({ protocol, frontend: { address, port }, backend }) => {
      const number = PROTOCOLS[protocol];
      const key = encodeFrontendKey({ address: addressBytes(address), port, protocol: number });
      const value = this.#frontends.actual.get(bytesToText(key));
      if (value === undefined || isWildcard(value)) return false;
      return byId.get(serviceIdOf(value))?.backends.has(backendName(backend)) ?? false;
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
    const plans = this.#plan(errors);
    errors.push(...this.#addresses.plan(), ...this.#ranges.errors());
    if (!this.#differs(plans)) {
      this.#maps.storage.mark(false); // An agent before this one may have been killed in mid-write.
      return errors;
    }
    this.#maps.storage.mark(true);
    this.#ranges.writeRemovals();
    for (const plan of plans) this.#writeBackends(plan);
    for (const { slots } of plans)
      for (const extent of slots) this.#maps.writeSlots(extent.offset, extent.slots);
    const refused = this.#sources.writeAdditions();
    for (const plan of plans) this.#flip(plan);
    let failed = this.#frontends.writeAdditions();
    this.#ranges.writeAdditions();
    failed.push(...this.#frontends.writeRemovals());
    if (failed.length > 0) failed = this.#frontends.writeAdditions();
    for (const plan of plans) this.#settle(plan);
    failed.push(...this.#pruneSources(refused));
    this.#finishClosing();
    this.#giveUp();
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
    return this.#dirty.size > 0 || this.#addresses.isPending || this.#ranges.differs;
  }

  #differs(plans: readonly Plan[]): boolean {
    if (this.#tablesPending + this.#closing.length > 0 || this.#ranges.differs) return true;
    return plans.some((plan) => !isSettled(plan, this.#maps));
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
      const entry = this.#maps.readBackend(id);
      this.#maps.writeBackendWord(id, { ...entry, state: backendState.BACKEND_FREE, listed: 0 });
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
      if ([...held.sources].some((key) => this.#sources.actual.has(key))) {
        this.#closing.push(held);
        continue;
      }
      this.#maps.clearService(held.id);
      this.#pools.services.release(held.id);
    }
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
          sources: this.#sources,
        });
        this.#setFrontends(plan);
        this.#setSources(plan);
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

  #setSources({ held, sources }: Plan): void {
    for (const key of held.sources) if (!sources.has(key)) this.#sources.remove(key);
    for (const key of sources) this.#sources.set(key, bytesToText(SOURCE_VALUE));
    held.sources = sources;
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

  #writeListed(id: number, entry: Pick<BackendEntry, "listed" | "state" | "local">): void {
    const actual = this.#maps.readBackend(id);
    if (sameEntry(actual, entry)) return;
    const { listed, state, local } = entry;
    this.#maps.writeBackendWord(id, { ...actual, listed, state, local });
  }

  #flip({ held, tables, flips, affinitySeconds, guard, externalLocal }: Plan): void {
    if (this.#maps.readAffinity(held.id) !== affinitySeconds)
      this.#maps.writeAffinity(held.id, affinitySeconds);
    if (this.#maps.readGuard(held.id) !== guard) this.#maps.writeGuard(held.id, guard);
    if (this.#maps.readExternalLocal(held.id) !== externalLocal)
      this.#maps.writeExternalLocal(held.id, externalLocal);
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
      for (const name of [...held.backends.keys()]) this.#unlist(held, name);
      this.#quarantine.extents.push(...extentsOf(held.tables));
      held.tables = [];
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
