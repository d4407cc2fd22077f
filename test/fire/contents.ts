// What the kernel holds against what a folder of manifests says: both as a reader of the maps would
// find it, endpoint by endpoint and slot by slot. Knows no agent.
import { frontendKey, limit } from "../../bindings/layout.ts";
import { bucketEntries } from "../../control/dataplane/buckets.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { filterBits } from "../../control/dataplane/filter.ts";
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
import { formatAddress } from "../../control/model/address.ts";
import { type Batch, Cluster } from "../../control/model/cluster.ts";
import type { Protocol } from "../../control/model/rows.ts";
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
  return contentsOf(cluster.takeDirty());
}

function contentsOf({ changed: rows, addresses }: Batch): Contents {
  const storage = memoryStorage({
    services: 1024,
    backends: 4096,
    slots: 65536,
    frontends: FRONTENDS,
  });
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace(rows);
  dataplane.replaceAddresses(addresses.changed);
  const [error] = dataplane.flush();
  if (error) throw new Error(`${error.key}: ${error.message}`);
  return { services: rows.map(({ key }) => key).sort(), found: readAll(storage) };
}

/** The pinned maps of one folder, which must not be replaced while this is used. */
export class KernelContents {
  readonly #maps: OpenMaps;
  readonly #dumps: DumpReader;
  readonly #buckets: Uint8Array;
  readonly #filter: BigUint64Array;
  readonly #arrays: Pick<MemoryStorage, "services" | "backends" | "slots">;

  /** Throws if nothing is pinned. */
  constructor(pins: Pins) {
    const [maps, dumps] = [openPinned(pins), DumpReader.open(pins)];
    if (!maps || !dumps) throw new Error(`Nothing is pinned in "${pins.folder}"`);
    this.#maps = maps;
    this.#dumps = dumps;
    this.#buckets = maps.svc_frontends.mmap({ readOnly: true });
    const filter = maps.svc_filter.mmap({ readOnly: true });
    this.#filter = new BigUint64Array(filter.buffer, filter.byteOffset, filter.byteLength / 8);
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
    const { keys: bucketKeys, values: bucketValues } = bucketEntries(this.#buckets);
    copy.frontends.setBatch(bucketKeys, bucketValues);
    for (const { keys, values } of this.#maps.svc_overflow.entries())
      copy.frontends.setBatch(keys, values);
    const storage = { ...copy, ...this.#arrays };
    this.#checkFilter(storage);
    return { services: keys.sort(), found: readAll(storage) };
  }

  /** Throws unless svc_filter leads to every frontend; notes the endpoints that it marks. */
  #checkFilter(storage: MemoryStorage): void {
    for (const { keys } of storage.frontends.entries()) {
      const isWildcard = keys[frontendKey.offset.protocol] === 0;
      const bit = isWildcard ? limit.FILTER_WILDCARD : limit.FILTER_FRONTEND;
      if (!(filterBits(this.#filter, keys) & bit))
        throw new Error(`svc_filter hides a frontend of ${formatAddress(keys.subarray(0, 16))}`);
    }
    const maps = new Maps(storage);
    for (const id of maps.usedBackends()) {
      const { address } = maps.readBackend(id);
      if (filterBits(this.#filter, address) & limit.FILTER_ENDPOINT)
        storage.endpoints.add(formatAddress(address));
    }
  }
}
