// The pin folder: where maps and links of one node lie in bpffs, who may write them, which build's
// maps are in force, and how all of it is removed. Knows names and paths, not what the maps hold.
import {
  mkdirSync,
  readdirSync,
  readlinkSync,
  renameSync,
  rmdirSync,
  statSync,
  symlinkSync,
  unlinkSync,
} from "node:fs";
import path from "node:path";
import { layoutHash, maps } from "../../bindings/layout.ts";
import { BpfLink } from "../../bindings/link.ts";
import { BpfMap } from "../../bindings/map.ts";
import { RunningProgram } from "../../bindings/running.ts";
import { type FolderLock, isBpffs, lockFolder } from "../../bindings/system.ts";

/** The cgroup hooks, in the order in which they are attached: readers of records come first. */
export const HOOKS = [
  "recvmsg4",
  "recvmsg6",
  "getpeername4",
  "getpeername6",
  "sock_release",
  "connect4",
  "connect6",
  "sendmsg4",
  "sendmsg6",
] as const;
export type Hook = (typeof HOOKS)[number];

/** The hooks whose programs read what other programs have stored with a socket. */
export const READER_HOOKS: readonly Hook[] = HOOKS.slice(0, HOOKS.indexOf("connect4"));

/** The hooks of a device; its links are called so, with its ifindex. */
export const DEVICE_HOOKS = ["xdp", "tcx_ingress", "tcx_egress"] as const;
export type DeviceHook = (typeof DEVICE_HOOKS)[number];

export const MAP_NAMES = Object.keys(maps) as (keyof typeof maps)[];

/** The maps that hold what sockets remember. */
export const SOCKET_MAPS = ["svc_sockets", "svc_socket_more", "svc_socket_one"] as const;

/** The maps that hold connections, and what their rows refer to. */
export const FLOW_MAPS = ["svc_flows", "svc_node", "svc_hops", "svc_answering"] as const;

/** This build's layouts, as folders of maps are named after them. */
export const OWN_LAYOUT = layoutHash.toString(16).padStart(16, "0");

const MAPS_FOLDER = /^maps_([0-9a-f]{16}(?:_\d+)?)$/;
const READERS_FOLDER = /^readers_(\d+)$/;
const PROGRAMS_FOLDER = /^programs_([0-9a-f]{16})$/;
const DEVICE_LINK = new RegExp(`^(${DEVICE_HOOKS.join("|")})_(\\d+)$`);
const SERVING = "serving";
const SERVING_NEXT = "serving_next";
const KERNEL_NAME_LENGTH = 15;
/** What helps where a folder cannot be read. */
const FIXES: Readonly<Record<string, string>> = {
  EACCES: "run bpfsvc as root",
  ENOTDIR: "name a folder with --pins",
};

/** Whether maps in a folder of this name are this build's, under its own name or aside. */
export function isOwnLayout(layout: string): boolean {
  return layout === OWN_LAYOUT || layout.startsWith(`${OWN_LAYOUT}_`);
}

/** Another agent works on this pin folder. */
class LockedError extends Error {
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

  /** Where a map of the build with these layouts is pinned; of this build if left out. */
  mapPath(name: string, layout = OWN_LAYOUT): string {
    return path.join(this.#mapsFolder(layout), name);
  }

  linkPath(hook: Hook): string {
    return path.join(this.folder, "links", hook);
  }

  /** Where a device's link is pinned. Names of devices may have dots, which bpffs does not take. */
  deviceLinkPath(hook: DeviceHook, ifindex: number): string {
    return path.join(this.folder, "links", `${hook}_${ifindex}`);
  }

  /** The links of devices that are pinned. */
  get deviceLinks(): { hook: DeviceHook; ifindex: number }[] {
    return (entries(path.join(this.folder, "links")) ?? []).flatMap((name) => {
      const [, hook, ifindex] = DEVICE_LINK.exec(name) ?? [];
      return hook ? [{ hook: hook as DeviceHook, ifindex: Number(ifindex) }] : [];
    });
  }

  /** Where a program for devices is pinned; builds are told apart by 16 hexadecimal digits. */
  programPath(build: string, name: string): string {
    return path.join(this.folder, `programs_${build}`, name);
  }

  /** The builds of which programs for devices are pinned. */
  get programBuilds(): string[] {
    return this.#numbered(PROGRAMS_FOLDER);
  }

  /** Removes the programs of one build; where they are attached they stay so. */
  removePrograms(build: string): void {
    const folder = path.dirname(this.programPath(build, "svc_xdp"));
    for (const file of programsIn(folder)) unlinkSync(file);
    removeIfEmpty(folder);
  }

  /** Where readers of an earlier build are pinned, by the id of the svc_sockets that they read. */
  readerPath(socketsId: number, name: Hook | (typeof SOCKET_MAPS)[number]): string {
    return path.join(this.folder, `readers_${socketsId}`, name);
  }

  /** The layouts whose maps the attached programs use, or are about to; undefined if none do. */
  get serving(): string | undefined {
    try {
      const layout = MAPS_FOLDER.exec(readlinkSync(path.join(this.folder, SERVING)))?.[1];
      return this.layouts.find((each) => each === layout);
    } catch (error) {
      return absent(error, this.folder);
    }
  }

  /** What somebody took away of this build's maps while they are in force. */
  get missingMaps(): string[] {
    if (this.serving !== OWN_LAYOUT) return [];
    const present = new Set(entries(this.#mapsFolder(OWN_LAYOUT)));
    return MAP_NAMES.filter((name) => !present.has(name));
  }

  /** Puts these maps in force, in one step: whoever starts next goes on from them. */
  serve(layout = OWN_LAYOUT): void {
    const next = path.join(this.folder, SERVING_NEXT);
    if (entries(this.folder)?.includes(SERVING_NEXT)) unlinkSync(next);
    symlinkSync(`maps_${layout}`, next);
    renameSync(next, path.join(this.folder, SERVING));
  }

  /** The layouts of all folders of maps; those that were set aside have a number at the end. */
  get layouts(): string[] {
    return this.#numbered(MAPS_FOLDER);
  }

  /** The ids of svc_sockets for which readers of an earlier build are attached, oldest first. */
  get readers(): number[] {
    return this.#numbered(READERS_FOLDER)
      .map(Number)
      .sort((left, right) => left - right);
  }

  /** Creates the folders and locks them. Throws naming the folder and the fix. */
  open(): FolderLock {
    const parent = nearestFolder(this.folder);
    if (!isBpffs(parent))
      throw new Error(
        `Pin folder "${this.folder}" is not in a BPF file system: run "mount -t bpf none ` +
          `/sys/fs/bpf", or name a folder in one with --pins`,
      );
    this.makeFolder(this.linkPath(HOOKS[0]));
    return this.lock();
  }

  /** Creates the folder that a pin is to be put in. Throws naming the pin folder. */
  makeFolder(file: string): void {
    try {
      mkdirSync(path.dirname(file), { recursive: true, mode: 0o700 });
    } catch (cause) {
      throw new Error(`Cannot create pin folder "${this.folder}": ${(cause as Error).message}`, {
        cause,
      });
    }
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

  /** Makes room for new maps of this build: those that are there get another name. */
  setAside(): void {
    renameSync(this.#mapsFolder(OWN_LAYOUT), this.#mapsFolder(this.#nameAside()));
  }

  /** The same for maps that are in force, and stay so under the other name at every moment. */
  serveAside(): void {
    const name = this.#nameAside();
    for (const map of MAP_NAMES) {
      const pinned = BpfMap.openPinned(this.mapPath(map));
      this.makeFolder(this.mapPath(map, name));
      pinned.pin(this.mapPath(map, name));
      pinned.close();
    }
    this.serve(name);
    this.removeMaps(OWN_LAYOUT);
  }

  #nameAside(): string {
    for (let number = 1; ; number++) {
      const name = `${OWN_LAYOUT}_${number}`;
      if (!this.layouts.includes(name)) return name;
    }
  }

  /** Removes the maps of one build, and its folder if nothing else is in it. */
  removeMaps(layout: string): void {
    const folder = this.#mapsFolder(layout);
    for (const file of mapsIn(folder)) unlinkSync(file);
    removeIfEmpty(folder);
  }

  /** Detaches readers of an earlier build. */
  removeReaders(socketsId: number): void {
    const folder = path.dirname(this.readerPath(socketsId, "svc_sockets"));
    for (const file of [...linksIn(folder), ...mapsIn(folder)]) unlinkSync(file);
    removeIfEmpty(folder);
  }

  /** Removes links of ours that this build has no hook for: a newer one had. */
  removeUnknownLinks(): void {
    for (const file of linksIn(path.join(this.folder, "links")))
      if (!isLinkName(path.basename(file))) unlinkSync(file);
  }

  /**
   * Removes every pin of ours, links first so that nothing is served by half the maps, then the
   * folders if they are empty. Returns the paths removed, and what else lies in the folder.
   */
  remove(): { removed: string[]; foreign: string[] } {
    const removed = this.#ours();
    for (const file of removed) unlinkSync(file);
    for (const folder of this.#folders()) removeIfEmpty(folder);
    removeIfEmpty(this.folder);
    const left = entries(this.folder) ?? [];
    return { removed, foreign: left.map((name) => path.join(this.folder, name)) };
  }

  #mapsFolder(layout: string): string {
    return path.join(this.folder, `maps_${layout}`);
  }

  /** Every pin of ours, links first; and the link that says whose maps are in force. */
  #ours(): string[] {
    const folders = this.#folders();
    const marks = (entries(this.folder) ?? [])
      .filter((name) => name === SERVING || name === SERVING_NEXT)
      .map((name) => path.join(this.folder, name));
    const kinds = [linksIn, programsIn, mapsIn];
    return [...kinds.flatMap((filesIn) => folders.flatMap(filesIn)), ...marks];
  }

  /** The folders of ours that are there. */
  #folders(): string[] {
    const patterns = [/^links$/, MAPS_FOLDER, READERS_FOLDER, PROGRAMS_FOLDER];
    const isOurs = (name: string) => patterns.some((pattern) => pattern.test(name));
    const names = (entries(this.folder) ?? []).filter(isOurs);
    return names.map((name) => path.join(this.folder, name));
  }

  /** What distinguishes the folders of one pattern. */
  #numbered(pattern: RegExp): string[] {
    return (entries(this.folder) ?? []).flatMap((name) => pattern.exec(name)?.[1] ?? []);
  }
}

/** The maps in a folder that a build of ours has pinned: they are called as their file is. */
function mapsIn(folder: string): string[] {
  return files(folder).filter((file) => {
    const name = path.basename(file);
    if (!name.startsWith("svc_")) return false;
    const map = opened(() => BpfMap.openPinned(file));
    map?.close();
    return map?.info.name === name.slice(0, KERNEL_NAME_LENGTH);
  });
}

/** The programs in a folder that a build of ours has pinned. */
function programsIn(folder: string): string[] {
  return files(folder).filter((file) => {
    if (!path.basename(file).startsWith("svc_")) return false;
    const program = opened(() => RunningProgram.openPinned(file));
    program?.close();
    return program?.name === path.basename(file).slice(0, KERNEL_NAME_LENGTH);
  });
}

/** Whether this build has a hook for which a link is called so. */
function isLinkName(name: string): boolean {
  const hooks: readonly string[] = HOOKS;
  return hooks.includes(name) || DEVICE_LINK.test(name);
}

/** The links in a folder that a build of ours has pinned: for a hook, or with a program of ours. */
function linksIn(folder: string): string[] {
  return files(folder).filter((file) => {
    if (isLinkName(path.basename(file))) return true;
    const link = opened(() => BpfLink.openPinned(file));
    if (!link) return false;
    const { programId } = link.info;
    link.close();
    const program = opened(() => RunningProgram.openById(programId));
    program?.close();
    return program?.name.startsWith("svc_") ?? false;
  });
}

/** Undefined where something else is pinned, or may not be looked at. */
function opened<T>(open: () => T): T | undefined {
  try {
    return open();
  } catch {
    return undefined;
  }
}

function files(folder: string): string[] {
  return (entries(folder) ?? []).map((name) => path.join(folder, name));
}

/** The names in a folder, or undefined if there is none. */
function entries(folder: string): string[] | undefined {
  try {
    return readdirSync(folder);
  } catch (error) {
    return absent(error, folder);
  }
}

/** Undefined for what is not there. Throws what else is wrong with a folder, naming the fix. */
function absent(error: unknown, folder: string): undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === "ENOENT") return undefined;
  const fix = FIXES[code ?? ""];
  if (fix === undefined) throw error;
  throw new Error(`Cannot read "${folder}": ${message}; ${fix}`, { cause: error });
}

function removeIfEmpty(folder: string): void {
  if (entries(folder)?.length === 0) rmdirSync(folder);
}

/** The nearest folder on the way up that exists. */
function nearestFolder(folder: string): string {
  for (let at = folder; ; at = path.dirname(at))
    if (statSync(at, { throwIfNoEntry: false })?.isDirectory()) return at;
}
