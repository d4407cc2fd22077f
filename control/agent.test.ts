// The loop on maps in memory, with time that passes when told to: when changes reach the maps.
// Life on a real kernel: test/scenarios.
import { setImmediate as nextTurn } from "node:timers/promises";
import test from "ava";
import { Agent, type AgentOptions } from "./agent.ts";
import { Dataplane } from "./dataplane/dataplane.ts";
import { Maps } from "./dataplane/maps.ts";
import { type MemoryStorage, memoryStorage, readAll } from "./dataplane/memory.ts";
import { FakeClock } from "./fakeclock.ts";
import { Cluster } from "./model/cluster.ts";
import type { KubernetesObject } from "./model/objects.ts";
import { readObject } from "./model/read.ts";

function service(host: number): KubernetesObject {
  const { object } = readObject({
    apiVersion: "v1",
    kind: "Service",
    metadata: { namespace: "shop", name: `web-${host}` },
    spec: { clusterIP: `10.96.0.${host}`, ports: [{ port: 80 }] },
  });
  return object!;
}

const silence = { debug() {}, info() {}, warn() {}, error() {} };

interface Stage {
  agent: Agent;
  clock: FakeClock;
  storage: MemoryStorage;
  /** A Service at 10.96.0.HOST comes up. */
  add(host: number): void;
  /** The last numbers of the cluster IPs that programs would find. */
  served(): number[];
}

function makeStage(options: Partial<AgentOptions> = {}): Stage {
  const clock = new FakeClock();
  const storage = memoryStorage();
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
  const agent = new Agent({
    cluster,
    dataplane: new Dataplane(new Maps(storage)),
    log: silence as unknown as AgentOptions["log"],
    minSyncPeriodMs: 1000,
    syncPeriodMs: 30_000,
    clock,
    onFirstSync: () => {},
    onUdpDeparture: () => {},
    onFatal: (error) => {
      throw error;
    },
    ...options,
  });
  const add = (host: number) => {
    agent.apply(service(host));
    agent.changed();
  };
  const addresses = () => Object.keys(readAll(storage)).map((name) => name.split("|"));
  const served = () =>
    addresses()
      .filter(([, port]) => port === "80")
      .map(([address]) => Number(address!.split(".").at(-1)))
      .sort((a, b) => a - b);
  return { agent, clock, storage, add, served };
}

test("the first full list is programmed at once, and nothing before it", (t) => {
  const { agent, clock, add, served } = makeStage();
  add(1);
  clock.pass(10_000);
  t.deepEqual(served(), []);
  agent.synced();
  t.deepEqual(served(), [1]);
});

test("minSyncPeriod: the first change after a quiet spell at once, the others together", (t) => {
  const { agent, clock, add, served } = makeStage();
  agent.synced();
  clock.pass(5000);
  add(1);
  clock.pass(0);
  t.deepEqual(served(), [1]);
  add(2);
  clock.pass(500);
  add(3);
  clock.pass(499);
  t.deepEqual(served(), [1]);
  clock.pass(1);
  t.deepEqual(served(), [1, 2, 3]);
});

test("a minSyncPeriod of 0 programs every change at once", (t) => {
  const { agent, clock, add, served } = makeStage({ minSyncPeriodMs: 0 });
  agent.synced();
  for (const host of [1, 2, 3]) {
    add(host);
    clock.pass(0);
    t.true(served().includes(host));
  }
});

test("what cannot be written is tried again ever later, but within syncPeriod", (t) => {
  const { agent, clock, storage, add, served } = makeStage({ syncPeriodMs: 2000 });
  agent.synced();
  clock.pass(5000);
  const attempts: number[] = [];
  storage.frontends.fails = () => {
    attempts.push(clock.now());
    return attempts.length < 20;
  };
  add(1);
  while (served().length === 0 && clock.now() < 60_000) clock.pass(100);
  const waits = [...new Set(attempts)].slice(1).map((at, index, all) => at - (all[index - 1] ?? 0));
  t.deepEqual(served(), [1]);
  t.deepEqual([...new Set(waits.slice(1))], [1000, 2000]);
});

test("while readers of the maps are waited for, nothing is done over and over", async (t) => {
  let updates = 0;
  const graces: (() => void)[] = [];
  const onFlush = () => {
    updates++;
  };
  const { agent, clock, storage, add, served } = makeStage({ minSyncPeriodMs: 0, onFlush });
  storage.grace = () => new Promise((resolve) => graces.push(resolve));
  /** Lets everything happen that needs no time. */
  const settle = async () => {
    for (let turn = 0; turn < 5; turn++) {
      clock.pass(0);
      await nextTurn();
    }
  };
  agent.synced();
  add(1);
  add(2);
  await settle();
  const before = updates;
  for (const host of [1, 2]) {
    agent.remove({ kind: "Service", namespace: "shop", name: `web-${host}` });
    agent.changed();
    await settle();
  }
  t.deepEqual(served(), []);
  t.is(updates - before, 2);
  graces[0]!();
  await settle();
  t.is(graces.length, 2, "what was given up meanwhile has its own readers to wait for");
  graces[1]!();
  await settle();
  t.is(graces.length, 2);
});

test("an agent that was stopped writes nothing more", (t) => {
  const { agent, clock, add, served } = makeStage();
  agent.synced();
  add(1);
  agent.stop();
  clock.pass(60_000);
  t.deepEqual(served(), []);
});
