import test from "ava";
import fc from "fast-check";
import { backend, service } from "../../bindings/layout.ts";
import {
  type AddressRow,
  type BackendRow,
  compareBackends,
  type FrontendRow,
  type ServiceRow,
} from "../model/rows.ts";
import { Dataplane } from "./dataplane.ts";
import { Maps } from "./maps.ts";
import { type Found, type MemoryStorage, memoryStorage, readAll } from "./memory.ts";
import { readRanges } from "./ranges.ts";

/** A service row with its endpoints in all tables, or in some only those that these bits say. */
function makeRow(options: {
  name: string;
  frontends: readonly number[];
  endpoints: readonly number[];
  inside?: number;
  outside?: number;
  maglev?: boolean;
  sources?: ServiceRow["sources"];
  frontendKind?: FrontendRow["kind"];
}): ServiceRow {
  const backends = options.endpoints
    .map((host): BackendRow => {
      const address = `10.1.0.${host}`;
      return { address, port: 80, state: "ready", weight: 1, local: false };
    })
    .sort(compareBackends);
  const members = backends.map((_, index) => index);
  const frontends = options.frontends.map(
    (host): FrontendRow => ({
      kind: options.frontendKind ?? "clusterIP",
      address: `10.96.0.${host}`,
      port: 80,
    }),
  );
  const uniform = { kind: "uniform", members, whenEmpty: "refuse" } as const;
  const some = (bits = -1) => ({ ...uniform, members: members.filter((at) => (bits >> at) & 1) });
  return {
    key: `test/${options.name}:/TCP/4`,
    namespace: "test",
    name: options.name,
    port: "",
    protocol: "TCP",
    family: 4,
    type: "ClusterIP",
    externalPolicy: "Cluster",
    affinitySeconds: 0,
    sources: options.sources,
    frontends,
    backends,
    internal: uniform,
    inside: some(options.inside),
    outside: options.maglev ? { ...uniform, kind: "maglev" } : some(options.outside),
  };
}

/** What readers should find for a set of rows. */
function expected(rows: Iterable<ServiceRow>, addresses: Iterable<AddressRow> = []): Found {
  const storage = memoryStorage({ slots: 65536 });
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace(rows);
  dataplane.replaceAddresses(addresses);
  dataplane.flush();
  return readAll(storage);
}

/** Maps that are checked, as a reader sees them, after every single write. */
class CheckedMaps extends Maps {
  check = () => {};

  override writeBackendWord(...words: Parameters<Maps["writeBackendWord"]>): void {
    super.writeBackendWord(...words);
    this.check();
  }

  override writeSlots(offset: number, slots: ArrayLike<number>): void {
    for (let index = 0; index < slots.length; index++) {
      super.writeSlots(offset + index, [slots[index]!]);
      this.check();
    }
  }

  override writeTable(...words: Parameters<Maps["writeTable"]>): void {
    super.writeTable(...words);
    this.check();
  }

  override writeGuard(...words: Parameters<Maps["writeGuard"]>): void {
    super.writeGuard(...words);
    this.check();
  }

  override clearService(id: number): void {
    super.clearService(id);
    this.check();
  }
}

function checkedMaps(storage: MemoryStorage): CheckedMaps {
  const maps = new CheckedMaps(storage);
  maps.check = () => void readAll(storage);
  storage.frontends.afterWrite = maps.check;
  return maps;
}

/** Every byte of the maps, and all entries of the hash maps. */
function bytesOf(storage: MemoryStorage): Buffer {
  const hashes = [storage.frontends, storage.names, storage.sources];
  const entries = hashes.map(({ entriesByKey }) => JSON.stringify([...entriesByKey]));
  const { services, backends, slots, ranges } = storage;
  return Buffer.concat([services, backends, slots, ranges, Buffer.from(entries.join())]);
}

function roomError(map: string, flag: string): string {
  return `${map} is full, it holds 2 entries: start "bpfsvc run" again with ${flag}`;
}

test("a row's endpoints are found through each of its frontends", (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace([makeRow({ name: "web", frontends: [1, 2], endpoints: [5, 6] })]);
  t.deepEqual(dataplane.flush(), []);
  const endpoints = ["10.1.0.5|80", "10.1.0.6|80"];
  t.deepEqual(readAll(storage), {
    "10.96.0.1|80|6": [endpoints, endpoints, endpoints],
    "10.96.0.2|80|6": [endpoints, endpoints, endpoints],
  });
});

test("a flush without changes writes nothing", (t) => {
  const storage = memoryStorage();
  const maps = new Maps(storage);
  const dataplane = new Dataplane(maps);
  const row = makeRow({ name: "web", frontends: [1], endpoints: [5, 6] });
  dataplane.replace([row]);
  dataplane.flush();
  const before = { ...maps.writes, frontends: storage.frontends.writes };
  dataplane.replace([structuredClone(row)]);
  dataplane.flush();
  t.deepEqual({ ...maps.writes, frontends: storage.frontends.writes }, before);
});

test("a restart with the same rows writes nothing and keeps every id", async (t) => {
  const storage = memoryStorage({ slots: 65536 });
  const rows = [1, 2, 3].map((host) =>
    makeRow({ name: `s${host}`, frontends: [host], endpoints: [host, host + 1], maglev: true }),
  );
  const sources = { ranges: ["10.0.0.0/8", "192.0.2.7/32"], nodeAllowed: true };
  rows.push(
    makeRow({ name: "vip", frontends: [9], endpoints: [1], sources, frontendKind: "loadBalancer" }),
  );
  const addresses: AddressRow[] = [
    { address: "10.96.0.1", action: "refuse" },
    { address: "fd00:10:96::5", action: "leave" },
  ];
  const ranges = ["10.96.0.0/12", "fd00:10:96::/112"];
  const first = new Dataplane(new Maps(storage));
  first.replace(rows);
  first.replaceAddresses(addresses);
  first.setServiceRanges(ranges);
  first.flush();
  first.replace([makeRow({ name: "s2", frontends: [2], endpoints: [3], maglev: true })]);
  first.flush();
  await first.release();
  const before = bytesOf(storage);
  const writesOf = () => storage.frontends.writes + storage.names.writes + storage.sources.writes;
  const writes = writesOf();
  const maps = new Maps(storage);
  const second = new Dataplane(maps);
  second.replace([
    rows[0]!,
    makeRow({ name: "s2", frontends: [2], endpoints: [3], maglev: true }),
    ...rows.slice(2),
  ]);
  second.replaceAddresses(addresses);
  second.setServiceRanges(ranges);
  second.removeOthers();
  t.deepEqual(second.flush(), []);
  t.deepEqual(maps.writes, { backends: 0, slots: 0, tables: 0 });
  t.is(writesOf(), writes);
  t.true(before.equals(bytesOf(storage)));
  t.false(second.hasQuarantine);
  t.false(second.isPending);
});

/** A UDP row with endpoints in all tables, and some that only serve. */
function makeUdpRow(options: { endpoints: readonly number[]; serving: readonly number[] }) {
  const { endpoints, serving } = options;
  const row = makeRow({ name: "dns", frontends: [1], endpoints: [...endpoints, ...serving] });
  const listed = new Set(endpoints.map((host) => `10.1.0.${host}`));
  const members = row.internal.members.filter((at) => listed.has(row.backends[at]!.address));
  const table = { ...row.internal, members };
  const tables = { internal: table, inside: table, outside: table };
  return { ...row, ...tables, key: "test/dns:/UDP/4", protocol: "UDP" } as const;
}

test("an endpoint that only serves keeps its id and is no table's, until it is gone", async (t) => {
  const storage = memoryStorage();
  const maps = checkedMaps(storage);
  let dataplane = new Dataplane(maps);
  const write = (row: ServiceRow) => {
    dataplane.replace([row]);
    t.deepEqual(dataplane.flush(), []);
    return dataplane.takeUdpDeparture();
  };
  const listings = () =>
    [...maps.usedBackends()]
      .map((id) => maps.readBackend(id))
      .map(({ address, generation, listed }) => [address[15], generation, listed]);
  t.false(write(makeUdpRow({ endpoints: [5, 6], serving: [] })));
  t.false(write(makeUdpRow({ endpoints: [6], serving: [5, 7] })), "it serves those it has");
  const serving = [
    [5, 1, 1 << 7],
    [6, 1, 7],
  ];
  t.deepEqual(listings(), serving, "one that was never listed has no sockets to keep");
  dataplane = new Dataplane(maps);
  t.false(write(makeUdpRow({ endpoints: [6], serving: [5] })), "nor does a restart part from it");
  t.deepEqual(listings(), serving);
  t.false(write(makeUdpRow({ endpoints: [5, 6], serving: [] })), "it is ready again");
  t.true(write(makeUdpRow({ endpoints: [6], serving: [] })));
  t.false(dataplane.takeUdpDeparture(), "a departure is told once");
  await dataplane.release();
  t.deepEqual(listings(), [[6, 1, 7]]);
});

test("departures are told for UDP alone, those of a deleted Service included", (t) => {
  const dataplane = new Dataplane(new Maps(memoryStorage()));
  dataplane.replace([makeUdpRow({ endpoints: [5], serving: [] })]);
  dataplane.replace([makeRow({ name: "web", frontends: [2], endpoints: [6] })]);
  dataplane.flush();
  dataplane.remove(["test/web:/TCP/4"]);
  dataplane.flush();
  t.false(dataplane.takeUdpDeparture());
  dataplane.remove(["test/dns:/UDP/4"]);
  dataplane.flush();
  t.true(dataplane.takeUdpDeparture());
});

const later = {
  key: "test/later:/UDP/4",
  name: "later",
  frontends: makeRow({ name: "later", frontends: [2], endpoints: [] }).frontends,
};

test("an endpoint serves the flows of its own frontends, and none once it has left", (t) => {
  const dataplane = new Dataplane(new Maps(memoryStorage()));
  const write = (row: ServiceRow) => {
    dataplane.replace([row]);
    t.deepEqual(dataplane.flush(), []);
  };
  const asked = (host: number, frontend = 1) => ({
    protocol: "UDP" as const,
    frontend: { address: `10.96.0.${frontend}`, port: 80 },
    backend: { address: `10.1.0.${host}`, port: 80 },
  });
  write(makeUdpRow({ endpoints: [5, 6], serving: [] }));
  const serves = dataplane.servesFlows();
  t.true(serves(asked(5)));
  t.false(serves(asked(7)));
  t.false(serves(asked(5, 2)), "nobody's frontend");
  write(makeUdpRow({ endpoints: [6], serving: [5] }));
  t.true(serves(asked(5)), "it still serves those it has");
  write(makeUdpRow({ endpoints: [6], serving: [] }));
  t.false(serves(asked(5)), "and now it has left, also for who asked before");
  write({ ...makeUdpRow({ endpoints: [5], serving: [] }), ...later });
  t.true(serves(asked(5, 2)), "a Service that has come since is not judged");
  t.true(dataplane.servesFlows()(asked(5, 2)));
  t.false(dataplane.servesFlows()(asked(6, 2)));
});

test("a restart removes what is no longer wanted", (t) => {
  const storage = memoryStorage();
  const first = new Dataplane(new Maps(storage));
  first.replace([
    makeRow({ name: "a", frontends: [1], endpoints: [1] }),
    makeRow({ name: "b", frontends: [2], endpoints: [2] }),
  ]);
  first.replaceAddresses([
    { address: "10.96.0.1", action: "refuse" },
    { address: "10.96.0.2", action: "refuse" },
  ]);
  first.setServiceRanges(["10.96.0.0/12"]);
  first.flush();
  const second = new Dataplane(checkedMaps(storage));
  second.replace([makeRow({ name: "b", frontends: [2], endpoints: [2] })]);
  second.replaceAddresses([{ address: "10.96.0.2", action: "refuse" }]);
  second.removeOthers();
  t.deepEqual(second.flush(), []);
  t.deepEqual(Object.keys(readAll(storage)), ["10.96.0.2|80|6", "10.96.0.2|0|0"]);
  t.is(readRanges(storage.ranges).size, 0);
  t.is(storage.names.entriesByKey.size, 1);
});

test("one changed endpoint writes that Service's bytes only", (t) => {
  const storage = memoryStorage({ services: 200, backends: 2000, frontends: 200 });
  const maps = new Maps(storage);
  const dataplane = new Dataplane(maps);
  const endpoints = [1, 2, 3, 4, 5];
  dataplane.replace(
    Array.from({ length: 100 }, (_, index) =>
      makeRow({ name: `s${index}`, frontends: [index], endpoints }),
    ),
  );
  dataplane.flush();
  const before = { ...maps.writes };
  const hashWrites = storage.frontends.writes + storage.names.writes;
  dataplane.replace([makeRow({ name: "s7", frontends: [7], endpoints: [1, 2, 3, 4, 6] })]);
  dataplane.flush();
  t.deepEqual(
    {
      backends: maps.writes.backends - before.backends,
      slots: maps.writes.slots - before.slots,
      tables: maps.writes.tables - before.tables,
    },
    { backends: 2, slots: 5, tables: 0 },
    "in the Service's row, of the same length",
  );
  t.is(storage.frontends.writes + storage.names.writes, hashWrites);
});

test("tables lie in their Service's row as long as they fit there", async (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(checkedMaps(storage));
  const slots = () => dataplane.usage().find(({ map }) => map === "svc_slots")!.entries;
  const hosts = (count: number) => Array.from({ length: count }, (_, index) => index + 1);
  const program = async (endpoints: readonly number[], inside = -1, outside = -1) => {
    const row = makeRow({ name: "web", frontends: [1], endpoints, inside, outside });
    dataplane.replace([row]);
    t.deepEqual(dataplane.flush(), []);
    await dataplane.release();
    t.deepEqual(readAll(storage), expected([row]));
    return slots();
  };
  t.is(await program(hosts(16)), 0, "three that are equal");
  t.is(await program(hosts(17)), 20, "too many");
  t.is(await program(hosts(9)), 0, "fewer again");
  t.is(await program(hosts(9), 0b1111), 0, "nine and four");
  t.is(await program(hosts(9), 0b1111, 0b11111), 8, "five more");
  t.is(await program(hosts(2), 0b1, 0b1), 0, "two and one");
});

test("connections of an endpoint that left stay in its Service's total", async (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [5] })]);
  dataplane.flush();
  new DataView(storage.backends.buffer).setBigUint64(32, 41n, true);
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [6] })]);
  dataplane.flush();
  await dataplane.release();
  const { departed } = service.offset;
  t.is(new DataView(storage.services.buffer).getBigUint64(departed, true), 41n);
});

test("an id is used again only after a grace period, with another generation", async (t) => {
  const storage = memoryStorage({ backends: 2 });
  const maps = new Maps(storage);
  const dataplane = new Dataplane(maps);
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [1, 2] })]);
  dataplane.flush();
  const generation = maps.readBackend(1).generation;
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [1] })]);
  dataplane.flush();
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [1, 3] })]);
  const errors = dataplane.flush();
  t.deepEqual(errors, [
    { key: "test/web:/TCP/4", message: roomError("svc_backends", "a larger --max-backends") },
  ]);
  t.true(await dataplane.release(), "rows that wait for room are announced");
  t.deepEqual(dataplane.flush(), []);
  t.is(maps.readBackend(1).generation, generation + 1);
  t.false(dataplane.isPending);
});

test("a row that does not fit is named, and fits once there is room", (t) => {
  const storage = memoryStorage({ frontends: 2 });
  const dataplane = new Dataplane(checkedMaps(storage));
  const rows = [1, 2, 3].map((host) =>
    makeRow({ name: `s${host}`, frontends: [host], endpoints: [host] }),
  );
  dataplane.replace(rows);
  t.deepEqual(dataplane.flush(), [
    { key: "test/s3:/TCP/4", message: roomError("svc_frontends", "a larger --max-frontends") },
  ]);
  t.deepEqual(readAll(storage), expected(rows.slice(0, 2)));
  dataplane.remove(["test/s1:/TCP/4"]);
  t.deepEqual(dataplane.flush(), []);
  t.deepEqual(readAll(storage), expected(rows.slice(1)));
});

test("a frontend that changes hands leads to one owner or the other at every moment", (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(checkedMaps(storage));
  dataplane.replace([makeRow({ name: "old", frontends: [1, 2], endpoints: [1] })]);
  dataplane.flush();
  storage.frontends.afterWrite = () => {
    const found = readAll(storage);
    t.truthy(found["10.96.0.1|80|6"]);
    t.truthy(found["10.96.0.2|80|6"]);
  };
  dataplane.replace([
    makeRow({ name: "new", frontends: [2], endpoints: [2] }),
    makeRow({ name: "old", frontends: [1], endpoints: [1] }),
  ]);
  t.deepEqual(dataplane.flush(), []);
  t.is(readAll(storage)["10.96.0.2|80|6"]![0]![0], "10.1.0.2|80");
});

test("an address's other ports are refused or left alone, and give way to Services", (t) => {
  const storage = memoryStorage({ frontends: 2 });
  const dataplane = new Dataplane(checkedMaps(storage));
  dataplane.replaceAddresses([
    { address: "10.96.0.1", action: "refuse" },
    { address: "10.96.0.2", action: "leave" },
  ]);
  dataplane.replace([makeRow({ name: "web", frontends: [1], endpoints: [5] })]);
  t.deepEqual(dataplane.flush(), [
    { key: "10.96.0.2", message: roomError("svc_frontends", "a larger --max-frontends") },
  ]);
  t.true(dataplane.isPending);
  t.deepEqual(Object.keys(readAll(storage)), ["10.96.0.1|80|6", "10.96.0.1|0|0"]);
  dataplane.removeAddresses(["10.96.0.1"]);
  t.deepEqual(dataplane.flush(), []);
  t.deepEqual(readAll(storage)["10.96.0.2|0|0"], [["leave"]]);
  dataplane.replaceAddresses([{ address: "10.96.0.2", action: "refuse" }]);
  t.deepEqual(dataplane.flush(), []);
  t.deepEqual(readAll(storage)["10.96.0.2|0|0"], [["refuse"]]);
  t.false(dataplane.isPending);
});

test("a failed write of an address names it, and is tried again", (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(new Maps(storage));
  storage.frontends.fails = () => true;
  dataplane.replaceAddresses([{ address: "fd00:10:96::1", action: "refuse" }]);
  t.deepEqual(dataplane.flush(), [{ key: "fd00:10:96::1", message: "ENOMEM" }]);
  storage.frontends.fails = () => false;
  t.deepEqual(dataplane.flush(), []);
  t.deepEqual(readAll(storage), { "fd00:10:96::1|0|0": [["refuse"]] });
});

test("what programs counted is told by row, of endpoints that left too, and once", async (t) => {
  const storage = memoryStorage();
  const maps = new Maps(storage);
  const dataplane = new Dataplane(maps);
  dataplane.replace([
    makeRow({ name: "a", frontends: [1], endpoints: [1, 2] }),
    makeRow({ name: "b", frontends: [2], endpoints: [1] }),
  ]);
  dataplane.flush();
  const backends = new DataView(storage.backends.buffer);
  const services = new DataView(storage.services.buffer);
  for (const id of maps.usedBackends())
    backends.setBigUint64(id * backend.bytes + backend.offset.connections, 2n ** 33n + 10n, true);
  services.setBigUint64(service.bytes + service.offset.refused, 3n, true);
  services.setBigUint64(service.bytes + service.offset.dropped, 4n, true);
  const each = 2 ** 33 + 10;
  const counted = [
    { key: "test/a:/TCP/4", connections: 2 * each, refused: 0, dropped: 0 },
    { key: "test/b:/TCP/4", connections: each, refused: 3, dropped: 4 },
  ];
  t.deepEqual([...dataplane.counters()], counted);
  dataplane.replace([makeRow({ name: "a", frontends: [1], endpoints: [] })]);
  dataplane.flush();
  t.deepEqual([...dataplane.counters()], counted, "while a reader may still count");
  await dataplane.release();
  t.deepEqual([...dataplane.counters()], counted, "and after");
});

test("how full each map is, and what the kernel refused, is told by map", (t) => {
  const storage = memoryStorage({ backends: 8, frontends: 4 });
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace([makeRow({ name: "a", frontends: [1, 2], endpoints: [1, 2, 3] })]);
  dataplane.setServiceRanges(["10.96.0.0/16"]);
  storage.frontends.fails = () => true;
  dataplane.flush();
  storage.frontends.fails = () => false;
  dataplane.flush();
  const usage = Object.fromEntries(
    dataplane
      .usage()
      .map(({ map, entries, capacity, errors }) => [map, [entries, capacity, errors]]),
  );
  t.deepEqual(usage.svc_frontends, [2, 4, 4], "each of two entries was tried twice");
  t.deepEqual(usage.svc_backends, [3, 8, undefined]);
  t.deepEqual(usage.svc_services, [1, 64, undefined]);
  t.deepEqual(usage.svc_slots, [0, 4096, undefined], "they are in the row");
  t.deepEqual(usage.svc_ranges, [1, 16, undefined]);
  t.deepEqual(usage.svc_names, [1, 64, 0]);
});

/** One step of a random life: rows come, change and go, the agent restarts, writes fail. */
const step = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant("replace" as const),
      name: fc.integer({ min: 0, max: 5 }),
      frontends: fc.uniqueArray(fc.integer({ min: 1, max: 3 }), { maxLength: 2 }),
      endpoints: fc.uniqueArray(fc.integer({ min: 1, max: 9 }), { maxLength: 9 }),
      inside: fc.integer({ min: 0, max: 511 }),
      outside: fc.integer({ min: 0, max: 511 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("remove" as const),
      name: fc.integer({ min: 0, max: 5 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant("address" as const),
      host: fc.integer({ min: 1, max: 20 }),
      action: fc.constantFrom("refuse" as const, "leave" as const, undefined),
    }),
  },
  { weight: 2, arbitrary: fc.constant({ kind: "release" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "restart" as const }) },
  { weight: 1, arbitrary: fc.constant({ kind: "fault" as const }) },
);

test("any changes end as a rebuild would, and no write misleads a reader", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      const storage = memoryStorage({ services: 12, backends: 48, slots: 256, frontends: 32 });
      let dataplane = new Dataplane(checkedMaps(storage));
      const rows = new Map<string, ServiceRow>();
      const addresses = new Map<string, AddressRow>();
      for (const each of steps) {
        storage.frontends.fails = storage.names.fails = () => each.kind === "fault";
        if (each.kind === "replace") {
          const frontends = each.frontends.map((offset) => each.name * 10 + offset);
          const row = makeRow({ ...each, name: `s${each.name}`, frontends });
          rows.set(row.key, row);
          dataplane.replace([row]);
        } else if (each.kind === "remove") {
          const key = `test/s${each.name}:/TCP/4`;
          rows.delete(key);
          dataplane.remove([key]);
        } else if (each.kind === "address") {
          const address = `10.96.0.${each.host}`;
          if (each.action) addresses.set(address, { address, action: each.action });
          else addresses.delete(address);
          if (each.action) dataplane.replaceAddresses([addresses.get(address)!]);
          else dataplane.removeAddresses([address]);
        } else if (each.kind === "release") await dataplane.release();
        else if (each.kind === "restart") {
          dataplane = new Dataplane(checkedMaps(storage));
          dataplane.replace(rows.values());
          dataplane.replaceAddresses(addresses.values());
          dataplane.removeOthers();
        }
        dataplane.flush();
      }
      storage.frontends.fails = storage.names.fails = () => false;
      for (let round = 0; round < 5 && (dataplane.isPending || dataplane.hasQuarantine); round++) {
        dataplane.flush();
        await dataplane.release();
      }
      t.false(dataplane.isPending);
      t.deepEqual(readAll(storage), expected(rows.values(), addresses.values()));
      t.is(storage.names.entriesByKey.size, rows.size);
      const maps = new Maps(storage);
      const next = new Dataplane(maps);
      next.replace(rows.values());
      next.flush();
      t.deepEqual(maps.writes, { backends: 0, slots: 0, tables: 0 });
    }),
    { numRuns: 300 },
  );
});
