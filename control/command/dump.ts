// `bpfsvc dump`: what the kernel holds, for people and for programs. What is there comes from
// dataplane/dump.ts, how it looks from view.ts.
import { setFlagsFromString } from "node:v8";
import { type Dump, type DumpFilter, DumpReader } from "../dataplane/dump.ts";
import { Pins } from "../dataplane/pins.ts";
import { ExitCode, UserError } from "../exit.ts";
import { type Format, formatData } from "../print.ts";
import { formatServices } from "./view.ts";

/** How often a watched dump looks again. */
const WATCH_MS = 1000;
const CLEAR_SCREEN = "\u001b[H\u001b[2J";

export interface DumpOptions extends DumpFilter {
  pins: string;
  output: Format;
  watch: boolean;
}

/**
 * Reads the pinned maps and prints them; with `watch` again whenever something changed, until the
 * process is ended. Throws UserError if nothing is pinned.
 */
export async function dump(options: DumpOptions): Promise<void> {
  // Most of what is made here lives until it is printed: V8 would copy it again and again while it
  // lets its young generation grow by small steps.
  setFlagsFromString("--semi-space-growth-factor=16");
  const pins = new Pins(options.pins);
  let reader = openReader(pins);
  let { serving } = pins;
  let printed = "";
  for (;;) {
    const text = await formatDump(await reader.read(options), options.output);
    if (text !== printed) process.stdout.write(separator(options, printed !== "") + text);
    printed = text;
    if (!options.watch) return;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
    // Other maps serve after another build took over, and none after a cleanup.
    if (pins.serving !== serving) reader = openReader(pins);
    serving = pins.serving;
  }
}

function openReader(pins: Pins): DumpReader {
  const reader = DumpReader.open(pins);
  if (reader) return reader;
  throw new UserError(
    `Nothing is pinned in "${pins.folder}": start the agent with "bpfsvc run", or name its ` +
      "folder with --pins",
    ExitCode.notRunning,
  );
}

/** What parts one printed state from the next: a cleared terminal, a blank line, or "---". */
function separator({ watch, output }: DumpOptions, isLater: boolean): string {
  if (watch && process.stdout.isTTY && output !== "json" && output !== "yaml") return CLEAR_SCREEN;
  if (!isLater || output === "json") return "";
  return output === "yaml" ? "---\n" : "\n";
}

/** A dump as text in one of the formats. The JSON form is documented in docs/operating.md. */
export async function formatDump(dump: Dump, format: Format): Promise<string> {
  if (format === "json" || format === "yaml") return formatData(dump, format);
  return formatServices(dump.services, { wide: format === "wide" });
}
