// What differs between two runs of one bench, by their quartiles. Pure; knows figures, not what
// they are of.
import type { Figure } from "./bench.ts";
import { formatNumber, formatTable } from "./report.ts";
import type { Result } from "./result.ts";

/**
 * "same": each median lies within the other's quartiles or they overlap. Else better or worse as
 * the goal has it, or just "differs" where no goal says which way is good.
 */
export type Change = "same" | "better" | "worse" | "differs" | "new" | "gone";

export interface Compared {
  claim: string;
  unit: string;
  before: number | undefined;
  now: number | undefined;
  change: Change;
}

export interface Comparison {
  bench: string;
  /** When the earlier run ended. */
  since: string;
  rows: Compared[];
  /** What makes the two unlike beside what was to be compared. */
  unlike: string[];
}

function changeOf(before: Figure, now: Figure): Change {
  const overlap = before.spread[0] <= now.spread[1] && now.spread[0] <= before.spread[1];
  if (overlap) return "same";
  const goal = now.goal ?? before.goal;
  if (goal === undefined) return "differs";
  const isLess = now.value < before.value;
  return isLess === "atMost" in goal ? "better" : "worse";
}

/** Matches figures by what they claim. */
export function compareRuns(earlier: Result, later: Result): Comparison {
  const before = new Map(earlier.figures.map((figure) => [figure.claim, figure]));
  const rows: Compared[] = later.figures.map((figure) => {
    const { claim, unit, value } = figure;
    const old = before.get(claim);
    before.delete(claim);
    const change = old ? changeOf(old, figure) : "new";
    return { claim, unit, before: old?.value, now: value, change };
  });
  for (const { claim, unit, value } of before.values())
    rows.push({ claim, unit, before: value, now: undefined, change: "gone" });
  const unlike = (["cpu", "cpus", "kernel", "node", "clang"] as const)
    .filter((field) => earlier.machine[field] !== later.machine[field])
    .map((field) => `${field}: ${earlier.machine[field]}, now ${later.machine[field]}`);
  if (earlier.quick !== later.quick)
    unlike.push(earlier.quick ? "the earlier run was quick" : "this run is quick");
  return { bench: later.bench, since: earlier.time, rows, unlike };
}

/** A table of what differs. */
export function formatComparison({ bench, since, rows, unlike }: Comparison): string {
  const shown = (value: number | undefined) => (value === undefined ? "-" : formatNumber(value));
  const table = formatTable(
    ["FIGURE", "BEFORE", "NOW", "UNIT", "RATIO", ""],
    rows.map(({ claim, unit, before, now, change }) => {
      const ratio = before && now !== undefined ? formatNumber(now / before) : "-";
      return [claim, shown(before), shown(now), unit, ratio, change === "same" ? "" : change];
    }),
    { numbers: [1, 2, 4] },
  );
  const unlikeness = unlike.map((line) => `unlike: ${line}`);
  return [`${bench}, compared with ${since}`, ...table, ...unlikeness, ""].join("\n");
}
