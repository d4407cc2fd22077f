// Ends the agent when its configuration file says something else (§17.6), however it was replaced:
// written, renamed, or mounted anew as a ConfigMap is. Knows nothing of what the file says.

import { unwatchFile, watchFile } from "node:fs";
import { readFile } from "node:fs/promises";
import { UserError } from "../exit.ts";
import type { ConfigFile } from "./file.ts";

/** How often is looked; file systems that send no events are served as well. */
const LOOK_MS = 2000;

export interface WatchOptions {
  /** Called once, with what to end with. */
  onChange: (error: UserError) => void;
  lookMs?: number;
  read?: (path: string) => Promise<string>;
}

/**
 * Compares the file with what was read of it, from time to time until the returned function is
 * called. A file that cannot be read is no change: it may be about to be replaced.
 */
export function watchConfigFile(
  { path, text }: ConfigFile,
  { onChange, lookMs = LOOK_MS, read = (file) => readFile(file, "utf8") }: WatchOptions,
): () => void {
  const stop = () => unwatchFile(path, look);
  const look = async () => {
    const present = await read(path).catch(() => text);
    if (present === text) return;
    stop();
    onChange(
      new UserError(
        `The configuration "${path}" has changed: the agent ends, what is programmed keeps ` +
          "serving; start it again to use the new one",
      ),
    );
  };
  watchFile(path, { interval: lookMs }, look);
  // What changed since the file was read and before it was watched sends no event.
  void look();
  return stop;
}
