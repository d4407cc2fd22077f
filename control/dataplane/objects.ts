// Where the compiled BPF objects lie: beside the bundle in a release, in dist/ when TypeScript was
// compiled file by file. Knows no more than the path.
import { existsSync } from "node:fs";
import path from "node:path";

/** The path of a compiled object. Throws if it was not built. */
export function objectPath(name: string): string {
  const here = import.meta.dirname;
  const candidates = [path.join(here, name), path.join(here, "../../../dist", name)];
  const found = candidates.find((candidate) => existsSync(candidate));
  if (!found)
    throw new Error(
      `BPF object "${name}" is not beside the program in "${here}": run npm run build`,
    );
  return found;
}
