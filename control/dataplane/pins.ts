// The pin folder: where maps and links of one node lie in bpffs, who may write them, and how all of
// them are removed. Knows names and paths, not what the maps hold.
import { mkdirSync, readdirSync, rmdirSync, statSync, unlinkSync } from "node:fs";
import path from "node:path";
import { maps } from "../../bindings/layout.ts";
import { type FolderLock, isBpffs, lockFolder } from "../../bindings/system.ts";

/** The cgroup hooks, in the order in which they are attached: readers of records come first. */
export const HOOKS = [
  "recvmsg4",
  "recvmsg6",
  "getpeername4",
  "getpeername6",
  "connect4",
  "connect6",
  "sendmsg4",
  "sendmsg6",
] as const;
export type Hook = (typeof HOOKS)[number];

export const MAP_NAMES = Object.keys(maps) as (keyof typeof maps)[];

/** Another agent works on this pin folder. */
export class LockedError extends Error {
  constructor(folder: string, holderPid: number) {
    const holder = !holderPid ? "another process" : `process ${holderPid}`;
    super(`Pin folder "${folder}" is in use by ${holder}: stop it, or choose another --pins`);
    this.name = "LockedError";
  }
}

export class Pins {
  readonly folder: string;

  constructor(folder: string) {
    this.folder = path.resolve(folder);
  }

  mapPath(name: string): string {
    return path.join(this.folder, "maps", name);
  }

  linkPath(hook: Hook): string {
    return path.join(this.folder, "links", hook);
  }

  /** Creates the folders and locks them. Throws naming the folder and the fix. */
  open(): FolderLock {
    const parent = nearestFolder(this.folder);
    if (!isBpffs(parent))
      throw new Error(
        `Pin folder "${this.folder}" is not in a BPF file system: run "mount -t bpf none ` +
          `/sys/fs/bpf", or name a folder in one with --pins`,
      );
    try {
      mkdirSync(path.join(this.folder, "maps"), { recursive: true, mode: 0o700 });
      mkdirSync(path.join(this.folder, "links"), { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new Error(`Cannot create pin folder "${this.folder}": ${(cause as Error).message}`, {
        cause,
      });
    }
    return this.lock();
  }

  /** Locks an existing folder. Throws LockedError naming the holder. */
  lock(): FolderLock {
    const lock = lockFolder(this.folder);
    if ("holderPid" in lock) throw new LockedError(this.folder, lock.holderPid);
    return lock;
  }

  /** True if anything of ours is pinned here. */
  exists(): boolean {
    return this.#ours().length > 0;
  }

  /**
   * Removes every pin of ours, links first so that nothing is served by half the maps, then the
   * folders if they are empty. Returns the paths removed, and what else lies in the folder.
   */
  remove(): { removed: string[]; foreign: string[] } {
    const removed = this.#ours();
    for (const file of removed) unlinkSync(file);
    for (const folder of ["links", "maps", ""]) {
      const target = path.join(this.folder, folder);
      if (entries(target)?.length === 0) rmdirSync(target);
    }
    return {
      removed,
      foreign: (entries(this.folder) ?? []).map((name) => path.join(this.folder, name)),
    };
  }

  #ours(): string[] {
    const links = entries(path.join(this.folder, "links")) ?? [];
    const pinned = entries(path.join(this.folder, "maps")) ?? [];
    const hooks: readonly string[] = HOOKS;
    const names: readonly string[] = MAP_NAMES;
    return [
      ...links.filter((name) => hooks.includes(name)).map((name) => this.linkPath(name as Hook)),
      ...pinned.filter((name) => names.includes(name)).map((name) => this.mapPath(name)),
    ];
  }
}

/** The names in a folder, or undefined if there is none. */
function entries(folder: string): string[] | undefined {
  try {
    return readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw error;
  }
}

/** The nearest folder on the way up that exists. */
function nearestFolder(folder: string): string {
  for (let at = folder; ; at = path.dirname(at))
    if (statSync(at, { throwIfNoEntry: false })?.isDirectory()) return at;
}
