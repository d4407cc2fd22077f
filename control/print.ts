// Tables for people, in kubectl's style, and JSON or YAML for programs. Knows columns and cells,
// not what they mean.
import { stringify } from "yaml";

export const FORMATS = ["table", "wide", "json", "yaml"] as const;
export type Format = (typeof FORMATS)[number];

/** Aligns rows of cells under a header: two spaces between columns, none at a line's end. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = header.map((title) => title.length);
  for (const row of rows)
    for (let column = 0; column < header.length; column++)
      widths[column] = Math.max(widths[column]!, (row[column] ?? "").length);
  const lines = [header, ...rows].map((row) =>
    widths
      .map((width, column) => (row[column] ?? "").padEnd(width))
      .join("  ")
      .trimEnd(),
  );
  return `${lines.join("\n")}\n`;
}

/** A value as indented JSON or as YAML. */
export function formatData(value: unknown, format: "json" | "yaml"): string {
  return format === "json"
    ? `${JSON.stringify(value, undefined, 2)}\n`
    : stringify(value, { aliasDuplicateObjects: false });
}

/** address:port, with brackets around an IPv6 address. */
export function formatEndpoint({ address, port }: { address: string; port: number }): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** A duration in the largest unit that divides it: 90 is "90s", 10800 is "3h". */
export function formatSeconds(seconds: number): string {
  if (seconds % 3600 === 0) return `${seconds / 3600}h`;
  return seconds % 60 === 0 ? `${seconds / 60}m` : `${seconds}s`;
}
