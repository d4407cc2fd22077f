// Maps that hold a given number of Services, written by the agent's own code, and the programs on
// them: what the benches of single system calls attach and take off again. Knows no clock.
import path from "node:path";
import { layoutHash } from "../bindings/layout.ts";
import { BpfLink } from "../bindings/link.ts";
import type { BpfMap } from "../bindings/map.ts";
import { BpfObject } from "../bindings/object.ts";
import { Dataplane } from "../control/dataplane/dataplane.ts";
import {
  type Capacities,
  kernelStorage,
  loadObject,
  Meta,
  openPinned,
  type Rodata,
} from "../control/dataplane/kernel.ts";
import { type HashStore, Maps, type Storage } from "../control/dataplane/maps.ts";
import { MAP_NAMES, Pins } from "../control/dataplane/pins.ts";
import type { ServiceRow } from "../control/model/rows.ts";

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

/** One pin folder with the agent's maps. Its memory stays mapped until the process ends. */
export class Programmed {
  readonly pins: Pins;
  readonly dataplane: Dataplane;
  readonly #storage: Storage;

  private constructor(pins: Pins, storage: Storage) {
    this.pins = pins;
    this.#storage = storage;
    this.dataplane = new Dataplane(new Maps(storage));
  }

  /** Makes the maps in a folder of bpffs and writes the rows. Throws if they do not fit. */
  static create(
    folder: string,
    { rows, capacities = {} }: { rows: Iterable<ServiceRow>; capacities?: Capacities },
  ): Programmed {
    const pins = new Pins(folder);
    pins.open().release();
    loadObject(pins, { rodata: {}, capacities }).object.close();
    const maps = openPinned(pins);
    if (!maps) throw new Error(`Maps vanished from "${folder}" while they were opened`);
    const meta = new Meta(maps.svc_meta, { readOnly: false });
    meta.layout = layoutHash;
    meta.node = "bench";
    const programmed = new Programmed(pins, kernelStorage(maps, meta));
    programmed.dataplane.replace(rows);
    const [error] = programmed.dataplane.flush();
    if (error) throw new Error(`Cannot program "${error.key}": ${error.message}`);
    return programmed;
  }

  /** The agent's programs on these maps. */
  programs(rodata: Rodata = {}): Programs {
    return new Programs(loadObject(this.pins, { rodata, capacities: {} }).object);
  }

  /** All that is in the maps now, by map: arrays as they are, hash maps entry by entry. */
  copy(): Map<string, Uint8Array> {
    const copies = new Map<string, Uint8Array>();
    for (const [name, store] of Object.entries(this.#storage as unknown as Stores))
      if (store instanceof Uint8Array) copies.set(name, store.slice());
      else if (typeof store === "object") copyEntries(store, { name, copies });
    return copies;
  }

  /** How many bytes of the maps differ from a copy. */
  differentBytes(before: Map<string, Uint8Array>): number {
    let different = 0;
    const after = this.copy();
    for (const name of new Set([...before.keys(), ...after.keys()])) {
      const one = before.get(name) ?? new Uint8Array();
      const other = after.get(name) ?? new Uint8Array();
      if (Buffer.compare(one, other) === 0) continue;
      for (let at = 0; at < Math.max(one.length, other.length); at++)
        if (one[at] !== other[at]) different++;
    }
    return different;
  }
}

type Stores = Readonly<Record<string, Uint8Array | HashStore | (() => void)>>;

function copyEntries(
  store: HashStore,
  { name, copies }: { name: string; copies: Map<string, Uint8Array> },
): void {
  for (const { keys, values, count } of store.entries()) {
    const [keyBytes, valueBytes] = [keys.length / count, values.length / count];
    for (let index = 0; index < count; index++) {
      const key = Buffer.from(keys.subarray(index * keyBytes, (index + 1) * keyBytes));
      copies.set(
        `${name} ${key.toString("hex")}`,
        values.slice(index * valueBytes, (index + 1) * valueBytes),
      );
    }
  }
}
