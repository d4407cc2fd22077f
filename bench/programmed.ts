// Maps that hold a given number of Services, written by the agent's own code, and the programs on
// them: what the benches of single system calls attach and take off again. Knows no clock.
import path from "node:path";
import { layoutHash } from "../bindings/layout.ts";
import { BpfLink } from "../bindings/link.ts";
import { BpfMap } from "../bindings/map.ts";
import { BpfObject } from "../bindings/object.ts";
import { Dataplane } from "../control/dataplane/dataplane.ts";
import {
  type Capacities,
  type KernelStorage,
  kernelStorage,
  loadObject,
  Meta,
  type OpenMaps,
  openPinned,
  type Rodata,
} from "../control/dataplane/kernel.ts";
import { Maps } from "../control/dataplane/maps.ts";
import { MAP_NAMES, Pins } from "../control/dataplane/pins.ts";
import type { AddressRow, ServiceRow } from "../control/model/rows.ts";

/** Programs of one object, all of which can be attached to a cgroup. */
export class Programs {
  readonly #object: BpfObject;

  constructor(object: BpfObject) {
    this.#object = object;
  }

  /** Loads an object of testdata/, with the agent's maps where it asks for them by name. */
  static test(name: string, options: { rodata?: Rodata; pins?: Pins } = {}): Programs {
    const { rodata = {}, pins } = options;
    const file = path.join(import.meta.dirname, `testdata/${name}.bpf.o`);
    const object = BpfObject.open(file);
    for (const [variable, value] of Object.entries(rodata)) object.setRodata(variable, value);
    const names: readonly string[] = MAP_NAMES;
    if (pins)
      for (const map of object.maps())
        if (names.includes(map.name)) map.setPinPath(pins.mapPath(map.name));
    object.load();
    return new Programs(object);
  }

  /** Runs `work` with all programs on a cgroup, and takes them off whatever comes of it. */
  async attached<T>(cgroup: string, work: () => Promise<T>): Promise<T> {
    const links = this.#object.programs().map((one) => BpfLink.attachCgroup(one, cgroup));
    try {
      return await work();
    } finally {
      for (const link of links) {
        link.detach();
        link.close();
      }
    }
  }

  /** A map of the object by name, by a descriptor of the caller's own. Throws if it has none. */
  map(name: string): BpfMap {
    return this.#object.map(name).toMap();
  }

  close(): void {
    this.#object.close();
  }
}

export interface Wanted {
  rows: Iterable<ServiceRow>;
  addresses?: readonly AddressRow[];
  capacities?: Capacities;
}

/** One pin folder with the agent's maps. Its memory stays mapped until the process ends. */
export class Programmed {
  readonly pins: Pins;
  readonly maps: OpenMaps;
  readonly storage: KernelStorage;
  readonly dataplane: Dataplane;

  private constructor(pins: Pins, maps: OpenMaps) {
    this.pins = pins;
    this.maps = maps;
    const meta = new Meta(maps.svc_meta, { readOnly: false });
    meta.layout = layoutHash;
    meta.node = "bench";
    this.storage = kernelStorage(maps, meta);
    this.dataplane = new Dataplane(new Maps(this.storage));
  }

  /** Makes the maps in a folder of bpffs and writes the rows. Throws if they do not fit. */
  static create(folder: string, { rows, addresses = [], capacities = {} }: Wanted): Programmed {
    const pins = new Pins(folder);
    pins.open().release();
    loadObject(pins, { rodata: {}, capacities }).object.close();
    const maps = openPinned(pins);
    if (!maps) throw new Error(`Maps vanished from "${folder}" while they were opened`);
    const programmed = new Programmed(pins, maps);
    programmed.dataplane.replace(rows);
    programmed.dataplane.replaceAddresses(addresses);
    const [error] = programmed.dataplane.flush();
    if (error) throw new Error(`Cannot program "${error.key}": ${error.message}`);
    return programmed;
  }

  /** The agent's programs on these maps. */
  programs(rodata: Rodata = {}): Programs {
    return new Programs(loadObject(this.pins, { rodata, capacities: {} }).object);
  }
}

/** The maps in which Services and endpoints are: the agent writes them as memory. */
const WRITTEN = [
  "svc_services",
  "svc_slots",
  "svc_backends",
  "svc_frontends",
  "svc_filter",
] as const;

/** Looks at these maps of an agent that runs, until this process ends. Throws if there are none. */
export function watchMaps(pins: Pins): () => Uint8Array[] {
  const memory = WRITTEN.map((name) => mapMemory(pins, name));
  return () => memory.map((bytes) => bytes.slice());
}

/** One of them as it changes, in 32-bit words. */
export function mapWords(pins: Pins, name: (typeof WRITTEN)[number]): Int32Array {
  const { buffer, byteOffset, byteLength } = mapMemory(pins, name);
  return new Int32Array(buffer, byteOffset, byteLength / Int32Array.BYTES_PER_ELEMENT);
}

function mapMemory(pins: Pins, name: (typeof WRITTEN)[number]): Uint8Array {
  return BpfMap.openPinned(pins.mapPath(name)).mmap({ readOnly: true });
}

/** How many bytes of them differ. */
export function differentBytes(
  before: readonly Uint8Array[],
  after: readonly Uint8Array[],
): number {
  let different = 0;
  for (const [index, one] of before.entries()) {
    const other = after[index]!;
    if (Buffer.compare(one, other) === 0) continue;
    for (let at = 0; at < one.length; at++) if (one[at] !== other[at]) different++;
  }
  return different;
}
