// The maps in plain memory, with faults on demand: for tests, where the kernel is not wanted. The
// reader below does what bpf/balance.h does, step by step.
import {
  backend,
  client,
  frontend,
  frontendKey,
  frontendKind,
  guard,
  limit,
  service,
  serviceName,
  serviceRanges,
  slotPair,
  sourceKey,
} from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import {
  addressBytes,
  encodeFrontendKey,
  encodeSource,
  frontendCheck,
  type HashStore,
  Maps,
  type Storage,
  slotBackend,
  TABLE_COUNT,
} from "./maps.ts";
import { bytesToText, textToBytes } from "./table.ts";
import { ACTION_WORDS } from "./words.ts";

/** A hash map in memory. `fails` is asked before an entry is written, or some are removed. */
export class MemoryHash implements HashStore {
  readonly entriesByKey = new Map<string, string>();
  readonly maxEntries: number;
  fails: (key: string) => boolean = () => false;
  afterWrite: () => void = () => {};
  writes = 0;
  readonly #keyBytes: number;
  readonly #valueBytes: number;

  constructor(options: { keyBytes: number; valueBytes: number; maxEntries: number }) {
    this.#keyBytes = options.keyBytes;
    this.#valueBytes = options.valueBytes;
    this.maxEntries = options.maxEntries;
  }

  setBatch(keys: Uint8Array, values: Uint8Array): void {
    const count = keys.length / this.#keyBytes;
    for (let index = 0; index < count; index++) {
      const key = bytesToText(keys.subarray(index * this.#keyBytes, (index + 1) * this.#keyBytes));
      const isFull = !this.entriesByKey.has(key) && this.entriesByKey.size >= this.maxEntries;
      if (isFull || this.fails(key))
        throw Object.assign(new Error(isFull ? "E2BIG" : "ENOMEM"), { done: index });
      const from = index * this.#valueBytes;
      this.entriesByKey.set(key, bytesToText(values.subarray(from, from + this.#valueBytes)));
      this.writes++;
      this.afterWrite();
    }
  }

  deleteBatch(keys: Uint8Array): void {
    if (this.fails(bytesToText(keys.subarray(0, this.#keyBytes)))) throw new Error("EBUSY");
    for (let at = 0; at < keys.length; at += this.#keyBytes) {
      this.entriesByKey.delete(bytesToText(keys.subarray(at, at + this.#keyBytes)));
      this.writes++;
      this.afterWrite();
    }
  }

  *entries(): Generator<{ keys: Uint8Array; values: Uint8Array; count: number }> {
    for (const [key, value] of this.entriesByKey)
      yield { keys: textToBytes(key), values: textToBytes(value), count: 1 };
  }
}

export interface MemorySizes {
  services?: number;
  backends?: number;
  slots?: number;
  frontends?: number;
  sources?: number;
  clients?: number;
}

export interface MemoryStorage extends Storage {
  readonly frontends: MemoryHash;
  readonly names: MemoryHash;
  /** The addresses that were marked as endpoints'. */
  readonly endpoints: Set<string>;
  readonly sources: MemoryHash;
  readonly clients: MemoryHash;
}

/** Storage of the given sizes, in elements; a grace period is over at the next turn. */
export function memoryStorage(sizes: MemorySizes = {}): MemoryStorage {
  const { services = 64, backends = 256, slots = 4096, frontends = 256 } = sizes;
  const endpoints = new Set<string>();
  const { sources = 256, clients = 64 } = sizes;
  return {
    endpoints,
    markEndpoint: (address) => endpoints.add(formatAddress(address)),
    services: new Uint8Array(services * service.bytes),
    backends: new Uint8Array(backends * backend.bytes),
    slots: new Uint8Array(Math.ceil(slots / 2) * slotPair.bytes),
    frontends: new MemoryHash({
      keyBytes: frontendKey.bytes,
      valueBytes: frontend.bytes,
      maxEntries: frontends,
    }),
    names: new MemoryHash({ keyBytes: 4, valueBytes: serviceName.bytes, maxEntries: services }),
    sources: new MemoryHash({ keyBytes: sourceKey.bytes, valueBytes: 4, maxEntries: sources }),
    clients: new MemoryHash({ keyBytes: 8, valueBytes: client.bytes, maxEntries: clients }),
    ranges: new Uint8Array(serviceRanges.bytes),
    grace: () => new Promise((resolve) => setImmediate(resolve)),
    mark: () => {},
  };
}

/**
 * What a program would find for one frontend: per table the endpoints of its slots in order. For a
 * wildcard its kind.
 */
export type Found = Record<string, string[][]>;

/**
 * Looks every frontend up as the programs do. Throws if a reader could go wrong: a value that is
 * not its key's, a slot whose backend is another service's, of another generation, or not listed.
 */
export function readAll(storage: MemoryStorage): Found {
  const maps = new Maps(storage);
  const found: Found = {};
  for (const [keyText, valueText] of storage.frontends.entriesByKey) {
    const key = textToBytes(keyText);
    const keyView = new DataView(key.buffer);
    const value = new DataView(textToBytes(valueText).buffer);
    const name = `${formatAddress(key.subarray(0, 16))}|${keyView.getUint16(16)}|${key[18]}`;
    if (frontendCheck(key) !== value.getUint32(4, true) >>> 8)
      throw new Error(`Frontend ${name} has a value that is not its own`);
    const kind = value.getUint8(4);
    const id = value.getUint32(0, true);
    if (kind >= frontendKind.FRONTEND_REFUSE) {
      found[name] = [[ACTION_WORDS.get(kind)!]];
      continue;
    }
    found[name] = Array.from({ length: TABLE_COUNT }, (_, which) => readTable(maps, id, which));
    for (const endpoint of found[name].flat())
      if (!storage.endpoints.has(endpoint.split("|")[0]!))
        throw new Error(`Frontend ${name} leads to ${endpoint}, which is not marked`);
  }
  return found;
}

function readTable(maps: Maps, id: number, which: number): string[] {
  const { offset, length } = maps.readTable(id, which);
  return Array.from(maps.readSlots(offset, length), (slot) => {
    const row = maps.readBackend(slotBackend(slot));
    const place = `Slot of service ${id}, table ${which}, backend ${slotBackend(slot)}`;
    if (row.service !== id) throw new Error(`${place}: it belongs to service ${row.service}`);
    if ((row.generation & 0x3ff) !== slot >>> 22) throw new Error(`${place}: another generation`);
    if (!(row.listed & (1 << which))) throw new Error(`${place}: it is not listed`);
    return `${formatAddress(row.address)}|${row.port}`;
  });
}

/**
 * Whether a load balancer frontend may be asked from an address, or by a process of the node. As
 * source_verdict() in bpf/balance.h. Throws if there is no such frontend.
 */
export function isAllowed(
  storage: MemoryStorage,
  {
    frontend,
    source,
  }: { frontend: { address: string; port: number; protocol: number }; source: string },
): boolean {
  const address = addressBytes(frontend.address);
  const key = bytesToText(encodeFrontendKey({ ...frontend, address }));
  const value = storage.frontends.entriesByKey.get(key);
  if (value === undefined) throw new Error(`There is no frontend "${frontend.address}"`);
  const id = new DataView(textToBytes(value).buffer).getUint32(0, true);
  const guarded = new Maps(storage).readGuard(id);
  if (guarded === guard.GUARD_OPEN) return true;
  if (source === "node") return guarded === guard.GUARD_NODE;
  const bits = source.includes(":") ? limit.SOURCE_ADDRESS_BITS : 32;
  for (let length = bits; length >= 0; length--) {
    const range = bytesToText(encodeSource(id, `${source}/${length}`));
    if (storage.sources.entriesByKey.has(range)) return true;
  }
  return false;
}
