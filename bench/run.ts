// `npm run bench [NAME…] [--json] [--quick] [--compare FILE]`: runs benches one after the other,
// prints a table of each, and stores everything measured below bench/results/. Knows no claim.
import path from "node:path";
import { parseArgs } from "node:util";
import { whyNoLab } from "../lab/lab.ts";
import type { Bench } from "./bench.ts";
import { BENCHES } from "./benches.ts";
import { compareRuns, formatComparison } from "./compare.ts";
import { CHECKOUT, measureBench, RESULTS } from "./measured.ts";
import { type Entry, formatMeasured, toEntries } from "./report.ts";
import { type Result, readResult, storeResult } from "./result.ts";

const USAGE = `Usage: npm run bench [NAME…] [-- --json] [-- --quick] [-- --compare FILE]
  --json          print one array of {claim, value, unit, goal, holds, command}, no tables
  --quick         fewer rounds and smaller sizes: all benches within three minutes
  --compare FILE  say what differs from an earlier run, as stored in bench/results/; repeatable
Benches: ${BENCHES.map(({ name }) => name).join(", ")}`;

class UsageError extends Error {}

interface Options {
  chosen: readonly Bench[];
  json: boolean;
  quick: boolean;
  earlier: readonly Result[];
}

function parse(): Options {
  const { values, positionals } = parseValues();
  const known = BENCHES.map(({ name }) => name);
  const unknown = positionals.find((name) => !known.includes(name));
  if (unknown !== undefined) throw new UsageError(`There is no bench "${unknown}"`);
  const chosen = BENCHES.filter(
    ({ name }) => positionals.length === 0 || positionals.includes(name),
  );
  const earlier = (values.compare ?? []).map(readResult);
  const unmatched = earlier.find(({ bench }) => !chosen.some(({ name }) => name === bench));
  if (unmatched)
    throw new UsageError(`--compare has a run of "${unmatched.bench}", which is not to be run`);
  return { chosen, json: values.json ?? false, quick: values.quick ?? false, earlier };
}

function parseValues() {
  try {
    const options = {
      json: { type: "boolean" },
      quick: { type: "boolean" },
      compare: { type: "string", multiple: true },
    } as const;
    return parseArgs({ allowPositionals: true, options });
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

async function main(): Promise<void> {
  const options = parse();
  const reason = whyNoLab();
  if (reason !== undefined) throw new Error(reason);
  const entries: Entry[] = [];
  for (const bench of options.chosen) {
    const result = await measureBench(bench, options);
    const file = storeResult(RESULTS, result);
    entries.push(...toEntries(result));
    if (!options.json) console.log(formatMeasured(result));
    for (const earlier of options.earlier.filter((one) => one.bench === bench.name))
      console.error(formatComparison(compareRuns(earlier, result)));
    console.error(`${result.seconds} s, stored in ${path.relative(CHECKOUT, file)}\n`);
  }
  if (options.json) console.log(JSON.stringify(entries, undefined, 2));
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
