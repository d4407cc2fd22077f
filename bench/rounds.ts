// Rounds in which all cases are measured one after the other, so that what disturbs the machine
// disturbs all of them alike. Knows nothing of what a case does.
import type { Context, Figure, Goal } from "./bench.ts";
import { median, quartiles } from "./statistics.ts";

/** Samples by case, one for each round: all arrays have the same length and order. */
export type Samples = Record<string, number[]>;

/** A case: puts itself in place, measures, and gives samples by name. */
export type Case = () => Promise<Record<string, number>>;

export interface Rounds {
  /** How many rounds: `--quick` makes fewer of them, and so does a bench that is late. */
  usual: number;
  /**
   * How often each case is visited in a round (1), less often with `--quick`. Of its values the
   * least counts: these are times, and whatever disturbs a visit can only add to them.
   */
  tries?: number;
  /** Whether all cases run once before any counts (true); not where one takes seconds anyway. */
  warmUp?: boolean;
  context: Pick<Context, "quick" | "rounds" | "progress" | "isLate">;
}

/** So many rounds there are, however late it is: fewer have no median worth the name. */
const FEWEST = 3;

/**
 * Runs all cases once unmeasured, and then in rounds, each visit in another order. Every case must
 * give the same names each time.
 */
export async function interleave(
  cases: readonly Case[],
  { usual, tries = 1, warmUp = true, context }: Rounds,
): Promise<Samples> {
  const samples: Samples = {};
  const count = context.rounds(usual);
  const visits = context.quick ? Math.ceil(tries / 3) : tries;
  if (warmUp) await visit(cases, 0);
  for (let round = 0; round < count; round++) {
    if (round >= FEWEST && context.isLate()) break;
    context.progress(`round ${round + 1} of ${count}`);
    const least: Record<string, number> = {};
    for (let attempt = 0; attempt < visits; attempt++)
      for (const [name, value] of Object.entries(await visit(cases, round * visits + attempt)))
        least[name] = Math.min(value, least[name] ?? Number.POSITIVE_INFINITY);
    keep(samples, least);
  }
  return samples;
}

/**
 * Measures each case once. Forwards and backwards in turn, and each time from another one on: no
 * case always follows the same other one.
 */
async function visit(cases: readonly Case[], turn: number): Promise<Record<string, number>> {
  const values: Record<string, number> = {};
  for (let place = 0; place < cases.length; place++) {
    const step = turn % 2 === 0 ? place : cases.length - 1 - place;
    Object.assign(values, await cases[(step + turn) % cases.length]!());
  }
  return values;
}

/** The samples of a case. Throws if there is no such case: a misspelt name. */
export function of(samples: Samples, name: string): number[] {
  const found = samples[name];
  if (found) return found;
  throw new Error(`There is no case "${name}", only ${Object.keys(samples).join(", ")}`);
}

/** Puts values into the samples of their names. */
export function keep(samples: Samples, values: Record<string, number>): void {
  for (const [name, value] of Object.entries(values)) {
    samples[name] ??= [];
    samples[name].push(value);
  }
}

/** A figure of the samples' median. */
export function figure(
  claim: string,
  { values, unit, goal }: { values: readonly number[]; unit: string; goal?: Goal | undefined },
): Figure {
  const base = { claim, value: median(values), spread: quartiles(values), unit };
  return goal === undefined ? base : { ...base, goal };
}
