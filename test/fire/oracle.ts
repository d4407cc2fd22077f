// What lookups may find, in maps that the twin programs judge by (testdata/twin.h): each endpoint's
// address says whose it is and since when it is listed. Knows no dataplane.
import path from "node:path";
import { BpfMap, mapFlag, mapType } from "../../bindings/map.ts";
import { formatAddress, parseAddress } from "../../control/model/address.ts";
import type { BackendRow } from "../../control/model/rows.ts";

const TARGETS = 256;
const TARGET_BYTES = 32;
const LISTING_AT = 20;
const EXPECTED_AT = 24;
const OWNERS = 2048;
const READERS = 16;
const COUNTS = 24;
const FIRST_PORT = 1024;
const PORT_COUNT = 60000;
const TCP = 6;

/** What readers count, in the order of enum count. */
const NAMES = [
  "lookups",
  "forwarded",
  "absent",
  "kept",
  "passedOver",
  "inconsistent",
  "strangers",
  "withdrawn",
  "torn",
  "untranslated",
  "refused",
  "strayed",
] as const;
const VIOLATIONS = NAMES.slice(NAMES.indexOf("strangers"));
const SAMPLE_AT = NAMES.length;

export type Count = (typeof NAMES)[number];
export type Counts = Record<Count, number>;

/** What no lookup may ever do. */
export function violationsOf(counts: Counts): number {
  return VIOLATIONS.reduce((sum, name) => sum + counts[name], 0);
}

/** The owner that the endpoint at this address has, and since when it is listed. */
export interface Found {
  owner: number;
  since: number;
}

/** The endpoint of an owner (1 to 2047) that is listed since the given time (1 or later). */
export function makeEndpoint({ owner, since }: Found): BackendRow {
  const view = new DataView(new ArrayBuffer(16));
  view.setUint32(0, 0xfd000000 + owner);
  view.setUint32(4, since);
  view.setUint32(8, ~since);
  view.setUint32(12, owner * 65536 + 1);
  const port = FIRST_PORT + ((owner * 31 + since) % PORT_COUNT);
  const address = formatAddress(new Uint8Array(view.buffer));
  return { address, port, state: "ready", weight: 1, local: false };
}

/** The inverse of makeEndpoint(), from an address. Undefined if it is no such address. */
export function readEndpoint(address: string): Found | undefined {
  const bytes = parseAddress(address)?.bytes;
  if (bytes === undefined) return undefined;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const found = { owner: view.getUint16(2), since: view.getUint32(4) };
  return makeEndpoint(found).address === address ? found : undefined;
}

/** Which of its endpoints a frontend's table lists. */
export type Listing = "internal" | "inside";

/** A target before or after a lookup: who may answer, and since when its endpoints are listed. */
export interface Expectation {
  owner: number;
  previous: number;
  changes: number;
  lowest: number;
  lowestOfPrevious: number;
}

/**
 * What is wrong with an answer (undefined: untranslated), between two looks at the target:
 * undefined if nothing is, or if the target changed too often to tell. As judge() in twin.h.
 */
export function judge(
  found: Found | undefined,
  { before, after }: { before: Expectation; after: Expectation },
): string | undefined {
  if (after.changes - before.changes > 3) return undefined;
  const { owner, since } = found ?? { owner: 0, since: 0 };
  const allowed = [before.owner, before.previous, after.owner, after.previous];
  if (!allowed.includes(owner)) return owner === 0 ? "untranslated" : `stranger ${owner}`;
  const lowest = owner === before.owner ? before.lowest : before.lowestOfPrevious;
  const isKnown = owner === before.owner || owner === before.previous;
  return owner !== 0 && isKnown && since < lowest ? `withdrawn ${owner} since ${since}` : undefined;
}

/** The oracle as another process sees it. */
export class OracleReader {
  readonly #expected: BigUint64Array;
  readonly #listings: DataView;
  readonly #spans: Uint32Array;

  /** Opens the maps that an Oracle has pinned in this folder. */
  constructor(folder: string) {
    const [targets, spans] = ["fire_targets", "fire_spans"].map((name) => {
      const map = BpfMap.openPinned(path.join(folder, name));
      const bytes = map.mmap({ readOnly: true });
      map.close();
      return bytes;
    });
    this.#expected = new BigUint64Array(targets!.buffer, targets!.byteOffset);
    this.#listings = new DataView(targets!.buffer, targets!.byteOffset);
    this.#spans = new Uint32Array(spans!.buffer, spans!.byteOffset);
  }

  expectation(target: number): Expectation {
    const at = target * TARGET_BYTES;
    const word = Atomics.load(this.#expected, (at + EXPECTED_AT) / 8);
    const [owner, previous] = [Number(word & 0xffffn), Number((word >> 16n) & 0xffffn)];
    const listing = this.#listings.getUint32(at + LISTING_AT, true);
    const lowest = (of: number) => Atomics.load(this.#spans, (of * 2 + listing) * 2);
    return {
      owner,
      previous,
      changes: Number(word >> 32n),
      lowest: lowest(owner),
      lowestOfPrevious: lowest(previous),
    };
  }
}

export class Oracle {
  readonly #folder: string;
  readonly #targets: Uint8Array;
  readonly #expected: BigUint64Array;
  readonly #spans: Uint32Array;
  readonly #stats: BigUint64Array;
  #count = 0;

  /** Creates and pins its maps in a folder of a bpf file system. */
  constructor(folder: string) {
    this.#folder = folder;
    this.#targets = this.#create("fire_targets", { valueSize: TARGET_BYTES, maxEntries: TARGETS });
    this.#expected = new BigUint64Array(this.#targets.buffer, this.#targets.byteOffset);
    const spans = this.#create("fire_spans", { valueSize: 8, maxEntries: OWNERS * 2 });
    this.#spans = new Uint32Array(spans.buffer, spans.byteOffset);
    const stats = this.#create("fire_stats", { valueSize: COUNTS * 8, maxEntries: READERS });
    this.#stats = new BigUint64Array(stats.buffer, stats.byteOffset);
  }

  /** Frontends that are looked up. */
  get targetCount(): number {
    return this.#count;
  }

  /** Has a frontend's address and port looked up from now on; nobody owns it. */
  addTarget(address: Uint8Array, { port, listing }: { port: number; listing: Listing }): number {
    const target = this.#count++;
    if (this.#count > TARGETS) throw new RangeError(`More than ${TARGETS} targets`);
    const view = new DataView(
      this.#targets.buffer,
      this.#targets.byteOffset + target * TARGET_BYTES,
    );
    this.#targets.set(address, target * TARGET_BYTES);
    view.setUint16(16, port);
    view.setUint8(18, TCP);
    view.setUint32(LISTING_AT, listing === "inside" ? 1 : 0, true);
    return target;
  }

  /** From now on the new owner (0 for none) or the last one may answer for a target. */
  changeOwner(target: number, owner: number): void {
    const { owner: last } = this.#read(target);
    this.#write(target, { owner, previous: last });
  }

  /** From now on nobody but the present owner may answer. */
  settleOwner(target: number): void {
    const { owner } = this.#read(target);
    this.#write(target, { owner, previous: owner });
  }

  /** From now on endpoints listed since `highest` may be answered. */
  allow(owner: number, highest: number): void {
    for (const listing of [0, 1])
      Atomics.store(this.#spans, (owner * 2 + listing) * 2 + 1, highest);
  }

  /** No lookup that begins from now on may answer an endpoint that was listed before `lowest`. */
  forbid(owner: number, lowest: Record<Listing, number>): void {
    Atomics.store(this.#spans, owner * 4, lowest.internal);
    Atomics.store(this.#spans, owner * 4 + 2, lowest.inside);
  }

  /** What all readers have seen so far. */
  counts(): Counts {
    const counts = Object.fromEntries(NAMES.map((name) => [name, 0])) as Counts;
    for (let reader = 0; reader < READERS; reader++)
      NAMES.forEach((name, index) => {
        counts[name] += Number(Atomics.load(this.#stats, reader * COUNTS + index));
      });
    return counts;
  }

  /** The last violation that each reader met, for people. */
  samples(): string[] {
    return Array.from({ length: READERS }, (_, reader) => {
      const at = reader * COUNTS + SAMPLE_AT;
      const [target, before, after, high, low] = this.#stats.slice(at, at + 5);
      const hex = [before, after, high, low].map((word) => word!.toString(16));
      return before === 0n && after === 0n ? "" : `target ${target}: ${hex.join(" ")}`;
    }).filter((sample) => sample !== "");
  }

  #read(target: number): { owner: number; changes: number } {
    const word = Atomics.load(this.#expected, this.#index(target));
    return { owner: Number(word & 0xffffn), changes: Number(word >> 32n) };
  }

  #write(target: number, { owner, previous }: { owner: number; previous: number }): void {
    const changes = BigInt(this.#read(target).changes + 1);
    const word = BigInt(owner) | (BigInt(previous) << 16n) | (changes << 32n);
    Atomics.store(this.#expected, this.#index(target), word);
  }

  #index(target: number): number {
    return (target * TARGET_BYTES + EXPECTED_AT) / 8;
  }

  #create(name: string, sizes: { valueSize: number; maxEntries: number }): Uint8Array {
    const options = { type: mapType.ARRAY, keySize: 4, flags: mapFlag.MMAPABLE };
    const map = BpfMap.create({ name, ...options, ...sizes });
    map.pin(path.join(this.#folder, name));
    const bytes = map.mmap();
    map.close();
    return bytes;
  }
}
