// `npm run bench [NAME…] [--json] [--quick]`: runs benches one after the other, prints a table of
// each, and stores everything measured below bench/results/. Knows no claim.
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { whyNoLab } from "../lab/lab.ts";
import type { Bench, Context, Measured } from "./bench.ts";
import { change } from "./change.ts";
import { cluster } from "./cluster.ts";
import { connect } from "./connect.ts";
import { decode } from "./decode.ts";
import { devices } from "./devices.ts";
import { dump } from "./dump.ts";
import { type Machine, readMachine } from "./machine.ts";
import { memory } from "./memory.ts";
import { metrics } from "./metrics.ts";
import { pod } from "./pod.ts";
import { type Entry, formatMeasured, toEntries } from "./report.ts";
import { select } from "./select.ts";
import { soak } from "./soak.ts";

const benches: readonly Bench[] = [
  connect,
  pod,
  dump,
  change,
  memory,
  select,
  decode,
  cluster,
  devices,
  metrics,
  soak,
];

const checkout = path.resolve(import.meta.dirname, "../..");
const USAGE = `Usage: npm run bench [NAME…] [-- --json] [-- --quick]
  --json   print one array of {claim, value, unit, goal, holds, command} instead of tables
  --quick  fewer rounds
Benches: ${benches.map(({ name }) => name).join(", ")}`;

class UsageError extends Error {}

interface Options {
  chosen: readonly Bench[];
  json: boolean;
  quick: boolean;
}

function parse(): Options {
  let parsed: { values: { json?: boolean; quick?: boolean }; positionals: string[] };
  try {
    const options = { json: { type: "boolean" }, quick: { type: "boolean" } } as const;
    parsed = parseArgs({ allowPositionals: true, options });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
  const { values, positionals } = parsed;
  const known = benches.map(({ name }) => name);
  const unknown = positionals.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UsageError(`There is no bench "${unknown}"`);
  const chosen = benches.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  );
  return { chosen, json: values.json ?? false, quick: values.quick ?? false };
}

function makeContext(bench: Bench, quick: boolean): Context {
  const isTerminal = process.stderr.isTTY === true;
  let last = "";
  return {
    quick,
    rounds: (usual) => (quick ? Math.max(5, Math.ceil(usual / 4)) : usual),
    progress: (text) => {
      // A log gets a line for each thing done, not for each round.
      const kind = text.replace(/\d+/g, "");
      if (isTerminal) process.stderr.write(`\r\x1b[K${bench.name}: ${text}`);
      else if (kind !== last) process.stderr.write(`${bench.name}: ${text}\n`);
      last = kind;
    },
  };
}

/** Stores what was measured, and returns the file. */
function store(bench: Bench, measured: Measured, machine: Machine): string {
  const folder = path.join(checkout, "bench/results");
  mkdirSync(folder, { recursive: true });
  const time = new Date().toISOString();
  const file = path.join(folder, `${bench.name}-${time.replace(/[:.]/g, "-")}.json`);
  const entries = toEntries(bench, measured);
  const result = { bench: bench.name, time, machine, entries, ...measured };
  writeFileSync(file, `${JSON.stringify(result, undefined, 1)}\n`);
  return file;
}

/** A Node that is told of further certificates parses all of them at each start: 60 ms here. */
function forgetCertificates(): void {
  delete process.env.NODE_EXTRA_CA_CERTS;
}

async function main(): Promise<void> {
  forgetCertificates();
  const { chosen, json, quick } = parse();
  const reason = whyNoLab();
  if (reason !== undefined) throw new Error(reason);
  const entries: Entry[] = [];
  for (const bench of chosen) {
    const machine = readMachine(checkout);
    const measured = await bench.run(makeContext(bench, quick));
    if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
    const file = store(bench, measured, machine);
    entries.push(...toEntries(bench, measured));
    if (!json) console.log(formatMeasured(bench, measured));
    console.error(`stored in ${path.relative(checkout, file)}\n`);
  }
  if (json) console.log(JSON.stringify(entries, undefined, 2));
  const missed = entries.filter((entry) => entry.holds === false);
  for (const { claim } of missed) console.error(`missed: ${claim}`);
}

try {
  await main();
} catch (error) {
  const isUsage = error instanceof UsageError;
  console.error(`bench: ${(error as Error).message}${isUsage ? `\n${USAGE}` : ""}`);
  process.exitCode = isUsage ? 2 : 1;
}
