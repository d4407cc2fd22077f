// Who may ask a load balancer frontend, looked at after every single write.
import test from "ava";
import fc from "fast-check";
import type { ServiceRow, SourceRow } from "../model/rows.ts";
import { Dataplane } from "./dataplane.ts";
import { Maps } from "./maps.ts";
import { isAllowed, type MemoryStorage, memoryStorage } from "./memory.ts";

/** Ranges, and which of the probes each has. */
const RANGES: Readonly<Record<string, readonly string[]>> = {
  "10.0.0.0/8": ["10.0.0.1", "10.1.0.1", "10.1.2.3"],
  "10.1.0.0/16": ["10.1.0.1", "10.1.2.3"],
  "10.1.2.3/32": ["10.1.2.3"],
  "192.0.2.0/24": ["192.0.2.9"],
};
const PROBES = ["10.0.0.1", "10.1.0.1", "10.1.2.3", "192.0.2.9", "203.0.113.1", "node"];

function makeRow(number: number, sources: SourceRow | undefined): ServiceRow {
  const all = { kind: "uniform", members: [0], whenEmpty: "refuse" } as const;
  return {
    key: `test/s${number}:/TCP/4`,
    namespace: "test",
    name: `s${number}`,
    port: "",
    protocol: "TCP",
    family: 4,
    type: "LoadBalancer",
    externalPolicy: "Cluster",
    affinitySeconds: 0,
    sources,
    frontends: [{ kind: "loadBalancer", address: `203.0.113.${number}`, port: 80 }],
    backends: [{ address: "10.9.0.1", port: 80, state: "ready", weight: 1, local: false }],
    internal: all,
    inside: all,
    outside: all,
  };
}

/** What a row's sources should come to for a probe. */
function mayAsk(sources: SourceRow | undefined, probe: string): boolean {
  if (sources === undefined) return true;
  if (probe === "node") return sources.nodeAllowed;
  return sources.ranges.some((range) => RANGES[range]!.includes(probe));
}

function asked(storage: MemoryStorage, number: number, source: string): boolean | undefined {
  const frontend = { address: `203.0.113.${number}`, port: 80, protocol: 6 };
  try {
    return isAllowed(storage, { frontend, source });
  } catch {
    return undefined; // There is no such frontend yet, or any more.
  }
}

class WatchedMaps extends Maps {
  check = () => {};

  override writeGuard(...words: Parameters<Maps["writeGuard"]>): void {
    super.writeGuard(...words);
    this.check();
  }

  override writeTable(...words: Parameters<Maps["writeTable"]>): void {
    super.writeTable(...words);
    this.check();
  }

  override clearService(id: number): void {
    super.clearService(id);
    this.check();
  }
}

const setting = fc.option(
  fc.record({
    ranges: fc.subarray(Object.keys(RANGES), { minLength: 1 }),
    nodeAllowed: fc.boolean(),
  }),
  { nil: undefined },
);
const change = fc.record({
  number: fc.integer({ min: 1, max: 3 }),
  sources: fc.option(fc.record({ row: setting }), { nil: undefined }),
  restart: fc.boolean(),
  release: fc.boolean(),
});

test("who may ask before and after a change may ask throughout, others never may", async (t) => {
  await fc.assert(
    fc.asyncProperty(fc.array(change, { maxLength: 20 }), async (changes) => {
      const storage = memoryStorage({ services: 4 });
      let maps = new WatchedMaps(storage);
      let dataplane = new Dataplane(maps);
      const wanted = new Map<number, ServiceRow>();
      for (const { number, sources, restart, release } of changes) {
        const before = wanted.get(number);
        if (sources) wanted.set(number, makeRow(number, sources.row));
        else wanted.delete(number);
        const after = wanted.get(number);
        const check = () => {
          for (const probe of PROBES) {
            const is = asked(storage, number, probe);
            const states = [before, after].flatMap((row) => (row ? [row.sources] : []));
            if (is !== undefined)
              t.true(
                states.some((row) => mayAsk(row, probe) === is),
                probe,
              );
          }
        };
        if (restart) {
          maps = new WatchedMaps(storage);
          dataplane = new Dataplane(maps);
        }
        maps.check = check;
        storage.sources.afterWrite = storage.frontends.afterWrite = check;
        if (restart) dataplane.replace(wanted.values());
        if (restart) dataplane.removeOthers();
        else if (after) dataplane.replace([after]);
        else dataplane.remove([`test/s${number}:/TCP/4`]);
        dataplane.flush();
        maps.check = storage.sources.afterWrite = storage.frontends.afterWrite = () => {};
        if (release) await dataplane.release();
      }
      for (let round = 0; round < 4; round++) {
        dataplane.flush();
        await dataplane.release();
      }
      t.false(dataplane.isPending);
      for (const number of [1, 2, 3])
        for (const probe of PROBES) {
          const row = wanted.get(number);
          t.is(asked(storage, number, probe), row && mayAsk(row.sources, probe));
        }
      const ranges = [...wanted.values()].flatMap((row) => row.sources?.ranges ?? []);
      t.is(storage.sources.entriesByKey.size, ranges.length, "no range stays behind");
    }),
    { numRuns: 200 },
  );
});

test("an id whose ranges cannot be removed is not used again before they are", async (t) => {
  const storage = memoryStorage({ services: 1 });
  const dataplane = new Dataplane(new Maps(storage));
  dataplane.replace([makeRow(1, { ranges: ["10.0.0.0/8"], nodeAllowed: false })]);
  dataplane.flush();
  storage.sources.fails = () => true;
  dataplane.remove(["test/s1:/TCP/4"]);
  dataplane.replace([makeRow(2, { ranges: ["192.0.2.0/24"], nodeAllowed: false })]);
  const [error] = dataplane.flush();
  t.regex(error!.message, /^svc_services is full/);
  await dataplane.release();
  t.regex(dataplane.flush()[0]!.message, /^svc_services is full/);
  storage.sources.fails = () => false;
  for (let round = 0; round < 3; round++) {
    dataplane.flush();
    await dataplane.release();
  }
  t.false(dataplane.isPending);
  t.false(asked(storage, 2, "10.0.0.1"));
  t.true(asked(storage, 2, "192.0.2.9"));
});

test("ranges that cannot be written leave the Service guarded, named and pending", (t) => {
  const storage = memoryStorage();
  const dataplane = new Dataplane(new Maps(storage));
  const old = { ranges: ["10.0.0.0/8"], nodeAllowed: false };
  dataplane.replace([makeRow(1, old)]);
  dataplane.flush();
  storage.sources.fails = () => true;
  dataplane.replace([makeRow(1, { ranges: ["10.1.0.0/16"], nodeAllowed: false })]);
  dataplane.replace([makeRow(2, { ranges: ["192.0.2.0/24"], nodeAllowed: false })]);
  const errors = dataplane.flush();
  t.deepEqual(new Set(errors.map(({ key }) => key)), new Set(["test/s1:/TCP/4", "test/s2:/TCP/4"]));
  t.true(dataplane.isPending);
  t.true(asked(storage, 1, "10.1.2.3"), "what served before serves on");
  t.false(asked(storage, 2, "192.0.2.9"));
  t.false(asked(storage, 2, "node"));
  storage.sources.fails = () => false;
  t.deepEqual(dataplane.flush(), []);
  t.false(asked(storage, 1, "10.0.0.1"));
  t.true(asked(storage, 2, "192.0.2.9"));
  t.false(dataplane.isPending);
});

test("ranges for which there is no room are refused with the Service's name", (t) => {
  const storage = memoryStorage({ sources: 2 });
  const dataplane = new Dataplane(new Maps(storage));
  const two = { ranges: ["10.0.0.0/8", "192.0.2.0/24"], nodeAllowed: false };
  dataplane.replace([makeRow(1, two), makeRow(2, { ranges: ["10.1.0.0/16"], nodeAllowed: true })]);
  t.deepEqual(dataplane.flush(), [
    {
      key: "test/s2:/TCP/4",
      message:
        "svc_sources is full, it holds 2 entries: give Services fewer and wider " +
        "loadBalancerSourceRanges",
    },
  ]);
  t.is(asked(storage, 2, "10.1.2.3"), undefined);
  dataplane.replace([makeRow(1, undefined)]);
  dataplane.flush();
  t.deepEqual(dataplane.flush(), []);
  t.true(asked(storage, 2, "10.1.2.3"));
});

test("ranges that a kill left of a Service that nobody can name are removed", async (t) => {
  const storage = memoryStorage();
  const first = new Dataplane(new Maps(storage));
  const row = makeRow(1, { ranges: ["10.0.0.0/8"], nodeAllowed: false });
  first.replace([row]);
  first.flush();
  storage.names.entriesByKey.clear();
  storage.frontends.entriesByKey.clear();
  const second = new Dataplane(new Maps(storage));
  second.replace([row]);
  second.removeOthers();
  second.flush();
  t.is(storage.sources.entriesByKey.size, 2, "readers may still be at work");
  await second.release();
  t.is(storage.sources.entriesByKey.size, 1);
  t.true(asked(storage, 1, "10.0.0.1"));
  t.false(second.isPending);
});
