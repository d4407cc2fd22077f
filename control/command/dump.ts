// `bpfsvc dump`: what the kernel holds, for people and for programs. What is there comes from
// dataplane/dump.ts, how it looks from view.ts.
import { setFlagsFromString } from "node:v8";
import { type Dump, type DumpFilter, DumpReader } from "../dataplane/dump.ts";
import { idInForce } from "../dataplane/kernel.ts";
import { Pins } from "../dataplane/pins.ts";
import { ExitCode, UserError } from "../exit.ts";
import { formatData } from "../print.ts";
import { formatServices } from "./view.ts";
import { printWatched, type WatchOptions } from "./watching.ts";

export interface DumpOptions extends DumpFilter, WatchOptions {
  pins: string;
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
  const current = openedInForce(pins, openReader);
  await printWatched(options, async () => {
    for (;;) {
      const reader = current();
      const dump = await reader.read(options);
      // A build that takes over empties the counters of the maps that it leaves.
      if (reader === current()) return formatDump(dump, options);
    }
  });
}

/**
 * Gives what was opened of the maps in force, and opens it again once others are: after a take-over
 * or a cleanup. It throws what `open` does.
 */
export function openedInForce<T>(pins: Pins, open: (pins: Pins) => T): () => T {
  let opened: { what: T; inForce: number | undefined } | undefined;
  return () => {
    const inForce = idInForce(pins);
    if (opened === undefined || inForce !== opened.inForce) opened = { what: open(pins), inForce };
    return opened.what;
  };
}

/** What is wrong where there is nothing of ours to read. */
export function nothingPinned(pins: Pins): UserError {
  return new UserError(whatIsMissing(pins), ExitCode.notRunning);
}

function whatIsMissing({ folder, missingMaps, layouts }: Pins): string {
  if (missingMaps.length > 0)
    return (
      `Somebody removed ${missingMaps.join(", ")} from "${folder}": an agent that runs pins it ` +
      'again within five seconds; without one, start it with "bpfsvc run"'
    );
  if (layouts.length > 0)
    return (
      `Nothing is programmed in "${folder}" yet: an agent does that once it has its first full ` +
      'list, and its log says what it waits for; without one, start it with "bpfsvc run"'
    );
  return (
    `Nothing is pinned in "${folder}": start the agent with "bpfsvc run", or name its folder ` +
    "with --pins"
  );
}

/** Opens a folder's maps. Throws UserError if nothing is pinned. */
export function openReader(pins: Pins): DumpReader {
  const reader = DumpReader.open(pins);
  if (reader) return reader;
  throw nothingPinned(pins);
}

/** A dump as text in one of the formats. The JSON form is documented in docs/operating.md. */
async function formatDump(dump: Dump, options: DumpOptions): Promise<string> {
  const { output: format, name, namespace } = options;
  const isFiltered = name !== undefined || namespace !== undefined;
  if (format === "json" || format === "yaml") return formatData(dump, format);
  return formatServices(dump.services, { wide: format === "wide", isFiltered });
}
