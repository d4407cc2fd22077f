// What this node should serve, kept up to date object by object: events in, changed rows out. Each
// change marks the Services that it affects; only those are computed again. Knows nothing of where
// objects come from or what becomes of the rows.

import { canonicalAddress, formatRange } from "./address.ts";
import { AddressBook, type AddressChanges, addressClaims } from "./addressbook.ts";
import { Claims } from "./claims.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "./config.ts";
import type { Serving } from "./decision.ts";
import { type LocalDetector, makeDetector } from "./detector.ts";
import { findEndpoints, isSliceUsed } from "./endpoint.ts";
import { makeServiceRow, type NodeContext } from "./frontend.ts";
import { type HealthCheck, makeHealthCheck } from "./health.ts";
import {
  firstOfFamily,
  groupByFamily,
  type HostAddresses,
  listenAddresses,
  type NodePortAddresses,
  nodePortAddresses,
  overridePrimary,
  primaryAddresses,
} from "./nodeaddresses.ts";
import type {
  KubernetesObject,
  NodeObject,
  ObjectIdentity,
  Problem,
  ServiceObject,
  ServiceRangesObject,
  SliceObject,
} from "./objects.ts";
import type { ServiceRow } from "./rows.ts";
import { sameData } from "./same.ts";
import { servicePorts } from "./service.ts";

export interface ClusterOptions {
  nodeName: string;
  /** This node's addresses while no Node object names any (§9.6); first come the primary ones. */
  fallbackNodeAddresses: readonly string[];
  /** kube-proxy's defaults in nftables mode unless given. */
  config?: ProxyConfig;
}

/** What changed since the last batch. No two rows handed out ever list the same frontend. */
export interface Batch {
  /** Rows that are new or different. A row that lost a frontend to another is among them. */
  changed: ServiceRow[];
  /** Keys of rows that are no more. */
  removed: string[];
  /** What becomes of the other ports of addresses, and addresses that are nobody's any more. */
  addresses: AddressChanges;
  /** The ServiceCIDRs' ranges as they are now, "address/length", sorted: unowned addresses in
   * them are dropped (§7.6). */
  serviceRanges: readonly string[];
  /** Conflicts over frontends that are new, and those that no longer hold. */
  problems: Problem[];
  resolved: Problem[];
}

interface ServiceState {
  object: ServiceObject | undefined;
  /** Those that count, by name: the order that findEndpoints wants. */
  slices: readonly SliceObject[];
  /** Keys of the rows that it has or would have if all its frontends were its own. */
  rowKeys: readonly string[];
}

const NONE: readonly never[] = [];

function nameKey({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

/** The slices of a Service with one put in, in place of what has its name. */
function withSlice(slices: readonly SliceObject[], slice: SliceObject): readonly SliceObject[] {
  const at = slices.findIndex(({ name }) => name >= slice.name);
  if (at < 0) return [...slices, slice];
  return slices[at]!.name === slice.name ? slices.with(at, slice) : slices.toSpliced(at, 0, slice);
}

function withoutSlice(slices: readonly SliceObject[], name: string): readonly SliceObject[] {
  const left = slices.filter((slice) => slice.name !== name);
  return left.length === 0 ? NONE : left;
}

/** The desired state of one node. Objects may arrive in any order (§4.11). */
export class Cluster {
  readonly #nodeName: string;
  readonly #config: ProxyConfig;
  readonly #fallback: readonly string[];
  readonly #services = new Map<string, ServiceState>();
  /** Which Service's state holds a slice. */
  readonly #sliceOwners = new Map<string, string>();
  readonly #claims = new Claims();
  readonly #addresses = new AddressBook();
  readonly #rangeObjects = new Map<string, ServiceRangesObject>();
  /** Rows with all the frontends they claim, and rows as they were handed out. */
  readonly #wanted = new Map<string, ServiceRow>();
  readonly #handedOut = new Map<string, ServiceRow>();
  readonly #healthChecks = new Map<string, HealthCheck>();
  readonly #dirty = new Set<string>();
  #serviceRanges: readonly string[] = [];
  #areRangesTouched = false;
  #localAddresses: readonly string[] | undefined;
  /** What the Node object says, or last said before it went. */
  #node: NodeObject | undefined;
  #isNodeThere = false;
  #context: NodeContext;
  #detector: LocalDetector;

  constructor({ nodeName, fallbackNodeAddresses, config = DEFAULT_CONFIG }: ClusterOptions) {
    this.#nodeName = nodeName;
    this.#config = config;
    this.#fallback = canonicalAddresses(fallbackNodeAddresses);
    this.#context = this.#makeContext();
    this.#detector = makeDetector(config, { podRanges: [] });
  }

  /** Where node ports are served, and whether this node's own Node object says who it is. */
  get nodePorts(): { addresses: NodePortAddresses; fromNode: boolean } {
    const fromNode = this.#node !== undefined && primaryAddresses(this.#node) !== undefined;
    return { addresses: this.#context.nodePortAddresses, fromNode };
  }

  /** The addresses that the Node object says are this node's, first the primary ones. */
  get nodeAddresses(): string[] {
    const { ipv4, ipv6 } = this.#context.addresses.primary;
    const named = this.#node?.addresses.map(({ address }) => address) ?? [];
    const others = named.length > 0 ? named : this.#fallback;
    return [...new Set([...ipv4, ...ipv6, ...others])];
  }

  /** Where health-check node ports are listened on (§12.2). */
  get listenAddresses(): NodePortAddresses {
    const { addresses, nodePortAddresses: served } = this.#context;
    return listenAddresses(this.#config, { primary: addresses.primary, served });
  }

  /** The Services that load balancers ask this node about (§12), as of the last batch. */
  get healthChecks(): HealthCheck[] {
    return [...this.#healthChecks.values()];
  }

  /** This node's own Node object, as of now; undefined if there is none. */
  get nodeObject(): NodeObject | undefined {
    return this.#isNodeThere ? this.#node : undefined;
  }

  /** Tells pods from others, by the configuration and this Node's podCIDRs (§10.8). */
  get detector(): LocalDetector {
    return this.#detector;
  }

  /** This node as selection sees it: its name and zone. */
  get node(): NodeContext {
    return this.#context;
  }

  /**
   * Takes the addresses that the kernel calls local, loopback or not, in any text form. Until the
   * first call those of the Node object stand for them.
   */
  setLocalAddresses(addresses: readonly string[]): void {
    this.#localAddresses = canonicalAddresses(addresses).sort();
    this.#refreshContext();
  }

  /** Takes the present version of an object. One that changes nothing relevant costs nothing. */
  apply(object: KubernetesObject): void {
    if (object.kind === "Service") this.#setService(nameKey(object), object);
    else if (object.kind === "EndpointSlice") this.#setSlice(object, object);
    else if (object.kind === "ServiceCIDR") this.#setRanges(object.name, object);
    else if (object.name === this.#nodeName) this.#setNode(object);
  }

  /** Forgets an object; unknown ones are ignored. */
  remove(identity: ObjectIdentity): void {
    const key = nameKey(identity);
    if (identity.kind === "Service") this.#setService(key, undefined);
    else if (identity.kind === "EndpointSlice") this.#setSlice(identity, undefined);
    else if (identity.kind === "ServiceCIDR") this.#setRanges(identity.name, undefined);
    else if (identity.name === this.#nodeName) this.#setNode(undefined);
  }

  /** True if objects changed since the last batch in a way that may change rows. */
  get isDirty(): boolean {
    return this.#dirty.size > 0 || this.#areRangesTouched;
  }

  /** The rows that changed since the last call, and the conflicts found on the way. */
  takeDirty(): Batch {
    const touched = new Set<string>();
    for (const key of this.#dirty) this.#refresh(key, touched);
    this.#dirty.clear();
    const { rows, problems, resolved } = this.#claims.settle();
    for (const key of rows) touched.add(key);
    const addresses = this.#addresses.settle();
    this.#areRangesTouched = false;
    const serviceRanges = this.#serviceRanges;
    const batch: Batch = {
      changed: [],
      removed: [],
      addresses,
      serviceRanges,
      problems,
      resolved,
    };
    for (const key of touched) this.#handOut(key, batch);
    return batch;
  }

  /** Every row as last handed out. */
  rows(): ServiceRow[] {
    return [...this.#handedOut.values()];
  }

  /** Every Service there is, handled or not, with the slices of its that count, by name. */
  *services(): Generator<{ service: ServiceObject; slices: readonly SliceObject[] }> {
    for (const { object: service, slices } of this.#services.values()) {
      if (service !== undefined) yield { service, slices };
    }
  }

  /** Everything that decides about a packet, as last handed out. */
  serving(): Serving {
    return {
      rows: this.rows(),
      addresses: this.#addresses.rows(),
      serviceRanges: this.#serviceRanges,
      localAddresses: this.#context.addresses.local,
      detector: this.#detector,
      masqueradeAll: this.#config.masqueradeAll,
    };
  }

  #state(key: string): ServiceState {
    const known = this.#services.get(key);
    if (known !== undefined) return known;
    const state: ServiceState = { object: undefined, slices: NONE, rowKeys: NONE };
    this.#services.set(key, state);
    return state;
  }

  #setService(key: string, service: ServiceObject | undefined): void {
    if (service === undefined && !this.#services.has(key)) return;
    const isWhole = service === undefined || this.#config.externalIPs;
    const object = isWhole ? service : { ...service, externalIPs: [] };
    const state = this.#state(key);
    if (sameData(state.object, object)) return;
    state.object = object;
    this.#dirty.add(key);
  }

  #setSlice(identity: ObjectIdentity, slice: SliceObject | undefined): void {
    const key = nameKey(identity);
    const used = slice !== undefined && isSliceUsed(slice) ? slice : undefined;
    const before = this.#sliceOwners.get(key);
    const owner = used && nameKey({ namespace: used.namespace, name: used.serviceName });
    if (before !== undefined && before !== owner) {
      const state = this.#state(before);
      const { name } = identity;
      state.slices = withoutSlice(state.slices, name);
      this.#sliceOwners.delete(key);
      this.#dirty.add(before);
    }
    if (used === undefined || owner === undefined) return;
    const state = this.#state(owner);
    const known = state.slices.find(({ name }) => name === used.name);
    if (sameData(known, used)) return;
    state.slices = withSlice(state.slices, used);
    if (before !== owner) this.#sliceOwners.set(key, owner);
    this.#dirty.add(owner);
  }

  #setRanges(name: string, object: ServiceRangesObject | undefined): void {
    if (object === undefined) this.#rangeObjects.delete(name);
    else this.#rangeObjects.set(name, object);
    const ranges = [...this.#rangeObjects.values()].flatMap((each) => each.ranges);
    const texts = [...new Set(ranges.map(formatRange))].sort();
    if (sameData(texts, this.#serviceRanges)) return;
    this.#serviceRanges = texts;
    this.#areRangesTouched = true;
  }

  #makeContext(): NodeContext {
    const named = this.#node && primaryAddresses(this.#node);
    const internal = this.#node?.addresses.filter(({ type }) => type === "InternalIP") ?? [];
    const known = named ? internal.map(({ address }) => address) : this.#fallback;
    const addresses: HostAddresses = {
      primary: overridePrimary(named ?? firstOfFamily(groupByFamily(this.#fallback)), this.#config),
      local: this.#localAddresses ?? known,
    };
    return {
      topology: { name: this.#nodeName, zone: this.#node?.zone ?? "" },
      addresses,
      nodePortAddresses: nodePortAddresses(this.#config, addresses),
    };
  }

  #setNode(node: NodeObject | undefined): void {
    this.#isNodeThere = node !== undefined;
    // Whoever deletes a Node moves neither the machine nor its pods, and one that registers anew
    // is given addresses and ranges only after a while.
    if (node === undefined) return;
    const { addresses, podRanges } = this.#node ?? node;
    this.#node = {
      ...node,
      addresses: node.addresses.length > 0 ? node.addresses : addresses,
      podRanges: node.podRanges.length > 0 ? node.podRanges : podRanges,
    };
    this.#detector = makeDetector(this.#config, this.#node);
    this.#refreshContext();
  }

  /** Looks at this node anew, and marks the Services that a difference matters to. */
  #refreshContext(): void {
    const before = this.#context;
    const after = this.#makeContext();
    this.#context = after;
    const rezoned = before.topology.zone !== after.topology.zone;
    const readdressed = !sameData(before.nodePortAddresses, after.nodePortAddresses);
    const renamed = !sameData(before.addresses.primary, after.addresses.primary);
    if (!rezoned && !readdressed && !renamed) return;
    for (const [key, state] of this.#services) {
      const hinted = rezoned && hasZoneHints(state);
      const exposed = readdressed && state.object?.ports.some(({ nodePort }) => nodePort !== 0);
      const guarded = renamed && (state.object?.sourceRanges.length ?? 0) > 0;
      if (hinted || exposed || guarded) this.#dirty.add(key);
    }
  }

  /** Computes what a Service wants again, and notes in `touched` which rows that may change. */
  #refresh(key: string, touched: Set<string>): void {
    const state = this.#services.get(key);
    if (state === undefined) return;
    const rows = this.#makeRows(state);
    const rowKeys = rows.map((row) => row.key);
    this.#addresses.replace(key, state.object === undefined ? NONE : addressClaims(state.object));
    this.#refreshHealthCheck(key, state);
    for (const row of rows) {
      touched.add(row.key);
      this.#wanted.set(row.key, row);
      this.#claims.replace(row, { createdMs: state.object!.createdMs });
    }
    for (const rowKey of state.rowKeys) {
      if (rowKeys.includes(rowKey)) continue;
      touched.add(rowKey);
      this.#wanted.delete(rowKey);
      this.#claims.withdraw(rowKey);
    }
    state.rowKeys = rowKeys;
    if (state.object === undefined && state.slices.length === 0) this.#services.delete(key);
  }

  #refreshHealthCheck(key: string, { object, slices }: ServiceState): void {
    const node = this.#context.topology;
    const check = object && makeHealthCheck(object, { slices, node });
    if (check === undefined) this.#healthChecks.delete(key);
    else this.#healthChecks.set(key, check);
  }

  #makeRows({ object, slices }: ServiceState): ServiceRow[] {
    if (object === undefined) return [];
    return servicePorts(object).map((servicePort) => {
      const { family, port } = servicePort;
      const query = { name: port.name, protocol: port.protocol, family };
      const endpoints = findEndpoints(slices, query);
      return makeServiceRow(servicePort, { endpoints, node: this.#context });
    });
  }

  /** A row with the frontends it owns, or undefined: without any it is no row. */
  #settledRow(key: string): ServiceRow | undefined {
    const row = this.#wanted.get(key);
    if (row === undefined) return undefined;
    const frontends = this.#claims.owned(row);
    if (frontends.length === 0) return undefined;
    return frontends === row.frontends ? row : { ...row, frontends };
  }

  #handOut(key: string, { changed, removed }: Batch): void {
    const row = this.#settledRow(key);
    const before = this.#handedOut.get(key);
    if (row === undefined) {
      if (before !== undefined) removed.push(key);
      this.#handedOut.delete(key);
    } else if (!sameData(before, row)) {
      changed.push(row);
      this.#handedOut.set(key, row);
    }
  }
}

function canonicalAddresses(addresses: readonly string[]): string[] {
  return [...new Set(addresses.map(canonicalAddress).filter((address) => address !== undefined))];
}

function hasZoneHints({ slices }: ServiceState): boolean {
  for (const slice of slices) {
    if (slice.endpoints.some(({ zoneHints }) => zoneHints.length > 0)) return true;
  }
  return false;
}
