// Maglev tables: what building one costs beside the paper's own procedure, how even they are, and
// how many connections of endpoints that stay move when one leaves. In this process alone.
import { type MaglevBackend, maglevLength, maglevTable } from "../control/model/maglev.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { endpointAddress } from "./services.ts";
import { ratios } from "./statistics.ts";

const COUNTS = [10, 100, 1000] as const;
const ROUNDS = 20;
const TRIES = 5;
/** Tables to a measurement: about as long for each size. */
const TABLES: Readonly<Record<number, number>> = { 10: 500, 100: 10, 1000: 2 };
/** Endpoints of which each leaves once. */
const LEAVING = 10;
const NS_PER_US = 1e3;

function makeBackends(count: number): MaglevBackend[] {
  return Array.from({ length: count }, (_, index) => {
    // Not in a row: addresses of pods lie all over the cluster.
    const address = endpointAddress((index * 7919) % 4_000_000);
    return { address, port: 8080, weight: 1 };
  });
}

/**
 * The procedure as the paper has it (Eisenbud et al., NSDI 2016, pseudocode 1), with the whole
 * permutation by multiplication and remainder, over the same kind of hashes.
 */
function populate(offsets: readonly number[], skips: readonly number[], length: number) {
  const count = offsets.length;
  const next = new Uint32Array(count);
  const entry = new Int32Array(length).fill(-1);
  for (let filled = 0; ; )
    for (let index = 0; index < count; index++) {
      let slot = (offsets[index]! + next[index]! * skips[index]!) % length;
      while (entry[slot]! >= 0) {
        next[index]! += 1;
        slot = (offsets[index]! + next[index]! * skips[index]!) % length;
      }
      entry[slot] = index;
      next[index]! += 1;
      if (++filled === length) return entry;
    }
}

/** FNV-1a, the shortest hash that is good enough for a comparison. */
function hash(text: string, seed: number): number {
  let value = seed;
  for (let index = 0; index < text.length; index++)
    value = Math.imul(value ^ text.charCodeAt(index), 0x01000193);
  return value >>> 0;
}

function paperTable(backends: readonly MaglevBackend[], length: number): Int32Array {
  const names = backends.map(({ address, port }) => `${address}:${port}`);
  const offsets = names.map((name) => hash(name, 0x811c9dc5) % length);
  const skips = names.map((name) => (hash(name, 0x9e3779b9) % (length - 1)) + 1);
  return populate(offsets, skips, length);
}

/** Microseconds for one table. */
function time(name: string, count: number, build: () => ArrayLike<number>): Case {
  return async () => {
    const tables = TABLES[count]!;
    const start = process.hrtime.bigint();
    for (let table = 0; table < tables; table++) build();
    return { [name]: Number(process.hrtime.bigint() - start) / tables / NS_PER_US };
  };
}

function makeCases(count: number): Case[] {
  const backends = makeBackends(count);
  const length = maglevLength(count);
  return [
    time(`ours ${count}`, count, () => maglevTable(backends, length)),
    time(`paper ${count}`, count, () => paperTable(backends, length)),
  ];
}

/** The most that one backend has of a table, over what it should have. */
function unevenness(table: Uint32Array, count: number): number {
  const shares = new Uint32Array(count);
  for (const index of table) shares[index]! += 1;
  return shares.reduce((most, share) => Math.max(most, share), 0) / (table.length / count);
}

/** Of the slots of backends that stay, how many percent lead elsewhere once one has left. */
function moved(backends: readonly MaglevBackend[], leaving: number, length: number): number {
  const before = maglevTable(backends, length);
  const after = maglevTable(backends.toSpliced(leaving, 1), length);
  let stay = 0;
  let moves = 0;
  for (const [slot, index] of before.entries()) {
    if (index === leaving) continue;
    stay += 1;
    const same = index < leaving ? index : index - 1;
    if (after[slot] !== same) moves += 1;
  }
  return (moves / stay) * 100;
}

function measureTables(samples: Samples): void {
  for (const count of COUNTS) {
    const backends = makeBackends(count);
    const length = maglevLength(count);
    samples[`uneven ${count}`] = [unevenness(maglevTable(backends, length), count)];
    samples[`moved ${count}`] = Array.from({ length: LEAVING }, (_, turn) =>
      moved(backends, Math.floor((turn * count) / LEAVING), length),
    );
  }
}

function readFigures(samples: Samples): Figure[] {
  return COUNTS.flatMap((count) => {
    const what = `${count} endpoints in ${maglevLength(count)} slots`;
    const take = (name: string) => of(samples, `${name} ${count}`);
    const built = ratios(take("ours"), take("paper"));
    return [
      figure(`${what}: built, over the paper's procedure`, {
        values: built,
        unit: "×",
        goal: { atMost: 1 },
      }),
      figure(`${what}: built`, { values: take("ours"), unit: "µs" }),
      figure(`${what}: largest share over the mean`, {
        values: take("uneven"),
        unit: "×",
        goal: { atMost: 1.02 },
      }),
      figure(`${what}: slots of others that move when one leaves`, {
        values: take("moved"),
        unit: "%",
        goal: { atMost: 3 },
      }),
    ];
  });
}

async function run(context: Context): Promise<Measured> {
  const cases = COUNTS.flatMap(makeCases);
  const samples = await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  measureTables(samples);
  const notes = [
    "The paper's procedure is written here as it stands there, with a multiplication and a " +
      "remainder for each step of a permutation, in the same language.",
    "The paper takes a hundred times as many slots as endpoints, for at most 1 % between shares " +
      "(§3.4). Here 1,000 endpoints have 65 slots each: maglevLength() says why.",
  ];
  return { figures: readFigures(samples), samples, notes };
}

export const maglev: Bench = {
  name: "maglev",
  claim: "Tables are built faster than the paper builds them, and are as even and as stable",
  goal: "≤ 1 × the paper's procedure, largest share ≤ 1.02 × the mean, ≤ 3 % move with one",
  run,
};
