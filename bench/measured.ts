// Runs one bench and makes its result of what it measured: how much time it has, and how people are
// told that it goes on. Knows no claim, and not how benches are chosen.
import path from "node:path";
import type { Bench, Context } from "./bench.ts";
import { readMachine } from "./machine.ts";
import type { Result } from "./result.ts";

export const CHECKOUT = path.resolve(import.meta.dirname, "../..");
export const RESULTS = path.join(CHECKOUT, "bench/results");
/** After so long a bench makes no further round: all of them together end within 20 minutes. */
const SECONDS = { usual: 100, quick: 10 } as const;

function makeContext(bench: Bench, quick: boolean): Context {
  const isTerminal = process.stderr.isTTY === true;
  const end = performance.now() + (quick ? SECONDS.quick : SECONDS.usual) * 1000;
  let last = "";
  return {
    quick,
    rounds: (usual) => (quick ? Math.min(usual, Math.max(5, Math.ceil(usual / 4))) : usual),
    isLate: () => performance.now() > end,
    progress: (text) => {
      // A log gets a line for each thing done, not for each round.
      const kind = text.replace(/\d+/g, "");
      if (isTerminal) process.stderr.write(`\r\x1b[K${bench.name}: ${text}`);
      else if (kind !== last) process.stderr.write(`${bench.name}: ${text}\n`);
      last = kind;
    },
  };
}

export async function measureBench(bench: Bench, { quick }: { quick: boolean }): Promise<Result> {
  const machine = readMachine(CHECKOUT);
  const start = performance.now();
  const measured = await bench.run(makeContext(bench, quick));
  if (process.stderr.isTTY) process.stderr.write("\r\x1b[K");
  const seconds = Math.round((performance.now() - start) / 1000);
  const time = new Date().toISOString();
  const { name, claim, goal } = bench;
  return { bench: name, claim, goal, time, seconds, quick, machine, ...measured };
}
