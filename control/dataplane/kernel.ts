// The pinned maps of one pin folder, opened or created, as memory for Maps; and the object that
// they and the programs come from. Knows nothing of Services.
import { release } from "node:os";
import { layoutHash, maps as layouts, meta } from "../../bindings/layout.ts";
import { BpfMap } from "../../bindings/map.ts";
import { BpfObject } from "../../bindings/object.ts";
import { hasCapability, kernelHas, membarrier } from "../../bindings/system.ts";
import { BucketStore } from "./buckets.ts";
import { ownLayouts } from "./described.ts";
import { NodeMap } from "./devices/node.ts";
import { NodePortStore } from "./devices/nodeports.ts";
import { Flows } from "./flows.ts";
import type { HashStore, Storage } from "./maps.ts";
import { objectPath } from "./objects.ts";
import { isOwnLayout, MAP_NAMES, OWN_LAYOUT, type Pins } from "./pins.ts";

const OLDEST_KERNEL = [6, 1] as const;
/** Where the kernel has no membarrier that waits for its readers, time has to do. */
const GRACE_FALLBACK_MS = 2000;

export type MapName = keyof typeof layouts;
export type OpenMaps = Readonly<Record<MapName, BpfMap>>;

/** How many entries maps are created with. Maps that exist keep their size. */
export type Capacities = Partial<Record<MapName, number>>;

/** Values of the programs' rodata, by variable. */
export type Rodata = Readonly<Record<string, number | bigint>>;

/** The pins are of another build, or of another program altogether. */
export class LayoutError extends Error {
  constructor(message: string) {
    super(message);
    this.name = "LayoutError";
  }
}

/** The first word of svc_meta, in every build. */
export class Meta {
  readonly #words: BigUint64Array;
  readonly #bytes: Uint8Array;

  constructor(map: BpfMap, options: { readOnly: boolean }) {
    this.#bytes = map.mmap(options);
    this.#words = new BigUint64Array(this.#bytes.buffer, this.#bytes.byteOffset, meta.bytes / 8);
  }

  get layout(): bigint {
    return this.#read(meta.offset.layout);
  }

  set layout(value: bigint) {
    this.#write(meta.offset.layout, value);
  }

  get programs(): bigint {
    return this.#read(meta.offset.programs);
  }

  set programs(value: bigint) {
    this.#write(meta.offset.programs, value);
  }

  /** Odd while an agent is writing, or was killed while it wrote. */
  get sequence(): bigint {
    return this.#read(meta.offset.sequence);
  }

  /** Says that a change begins (odd) or has ended (even); to say so twice changes nothing. */
  mark(writing: boolean): void {
    const { sequence } = this;
    const isWriting = (sequence & 1n) === 1n;
    if (isWriting !== writing) this.#write(meta.offset.sequence, sequence + 1n);
  }

  get node(): string {
    const { node } = meta.offset;
    const bytes = this.#bytes.subarray(node, meta.bytes);
    return Buffer.from(bytes.subarray(0, bytes.indexOf(0))).toString();
  }

  set node(name: string) {
    const field = this.#bytes.subarray(meta.offset.node, meta.bytes);
    const bytes = Buffer.from(name).subarray(0, field.length - 1);
    field.set(bytes);
    field.fill(0, bytes.length);
  }

  #read(offset: number): bigint {
    return Atomics.load(this.#words, offset / 8);
  }

  #write(offset: number, value: bigint): void {
    Atomics.store(this.#words, offset / 8, value);
  }
}

/** A loaded object: its programs can be attached. */
export interface LoadedObject {
  object: BpfObject;
  file: string;
  rodata: Rodata;
}

/**
 * Loads the programs with their maps pinned in the folder of this build. Maps that are pinned there
 * are used as they are, whatever their size; only what is missing is created.
 */
export function loadObject(
  pins: Pins,
  { rodata, capacities }: { rodata: Rodata; capacities: Capacities },
): LoadedObject {
  const file = objectPath("sock.bpf.o");
  if (ownLayouts().hash !== OWN_LAYOUT)
    throw new Error(`"${file}" has other map layouts than this program: run npm run build`);
  const object = BpfObject.open(file);
  try {
    object.setRodata("reads_sockets", kernelHas("bpf_rdonly_cast") ? 1 : 0);
    for (const [variable, value] of Object.entries(rodata)) object.setRodata(variable, value);
    pins.makeFolder(pins.mapPath("svc_meta"));
    for (const name of MAP_NAMES) {
      const map = object.map(name);
      const pinned = openOne(pins.mapPath(name));
      if (pinned) {
        checkShape(name, pinned, pins);
        map.reuse(pinned);
        pinned.close();
        continue;
      }
      const entries = capacities[name];
      if (entries !== undefined) map.setMaxEntries(entries);
      map.setPinPath(pins.mapPath(name));
    }
    loadPrograms(object);
  } catch (error) {
    object.close();
    throw error;
  }
  return { object, file, rodata };
}

/** Loads, and says what is wrong if the maps are too large, or this kernel may be too old. */
function loadPrograms(object: BpfObject): void {
  try {
    object.load();
  } catch (cause) {
    if ((cause as { code?: unknown }).code === "ENOMEM") {
      const fix = "it has no memory for maps of these sizes: give smaller ones with --max-…";
      throw new Error(`${(cause as Error).message}\n${fix}`, { cause });
    }
    const [major = 0, minor = 0] = release().split(".").map(Number);
    if (major > OLDEST_KERNEL[0] || (major === OLDEST_KERNEL[0] && minor >= OLDEST_KERNEL[1]))
      throw cause;
    const wanted = OLDEST_KERNEL.join(".");
    const message = `${(cause as Error).message}\nbpfsvc needs Linux ${wanted} or later, this is `;
    throw new Error(message + release(), { cause });
  }
}

/**
 * Pins the maps that the agent works with again where their pins are gone. Returns their names.
 * Throws if another map lies in the place of one.
 */
export function restorePins({ pins, maps }: { pins: Pins; maps: OpenMaps }): MapName[] {
  return MAP_NAMES.filter((name) => {
    const found = openOne(pins.mapPath(name));
    if (!found) {
      pins.makeFolder(pins.mapPath(name));
      maps[name].pin(pins.mapPath(name));
      return true;
    }
    const isOurs = found.info.id === maps[name].info.id;
    found.close();
    if (isOurs) return false;
    throw new Error(`"${pins.mapPath(name)}" is not the map of this agent: restart the agent`);
  });
}

/**
 * Every map of this build in the folder, undefined if some are missing. Throws LayoutError for
 * foreign ones, and if the folder is served by another build.
 */
export function openPinned(pins: Pins): OpenMaps | undefined {
  const { serving } = pins;
  if (serving !== undefined && !isOwnLayout(serving))
    throw new LayoutError(
      `Pin folder "${pins.folder}" is served by a build of bpfsvc with other map layouts: use ` +
        'the command of that build, or let the agent of this one take over with "bpfsvc run"',
    );
  return openOwn(pins, serving);
}

/** The id of the svc_meta that is in force: other maps have another one. */
export function idInForce(pins: Pins): number | undefined {
  const map = openOne(pins.mapPath("svc_meta", pins.serving));
  map?.close();
  return map?.info.id;
}

/**
 * What openPinned() gives, and who programmed it; undefined also if nothing was programmed yet.
 * Throws LayoutError.
 */
export function openProgrammed(pins: Pins): { maps: OpenMaps; meta: Meta } | undefined {
  const maps = openPinned(pins);
  if (!maps) return undefined;
  const meta = new Meta(maps.svc_meta, { readOnly: true });
  if (meta.layout === 0n) return undefined;
  checkLayout(meta, pins);
  return { maps, meta };
}

/** The same as openPinned(), whoever serves the folder; under this name of the build's. */
export function openOwn(pins: Pins, layout = OWN_LAYOUT): OpenMaps | undefined {
  const opened: Partial<Record<MapName, BpfMap>> = {};
  for (const name of MAP_NAMES) {
    const map = openOne(pins.mapPath(name, layout));
    if (!map) continue;
    checkShape(name, map, pins);
    opened[name] = map;
  }
  if (Object.keys(opened).length === MAP_NAMES.length) return opened as OpenMaps;
  for (const map of Object.values(opened)) map.close();
  return undefined;
}

/** The maps in the kernel, with what the packet path needs beside Services. */
export interface KernelStorage extends Storage {
  readonly frontends: NodePortStore;
  readonly node: NodeMap;
  readonly devices: HashStore;
  readonly filter: Uint8Array;
  readonly hops: Uint8Array;
  readonly flows: Flows;
}

/** Opens the maps as memory. The pages stay mapped as long as the process lives. */
export function kernelStorage(maps: OpenMaps, meta: Meta): KernelStorage {
  const filter = maps.svc_filter.mmap();
  const frontends = new BucketStore({
    bytes: maps.svc_frontends.mmap(),
    filter,
    overflow: hashStore(maps.svc_overflow),
  });
  const node = new NodeMap(maps.svc_node.mmap());
  node.setHashKey();
  return {
    node,
    flows: new Flows({ flows: maps.svc_flows.mmap(), node: maps.svc_node.mmap() }),
    filter,
    devices: hashStore(maps.svc_devices),
    hops: maps.svc_hops.mmap(),
    services: maps.svc_services.mmap(),
    backends: maps.svc_backends.mmap(),
    slots: maps.svc_slots.mmap(),
    frontends: new NodePortStore(frontends, node),
    markEndpoint: (address) => frontends.markEndpoint(address),
    names: hashStore(maps.svc_names),
    sources: hashStore(maps.svc_sources),
    clients: hashStore(maps.svc_clients),
    ranges: maps.svc_ranges.mmap(),
    grace: waitForReaders,
    mark: (writing) => meta.mark(writing),
  };
}

/** Throws LayoutError unless svc_meta says that the maps are of this build. */
export function checkLayout(meta: Meta, pins: Pins): void {
  if (meta.layout === layoutHash) return;
  throw new LayoutError(
    `The maps in pin folder "${pins.folder}" are not what their names say: remove them with ` +
      `"bpfsvc cleanup --pins ${pins.folder}", or choose another --pins`,
  );
}

function openOne(file: string): BpfMap | undefined {
  try {
    return BpfMap.openPinned(file);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

function checkShape(name: MapName, map: BpfMap, pins: Pins): void {
  const { type, keySize, valueSize } = map.info;
  const wanted = layouts[name];
  if (name === "svc_meta" && type === wanted.type && valueSize >= 8) return;
  if (type === wanted.type && keySize === wanted.keyBytes && valueSize === wanted.valueBytes)
    return;
  throw new LayoutError(
    `Pinned map "${pins.mapPath(name)}" has keys of ${keySize} and values of ${valueSize} bytes, ` +
      `this build has ${wanted.keyBytes} and ${wanted.valueBytes}: it is of another build or ` +
      `program; run "bpfsvc cleanup --pins ${pins.folder}", or choose another --pins`,
  );
}

function hashStore(map: BpfMap): HashStore {
  return {
    maxEntries: map.info.maxEntries,
    setBatch: (keys, values) => map.setBatch(keys, values),
    deleteBatch: (keys) => {
      map.deleteBatch(keys);
    },
    entries: () => map.entries(),
  };
}

/** No program that ran before the call still runs after it (membarrier(2), else a long wait). */
async function waitForReaders(): Promise<void> {
  if (await membarrier()) return;
  await new Promise((resolve) => setTimeout(resolve, GRACE_FALLBACK_MS));
}

/** Whether this process may load programs. CAP_SYS_ADMIN includes CAP_BPF and CAP_PERFMON. */
export function mayLoadPrograms(): boolean {
  const loads = hasCapability("SYS_ADMIN") || (hasCapability("BPF") && hasCapability("PERFMON"));
  return loads && hasCapability("NET_ADMIN");
}
