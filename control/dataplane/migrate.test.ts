// Content of another build, made up from this one's in memory: what becomes of it here.
import test from "ava";
import type { Layouts } from "../../bindings/collect.ts";
import { type DecodedStruct, makeDecode } from "../../bindings/decode.ts";
import { backend, limit, service } from "../../bindings/layout.ts";
import { BtfError } from "../../bindings/reader.ts";
import type { ServiceRow } from "../model/rows.ts";
import { Dataplane } from "./dataplane.ts";
import { type Content, type Element, ownLayouts } from "./described.ts";
import { Maps } from "./maps.ts";
import { type MemoryHash, type MemoryStorage, memoryStorage, readAll } from "./memory.ts";
import { copyContent, eachAffinity, moveCounters, RoomError, sameServices } from "./migrate.ts";
import { textToBytes } from "./table.ts";

/** Where another build has its bits and numbers; what is left out is as here. */
const OTHER_NUMBERS: Readonly<Record<string, bigint>> = {
  TABLE_LENGTH_SHIFT: 30n,
  TABLE_LENGTH_BITS: 20n,
  TABLE_ACTION_SHIFT: 60n,
  TABLE_ROW_BIT: 28n,
  SLOT_BACKEND_BITS: 12n,
  SLOT_GENERATION_BITS: 20n,
  TABLE_INTERNAL: 2n,
  TABLE_OUTSIDE: 0n,
  EMPTY_DROP: 3n,
};

function otherLayouts(): Layouts {
  const own = ownLayouts();
  const enums = own.enums.map(({ name, values }) => ({
    name,
    values: values.map((each) => ({ ...each, value: OTHER_NUMBERS[each.name] ?? each.value })),
  }));
  return { ...own, enums };
}

/** What a storage holds, said in the other build's numbers. Counters stay in the storage. */
class OtherContent implements Content {
  readonly layouts = otherLayouts();
  readonly storage: MemoryStorage;
  readonly extra: Readonly<Record<string, Element[]>>;

  constructor(storage: MemoryStorage, extra: Readonly<Record<string, Element[]>> = {}) {
    this.storage = storage;
    this.extra = extra;
  }

  each(name: string, visit: (element: Element) => void): void {
    this.extra[name]?.forEach(visit);
    const { services, backends, names, frontends } = this.storage;
    if (name === "svc_services") eachRow(services, "service", (row) => visit(otherService(row)));
    if (name === "svc_backends") eachRow(backends, "backend", (row) => visit(otherBackend(row)));
    if (name === "svc_names") eachEntry(names, ["", "service_name"], visit);
    if (name === "svc_overflow") eachEntry(frontends, ["frontend_key", "frontend"], visit);
  }

  withMemory(name: string, use: (memory: Uint8Array) => void): void {
    if (name === "svc_services") use(this.storage.services);
    if (name === "svc_backends") use(this.storage.backends);
    if (name !== "svc_slots") return;
    const slots = new Uint32Array(this.storage.slots.slice().buffer).map(otherSlot);
    use(new Uint8Array(slots.buffer));
  }
}

function decoder(struct: string): (view: DataView, at: number) => DecodedStruct {
  const decode = makeDecode(ownLayouts(), { kind: "struct", name: struct });
  return (view, at) => decode(view, at) as DecodedStruct;
}

function eachRow(bytes: Uint8Array, struct: string, visit: (element: Element) => void): void {
  const decode = decoder(struct);
  const stride = struct === "service" ? service.bytes : backend.bytes;
  for (let key = 0; key * stride < bytes.length; key++)
    if (bytes.subarray(key * stride, (key + 1) * stride).some((byte) => byte !== 0))
      visit({ key, value: decode(new DataView(bytes.buffer), key * stride) });
}

function eachEntry(
  store: MemoryHash,
  [keyStruct, valueStruct]: readonly [string, string],
  visit: (element: Element) => void,
): void {
  const decode = decoder(valueStruct);
  for (const [keyText, valueText] of store.entriesByKey) {
    const view = new DataView(textToBytes(keyText).buffer);
    const key = keyStruct === "" ? view.getUint32(0, true) : decoder(keyStruct)(view, 0);
    visit({ key, value: decode(new DataView(textToBytes(valueText).buffer), 0) });
  }
}

function otherSlot(slot: number): number {
  const id = slot % 2 ** limit.SLOT_BACKEND_BITS;
  return id + (slot >>> limit.SLOT_BACKEND_BITS) * 2 ** 12;
}

function otherService({ key, value }: Element): Element {
  const table = (value.table as bigint[]).map((word) => {
    const [offset, length] = [word & 0xffffffffn, (word >> 32n) & 0xffffffn];
    const otherOffset = offset & (1n << 31n) ? offset - (1n << 31n) + (1n << 28n) : offset;
    return otherOffset | (length << 30n) | ((word >> 56n === 1n ? 3n : 0n) << 60n);
  });
  const slot = (value.slot as number[]).map(otherSlot);
  return { key, value: { ...value, table: table.toReversed(), slot, unheard_of: 5 } };
}

function otherBackend({ key, value }: Element): Element {
  const listed = Number(value.listed);
  const swapped = (listed & 2) | ((listed & 1) << 2) | (listed >> 2);
  return { key, value: { ...value, listed: swapped } };
}

function makeRow(name: string, number: number): ServiceRow {
  const backends = [1, 2, 3].map((host) => ({
    address: `10.${number}.0.${host}`,
    port: 80,
    state: host === 3 ? ("terminating" as const) : ("ready" as const),
    weight: 1,
    local: false,
  }));
  const uniform = { kind: "uniform", members: [0, 1], whenEmpty: "refuse" } as const;
  return {
    key: `test/${name}:/TCP/4`,
    namespace: "test",
    name,
    port: "",
    protocol: "TCP",
    family: 4,
    type: "NodePort",
    externalPolicy: "Cluster",
    affinitySeconds: 90,
    sources: undefined,
    frontends: [{ kind: "clusterIP", address: `10.96.0.${number}`, port: 80 }],
    backends,
    internal: uniform,
    inside: { kind: "uniform", members: [], whenEmpty: "drop" },
    outside: { ...uniform, kind: "maglev", members: [1, 2] },
  };
}

const ROWS = [makeRow("a", 1), makeRow("b", 2)];

/** A storage with two services, after one that came and went. */
async function makeFormer(): Promise<MemoryStorage> {
  const storage = memoryStorage();
  const dataplane = new Dataplane(new Maps(storage));
  const gone = makeRow("gone", 3);
  dataplane.replace([gone]);
  dataplane.flush();
  dataplane.remove([gone.key]);
  dataplane.replace(ROWS);
  dataplane.flush();
  await dataplane.release();
  return storage;
}

test("an agent goes on from what was copied as from its own, and writes nothing", async (t) => {
  const former = await makeFormer();
  const storage = memoryStorage();
  copyContent(new OtherContent(former), storage);
  t.deepEqual(readAll(storage), readAll(former));
  const writes = storage.frontends.writes + storage.names.writes;
  const maps = new Maps(storage);
  const dataplane = new Dataplane(maps);
  dataplane.replace(ROWS);
  dataplane.removeOthers();
  t.deepEqual(dataplane.flush(), []);
  t.deepEqual(maps.writes, { backends: 0, slots: 0, tables: 0 });
  t.is(storage.frontends.writes + storage.names.writes, writes);
});

test("ids, generations and states are kept, also of ids that are free", async (t) => {
  const former = await makeFormer();
  const storage = memoryStorage();
  copyContent(new OtherContent(former), storage);
  t.deepEqual(storage.backends, former.backends);
  t.deepEqual(storage.services, former.services);
});

test("counters move once, to the row they are of", async (t) => {
  const former = await makeFormer();
  const storage = memoryStorage();
  const from = new OtherContent(former);
  const { departed, refused } = service.offset;
  const backends = new DataView(former.backends.buffer);
  new DataView(former.services.buffer).setBigUint64(service.bytes + departed, 7n, true);
  copyContent(from, storage);
  const used = [...new Maps(former).usedBackends()];
  for (const id of used)
    backends.setBigUint64(id * backend.bytes + backend.offset.connections, 10n, true);
  new DataView(former.services.buffer).setBigUint64(service.bytes + refused, 3n, true);
  // One id was given to another endpoint before its counter came.
  const moved = new Maps(storage);
  moved.writeBackendWord(used[0]!, { ...moved.readBackend(used[0]!), generation: 99 });
  for (let round = 0; round < 2; round++) moveCounters(from, storage, sameServices(from, storage));
  const counts = used.map((id) => moved.backendConnections(id));
  t.deepEqual(counts, [0n, ...used.slice(1).map(() => 10n)]);
  const services = new DataView(storage.services.buffer);
  t.is(services.getBigUint64(service.bytes + departed, true), 17n);
  t.is(services.getBigUint64(service.bytes + refused, true), 3n);
});

test("counters of a service whose id is another's now are nobody's", async (t) => {
  const former = await makeFormer();
  const storage = memoryStorage();
  const from = new OtherContent(former);
  copyContent(from, storage);
  for (const key of storage.names.entriesByKey.keys()) storage.names.entriesByKey.delete(key);
  new DataView(former.services.buffer).setBigUint64(
    service.bytes + service.offset.refused,
    3n,
    true,
  );
  moveCounters(from, storage, sameServices(from, storage));
  const services = new DataView(storage.services.buffer);
  t.is(services.getBigUint64(service.bytes + service.offset.refused, true), 0n);
});

test("frontends come from buckets too, and free places are none", async (t) => {
  const former = await makeFormer();
  const storage = memoryStorage();
  const key = { address: new Uint8Array(16).fill(9), port: 443, protocol: 6 };
  const free = { service: 0, kind: "FRONTEND_NONE" };
  const value = {
    frontend: [free, { service: 2, kind: "FRONTEND_NODE_PORT" }],
    key: [key, key],
  };
  copyContent(new OtherContent(former, { svc_frontends: [{ key: 0, value }] }), storage);
  t.is(storage.frontends.entriesByKey.size, ROWS.length + 1);
});

test("affinity is copied in this build's form", (t) => {
  const client = new Uint8Array(16).fill(1);
  const element = {
    key: { client, service: 3 },
    value: { last_seen_ns: 5n, reference: 2n ** 33n, novelty: 1n },
  };
  const content = new OtherContent(memoryStorage(), { svc_affinity: [element] });
  const copied: Uint8Array[] = [];
  eachAffinity(content, (key, value) => copied.push(key, value));
  t.deepEqual(copied, [
    Uint8Array.from([...client, 3, 0, 0, 0, 0, 0, 0, 0]),
    Uint8Array.from([0, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]),
  ]);
});

test("what does not fit is refused with the flag, what is free need not fit", async (t) => {
  const former = await makeFormer();
  const content = new OtherContent(former);
  const cases = [
    [{ services: 2 }, /svc_services .* "--max-services" at least 3\b/],
    [{ backends: 8 }, /svc_backends .* "--max-backends" at least 9\b/],
    [{ slots: 256 }, /svc_slots .* "--max-slots" at least \d+/],
  ] as const;
  for (const [sizes, message] of cases)
    t.throws(() => copyContent(content, memoryStorage(sizes)), { instanceOf: RoomError, message });
});

test("rows with more slots than this build's are refused", async (t) => {
  const content = new OtherContent(await makeFormer());
  const enums = content.layouts.enums.map(({ name, values }) => ({
    name,
    values: values.map((each) =>
      each.name === "TABLE_ROW_SLOTS" ? { ...each, value: 2n * each.value } : each,
    ),
  }));
  Object.assign(content.layouts, { enums });
  const message = /svc_services hold 32 slots/;
  t.throws(() => copyContent(content, memoryStorage()), { instanceOf: BtfError, message });
});

test("content without the numbers it is made of is refused", async (t) => {
  const content = new OtherContent(await makeFormer());
  Object.assign(content.layouts, { enums: [] });
  t.throws(() => copyContent(content, memoryStorage()), { instanceOf: BtfError });
});
