// Which maps an agent goes on with: its own, or those of another build or of other sizes, whose
// content it takes over into new maps while the other programs serve. Whatever moment it is killed
// at, one set of maps is in force (Pins.serving), and the next start of either build goes on there.
import { randomBytes } from "node:crypto";
import { existsSync } from "node:fs";
import { type Layouts, sameEnum } from "../../bindings/collect.ts";
import { backend, layoutHash, maps as layouts, slotPair } from "../../bindings/layout.ts";
import { BpfMap } from "../../bindings/map.ts";
import { returnFreedMemory } from "../../bindings/system.ts";
import { Described, isShareable, ownLayouts, readLayouts } from "./described.ts";
import type { FlowMove } from "./flowmove.ts";
import {
  type Capacities,
  checkLayout,
  type KernelStorage,
  kernelStorage,
  type LoadedObject,
  loadObject,
  type MapName,
  Meta,
  type OpenMaps,
  openOwn,
  type Rodata,
} from "./kernel.ts";
import type { Storage } from "./maps.ts";
import {
  copyContent,
  copyReasons,
  eachAffinity,
  moveCounters,
  RoomError,
  sameServices,
} from "./migrate.ts";
import { FLOW_MAPS, HOOKS, isOwnLayout, OWN_LAYOUT, type Pins, SOCKET_MAPS } from "./pins.ts";

/** The kernel's side of a running agent. */
export interface Kernel {
  readonly pins: Pins;
  readonly maps: OpenMaps;
  readonly meta: Meta;
  readonly storage: KernelStorage;
  /** Present if programs had to be loaded to create maps; they want to be attached. */
  loaded: LoadedObject | undefined;
  /** The maps that serve until claim(), if they are others. */
  former: Described | undefined;
  /** What settle() is to bring over and remove; found by claim(). */
  leftovers: Leftover[] | undefined;
  /** That programs on devices go by these maps, all of them. */
  readonly devices: Milestone;
  /** What the user should know of a take-over. */
  readonly notes: { level: "info" | "warn"; message: string }[];
}

/** What comes about once, and may be waited for. */
class Milestone {
  isReached = false;
  readonly reached: Promise<void>;
  #resolve!: () => void;

  constructor() {
    this.reached = new Promise((resolve) => {
      this.#resolve = resolve;
    });
  }

  reach(): void {
    this.isReached = true;
    this.#resolve();
  }
}

/** Maps that are not in force any more, or have never been. */
interface Leftover {
  layout: string;
  /** Undefined if they cannot be understood: startAnew() has said so. */
  content: Described | undefined;
  /** Takes connections over, if they are in a table of another size. */
  flows: FlowMove | undefined;
}

export interface OpenOptions {
  rodata: Rodata;
  /** Sizes that were asked for; the others are this build's, or larger if another build's were. */
  capacities: Capacities;
}

/** Maps whose size follows another build's, unless one was asked for. */
const GROWING = [
  "svc_services",
  "svc_names",
  "svc_backends",
  "svc_overflow",
  "svc_affinity",
] as const;
const SLOTS_PER_ELEMENT = slotPair.bytes / slotPair.stride.slot;
const BATCH = 4096;
/** For how long connections may be held at most, should this process die. */
const HELD_NS = 1_000_000_000n;

/**
 * The pinned maps of a folder: this build's as they are; or new ones, if those that serve now are
 * another build's or have other sizes than were asked for, filled with what is in those. Nothing is
 * in force before claim(). Throws LayoutError for maps of another program, RoomError, and BpfError
 * with the verifier's words.
 */
export function openKernel(pins: Pins, options: OpenOptions): Kernel {
  // Here begins a process that lives long and will hold and drop the whole cluster.
  returnFreedMemory();
  if (wantsOtherSizes(pins, options.capacities)) pins.serveAside();
  const { serving } = pins;
  if (serving === undefined || serving === OWN_LAYOUT) return openSame(pins, options);
  const { former, why } = describe(pins, serving);
  if (!former) return startAnew(pins, { ...options, serving, why });
  const kernel = createMaps(pins, { ...options, serving, former });
  try {
    copyContent(former, kernel.storage);
    seedGenerations(kernel.storage, former.map("svc_backends")?.info.maxEntries);
    if (!isShared(pins, "svc_affinity", serving)) copyAffinity(former, kernel.maps.svc_affinity);
  } catch (error) {
    kernel.loaded?.object.close();
    former.close();
    pins.removeMaps(OWN_LAYOUT);
    if (error instanceof RoomError) throw error;
    return startAnew(pins, { ...options, serving, why: (error as Error).message });
  }
  const others = isOwnLayout(serving)
    ? "maps of other sizes, which serve until then"
    : "a build of bpfsvc with other map layouts, which serves until then";
  kernel.notes.push({ level: "info", message: `Taking over from ${others}` });
  return kernel;
}

/**
 * Puts this agent's maps in force; to be followed at once by attachAll() and settle(). Until then
 * the maps count as being written.
 */
export function claim(kernel: Kernel): void {
  const { pins, maps, meta, former } = kernel;
  const { serving } = pins;
  if (former && !isShared(pins, "svc_affinity", serving)) copyAffinity(former, maps.svc_affinity);
  if (former && !isShared(pins, "svc_reasons", serving))
    copyReasons(former.layouts, former.map("svc_reasons"), maps.svc_reasons);
  former?.close();
  kernel.former = undefined;
  kernel.leftovers = findLeftovers(kernel);
  meta.mark(true);
  meta.layout = layoutHash;
  if (serving !== OWN_LAYOUT) pins.serve();
}

/**
 * Calls what replaces programs on devices by those that go by these maps. While it does so for the
 * first time and connections move to another table, none begins: programs drop its first packet.
 */
export function replaceOnDevices<T>(kernel: Kernel, replace: () => T): T {
  const { devices, leftovers = [] } = kernel;
  const isMove = !devices.isReached && leftovers.some(({ flows }) => flows);
  const result = isMove ? holdFlows(kernel, replace) : replace();
  devices.reach();
  return result;
}

/** Calls what must know all connections while it works. */
function holdFlows<T>(kernel: Kernel, work: () => T): T {
  const { node } = kernel.storage;
  const hold = () => node.holdFlows(process.hrtime.bigint() + HELD_NS);
  try {
    hold();
    moveFlows(kernel);
    // And what a program was just beginning.
    moveFlows(kernel);
    hold();
    const result = work();
    moveFlows(kernel);
    return result;
  } finally {
    node.holdFlows(0n);
  }
}

/** Takes over connections that have come to a table of another size since the last call. */
function moveFlows({ storage, leftovers = [] }: Kernel): void {
  for (const { content, flows } of leftovers)
    content?.withMemory("svc_flows", (other) => flows?.take(other, storage.flows.time));
}

/**
 * Ends a take-over, or what an earlier agent left of one: what the programs of other maps have
 * counted is added here once those on cgroups are replaced, and again when those on devices are;
 * then all other maps are removed. Returns how many connections found no room in a smaller table.
 */
export async function settle(kernel: Kernel): Promise<number> {
  const { pins, meta, storage } = kernel;
  kernel.leftovers ??= findLeftovers(kernel);
  const { leftovers } = kernel;
  try {
    moveFlows(kernel);
    for (const leftover of leftovers) bringOver(leftover, kernel);
  } finally {
    meta.mark(false);
  }
  if (leftovers.length === 0) return 0;
  await kernel.devices.reached;
  await storage.grace();
  moveFlows(kernel);
  kernel.leftovers = undefined;
  let lost = 0;
  for (const leftover of leftovers) {
    bringOver(leftover, kernel);
    leftover.content?.close();
    pins.removeMaps(leftover.layout);
    lost += leftover.flows?.lost ?? 0;
  }
  return lost;
}

function findLeftovers({ pins, maps, storage }: Kernel): Leftover[] {
  const layouts = pins.layouts.filter((layout) => layout !== OWN_LAYOUT);
  return layouts.map((layout) => {
    const content = describe(pins, layout).former;
    const isShared = (name: MapName) => content?.map(name)?.info.id === maps[name].info.id;
    const moves = isShared("svc_node") && !isShared("svc_flows");
    return { layout, content, flows: moves ? storage.flows.newMove() : undefined };
  });
}

/** Whether maps that are in force have other sizes than were asked for. */
function wantsOtherSizes(pins: Pins, capacities: Capacities): boolean {
  const wanted = Object.entries(capacities) as [MapName, number][];
  if (wanted.length === 0 || pins.serving !== OWN_LAYOUT) return false;
  const maps = openOwn(pins);
  if (!maps) return false;
  const isOther = wanted.some(([name, entries]) => maps[name].info.maxEntries !== entries);
  for (const map of Object.values(maps)) map.close();
  return isOther;
}

/** This build's maps, created where some are missing; what was never completed is made anew. */
function openSame(pins: Pins, options: OpenOptions): Kernel {
  const existing = openOwn(pins);
  const meta = existing && new Meta(existing.svc_meta, { readOnly: false });
  if (existing && meta && meta.layout !== 0n) {
    checkLayout(meta, pins);
    return newKernel(pins, { maps: existing, meta });
  }
  if (meta) pins.removeMaps(OWN_LAYOUT);
  const isNew = !existsSync(pins.mapPath("svc_backends"));
  const kernel = create(pins, options);
  const isServed = HOOKS.some((hook) => existsSync(pins.linkPath(hook)));
  if (isNew && isServed) seedGenerations(kernel.storage);
  return kernel;
}

/** New maps beside those of the build that serves; what programs write is shared if it can be. */
function createMaps(
  pins: Pins,
  options: OpenOptions & { serving: string; former?: Described },
): Kernel {
  clearPlace(pins);
  const { former, serving } = options;
  const notes: Kernel["notes"] = [];
  if (former && !shareMaps(pins, { layouts: former.layouts, serving, sizes: options.capacities }))
    notes.push({
      level: "info",
      message:
        "This build stores with sockets in another form: programs of the other build stay " +
        "attached for the replies to sockets that are open now",
    });
  if (former && !isShared(pins, "svc_node", serving))
    notes.push({
      level: "warn",
      message:
        "This build stores connections from outside in another form: those that are open now get " +
        "an endpoint anew",
    });
  const capacities = { ...formerSizes(pins, serving), ...options.capacities };
  const kernel = create(pins, { ...options, capacities });
  kernel.notes.push(...notes);
  kernel.former = former;
  return kernel;
}

/**
 * Of what this build has here, maps that were in force have counters that nobody has yet: they wait
 * for settle() under another name. Throws LayoutError for foreign maps, which stay.
 */
function clearPlace(pins: Pins): void {
  const maps = openOwn(pins);
  const wasInForce = maps && new Meta(maps.svc_meta, { readOnly: true }).layout !== 0n;
  for (const map of Object.values(maps ?? {})) map.close();
  if (wasInForce) pins.setAside();
  else pins.removeMaps(OWN_LAYOUT);
}

function create(pins: Pins, options: OpenOptions): Kernel {
  const loaded = loadObject(pins, options);
  const maps = openOwn(pins);
  if (!maps) throw new Error(`Maps vanished from "${pins.folder}" while they were opened`);
  const meta = new Meta(maps.svc_meta, { readOnly: false });
  return { ...newKernel(pins, { maps, meta }), loaded };
}

function newKernel(pins: Pins, { maps, meta }: { maps: OpenMaps; meta: Meta }): Kernel {
  const storage = kernelStorage(maps, meta);
  return {
    pins,
    maps,
    meta,
    storage,
    loaded: undefined,
    former: undefined,
    leftovers: undefined,
    devices: new Milestone(),
    notes: [],
  };
}

/** Empty maps, since those of the build that serves cannot be understood. */
function startAnew(
  pins: Pins,
  options: OpenOptions & { serving: string; why: string | undefined },
): Kernel {
  const kernel = createMaps(pins, options);
  seedGenerations(kernel.storage);
  kernel.notes.push({
    level: "warn",
    message:
      `Cannot read what another build of bpfsvc has programmed: ${options.why}. Everything is ` +
      "programmed anew: open UDP sockets and ClientIP affinity get other endpoints, counters " +
      "begin at 0",
  });
  return kernel;
}

/** Sockets may refer to backends by ids that begin again, here or later: none is met twice. */
function seedGenerations({ backends }: Storage, first = 0): void {
  const seed = randomBytes(4).readUInt32LE();
  const view = new DataView(backends.buffer, backends.byteOffset, backends.byteLength);
  for (let at = first * backend.bytes; at < view.byteLength; at += backend.bytes)
    view.setUint32(at + backend.offset.generation, seed, true);
}

/** A folder's maps with their description; why there is none. */
function describe(pins: Pins, layout: string): { former?: Described; why?: string } {
  const layouts = isOwnLayout(layout) ? ownLayouts() : undefined;
  try {
    return { former: Described.open((name) => pins.mapPath(name, layout), layouts) };
  } catch (error) {
    return { why: (error as Error).message };
  }
}

/** Pins what both builds can use for this build too. False if what sockets hold is not shared. */
function shareMaps(
  pins: Pins,
  { layouts: theirs, serving, sizes }: { layouts: Layouts; serving: string; sizes: Capacities },
): boolean {
  const own = ownLayouts();
  const share = (name: string, file: string) => {
    const map = BpfMap.openPinned(file);
    pins.makeFolder(pins.mapPath(name));
    map.pin(pins.mapPath(name));
    map.close();
  };
  const formerPath = (name: string) => pins.mapPath(name, serving);
  if (isShareable("svc_affinity", [own, theirs])) share("svc_affinity", formerPath("svc_affinity"));
  if (isShareable("svc_reasons", [own, theirs]) && sameEnum("reason", [own, theirs]))
    share("svc_reasons", formerPath("svc_reasons"));
  const present = entriesOf(formerPath("svc_flows"));
  const { svc_flows: wanted = present } = sizes;
  if (FLOW_MAPS.every((name) => isShareable(name, [own, theirs])))
    for (const name of FLOW_MAPS)
      if (name !== "svc_flows" || wanted === present) share(name, formerPath(name));
  const holders = [
    { pathOf: formerPath, layouts: theirs },
    ...pins.readers.toReversed().map((id) => ({
      pathOf: (name: (typeof SOCKET_MAPS)[number]) => pins.readerPath(id, name),
      layouts: undefined,
    })),
  ];
  for (const { pathOf, layouts } of holders) {
    const isSame = SOCKET_MAPS.every((name) => {
      const file = pathOf(name);
      return existsSync(file) && isShareable(name, [own, layouts ?? readLayouts(file)]);
    });
    if (!isSame) continue;
    for (const name of SOCKET_MAPS) share(name, pathOf(name));
    return true;
  }
  return false;
}

/** Whether a map of this build and the one of another build are the same. */
function isShared(pins: Pins, name: string, layout: string | undefined): boolean {
  const ids = [OWN_LAYOUT, layout].map((each) => {
    const file = pins.mapPath(name, each);
    if (!existsSync(file)) return undefined;
    const map = BpfMap.openPinned(file);
    map.close();
    return map.info.id;
  });
  return ids[0] === ids[1];
}

/** How many entries maps have; of another build's, what is usual here if that is more. */
function formerSizes(pins: Pins, layout: string): Capacities {
  const sizes: Capacities = {};
  for (const name of [...GROWING, "svc_slots"] as const) {
    const entries = entriesOf(pins.mapPath(name, layout));
    const least = isOwnLayout(layout) ? 0 : layouts[name].maxEntries;
    if (entries > 0) sizes[name] = Math.max(entries, least);
  }
  return sizes;
}

/** How many entries a pinned map would have in this build; 0 if there is none. */
function entriesOf(file: string): number {
  if (!existsSync(file)) return 0;
  const map = BpfMap.openPinned(file);
  map.close();
  const { name, maxEntries, valueSize } = map.info;
  // Slots are 4 bytes in every build; how many make an element is not.
  return name === "svc_slots"
    ? Math.ceil((maxEntries * valueSize) / slotPair.stride.slot / SLOTS_PER_ELEMENT)
    : maxEntries;
}

/** What programs have written elsewhere since that was copied. */
function bringOver(leftover: Leftover, kernel: Kernel): void {
  const { content } = leftover;
  const { maps, storage } = kernel;
  const same = content && sameIn(content, kernel);
  if (!content || !same) return;
  moveCounters(content, storage, same);
  if (content.map("svc_affinity")?.info.id === maps.svc_affinity.info.id) return;
  eachAffinity(content, (key, value) => {
    if (maps.svc_affinity.get(key) === undefined) maps.svc_affinity.set(key, value);
  });
}

/**
 * The services with the same id; undefined for these very maps, and where none can be told, as of
 * maps that were about to get another name.
 */
function sameIn(content: Described, { maps, storage }: Kernel): Set<number> | undefined {
  const [meta, names] = [content.map("svc_meta"), content.map("svc_names")];
  if (!names || meta?.info.id === maps.svc_meta.info.id) return undefined;
  try {
    return sameServices(content, storage);
  } catch {
    return undefined;
  }
}

function copyAffinity(former: Described, affinity: BpfMap): void {
  let [keys, values]: Uint8Array[][] = [[], []];
  const write = () => {
    affinity.setBatch(Buffer.concat(keys!), Buffer.concat(values!));
    [keys, values] = [[], []];
  };
  eachAffinity(former, (key, value) => {
    keys!.push(key);
    values!.push(value);
    if (keys!.length === BATCH) write();
  });
  write();
}
