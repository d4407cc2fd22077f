// How figures look: a table for people, an array for programs. Pure; knows nothing of how they
// were measured.
import { type Figure, type Goal, holds } from "./bench.ts";
import type { Result } from "./result.ts";

/** A figure as `--json` prints it; `holds` is null where there is no goal. */
export interface Entry {
  claim: string;
  value: number;
  unit: string;
  goal: string | null;
  holds: boolean | null;
  command: string;
}

/** Three significant digits, but all digits of whole numbers. */
export function formatNumber(value: number): string {
  if (Math.abs(value) >= 100) return Math.round(value).toString();
  return Number(value.toPrecision(3)).toString();
}

/** "≤ 40", "≥ 0.97", or nothing. */
export function formatGoal(goal: Goal | undefined): string {
  if (goal === undefined) return "";
  return "atMost" in goal ? `≤ ${goal.atMost}` : `≥ ${goal.atLeast}`;
}

/** Lines of columns that are as wide as they must be; those of numbers are aligned to the right. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  { numbers }: { numbers: readonly number[] },
): string[] {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]!.length)));
  const align = (cell: string, column: number) =>
    numbers.includes(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!);
  return all.map((row) => row.map(align).join("  ").trimEnd());
}

function rowOf(figure: Figure): string[] {
  const { claim, value, spread, unit, goal } = figure;
  const verdict = { true: "holds", false: "MISSED", null: "" }[String(holds(figure))] ?? "";
  const [low, high] = spread.map(formatNumber);
  return [claim, formatNumber(value), unit, `${low} … ${high}`, formatGoal(goal), verdict];
}

type Shown = Pick<Result, "bench" | "claim" | "goal" | "figures" | "notes">;

/** A table of a bench's figures, with its notes. */
export function formatMeasured({ bench, claim, goal, figures, notes }: Shown): string {
  const header = ["FIGURE", "MEDIAN", "UNIT", "QUARTILES", "GOAL", ""];
  const lines = formatTable(header, figures.map(rowOf), { numbers: [1] });
  const head = [`${bench}: ${claim}`, `goal: ${goal}`, ""];
  return [...head, ...lines, ...notes.map((note) => `note: ${note}`), ""].join("\n");
}

/** The command that measures a bench's figures again. */
export function commandOf(bench: string): string {
  return `npm run bench ${bench}`;
}

/** A bench's figures as `--json` prints them. */
export function toEntries({ bench, figures }: Pick<Result, "bench" | "figures">): Entry[] {
  return figures.map((figure) => ({
    claim: `${bench}: ${figure.claim}`,
    value: figure.value,
    unit: figure.unit,
    goal: formatGoal(figure.goal) || null,
    holds: holds(figure),
    command: commandOf(bench),
  }));
}
