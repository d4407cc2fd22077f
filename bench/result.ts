// A run of a bench as it is kept: everything measured and what it was measured on, as JSON in a
// file of its own. Knows files; what figures mean is the bench's.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Bench, Measured } from "./bench.ts";
import type { Machine } from "./machine.ts";

export interface Result extends Pick<Bench, "claim" | "goal">, Measured {
  /** The bench's name. */
  bench: string;
  /** When it ended, as ISO 8601. */
  time: string;
  /** How long it took. */
  seconds: number;
  quick: boolean;
  machine: Machine;
}

/** Stores a result in a folder, under its bench's name and time. Returns the file. */
export function storeResult(folder: string, result: Result): string {
  mkdirSync(folder, { recursive: true });
  const file = path.join(folder, `${result.bench}-${result.time.replace(/[:.]/g, "-")}.json`);
  writeFileSync(file, `${JSON.stringify(result, undefined, 1)}\n`);
  return file;
}

/** Reads one back. Throws an error that names the file if it is none. */
export function readResult(file: string): Result {
  let value: Partial<Result>;
  try {
    value = JSON.parse(readFileSync(file, "utf8"));
  } catch (error) {
    throw new Error(`Cannot read "${file}": ${(error as Error).message}`);
  }
  const isResult =
    typeof value.bench === "string" && Array.isArray(value.figures) && value.machine !== undefined;
  if (isResult) return value as Result;
  throw new Error(`"${file}" is no stored run: give a file of bench/results/`);
}
