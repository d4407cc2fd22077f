// What the kernel holds, read from the pinned maps alone: agent or no agent. Writes nothing; a
// dump taken while an agent writes is taken again until it is of one moment.
import {
  backend,
  backendState,
  emptyAction,
  frontend,
  frontendKey,
  frontendKind,
  guard,
  limit,
  service,
  serviceName,
  sourceKey,
  table,
} from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import {
  type AddressRow,
  type BackendState,
  compareServices,
  compareText,
  type FrontendKind,
  type ServiceType,
  type SourceRow,
} from "../model/rows.ts";
import { bucketEntries } from "./buckets.ts";
import { type Meta, type OpenMaps, openProgrammed } from "./kernel.ts";
import { decodeSource, decodeTable } from "./maps.ts";
import type { Pins } from "./pins.ts";
import { readRanges } from "./ranges.ts";
import { readReasons } from "./reasons.ts";
import { decodeText } from "./restore.ts";
import { ACTION_WORDS, KIND_WORDS, PROTOCOL_WORDS, STATE_WORDS, TYPE_WORDS } from "./words.ts";

export type TableName = "internal" | "inside" | "outside";

/** One service port of one family. Counters are totals since it was first programmed. */
export interface DumpedService {
  namespace: string;
  name: string;
  /** The service port's name, empty if it has none. */
  port: string;
  protocol: string;
  family: 4 | 6;
  type: ServiceType;
  /** ClientIP affinity's timeout in seconds, 0 for none. */
  affinitySeconds: number;
  /** What the load balancer frontends accept; absent if they are open to all. */
  sources?: SourceRow;
  frontends: { kind: FrontendKind; address: string; port: number }[];
  endpoints: DumpedEndpoint[];
  /** Slots of each table, and what a new connection to it gets if there are none. */
  tables: Record<TableName, { slots: number; whenEmpty: "refuse" | "drop" }>;
  connections: number;
  refused: number;
  dropped: number;
  /** The id of the row in svc_services. */
  id: number;
}

export interface DumpedEndpoint {
  address: string;
  port: number;
  /** "serving": in no table any more, but UDP sockets that got it before keep it (§14.2). */
  state: BackendState | "serving";
  connections: number;
  /** The tables that list it. */
  tables: readonly TableName[];
  /** The id of the row in svc_backends. */
  id: number;
}

export interface Dump {
  node: string;
  services: DumpedService[];
  /** What becomes of other ports of addresses; of a restricted dump, of its Services' addresses. */
  addresses: AddressRow[];
  /** In which addresses that nobody has are dropped. */
  serviceRanges: string[];
  /** How often each reason came about on this node, by its word. */
  reasons: Record<string, number>;
}

/** Restricts a dump; absent means any. */
export interface DumpFilter {
  namespace?: string | undefined;
  name?: string | undefined;
}

const TABLES: readonly [TableName, number][] = [
  ["internal", table.TABLE_INTERNAL],
  ["inside", table.TABLE_INSIDE],
  ["outside", table.TABLE_OUTSIDE],
];
/** The names of the tables by the bits that a backend's `listed` has of them. */
const TABLES_BY_BITS: readonly (readonly TableName[])[] = Array.from(
  { length: 1 << TABLES.length },
  (_, bits) => TABLES.filter(([, bit]) => bits & (1 << bit)).map(([name]) => name),
);
const ATTEMPTS = 50;
const PAUSE_MS = 2;
/** A write takes milliseconds, a take-over by a build with other layouts some hundred. */
const PATIENCE_MS = 1000;

/** The pinned maps of a node, opened for reading. */
export class DumpReader {
  readonly #maps: OpenMaps;
  readonly #meta: Meta;
  readonly #services: DataView;
  readonly #backends: Uint8Array;
  readonly #buckets: Uint8Array;
  readonly #ranges: Uint8Array;

  private constructor(maps: OpenMaps, meta: Meta) {
    this.#maps = maps;
    this.#meta = meta;
    this.#services = viewOf(maps.svc_services.mmap({ readOnly: true }));
    this.#backends = maps.svc_backends.mmap({ readOnly: true });
    this.#buckets = maps.svc_frontends.mmap({ readOnly: true });
    this.#ranges = maps.svc_ranges.mmap({ readOnly: true });
  }

  /** Opens a folder's maps, or returns undefined if nothing is programmed. Throws LayoutError. */
  static open(pins: Pins): DumpReader | undefined {
    const opened = openProgrammed(pins);
    return opened && new DumpReader(opened.maps, opened.meta);
  }

  /** The counter of completed writes: changes whenever a dump would. */
  get sequence(): bigint {
    return this.#meta.sequence;
  }

  /** Reads everything, again if an agent wrote meanwhile. Sorted by namespace, name and port. */
  async read(filter: DumpFilter = {}): Promise<Dump> {
    for (let attempt = 1; ; attempt++) {
      const isWritten = await this.#untilWritten();
      const before = this.#meta.sequence;
      const rest = this.#readServices(filter);
      const serviceRanges = [...readRanges(this.#ranges).values()].sort(compareText);
      const isWhole = before === this.#meta.sequence;
      if (isWhole || !isWritten || attempt === ATTEMPTS)
        return {
          node: this.#meta.node,
          ...rest,
          serviceRanges,
          reasons: Object.fromEntries(readReasons(this.#maps.svc_reasons)),
        };
    }
  }

  /**
   * Waits for an agent that is writing, such as one that takes over; false if it takes so long that
   * it must have been killed meanwhile.
   */
  async #untilWritten(): Promise<boolean> {
    const deadline = performance.now() + PATIENCE_MS;
    while ((this.#meta.sequence & 1n) === 1n) {
      if (performance.now() > deadline) return false;
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    return true;
  }

  #readServices(filter: DumpFilter): Pick<Dump, "services" | "addresses"> {
    const services = new Map<number, DumpedService>();
    for (const { keys, values, count } of this.#maps.svc_names.entries()) {
      const ids = viewOf(keys);
      for (let index = 0; index < count; index++) {
        const id = ids.getUint32(index * 4, true);
        const name = readName(values, index * serviceName.bytes);
        if (matches(name, filter)) services.set(id, this.#readService(id, name));
      }
    }
    const addresses = this.#readFrontends(services);
    this.#readSources(services);
    this.#readBackends(services);
    const sorted = [...services.values()].sort(compareServices);
    for (const { frontends, endpoints } of sorted) {
      frontends.sort(byKindAndAddress);
      endpoints.sort(byAddress);
    }
    const isRestricted = filter.namespace !== undefined || filter.name !== undefined;
    const shown = isRestricted ? addresses.filter(isAtOneOf(sorted)) : addresses;
    return {
      services: sorted,
      addresses: shown.sort((a, b) => compareText(a.address, b.address)),
    };
  }

  #readService(id: number, name: DumpedName): DumpedService {
    const row = service.read(this.#services, id * service.bytes);
    const words = row.table.map(decodeTable).map(({ length, whenEmpty }) => ({
      slots: length,
      whenEmpty: whenEmptyName(whenEmpty),
    }));
    return {
      namespace: name.namespace,
      name: name.name,
      port: name.port,
      protocol: name.protocol,
      family: name.family,
      type: name.type,
      affinitySeconds: row.affinitySeconds,
      ...(row.guard === guard.GUARD_OPEN
        ? {}
        : { sources: { ranges: [], nodeAllowed: row.guard === guard.GUARD_NODE } }),
      frontends: [],
      endpoints: [],
      tables: { internal: words[0]!, inside: words[1]!, outside: words[2]! },
      connections: Number(row.departed),
      refused: Number(row.refused),
      dropped: Number(row.dropped),
      id,
    };
  }

  *#frontends(): Generator<{ keys: Uint8Array; values: Uint8Array; count: number }> {
    yield bucketEntries(this.#buckets);
    yield* this.#maps.svc_overflow.entries();
  }

  /** Gives each service its frontends, and returns the wildcards. */
  #readFrontends(services: Map<number, DumpedService>): AddressRow[] {
    const addresses: AddressRow[] = [];
    for (const { keys, values, count } of this.#frontends()) {
      const [keyView, valueView] = [viewOf(keys), viewOf(values)];
      for (let index = 0; index < count; index++) {
        const [key, value] = [index * frontendKey.bytes, index * frontend.bytes];
        const address = formatAddress(keys, key + frontendKey.offset.address);
        const kind = values[value + frontend.offset.kind]!;
        if (kind >= frontendKind.FRONTEND_REFUSE) {
          addresses.push({ address, action: ACTION_WORDS.get(kind) ?? "leave" });
          continue;
        }
        const owner = services.get(valueView.getUint32(value + frontend.offset.service, true));
        owner?.frontends.push({
          kind: KIND_WORDS.get(kind) ?? "clusterIP",
          address,
          port: keyView.getUint16(key + frontendKey.offset.port),
        });
      }
    }
    return addresses;
  }

  #readSources(services: Map<number, DumpedService>): void {
    const found = new Map<number, string[]>();
    for (const { keys, count } of this.#maps.svc_sources.entries())
      for (let index = 0; index < count; index++) {
        const at = index * sourceKey.bytes;
        const { service, range } = decodeSource(keys.subarray(at, at + sourceKey.bytes));
        const ranges = found.get(service);
        if (ranges) ranges.push(range);
        else found.set(service, [range]);
      }
    for (const [id, ranges] of found) {
      const owner = services.get(id);
      if (owner?.sources) owner.sources = { ...owner.sources, ranges: ranges.sort(compareText) };
    }
  }

  #readBackends(services: Map<number, DumpedService>): void {
    const bytes = this.#backends;
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    for (const id of usedRows(bytes)) {
      const owner = services.get(words[(id * backend.bytes + backend.offset.service) / 4]!);
      if (owner) addBackend(owner, id, { bytes, words });
    }
  }
}

/** The ids of the rows of svc_backends that are not free. */
function usedRows(bytes: Uint8Array): number[] {
  const used: number[] = [];
  const { state } = backend.offset;
  const rows = bytes.length / backend.bytes;
  for (let id = 0; id < rows; id++)
    if (bytes[id * backend.bytes + state] !== backendState.BACKEND_FREE) used.push(id);
  return used;
}

/** Without bigints or fractions on the way, which would make the many rows slow. */
function addBackend(
  owner: DumpedService,
  id: number,
  { bytes, words }: { bytes: Uint8Array; words: Uint32Array },
): void {
  const at = id * backend.bytes;
  const { offset } = backend;
  const counter = (at + offset.connections) / 4;
  const port = at + offset.port;
  const high = words[counter + 1]!;
  const connections = high === 0 ? words[counter]! : words[counter]! + high * 2 ** 32;
  owner.connections += connections;
  const listed = bytes[at + offset.listed]!;
  if (listed === 0) return;
  const tables = TABLES_BY_BITS[listed % TABLES_BY_BITS.length]!;
  const state = STATE_WORDS.get(bytes[at + offset.state]!) ?? "ready";
  owner.endpoints.push({
    address: formatAddress(bytes, at + offset.address),
    port: bytes[port]! * 256 + bytes[port + 1]!,
    state: tables.length === 0 ? "serving" : state,
    connections,
    tables,
    id,
  });
}

type DumpedName = Pick<
  DumpedService,
  "namespace" | "name" | "port" | "protocol" | "family" | "type"
>;

/** A value of svc_names. */
function readName(bytes: Uint8Array, at: number): DumpedName {
  const { offset } = serviceName;
  const protocol = bytes[at + offset.protocol]!;
  return {
    namespace: decodeText(bytes, at + offset.namespace, limit.NAME_BYTES),
    name: decodeText(bytes, at + offset.name, limit.NAME_BYTES),
    port: decodeText(bytes, at + offset.port, limit.NAME_BYTES),
    protocol: PROTOCOL_WORDS.get(protocol) ?? String(protocol),
    family: bytes[at + offset.family] === 6 ? 6 : 4,
    type: TYPE_WORDS.get(bytes[at + offset.type]!) ?? "ClusterIP",
  };
}

function matches(service: DumpedName, { namespace, name }: DumpFilter): boolean {
  return (
    (namespace === undefined || service.namespace === namespace) &&
    (name === undefined || service.name === name)
  );
}

/** Whether an address is one of some services' own. */
function isAtOneOf(services: readonly DumpedService[]): (row: AddressRow) => boolean {
  const own = new Set(services.flatMap(({ frontends }) => frontends.map((each) => each.address)));
  return ({ address }) => own.has(address);
}

function whenEmptyName(action: number): "refuse" | "drop" {
  return action === emptyAction.EMPTY_DROP ? "drop" : "refuse";
}

const KIND_ORDER: readonly FrontendKind[] = ["clusterIP", "externalIP", "loadBalancer", "nodePort"];

function byKindAndAddress(
  a: DumpedService["frontends"][number],
  b: DumpedService["frontends"][number],
): number {
  return KIND_ORDER.indexOf(a.kind) - KIND_ORDER.indexOf(b.kind) || byAddress(a, b);
}

function byAddress(a: { address: string; port: number }, b: { address: string; port: number }) {
  return compareText(a.address, b.address) || a.port - b.port;
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
