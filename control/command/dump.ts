// `bpfsvc dump`: what the kernel holds, for people and for programs. What is there comes from
// dataplane/dump.ts, how it looks from view.ts.
import { type Dump, type DumpFilter, DumpReader } from "../dataplane/dump.ts";
import { Pins } from "../dataplane/pins.ts";
import { ExitCode, UserError } from "../exit.ts";
import { type Format, formatData } from "../print.ts";
import { formatServices } from "./view.ts";

export interface DumpOptions extends DumpFilter {
  pins: string;
  output: Format;
}

/** Reads the pinned maps and prints them. Throws UserError if nothing is pinned. */
export async function dump(options: DumpOptions): Promise<void> {
  const pins = new Pins(options.pins);
  const reader = DumpReader.open(pins);
  if (!reader)
    throw new UserError(
      `Nothing is pinned in "${pins.folder}": start the agent with "bpfsvc run", or name its ` +
        "folder with --pins",
      ExitCode.notRunning,
    );
  process.stdout.write(formatDump(await reader.read(options), options.output));
}

/** A dump as text in one of the formats. The JSON form is documented in docs/operating.md. */
export function formatDump(dump: Dump, format: Format): string {
  if (format === "json" || format === "yaml") return formatData(dump, format);
  return formatServices(dump.services, { wide: format === "wide", counters: true });
}
