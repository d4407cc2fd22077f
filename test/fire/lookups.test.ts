// Lookups from every CPU while the dataplane changes under them as fast as it can: none may find
// another Service's endpoint, a withdrawn one, or nothing where there is something. And the proof
// that these tests notice: each protection taken out makes them fail.
import { mkdirSync, rmSync } from "node:fs";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { kernelStorage, loadObject, Meta, openPinned } from "../../control/dataplane/kernel.ts";
import { type BackendEntry, Maps, type Storage } from "../../control/dataplane/maps.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { needsLab } from "../../lab/needs.ts";
import { Churn, CROWD, type Population, SCARCE } from "./churn.ts";
import { type Counts, Oracle, violationsOf } from "./oracle.ts";
import type { ReaderOrders } from "./reader.ts";
import { keepApart, Readers } from "./readers.ts";

const labTest = needsLab(test.serial as typeof test);
let plays = 0;

/** Every id is used again at once. */
const SCARCEST = { ...SCARCE, svc_services: 6, svc_names: 6, svc_backends: 32, svc_slots: 64 };
const FEW: Population = { steady: 1, pairs: 0, comers: 8, phoenixes: 0 };
/** Room for all that a run creates, so that nothing waits for room if grace periods are slow. */
const AMPLE = {
  svc_overflow: 4096,
  svc_services: 65536,
  svc_names: 65536,
  svc_backends: 524288,
  svc_slots: 524288,
  svc_affinity: 64,
};
const REBORN: Population = { steady: 0, pairs: 2, comers: 20, phoenixes: 10 };

interface Fire {
  population: Population;
  capacities: Record<string, number>;
  orders: Pick<ReaderOrders, "object" | "repeat"> & { rodata?: Record<string, number> };
  /** Processes that look up, 2 unless given. */
  readers?: number;
  seconds: number;
  /** Ends it before its time. */
  until?: (counts: Counts) => boolean;
  storage?: (storage: Storage) => Storage;
  maps?: new (storage: Storage) => Maps;
}

/** Churn and readers on new maps for some seconds; what the readers counted. */
async function play(t: ExecutionContext, fire: Fire): Promise<Counts> {
  const folder = `/sys/fs/bpf/fire-${process.pid}-${++plays}`;
  mkdirSync(folder);
  t.teardown(() => rmSync(folder, { recursive: true }));
  const pins = new Pins(folder);
  const lock = pins.open();
  t.teardown(() => lock.release());
  loadObject(pins, { rodata: {}, capacities: fire.capacities }).object.close();
  const opened = openPinned(pins)!;
  const storage = kernelStorage(opened, new Meta(opened.svc_meta, { readOnly: false }));
  const maps = new (fire.maps ?? Maps)(fire.storage?.(storage) ?? storage);
  const oracle = new Oracle(folder);
  const churn = new Churn({
    dataplane: new Dataplane(maps),
    oracle,
    population: fire.population,
    random: Math.random,
  });
  const rodata = { target_count: oracle.targetCount, ...fire.orders.rodata };
  const folders = [folder, path.dirname(pins.mapPath("svc_meta"))];
  if (fire.readers === 1) t.teardown(keepApart());
  const readers = await Readers.start(fire.readers ?? 2, { ...fire.orders, rodata, folders });
  try {
    const end = performance.now() + fire.seconds * 1000;
    while (performance.now() < end && !fire.until?.(oracle.counts())) {
      churn.step();
      await nextTurn();
    }
    readers.check();
  } finally {
    await readers.stop();
    await churn.settle();
  }
  const counts = oracle.counts();
  t.log(JSON.stringify(churn.done), JSON.stringify(counts));
  for (const sample of oracle.samples()) t.log(`A violation: ${sample}`);
  return counts;
}

labTest("lookups at full speed find only what may be found", async (t) => {
  const counts = await play(t, {
    population: CROWD,
    capacities: SCARCE,
    orders: { object: "twin" },
    seconds: 15,
  });
  t.is(violationsOf(counts), 0);
  t.is(counts.inconsistent, 0);
  t.true(counts.forwarded > 2_000_000);
});

/** Pauses last up to several flushes; beside this reader the writer has a CPU for itself. */
function dawdler(rodata: Record<string, number>): Pick<Fire, "readers" | "orders"> {
  return {
    readers: 1,
    orders: { object: "slow", rodata: { pause_ns: 3_000_000, ...rodata }, repeat: 10 },
  };
}
const AFTER_SERVICES = { pause_after: 1 };
const WITHOUT_FRONTEND_CHECK = { without: 1, pause_after: 2, pause_every: 4 };
const WITHOUT_BACKEND_CHECK = { without: 2 };

labTest("lookups that dawdle between two steps find only what may be found", async (t) => {
  const counts = await play(t, {
    population: CROWD,
    capacities: SCARCE,
    orders: { object: "slow", rodata: { pause_ns: 200_000, pause_every: 50 }, repeat: 100 },
    seconds: 8,
  });
  t.is(violationsOf(counts), 0);
  t.true(counts.forwarded > 10_000);
});

labTest("lookups that last longer than several flushes find only what may be found", async (t) => {
  const counts = await play(t, {
    population: FEW,
    capacities: SCARCEST,
    ...dawdler({ pause_every: 8 }),
    seconds: 8,
  });
  t.is(violationsOf(counts), 0);
  t.true(counts.forwarded > 100);
});

labTest("a Service deleted and created anew at once is found throughout", async (t) => {
  const counts = await play(t, {
    population: REBORN,
    capacities: AMPLE,
    orders: { object: "twin" },
    seconds: 10,
  });
  t.is(violationsOf(counts), 0);
  t.is(counts.inconsistent, 0);
});

labTest("without the grace period lookups go wrong", async (t) => {
  const counts = await play(t, {
    population: FEW,
    capacities: SCARCEST,
    ...dawdler(AFTER_SERVICES),
    seconds: 30,
    storage: (storage) => ({ ...storage, grace: async () => {} }),
    until: ({ strangers, refused }) => strangers > 3 && refused > 3,
  });
  t.true(counts.strangers > 3 && counts.refused > 3);
});

/** Every use of an id looks like the first. */
class OneGeneration extends Maps {
  override readBackend(id: number): BackendEntry {
    const entry = super.readBackend(id);
    return { ...entry, generation: entry.listed === 0 ? 0 : 1 };
  }

  override writeBackendWord(id: number, entry: BackendEntry): void {
    super.writeBackendWord(id, { ...entry, generation: 1 });
  }
}

labTest("without the generation a kept reference leads elsewhere", async (t) => {
  const counts = await play(t, {
    population: CROWD,
    capacities: SCARCE,
    orders: { object: "twin" },
    seconds: 30,
    maps: OneGeneration,
    until: ({ strayed }) => strayed > 100,
  });
  t.true(counts.strayed > 100);
});

labTest("without the check of a frontend lookups go wrong", async (t) => {
  const counts = await play(t, {
    population: REBORN,
    capacities: AMPLE,
    ...dawdler(WITHOUT_FRONTEND_CHECK),
    seconds: 30,
    until: ({ strangers }) => strangers > 3,
  });
  t.true(counts.strangers > 3);
});

labTest("without the check of a backend's Service lookups go wrong", async (t) => {
  const counts = await play(t, {
    population: CROWD,
    capacities: SCARCE,
    orders: { object: "twin", rodata: WITHOUT_BACKEND_CHECK },
    seconds: 30,
    until: ({ strangers }) => strangers > 100,
  });
  t.true(counts.strangers > 100);
});
