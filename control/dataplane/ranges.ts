// svc_ranges: the address ranges that are for Services alone. A range changes only while its bit
// says that it is not in force, and a grace period after it was: no program reads half of one.
// Knows addresses, not what is at them.
import { limit, serviceRange, serviceRanges } from "../../bindings/layout.ts";
import { CapacityError, type RowError } from "./errors.ts";
import { formatRange, rangeBytes } from "./maps.ts";
import type { MapUsage } from "./table.ts";

const PLACES = limit.SERVICE_RANGES;

/** The ranges in force in a mapped svc_ranges, as text, by their place. */
export function readRanges(bytes: Uint8Array): Map<number, string> {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const { active } = serviceRanges.read(view, 0);
  const ranges = new Map<number, string>();
  for (let place = 0; place < PLACES; place++)
    if (active & (1 << place)) {
      const { address, mask } = serviceRange.read(view, rangeOffset(place));
      const bits = mask.reduce((sum, byte) => sum + popCount(byte), 0);
      ranges.set(place, formatRange(address, bits));
    }
  return ranges;
}

export class ServiceRanges {
  readonly #view: DataView;
  readonly #active: Uint32Array;
  /** What is in force, by place. */
  readonly #places: Map<number, string>;
  readonly #resting = new Set<number>();
  #givenUp: number[] = [];
  #wanted: ReadonlySet<string>;
  #wasSet = false;
  #leftOut: readonly string[] = [];

  /** Takes over what the memory holds, which stays wanted until set() is called. */
  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#active = new Uint32Array(bytes.buffer, bytes.byteOffset, 1);
    this.#places = readRanges(bytes);
    this.#wanted = new Set(this.#places.values());
  }

  /** Wants just these ranges; of more than there is room for, the first. Throws for no range. */
  set(ranges: Iterable<string>): void {
    this.#wasSet = true;
    const canonical = [...new Set([...ranges].map(canonicalRange))];
    this.#wanted = new Set(canonical.slice(0, PLACES));
    this.#leftOut = canonical.slice(PLACES);
  }

  /** Wants none, unless some were set since the start. */
  removeOthers(): void {
    if (!this.#wasSet) this.set([]);
  }

  /** True while something waits to be written, or for room. */
  get isPending(): boolean {
    return this.#leftOut.length + this.#missing().length + this.#unwanted().length > 0;
  }

  /** True if something can be written now. */
  get differs(): boolean {
    if (this.#unwanted().length > 0) return true;
    return this.#missing().length > 0 && this.#freePlace() !== undefined;
  }

  /** How full the map is, in ranges. */
  usage(): MapUsage {
    return { map: "svc_ranges", entries: this.#places.size, capacity: PLACES };
  }

  /** The ranges for which there is no room. */
  errors(): RowError[] {
    if (this.#leftOut.length === 0) return [];
    const { message } = new CapacityError("svc_ranges", PLACES);
    return this.#leftOut.map((key) => ({ key, message }));
  }

  /** Takes out of force what is not wanted. */
  writeRemovals(): void {
    for (const place of this.#unwanted()) {
      this.#places.delete(place);
      this.#resting.add(place);
      this.#givenUp.push(place);
      Atomics.and(this.#active, 0, ~(1 << place));
    }
  }

  /** Puts in force what is new, as far as places are free. */
  writeAdditions(): void {
    for (const range of this.#missing()) {
      const place = this.#freePlace();
      if (place === undefined) return;
      const { address, bits } = rangeBytes(range);
      serviceRange.write(this.#view, rangeOffset(place), { address, mask: maskOf(bits) });
      Atomics.or(this.#active, 0, 1 << place);
      this.#places.set(place, range);
    }
  }

  /** As HashStore.giveUp(). */
  giveUp(): (() => void) | undefined {
    if (this.#givenUp.length === 0) return undefined;
    const places = this.#givenUp;
    this.#givenUp = [];
    return () => {
      for (const place of places) this.#resting.delete(place);
    };
  }

  #missing(): string[] {
    const present = new Set(this.#places.values());
    return [...this.#wanted].filter((range) => !present.has(range));
  }

  #unwanted(): number[] {
    return [...this.#places].flatMap(([place, range]) => (this.#wanted.has(range) ? [] : [place]));
  }

  #freePlace(): number | undefined {
    for (let place = 0; place < PLACES; place++)
      if (!this.#places.has(place) && !this.#resting.has(place)) return place;
    return undefined;
  }
}

function rangeOffset(place: number): number {
  return serviceRanges.offset.range + place * serviceRanges.stride.range;
}

function canonicalRange(text: string): string {
  const { address, bits } = rangeBytes(text);
  return formatRange(address, bits);
}

export function maskOf(bits: number): Uint8Array {
  return Uint8Array.from({ length: 16 }, (_, index) => {
    const kept = Math.min(8, Math.max(0, bits - index * 8));
    return 0xff & (0xff00 >> kept);
  });
}

function popCount(byte: number): number {
  let count = 0;
  for (let rest = byte; rest > 0; rest >>= 1) count += rest & 1;
  return count;
}
