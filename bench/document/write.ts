// `npm run bench:report`: takes the newest full runs of bench/results/ into docs/benchmarks/, where
// there are any, and writes docs/benchmarks.md and its pictures from what is kept there.
import { existsSync, mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { BENCHES } from "../benches.ts";
import { readResult } from "../result.ts";
import { type Kept, writeDocument } from "./document.ts";
import { drawPlot } from "./svg.ts";

const checkout = path.resolve(import.meta.dirname, "../../..");
const RESULTS = path.join(checkout, "bench/results");
const KEPT = path.join(checkout, "docs/benchmarks");

/** The newest run that was not quick, if there is one. Names of files end with their times. */
function newestRun(bench: string): Kept | undefined {
  if (!existsSync(RESULTS)) return undefined;
  const files = readdirSync(RESULTS).filter((file) => file.replace(/-\d{4}-.*/, "") === bench);
  for (const file of files.sort().reverse()) {
    const { samples, ...kept } = readResult(path.join(RESULTS, file));
    if (!kept.quick) return kept;
  }
  return undefined;
}

function take(bench: string): Kept | undefined {
  const file = path.join(KEPT, `${bench}.json`);
  const kept = existsSync(file) ? readResult(file) : undefined;
  const run = newestRun(bench);
  if (!run || (kept && kept.time >= run.time)) return kept;
  writeFileSync(file, `${JSON.stringify(run, undefined, 1)}\n`);
  console.log(`${bench}: the run of ${run.time}`);
  return run;
}

mkdirSync(KEPT, { recursive: true });
const runs = BENCHES.map(({ name }) => take(name)).filter((run) => run !== undefined);
for (const file of readdirSync(KEPT).filter((name) => name.endsWith(".svg")))
  rmSync(path.join(KEPT, file));
for (const plot of runs.flatMap(({ plots = [] }) => plots))
  writeFileSync(path.join(KEPT, `${plot.name}.svg`), drawPlot(plot));
writeFileSync(path.join(checkout, "docs/benchmarks.md"), writeDocument(runs));
console.log(`docs/benchmarks.md: ${runs.length} of ${BENCHES.length} benches`);
