// Our programs on devices: attached by links that are pinned in the folder, or before Linux 6.6 as
// filters; replaced by update, without a gap. Others' programs are left alone. Knows devices by
// what is wanted of them.
import { createHash } from "node:crypto";
import { existsSync, unlinkSync } from "node:fs";
import {
  attachFilter,
  detachFilter,
  type FilterPlace,
  filterPoint,
  findFilter,
  removeEmptyQdisc,
} from "../../../bindings/filter.ts";
import { BpfLink, type DeviceTarget, deviceHook, xdpFlag } from "../../../bindings/link.ts";
import { xdpMode } from "../../../bindings/rtnetlink.ts";
import type { RunningProgram } from "../../../bindings/running.ts";
import { DEVICE_HOOKS, type DeviceHook, type Pins } from "../pins.ts";
import type { Note, WantedDevice, XdpWish } from "./modes.ts";
import { type DevicePrograms, ProgramError } from "./programs.ts";
import { hasEthernet } from "./roles.ts";

/** What came of serving a device. */
export interface Served {
  xdp: XdpWish;
  note: Note;
  /** The errno's name that the note is about, "" if there is none. */
  code: string;
  /** What could not be done and what serves instead, as a sentence. */
  problem?: string;
}

/** What is to be looked at, beyond what this process has done itself. */
export interface Verify {
  links: boolean;
  filters: boolean;
}

interface HeldLink {
  link: BpfLink;
  programId: number;
}

const ATTACH_TYPES: Readonly<Record<DeviceHook, number>> = {
  xdp: deviceHook.XDP,
  tcx_ingress: deviceHook.TCX_INGRESS,
  tcx_egress: deviceHook.TCX_EGRESS,
};
const XDP_MODES = {
  native: { flags: xdpFlag.NATIVE, mode: xdpMode.NATIVE },
  generic: { flags: xdpFlag.GENERIC, mode: xdpMode.GENERIC },
} as const;
const DIRECTIONS = [
  { hook: "tcx_ingress", point: filterPoint.INGRESS, name: "svc_tc_ingress" },
  { hook: "tcx_egress", point: filterPoint.EGRESS, name: "svc_tc_egress" },
] as const;
/** Filters of other programs usually have lower numbers, and run before. */
const FILTER_PRIORITY = 46577;
/** No device has this number. */
const NO_DEVICE: DeviceTarget = { ifindex: 0x7fffffff, name: "none" };
const TAKEN: ReadonlySet<string> = new Set(["EBUSY", "EEXIST"]);

/** The place of a pin folder's filter on one side of a device. */
export function filterPlace(pins: Pins, device: DeviceTarget, point: number): FilterPlace {
  const digest = createHash("sha256").update(pins.folder).digest();
  return { device, point, handle: digest.readUInt32LE() || 1, priority: FILTER_PRIORITY };
}

/** Takes a folder's filters off a device, and their qdisc if nobody else has any. */
export function removeFilters(pins: Pins, device: DeviceTarget): boolean {
  const removed = DIRECTIONS.filter(({ point }) => detachFilter(filterPlace(pins, device, point)));
  if (removed.length > 0) removeEmptyQdisc(device);
  return removed.length > 0;
}

export class DeviceHooks {
  readonly #pins: Pins;
  readonly #programs: Pick<DevicePrograms, "get">;
  readonly #links = new Map<string, HeldLink>();
  /** What the driver refused, and when it was what: it is asked again once that is different. */
  readonly #refused = new Map<number, { signature: string; served: Served }>();
  /** The programs' ids of the filters that are there, before TCX, unless somebody took them off. */
  readonly #filters = new Map<string, number>();
  #hasTcx: boolean | undefined;

  /** Takes over what is pinned. `hasTcx` is found out unless it is given. */
  constructor(options: {
    pins: Pins;
    programs: Pick<DevicePrograms, "get">;
    hasTcx?: boolean | undefined;
  }) {
    this.#pins = options.pins;
    this.#programs = options.programs;
    this.#hasTcx = options.hasTcx;
    for (const { hook, ifindex } of this.#pins.deviceLinks) this.#takeOver(hook, ifindex);
  }

  /** The devices that links of ours are on. */
  get ifindexes(): Set<number> {
    return new Set([...this.#links.keys()].map((name) => splitName(name)[1]));
  }

  /** Whether a link of ours holds this XDP program. */
  isOwnXdp(programId: number): boolean {
    for (const [name, held] of this.#links)
      if (splitName(name)[0] === "xdp" && held.programId === programId) return true;
    return false;
  }

  /** Devices with a link that is gone: somebody detached it, or the device has gone. */
  get damaged(): Set<number> {
    const found = new Set<number>();
    for (const [name, { link }] of this.#links) {
      const [, ifindex] = splitName(name);
      if (link.info.ifindex !== ifindex) found.add(ifindex);
    }
    return found;
  }

  /** Pins what is pinned no more. Returns how many pins that were. */
  restorePins(): number {
    const pinned = new Set(
      this.#pins.deviceLinks.map(({ hook, ifindex }) => nameOf(hook, ifindex)),
    );
    let restored = 0;
    for (const [name, { link }] of this.#links) {
      if (pinned.has(name)) continue;
      const [hook, ifindex] = splitName(name);
      const file = this.#pins.deviceLinkPath(hook, ifindex);
      this.#pins.makeFolder(file);
      link.pin(file);
      restored++;
    }
    return restored;
  }

  /** Loads what devices want, which takes long; what cannot be loaded serve() tells. */
  prepare(devices: readonly WantedDevice[]): void {
    for (const { link, xdp } of devices) {
      const names = DIRECTIONS.map(({ name }) => programFor(link, name));
      for (const name of xdp === "none" ? names : [...names, "svc_xdp" as const])
        try {
          this.#programs.get(name);
        } catch {}
    }
  }

  /** Attaches what is wanted on a device. What cannot be attached is told, not thrown. */
  serve(device: WantedDevice, verify: Verify): Served {
    const { ifindex } = device.link;
    if (verify.links) for (const hook of DEVICE_HOOKS) this.#dropIfDead(hook, ifindex);
    try {
      this.#serveTc(device, verify);
    } catch (error) {
      const { message } = error as Error;
      const problem = `${message}. Services are not served on it`;
      return { xdp: "none", note: "no_tc", code: codeOf(error), problem };
    }
    return this.#serveXdp(device);
  }

  /** Takes all of ours off a device, which may be gone. */
  withdraw(device: DeviceTarget): void {
    for (const hook of DEVICE_HOOKS) {
      this.#drop(hook, device.ifindex);
      this.#filters.delete(nameOf(hook, device.ifindex));
    }
    this.#refused.delete(device.ifindex);
    if (this.#hasTcx === false) removeFilters(this.#pins, device);
  }

  /** Gives descriptors back; what is attached stays so. */
  close(): void {
    for (const { link } of this.#links.values()) link.close();
    this.#links.clear();
  }

  #takeOver(hook: DeviceHook, ifindex: number): void {
    const file = this.#pins.deviceLinkPath(hook, ifindex);
    const link = BpfLink.openPinned(file);
    const { ifindex: present, programId } = link.info;
    if (present === ifindex) this.#links.set(nameOf(hook, ifindex), { link, programId });
    else {
      link.close();
      unlinkSync(file);
    }
  }

  #serveTc({ link }: WantedDevice, verify: Verify): void {
    for (const { hook, point, name } of DIRECTIONS) {
      const program = this.#programs.get(programFor(link, name));
      this.#hasTcx ??= canTcx(program);
      if (this.#hasTcx) this.#hold(hook, link, { program, flags: 0 });
      else if (verify.filters || this.#filters.get(nameOf(hook, link.ifindex)) !== program.id) {
        const place = filterPlace(this.#pins, link, point);
        if (findFilter(place) !== program.id) attachFilter(attachable(program), place);
        this.#filters.set(nameOf(hook, link.ifindex), program.id);
      }
    }
  }

  #serveXdp(device: WantedDevice): Served {
    const { link, xdp: wish, note } = device;
    if (wish === "none") {
      this.#drop("xdp", link.ifindex);
      return { xdp: wish, note, code: "" };
    }
    const signature = signatureOf(device);
    const refused = this.#refused.get(link.ifindex);
    if (refused?.signature === signature) return refused.served;
    this.#refused.delete(link.ifindex);
    const { flags, mode } = XDP_MODES[wish];
    try {
      const program = this.#programs.get("svc_xdp");
      // The two kinds of XDP exclude each other on a device.
      if (this.#links.has(nameOf("xdp", link.ifindex)) && link.xdp.mode !== mode)
        this.#drop("xdp", link.ifindex);
      this.#hold("xdp", link, { program, flags });
      return { xdp: wish, note, code: "" };
    } catch (error) {
      const served = this.#withoutXdp(error as Error);
      this.#drop("xdp", link.ifindex);
      this.#refused.set(link.ifindex, { signature, served });
      return served;
    }
  }

  #withoutXdp(error: Error): Served {
    const code = codeOf(error);
    const isLoaded = !(error instanceof ProgramError);
    const note = !isLoaded ? "not_loaded" : TAKEN.has(code) ? "foreign" : "refused";
    return { xdp: "none", note, code, problem: `${error.message}. TC serves it instead` };
  }

  /** Has a link hold a program on a device: the one that does, or a new one. Throws BpfError. */
  #hold(
    hook: DeviceHook,
    device: DeviceTarget,
    { program, flags }: { program: RunningProgram; flags: number },
  ): void {
    const name = nameOf(hook, device.ifindex);
    const held = this.#links.get(name);
    if (held?.programId === program.id) return;
    if (held) {
      held.link.update(attachable(program));
      held.programId = program.id;
      return;
    }
    const link = BpfLink.attachDevice(attachable(program), device, {
      hook: ATTACH_TYPES[hook],
      flags,
    });
    const file = this.#pins.deviceLinkPath(hook, device.ifindex);
    try {
      this.#pins.makeFolder(file);
      if (existsSync(file)) unlinkSync(file);
      link.pin(file);
    } catch (error) {
      link.close();
      throw error;
    }
    this.#links.set(name, { link, programId: program.id });
  }

  #dropIfDead(hook: DeviceHook, ifindex: number): void {
    const held = this.#links.get(nameOf(hook, ifindex));
    if (held && held.link.info.ifindex !== ifindex) this.#drop(hook, ifindex);
  }

  #drop(hook: DeviceHook, ifindex: number): void {
    const name = nameOf(hook, ifindex);
    const held = this.#links.get(name);
    if (held === undefined) return;
    this.#links.delete(name);
    const file = this.#pins.deviceLinkPath(hook, ifindex);
    if (existsSync(file)) unlinkSync(file);
    held.link.close();
  }
}

function programFor(link: WantedDevice["link"], name: (typeof DIRECTIONS)[number]["name"]) {
  return hasEthernet(link) ? name : (`${name}_l3` as const);
}

function nameOf(hook: DeviceHook, ifindex: number): string {
  return `${hook}_${ifindex}`;
}

function splitName(name: string): [DeviceHook, number] {
  const at = name.lastIndexOf("_");
  return [name.slice(0, at) as DeviceHook, Number(name.slice(at + 1))];
}

function attachable({ fd, name }: RunningProgram) {
  return { fd, name, expectedAttachType: 0 };
}

/** Before Linux 6.6 the kernel does not get as far as to miss the device. */
function canTcx(program: RunningProgram): boolean {
  try {
    BpfLink.attachDevice(attachable(program), NO_DEVICE, { hook: deviceHook.TCX_INGRESS }).close();
  } catch (error) {
    return codeOf(error) === "ENODEV";
  }
  return true;
}

/** What a driver's answer may depend on, as far as it is known here. */
function signatureOf({ link, xdp }: WantedDevice): string {
  const { name, kind, mtu, flags, master, xdp: present } = link;
  return JSON.stringify([xdp, name, kind, mtu, flags & 1, master, present]);
}

function codeOf(error: unknown): string {
  return String((error as { code?: unknown }).code ?? "");
}
