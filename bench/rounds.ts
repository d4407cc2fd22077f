// Rounds in which all cases are measured one after the other, so that what disturbs the machine
// disturbs all of them alike. Knows nothing of what a case does.
import type { Figure, Goal } from "./bench.ts";
import { median, quartiles } from "./statistics.ts";

/** Samples by case, one for each round: all arrays have the same length and order. */
export type Samples = Record<string, number[]>;

/** A case: puts itself in place, measures, and gives samples by name. */
export type Case = () => Promise<Record<string, number>>;

/**
 * Runs all cases once unmeasured and then `count` times, each round in another order. Every case
 * must give the same names each time.
 */
export async function interleave(
  cases: readonly Case[],
  { count, progress }: { count: number; progress: (round: number) => void },
): Promise<Samples> {
  const samples: Samples = {};
  for (let round = -1; round < count; round++) {
    progress(Math.max(0, round));
    for (let place = 0; place < cases.length; place++) {
      // Forwards and backwards in turn, and each time from another one on: no case always follows
      // the same other one.
      const step = round % 2 === 0 ? place : cases.length - 1 - place;
      const measured = await cases[(step + Math.max(0, round)) % cases.length]!();
      if (round < 0) continue;
      for (const [name, value] of Object.entries(measured)) {
        samples[name] ??= [];
        samples[name].push(value);
      }
    }
  }
  return samples;
}

/** The samples of a case. Throws if there is no such case: a misspelt name. */
export function of(samples: Samples, name: string): number[] {
  const found = samples[name];
  if (found) return found;
  throw new Error(`There is no case "${name}", only ${Object.keys(samples).join(", ")}`);
}

/** A figure of the samples' median. */
export function figure(
  claim: string,
  { values, unit, goal }: { values: readonly number[]; unit: string; goal?: Goal },
): Figure {
  const base = { claim, value: median(values), spread: quartiles(values), unit };
  return goal === undefined ? base : { ...base, goal };
}
