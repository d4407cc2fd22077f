// What read verbs print, once or again whenever it is different. Knows how that looks on a terminal
// and in a file, and no verb.
import type { Format } from "../print.ts";

/** How often is looked again. */
const WATCH_MS = 1000;
const CLEAR_SCREEN = "\u001b[H\u001b[2J";

export interface WatchOptions {
  output: Format;
  watch: boolean;
}

/** Prints a text; with `watch` every further one that differs, until the process is ended. */
export async function printWatched(
  options: WatchOptions,
  makeText: () => Promise<string> | string,
): Promise<void> {
  let printed = "";
  for (;;) {
    const text = await makeText();
    if (text !== printed) process.stdout.write(separator(options, printed !== "") + text);
    printed = text;
    if (!options.watch) return;
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS));
  }
}

/** What parts one printed state from the next: a cleared terminal, a blank line, or "---". */
function separator({ watch, output }: WatchOptions, isLater: boolean): string {
  if (watch && process.stdout.isTTY && output !== "json" && output !== "yaml") return CLEAR_SCREEN;
  if (!isLater || output === "json") return "";
  return output === "yaml" ? "---\n" : "\n";
}
