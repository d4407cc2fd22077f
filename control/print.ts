// Tables for people, in kubectl's style, and JSON or YAML for programs. Knows columns and cells,
// not what they mean.

export const FORMATS = ["table", "wide", "json", "yaml"] as const;
export type Format = (typeof FORMATS)[number];

/** Aligns rows of cells under a header: two spaces between columns, none at a line's end. */
export function formatTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const widths = Int32Array.from(header, (title) => title.length);
  for (const row of rows)
    for (let column = 0; column < row.length; column++) {
      const { length } = row[column]!;
      if (length > widths[column]!) widths[column] = length;
    }
  // Pieces of all lines in one array: to make each line first would triple the garbage.
  const pieces: string[] = [];
  addLine(pieces, header, widths);
  for (const row of rows) addLine(pieces, row, widths);
  return pieces.join("");
}

/** Blanks are put in only when a cell follows: the last ones may be empty. */
function addLine(pieces: string[], cells: readonly string[], widths: Int32Array): void {
  let start = 0;
  let end = 0;
  for (let column = 0; column < widths.length; column++) {
    const cell = cells[column] ?? "";
    if (cell !== "") {
      pieces.push(blanks(start - end), cell);
      end = start + cell.length;
    }
    start += widths[column]! + GAP;
  }
  pieces.push("\n");
}

const GAP = 2;
const BLANKS: string[] = [];

function blanks(count: number): string {
  BLANKS[count] ??= " ".repeat(count);
  return BLANKS[count];
}

/** A value as indented JSON or as YAML, whose library is loaded only then. */
export async function formatData(value: unknown, format: "json" | "yaml"): Promise<string> {
  if (format === "json") return `${JSON.stringify(value, undefined, 2)}\n`;
  const { stringify } = await import("yaml");
  return stringify(value, { aliasDuplicateObjects: false });
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
