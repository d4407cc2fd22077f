// What is counted of changes on their way to the agent, and when slices count as programmed.
import test from "ava";
import { type FakeClock, FakeClock as Time } from "../fakeclock.ts";
import { Cluster } from "../model/cluster.ts";
import type { KubernetesObject, SliceObject } from "../model/objects.ts";
import { readObject } from "../model/read.ts";
import type { Sink } from "../source/source.ts";
import { Backlog } from "./backlog.ts";
import { Changes } from "./changes.ts";

const START_MS = Date.parse("2026-01-02T03:04:05Z");

function read(value: object): KubernetesObject {
  return readObject(value).object!;
}

function slice(name: string, host: number, family = 4): SliceObject {
  const address = family === 4 ? `10.244.1.${host}` : `fd00:10:244::${host}`;
  return read({
    kind: "EndpointSlice",
    metadata: { namespace: "shop", name, labels: { "kubernetes.io/service-name": "web" } },
    addressType: `IPv${family}`,
    ports: [{ name: "", port: 80 }],
    endpoints: [{ addresses: [address] }],
  }) as SliceObject;
}

function service(clusterIP = "10.96.0.1"): KubernetesObject {
  const spec = { clusterIP, ports: [{ port: 80 }] };
  return read({ kind: "Service", metadata: { namespace: "shop", name: "web" }, spec });
}

function makeChanges(): { changes: Changes; sink: Sink; backlog: Backlog; clock: FakeClock } {
  const clock = new Time();
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
  const epochMs = () => START_MS + clock.now();
  const backlog = new Backlog({ now: () => clock.now(), epochMs });
  const changes = new Changes({ cluster, backlog, epochMs });
  const sink = changes.watch({
    apply: (object) => cluster.apply(object),
    remove: (identity) => cluster.remove(identity),
    changed: () => cluster.takeDirty(),
    synced: () => backlog.synced([]),
    problem() {},
    resolved() {},
  });
  return { changes, sink, backlog, clock };
}

test("changes are counted by kind, and wait until they are taken", (t) => {
  const { changes, sink } = makeChanges();
  sink.apply(service());
  sink.apply(slice("web-1", 1));
  sink.apply(slice("web-1", 2));
  sink.remove({ kind: "EndpointSlice", namespace: "shop", name: "web-1" });
  t.deepEqual(changes.services, { pending: 1, total: 1 });
  t.deepEqual(changes.endpoints, { pending: 3, total: 3 });
  changes.taken([]);
  t.deepEqual(changes.services, { pending: 0, total: 1 });
  t.deepEqual(changes.endpoints, { pending: 0, total: 3 });
});

test("a change is queued for its families, and one of no consequence for none", (t) => {
  const { changes, sink, backlog, clock } = makeChanges();
  sink.apply(service());
  sink.changed();
  sink.synced();
  clock.pass(1000);
  sink.apply(slice("web-6", 1, 6));
  t.is(backlog.get().get(4)!.pendingMs, undefined);
  t.is(backlog.get().get(6)!.pendingMs, 0);
  t.is(changes.lastQueuedMs.get(6), START_MS + 1000);
  sink.changed();
  backlog.synced([]);
  sink.apply(slice("web-6", 1, 6));
  t.is(backlog.get().get(6)!.pendingMs, undefined);
});

test("a slice is programmed once its Service's rows are written, and counts each change", (t) => {
  const { changes, sink } = makeChanges();
  sink.apply(slice("web-1", 1), START_MS + 10);
  sink.apply(slice("web-1", 2), START_MS + 20);
  sink.apply(slice("web-6", 2, 6), START_MS + 30);
  t.deepEqual(changes.taken(["shop/web:/TCP/4"]), []);
  t.deepEqual(changes.taken(["shop/webhook:/TCP/4"]), [
    { family: 4, triggeredMs: START_MS + 10 },
    { family: 4, triggeredMs: START_MS + 20 },
    { family: 6, triggeredMs: START_MS + 30 },
  ]);
  t.deepEqual(changes.taken([]), []);
});

test("what is older than the agent, of an unknown time, or deleted does not count", (t) => {
  const { changes, sink } = makeChanges();
  sink.apply(slice("web-1", 1), START_MS);
  sink.apply(slice("web-2", 1));
  sink.apply(slice("web-3", 1), START_MS + 10);
  sink.remove({ kind: "EndpointSlice", namespace: "shop", name: "web-3" });
  t.deepEqual(changes.taken([]), []);
});

test("of a slice that is never programmed only so many changes are kept", (t) => {
  const { changes, sink } = makeChanges();
  for (let turn = 0; turn < 1000; turn++) {
    sink.apply(slice("web-1", 1 + (turn % 2)), START_MS + 1 + turn);
    changes.taken(["shop/web:/TCP/4"]);
  }
  t.is(changes.taken([]).length, 100);
});
