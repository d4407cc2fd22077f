// The programs for devices, loaded over the pinned maps when they are first wanted and pinned by
// their build: who comes later goes on with just these, and what is attached tells by the program's
// id whether it is current. Knows no device.
import { createHash } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import { arch } from "node:process";
import { isDeepStrictEqual } from "node:util";
import { BpfObject } from "../../../bindings/object.ts";
import { RunningProgram } from "../../../bindings/running.ts";
import { kernelHas } from "../../../bindings/system.ts";
import type { MapName, OpenMaps, Rodata } from "../kernel.ts";
import { objectPath } from "../objects.ts";
import type { Pins } from "../pins.ts";

/** Programs that are loaded together. Those of devices without Ethernet are seldom wanted. */
const GROUPS = {
  xdp: { object: "xdp.bpf.o", programs: ["svc_xdp"] },
  tc: { object: "tc.bpf.o", programs: ["svc_tc_ingress", "svc_tc_egress"] },
  tc_l3: { object: "tc.bpf.o", programs: ["svc_tc_ingress_l3", "svc_tc_egress_l3"] },
} as const;
type Group = (typeof GROUPS)[keyof typeof GROUPS];
export type ProgramName = Group["programs"][number];

const HASH_DIGITS = 16;

export interface ProgramOptions {
  pins: Pins;
  maps: OpenMaps;
  /** Values of those `const volatile` variables that an object has; others are ignored. */
  rodata: Rodata;
}

/** A program that the kernel refused to load. */
export class ProgramError extends Error {
  readonly program: ProgramName;
  readonly code: string;

  constructor(program: ProgramName, cause: Error) {
    super(cause.message, { cause });
    this.name = "ProgramError";
    this.program = program;
    this.code = String((cause as { code?: unknown }).code ?? "");
  }
}

export class DevicePrograms {
  readonly #options: ProgramOptions;
  #machine = machineRodata();
  /** What was found at the last renewal, whatever came of it. */
  #found = this.#machine;
  /** Names these programs with their configuration and maps. */
  #build: string;
  #outdated: ProgramError | undefined;
  #opened = new Map<ProgramName, RunningProgram>();
  #refused = new Map<Group, Error>();

  constructor(options: ProgramOptions) {
    this.#options = options;
    this.#build = buildHash(options.maps, this.#rodata);
  }

  /** Why the programs in use do not use all that the kernel offers. */
  get outdated(): ProgramError | undefined {
    return this.#outdated;
  }

  get #rodata(): Rodata {
    const { maps, rodata } = this.#options;
    return { ...this.#machine, flow_set_mask: maps.svc_flows.info.maxEntries - 1, ...rodata };
  }

  /** A loaded program. Throws ProgramError; what was refused once is not tried again. */
  get(name: ProgramName): RunningProgram {
    const known = this.#opened.get(name);
    if (known) return known;
    const group = Object.values(GROUPS).find(({ programs }) =>
      programs.some((each) => each === name),
    )!;
    const refused = this.#refused.get(group);
    if (refused) throw new ProgramError(name, refused);
    const file = this.#options.pins.programPath(this.#build, name);
    try {
      if (!existsSync(file)) this.#load(group);
      const program = RunningProgram.openPinned(file);
      this.#opened.set(name, program);
      return program;
    } catch (error) {
      this.#refused.set(group, error as Error);
      throw new ProgramError(name, error as Error);
    }
  }

  /**
   * Loads those in use anew if the kernel has come to offer more: nf_conntrack as a module, which a
   * CNI's first rule may load. Returns whether it did, so that others are to be attached. What it
   * cannot load it does not try again; `outdated` says why, and those before stay in use.
   */
  renew(): boolean {
    const found = machineRodata();
    if (isDeepStrictEqual(this.#found, found)) return false;
    this.#found = found;
    const next = new DevicePrograms(this.#options);
    try {
      for (const name of this.#opened.keys()) next.get(name);
    } catch (error) {
      next.close();
      this.#outdated = error as ProgramError;
      return false;
    }
    this.close();
    this.#machine = next.#machine;
    this.#build = next.#build;
    this.#opened = next.#opened;
    this.#refused = next.#refused;
    return this.#opened.size > 0;
  }

  /** Pins programs in use again whose pins are gone, and unpins those of other builds. */
  tidy(): void {
    const { pins } = this.#options;
    for (const [name, program] of this.#opened) {
      const file = pins.programPath(this.#build, name);
      if (existsSync(file)) continue;
      pins.makeFolder(file);
      program.pin(file);
    }
    for (const build of pins.programBuilds) if (build !== this.#build) pins.removePrograms(build);
  }

  close(): void {
    for (const program of this.#opened.values()) program.close();
    this.#opened.clear();
  }

  #load({ object: file, programs }: Group): void {
    const { pins, maps } = this.#options;
    const wanted: readonly string[] = programs;
    const object = BpfObject.open(objectPath(file));
    try {
      const variables = new Set(object.rodataVariables);
      for (const [variable, value] of Object.entries(this.#rodata))
        if (variables.has(variable)) object.setRodata(variable, value);
      // What only the programs use, and for no longer than a packet, is theirs alone.
      for (const map of object.maps()) if (map.name in maps) map.reuse(maps[map.name as MapName]);
      for (const program of object.programs()) program.setAutoload(wanted.includes(program.name));
      object.load();
      for (const name of programs) {
        const path = pins.programPath(this.#build, name);
        pins.makeFolder(path);
        if (!existsSync(path)) object.program(name).pin(path);
      }
    } finally {
      object.close();
    }
  }
}

/** What programs have to know of the machine. */
function machineRodata(): Rodata {
  return {
    fib_has_source: kernelHas("BPF_FIB_LOOKUP_SRC") ? 1 : 0,
    asks_conntrack: kernelHas("bpf_skb_ct_lookup") ? 1 : 0,
    reads_reorder: arch === "arm64" ? 1 : 0,
  };
}

/** A hash of the objects, of their configuration and of the maps that they use. */
function buildHash(maps: OpenMaps, rodata: Rodata): string {
  const hash = createHash("sha256");
  const files = new Set(Object.values(GROUPS).map(({ object }) => object));
  for (const file of files) hash.update(readFileSync(objectPath(file)));
  const values = Object.entries(rodata).map(([name, value]) => `${name}=${value}`);
  const ids = Object.entries(maps).map(([name, map]) => `${name}#${map.info.id}`);
  hash.update([...values.sort(), ...ids.sort()].join());
  return hash.digest("hex").slice(0, HASH_DIGITS);
}
