// The program that measures cluster.ts on a node of a cluster; deploy/vagrant/bench.sh makes the
// pods and the Services and starts it. Prints a table, and stores everything in bench/results/, or
// in the folder of --results.
import path from "node:path";
import { parseArgs } from "node:util";
import { type ClusterPlace, clusterBench } from "./cluster.ts";
import { CHECKOUT, measureBench, RESULTS } from "./measured.ts";
import { formatMeasured } from "./report.ts";
import { storeResult } from "./result.ts";

const NAMES = ["proxy", "client", "server", "endpoint", "first", "count"] as const;

function parse(): { place: ClusterPlace; quick: boolean; results: string } {
  const text = { type: "string" } as const;
  const { values } = parseArgs({
    options: {
      proxy: text,
      client: text,
      server: text,
      endpoint: text,
      first: text,
      count: text,
      quick: { type: "boolean", default: false },
      results: { ...text, default: RESULTS },
    },
  });
  const missing = NAMES.filter((name) => values[name] === undefined);
  if (missing.length > 0) throw new Error(`--${missing.join(", --")} must be given`);
  const { quick, results, count, ...rest } = values;
  const place = { ...(rest as Omit<ClusterPlace, "count">), count: Number(count) };
  return { place, quick, results };
}

try {
  const { place, quick, results } = parse();
  const result = await measureBench(clusterBench(place), { quick });
  const file = storeResult(results, result);
  console.log(formatMeasured(result));
  console.error(`${result.seconds} s, stored in ${path.relative(CHECKOUT, file)}`);
} catch (error) {
  console.error(`bench: ${(error as Error).message}`);
  process.exitCode = 1;
}
