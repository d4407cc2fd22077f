// Attaches the programs to a cgroup by pinned links, and leaves alone what is attached already.
// Links are replaced by update, never detached, so that no connect falls between two programs.
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, unlinkSync } from "node:fs";
import path from "node:path";
import { BpfLink, cgroupId } from "../../bindings/link.ts";
import { isCgroup2 } from "../../bindings/system.ts";
import type { LoadedObject, Meta, Rodata } from "./kernel.ts";
import { objectPath } from "./objects.ts";
import { HOOKS, type Hook, type Pins } from "./pins.ts";

/** Names a build of the programs together with their configuration. */
export function programsHash(rodata: Rodata): bigint {
  const hash = createHash("sha256");
  hash.update(readFileSync(objectPath("sock.bpf.o")));
  hash.update(JSON.stringify(Object.entries(rodata).sort()));
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

/** Attaches all programs of an object to a cgroup, by update where a link serves it already. */
export function attachAll(
  loaded: LoadedObject,
  { pins, cgroup, meta }: { pins: Pins; cgroup: string; meta: Meta },
): void {
  const wanted = cgroupId(cgroup);
  for (const hook of HOOKS) {
    const program = loaded.object.program(`svc_${hook}`);
    const existing = openLink(pins, hook);
    if (existing && existing.info.cgroupId === wanted) {
      existing.update(program);
      existing.close();
      continue;
    }
    const link = BpfLink.attachCgroup(program, cgroup);
    if (existing) {
      unlinkSync(pins.linkPath(hook));
      existing.close();
    }
    mkdirSync(path.dirname(pins.linkPath(hook)), { recursive: true, mode: 0o700 });
    link.pin(pins.linkPath(hook));
    link.close();
  }
  meta.programs = programsHash(loaded.rodata);
}

function openLink(pins: Pins, hook: Hook): BpfLink | undefined {
  try {
    return BpfLink.openPinned(pins.linkPath(hook));
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}
