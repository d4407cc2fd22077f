// How figures look: a table for people, an array for programs. Pure; knows nothing of how they
// were measured.
import { type Bench, type Figure, type Goal, holds, type Measured } from "./bench.ts";

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

function rowOf(figure: Figure): string[] {
  const { claim, value, spread, unit, goal } = figure;
  const verdict = { true: "holds", false: "MISSED", null: "" }[String(holds(figure))] ?? "";
  const [low, high] = spread.map(formatNumber);
  return [claim, formatNumber(value), unit, `${low} … ${high}`, formatGoal(goal), verdict];
}

/** A table of a bench's figures, with its notes. */
export function formatMeasured(bench: Bench, { figures, notes }: Measured): string {
  const header = ["FIGURE", "MEDIAN", "UNIT", "QUARTILES", "GOAL", ""];
  const rows = [header, ...figures.map(rowOf)];
  const widths = header.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)));
  const isNumber = (column: number) => column === 1;
  const lines = rows.map((row) =>
    row
      .map((cell, column) =>
        isNumber(column) ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!),
      )
      .join("  ")
      .trimEnd(),
  );
  const head = [`${bench.name}: ${bench.claim}`, `goal: ${bench.goal}`, ""];
  return [...head, ...lines, ...notes.map((note) => `note: ${note}`), ""].join("\n");
}

/** A bench's figures as `--json` prints them. */
export function toEntries(bench: Bench, { figures }: Measured): Entry[] {
  return figures.map((figure) => ({
    claim: `${bench.name}: ${figure.claim}`,
    value: figure.value,
    unit: figure.unit,
    goal: formatGoal(figure.goal) || null,
    holds: holds(figure),
    command: `npm run bench ${bench.name}`,
  }));
}
