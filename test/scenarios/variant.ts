// Other builds of this very source, with given changes, in folders of their own: what a later or an
// earlier version would be. Knows how to change and build, not what the changes are for.
import { execFile } from "node:child_process";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const SOURCES = ["bpf", "bindings", "control", "scripts", "package.json", "tsconfig.json"];

/** In a file, what is replaced by what; it must be there just once. */
export type Change = readonly [file: string, from: string, to: string];

export interface Variant {
  /** The path of its bpfsvc command. */
  command: string;
  remove(): Promise<void>;
}

/** Builds the source with changes (some 3 s). Throws if a change has no place, or on any error. */
export async function buildVariant(changes: readonly Change[]): Promise<Variant> {
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-variant-"));
  const remove = () => rm(folder, { recursive: true, force: true });
  try {
    for (const name of SOURCES)
      await cp(path.join(ROOT, name), path.join(folder, name), { recursive: true });
    await symlink(path.join(ROOT, "node_modules"), path.join(folder, "node_modules"));
    for (const change of changes) await apply(folder, change);
    const build = [path.join(folder, "scripts/build.mjs"), "--ship", "--generate"];
    await promisify(execFile)(process.execPath, build);
    return { command: path.join(folder, "dist/bpfsvc.js"), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function apply(folder: string, [file, from, to]: Change): Promise<void> {
  const target = path.join(folder, file);
  const text = await readFile(target, "utf8");
  const places = text.split(from).length - 1;
  if (places !== 1) throw new Error(`"${from}" is in "${file}" ${places} times, not once`);
  await writeFile(
    target,
    text.replace(from, () => to),
  );
}
