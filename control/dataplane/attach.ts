// Attaches the programs to a cgroup by pinned links, and leaves alone what is attached already.
// Links are replaced by update, never detached, so that no connect falls between two programs.
import { createHash } from "node:crypto";
import { existsSync, readFileSync, unlinkSync } from "node:fs";
import { BpfLink, cgroupId } from "../../bindings/link.ts";
import { BpfMap } from "../../bindings/map.ts";
import { RunningProgram } from "../../bindings/running.ts";
import { isCgroup2 } from "../../bindings/system.ts";
import type { LoadedObject, Meta, Rodata } from "./kernel.ts";
import { objectPath } from "./objects.ts";
import { HOOKS, type Hook, type Pins, READER_HOOKS, SOCKET_MAPS } from "./pins.ts";

/** How many earlier builds' readers stay attached; each costs a lookup for every datagram. */
const READERS_KEPT = 3;

/** Names a build of the programs together with their configuration. */
export function programsHash(rodata: Rodata): bigint {
  const hash = createHash("sha256");
  hash.update(readFileSync(objectPath("sock.bpf.o")));
  const values = Object.entries(rodata).map(([name, value]) => `${name}=${value}`);
  hash.update(values.sort().join());
  return hash.digest().readBigUInt64LE();
}

/** Throws naming the cgroup and the fix unless it is a folder of a cgroup v2 tree. */
export function checkCgroup(cgroup: string): void {
  if (!existsSync(cgroup))
    throw new Error(`Cgroup "${cgroup}" does not exist: name one with --cgroup, or leave it out`);
  if (!isCgroup2(cgroup))
    throw new Error(
      `Cgroup "${cgroup}" is not in a cgroup v2 tree: mount one with ` +
        `"mount -t cgroup2 none ${cgroup}", or name a folder in one with --cgroup`,
    );
}

/** The hooks whose pinned link does not serve this cgroup. */
export function missingHooks(pins: Pins, cgroup: string): Hook[] {
  const wanted = cgroupId(cgroup);
  return HOOKS.filter((hook) => {
    const link = openLink(pins, hook);
    const attached = link?.info.cgroupId === wanted;
    link?.close();
    return !attached;
  });
}

/**
 * Attaches all programs of an object to a cgroup, by update where a link serves it already. Readers
 * of what an earlier build stored with sockets stay beside the new ones. Meanwhile svc_meta names
 * no programs: whoever is killed here leaves work for the next.
 */
export function attachAll(
  loaded: LoadedObject,
  { pins, cgroup, meta }: { pins: Pins; cgroup: string; meta: Meta },
): void {
  const wanted = cgroupId(cgroup);
  const own = BpfMap.openPinned(pins.mapPath(SOCKET_MAPS[0]));
  own.close();
  meta.programs = 0n;
  for (const hook of HOOKS) {
    const program = loaded.object.program(`svc_${hook}`);
    const existing = openLink(pins, hook);
    if (existing && existing.info.cgroupId === wanted) {
      if (READER_HOOKS.includes(hook)) keepReader(existing, { pins, cgroup, hook, own });
      existing.update(program);
      existing.close();
      continue;
    }
    const link = BpfLink.attachCgroup(program, cgroup);
    if (existing) {
      unlinkSync(pins.linkPath(hook));
      existing.close();
    }
    pins.makeFolder(pins.linkPath(hook));
    link.pin(pins.linkPath(hook));
    link.close();
  }
  removeOldReaders(pins, { wanted, own });
  pins.removeUnknownLinks();
  meta.programs = programsHash(loaded.rodata);
}

/**
 * The program of a link goes on beside the one that takes its place, if it reads other records
 * than this build's, under a link of its own that runs after. Its maps are pinned with it, for a
 * build that can use them again. Without CAP_SYS_ADMIN the program cannot be had, and is not kept.
 */
function keepReader(
  existing: BpfLink,
  { pins, cgroup, hook, own }: { pins: Pins; cgroup: string; hook: Hook; own: BpfMap },
): void {
  const { programId, attachType } = existing.info;
  const program = openProgram(programId);
  if (!program) return;
  const maps = program.mapIds.map((id) => BpfMap.openById(id));
  const named = (name: string) => maps.find(({ info }) => info.name === name);
  const sockets = named(SOCKET_MAPS[0]);
  if (sockets && sockets.info.id !== own.info.id) {
    const pathOf = (name: Hook | (typeof SOCKET_MAPS)[number]) =>
      pins.readerPath(sockets.info.id, name);
    pins.makeFolder(pathOf(hook));
    for (const name of SOCKET_MAPS) if (!existsSync(pathOf(name))) named(name)?.pin(pathOf(name));
    if (!existsSync(pathOf(hook))) {
      const { fd, name } = program;
      const link = BpfLink.attachCgroup({ fd, name, expectedAttachType: attachType }, cgroup);
      link.pin(pathOf(hook));
      link.close();
    }
  }
  for (const map of maps) map.close();
  program.close();
}

function openProgram(id: number): RunningProgram | undefined {
  try {
    return RunningProgram.openById(id);
  } catch (error) {
    if ((error as { code?: unknown }).code === "EPERM") return undefined;
    throw error;
  }
}

/** Readers of what is read anyway, of another cgroup, and the oldest of many are not needed. */
function removeOldReaders(pins: Pins, { wanted, own }: { wanted: bigint; own: BpfMap }): void {
  const isNeeded = (id: number) => {
    if (id === own.info.id) return false;
    const links = READER_HOOKS.map((hook) => openLinkAt(pins.readerPath(id, hook)));
    const cgroups = links.map((link) => link?.info.cgroupId);
    for (const link of links) link?.close();
    return cgroups.includes(wanted);
  };
  const kept = pins.readers.filter(isNeeded).slice(-READERS_KEPT);
  for (const id of pins.readers) if (!kept.includes(id)) pins.removeReaders(id);
}

function openLink(pins: Pins, hook: Hook): BpfLink | undefined {
  return openLinkAt(pins.linkPath(hook));
}

function openLinkAt(file: string): BpfLink | undefined {
  try {
    return BpfLink.openPinned(file);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}
