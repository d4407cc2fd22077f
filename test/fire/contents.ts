// What the kernel holds against what a folder of manifests says: both as a reader of the maps would
// find it, endpoint by endpoint and slot by slot. Knows no agent.
import { bucketEntries } from "../../control/dataplane/buckets.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { serviceKey } from "../../control/dataplane/held.ts";
import { type OpenMaps, openPinned } from "../../control/dataplane/kernel.ts";
import { Maps } from "../../control/dataplane/maps.ts";
import {
  type Found,
  type MemoryStorage,
  memoryStorage,
  readAll,
} from "../../control/dataplane/memory.ts";
import type { Pins } from "../../control/dataplane/pins.ts";
import { Cluster } from "../../control/model/cluster.ts";
import type { Protocol, ServiceRow } from "../../control/model/rows.ts";
import { ManifestSource } from "../../control/source/manifests.ts";

/** More than any folder of these tests has. */
const FRONTENDS = 4096;

/** What is served: the keys of the service rows, and what each frontend's tables lead to. */
export interface Contents {
  services: string[];
  found: Found;
}

/** What a folder of manifests says for a node that has a Node object in it. */
export async function wantedContents(folder: string, nodeName: string): Promise<Contents> {
  const cluster = new Cluster({ nodeName, fallbackNodeAddresses: [] });
  const source = new ManifestSource(folder);
  await source.start({
    apply: (object) => cluster.apply(object),
    remove: (identity) => cluster.remove(identity),
    problem: (message) => {
      throw new Error(message);
    },
    resolved: () => {},
    changed: () => {},
    synced: () => {},
  });
  await source.close();
  return contentsOf(cluster.takeDirty().changed);
}

function contentsOf(rows: readonly ServiceRow[]): Contents {
  const storage = memoryStorage({
    services: 1024,
    backends: 4096,
    slots: 65536,
    frontends: FRONTENDS,
  });
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace(rows);
  const [error] = dataplane.flush();
  if (error) throw new Error(`${error.key}: ${error.message}`);
  return { services: rows.map(({ key }) => key).sort(), found: readAll(storage) };
}

/** The pinned maps of one folder, which must not be replaced while this is used. */
export class KernelContents {
  readonly #maps: OpenMaps;
  readonly #dumps: DumpReader;
  readonly #buckets: Uint8Array;
  readonly #arrays: Pick<MemoryStorage, "services" | "backends" | "slots">;

  /** Throws if nothing is pinned. */
  constructor(pins: Pins) {
    const [maps, dumps] = [openPinned(pins), DumpReader.open(pins)];
    if (!maps || !dumps) throw new Error(`Nothing is pinned in "${pins.folder}"`);
    this.#maps = maps;
    this.#dumps = dumps;
    this.#buckets = maps.svc_frontends.mmap({ readOnly: true });
    this.#arrays = {
      services: maps.svc_services.mmap({ readOnly: true }),
      backends: maps.svc_backends.mmap({ readOnly: true }),
      slots: maps.svc_slots.mmap({ readOnly: true }),
    };
  }

  /** True while an agent is writing, or if one was killed while it wrote and nobody cleared up. */
  get isChanging(): boolean {
    return (this.#dumps.sequence & 1n) === 1n;
  }

  /** Throws if a reader of the maps could go wrong. */
  async read(): Promise<Contents> {
    const { services } = await this.#dumps.read();
    const keys = services.map((service) =>
      serviceKey({ ...service, protocol: service.protocol as Protocol }),
    );
    const copy = memoryStorage({ frontends: FRONTENDS });
    for (const { keys, values } of bucketEntries(this.#buckets))
      copy.frontends.setBatch(keys, values);
    for (const { keys, values } of this.#maps.svc_overflow.entries())
      copy.frontends.setBatch(keys, values);
    return { services: keys.sort(), found: readAll({ ...copy, ...this.#arrays }) };
  }
}
