// Two processes, each on a CPU of its own, that begin, look up and end connections in one flow
// table (testdata/flows.bpf.c), and what they counted. Knows what a violation is, not which are
// expected.
import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { node as nodeLayout } from "../../bindings/layout.ts";
import { BpfMap, mapFlag, mapType } from "../../bindings/map.ts";
import { loadObject, openPinned } from "../../control/dataplane/kernel.ts";
import { addressBytes } from "../../control/dataplane/maps.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { Readers } from "../fire/readers.ts";

const RACERS = 2;
const COUNTS = 16;
/** What racers count, in the order of enum count. */
const NAMES = [
  "lookups",
  "found",
  "inserted",
  "portChanged",
  "lost",
  "ended",
  "torn",
  "stranger",
  "half",
  "shared",
] as const;
export type RaceCounts = Record<(typeof NAMES)[number], number>;

/** What a protection is called in the program, for those that are taken out. */
export const WITHOUT = { nothing: 0, recheck: 1, busy: 2, whole: 3, alone: 4 } as const;

export interface Race {
  /** Connections that there may be at once. */
  clients: number;
  /** Elements of the table that a connection may be in first; with 1 all have one in common. */
  sets: number;
  /** All clients would like the same port at the same endpoint. */
  samePort?: boolean;
  /** There is room for all: nothing gives way. */
  isAmple?: boolean;
  without?: keyof typeof WITHOUT;
  /** The longest pause within a read and within a write, in nanoseconds; then of one half alone. */
  pauseNs?: number;
  seconds: number;
  /** Ends it before its time. */
  until?: (counts: RaceCounts) => boolean;
}

/** Elements of the table. */
export const SETS = 1024;

/** A flow table for races, one after the other. */
export class Racecourse {
  readonly #folder: string;
  readonly #pins: Pins;
  readonly #lock: { release(): void };
  readonly #flows: BpfMap;
  readonly #stats: BigUint64Array;

  constructor() {
    this.#folder = `/sys/fs/bpf/race-${process.pid}`;
    mkdirSync(this.#folder);
    this.#pins = new Pins(this.#folder);
    this.#lock = this.#pins.open();
    loadObject(this.#pins, { rodata: {}, capacities: { svc_flows: SETS } }).object.close();
    const maps = openPinned(this.#pins)!;
    maps.svc_node.set(new Uint8Array(4), describeNode());
    this.#flows = maps.svc_flows;
    this.#stats = makeStats(this.#folder);
  }

  close(): void {
    this.#lock.release();
    rmSync(this.#folder, { recursive: true });
  }

  /** Runs a race that begins with no connection. */
  async run(given: Race): Promise<RaceCounts> {
    this.#flows.withMemory((memory) => memory.fill(0));
    this.#stats.fill(0n);
    const readers = await this.#start(given);
    try {
      const end = performance.now() + given.seconds * 1000;
      while (performance.now() < end && !given.until?.(this.#read())) await delay(20);
      readers.check();
    } finally {
      await readers.stop();
    }
    return this.#read();
  }

  #start(given: Race): Promise<Readers> {
    return Readers.start(RACERS, {
      object: path.join(import.meta.dirname, "testdata/flows"),
      folders: [this.#folder, path.dirname(this.#pins.mapPath("svc_meta"))],
      rodata: {
        flow_set_mask: given.sets - 1,
        reader_count: RACERS,
        clients: given.clients,
        same_port: given.samePort ? 1 : 0,
        is_ample: given.isAmple ? 1 : 0,
        without: WITHOUT[given.without ?? "nothing"],
        pause_ns: given.pauseNs ?? 0,
      },
    });
  }

  #read(): RaceCounts {
    const total = (index: number) =>
      Array.from({ length: RACERS }, (_, racer) => this.#stats[racer * COUNTS + index]!);
    const sums = NAMES.map((name, index) => [name, Number(total(index).reduce((a, b) => a + b))]);
    return Object.fromEntries(sums);
  }
}

function makeStats(folder: string): BigUint64Array {
  const map = BpfMap.create({
    type: mapType.ARRAY,
    name: "race_stats",
    keySize: 4,
    valueSize: COUNTS * 8,
    maxEntries: 16,
    flags: mapFlag.MMAPABLE,
  });
  map.pin(path.join(folder, "race_stats"));
  const bytes = map.mmap();
  map.close();
  return new BigUint64Array(bytes.buffer, bytes.byteOffset);
}

/** One address to send from, and nearly any port. */
function describeNode(): Uint8Array {
  const { offset, stride, bytes } = nodeLayout;
  const value = new Uint8Array(bytes);
  const view = new DataView(value.buffer);
  value.set(addressBytes("fd00::1"), offset.source + stride.source);
  for (let at = 0; at < 40; at++) view.setUint8(offset.hashKey + at, (at * 73 + 17) & 0xff);
  view.setUint16(offset.natFirst, 10_000, true);
  view.setUint16(offset.natCount, 20_000, true);
  for (const field of ["hostFirst", "hostLast", "nodePortFirst", "nodePortLast"] as const)
    view.setUint16(offset[field], 65_535, true);
  return value;
}
