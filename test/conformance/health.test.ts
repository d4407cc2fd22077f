// health of the vectors against the model: what load balancers and supervisors are told, byte for
// byte, along a timeline whose events are told apart by their words.
import test, { type ExecutionContext } from "ava";
import {
  type Answer,
  answerProxyHealth,
  answerServiceHealth,
  type FamilyHealth,
} from "../../control/model/health.ts";
import type { NodeObject } from "../../control/model/objects.ts";
import { readObject } from "../../control/model/read.ts";
import type { Family } from "../../control/model/rows.ts";
import { readVectorFile } from "./vectors.ts";

interface ExpectedAnswer {
  status: number;
  headers: Record<string, string>;
  bodyJson: unknown;
  bodyText?: string;
}

interface ServiceStep {
  id: string;
  service: { namespace: string; name: string };
  localReadyEndpoints: number;
  proxyHealthy: boolean;
  expect: ExpectedAnswer;
}

interface ProxyStep {
  after: string;
  secondsSinceStart: number;
  healthz: ExpectedAnswer;
  livez: ExpectedAnswer;
}

const START_MS = Date.parse("2026-01-02T03:04:05Z");
const TIMEOUT_MS = 60_000;

function compare(t: ExecutionContext, answer: Answer, expected: ExpectedAnswer): void {
  t.is(answer.status as number, expected.status);
  t.deepEqual(answer.headers, expected.headers);
  t.deepEqual(JSON.parse(answer.body), expected.bodyJson);
  if (expected.bodyText !== undefined) t.is(answer.body, expected.bodyText);
}

function makeNode(metadata: object, spec: object = {}): NodeObject {
  const value = { kind: "Node", metadata: { name: "node-a", ...metadata }, spec };
  return readObject(value).object as NodeObject;
}

function tainted(key: string): NodeObject {
  return makeNode({}, { taints: [{ key, effect: "NoSchedule" }] });
}

/** A proxy as the timeline's events leave it. */
class Timeline {
  readonly families = new Map<Family, FamilyHealth>();
  node: NodeObject | undefined = makeNode({});

  queue(family: Family, nowMs: number): void {
    const { updatedMs, pendingSinceMs = nowMs } = this.families.get(family)!;
    this.families.set(family, { updatedMs, pendingSinceMs });
  }

  sync(families: readonly Family[], nowMs: number): void {
    const state = { updatedMs: nowMs, pendingSinceMs: undefined };
    for (const family of families) this.families.set(family, state);
  }
}

const BOTH: readonly Family[] = [4, 6];
type Event = (timeline: Timeline, nowMs: number) => void;

/** What happened, by the words that tell of it; the first that match count. */
const EVENTS: readonly (readonly [RegExp, Event])[] = [
  [/both families synced/, (line, now) => line.sync(BOTH, now)],
  [/IPv4 synced/, (line, now) => line.sync([4], now)],
  [/IPv6 synced/, (line, now) => line.sync([6], now)],
  [/change queued for IPv6/, (line, now) => line.queue(6, now)],
  [/change queued/, (line, now) => line.queue(4, now)],
  [
    /ToBeDeletedByClusterAutoscaler/,
    (line) => set(line, tainted("ToBeDeletedByClusterAutoscaler")),
  ],
  [/unrelated taint/, (line) => set(line, tainted("dedicated"))],
  [/deletion/, (line) => set(line, makeNode({ deletionTimestamp: "2026-01-02T04:00:00Z" }))],
  [/unknown/, (line) => set(line, undefined)],
  [/plain node/, (line) => set(line, makeNode({}))],
  [/process start|later|without any change/, () => {}],
];

function set(timeline: Timeline, node: NodeObject | undefined): void {
  timeline.node = node;
}

const vectors = readVectorFile<{ serviceHealth: ServiceStep[]; proxyHealth: ProxyStep[] }>(
  "health.json",
);

for (const { id, service, localReadyEndpoints, proxyHealthy, expect } of vectors?.serviceHealth ??
  []) {
  test(`${id}: ${localReadyEndpoints} local endpoints, proxy healthy ${proxyHealthy}`, (t) => {
    const { namespace, name } = service;
    const state = { localEndpoints: localReadyEndpoints, isProxyHealthy: proxyHealthy };
    compare(t, answerServiceHealth({ namespace, name }, state), expect);
  });
}

if (vectors !== undefined) {
  test("the answers of /healthz and /livez follow the timeline", (t) => {
    const timeline = new Timeline();
    for (const { after, secondsSinceStart, healthz, livez } of vectors.proxyHealth) {
      const nowMs = START_MS + secondsSinceStart * 1000;
      const event = EVENTS.find(([words]) => words.test(after))?.[1];
      if (event === undefined) throw new Error(`No event is known by the words "${after}"`);
      event(timeline, nowMs);
      const { families, node } = timeline;
      const health = { families, node, nowMs, timeoutMs: TIMEOUT_MS };
      t.log(`after: ${after}`);
      compare(t, answerProxyHealth(health, { path: "/healthz" }), healthz);
      compare(t, answerProxyHealth(health, { path: "/livez" }), livez);
    }
  });
}

test("a proxy that never wrote anything is healthy, and its time is none", (t) => {
  const health = { families: new Map(), node: undefined, nowMs: START_MS, timeoutMs: TIMEOUT_MS };
  const { status, body } = answerProxyHealth(health, { path: "/healthz" });
  t.is(status, 503, "an unknown Node is not eligible");
  t.like(JSON.parse(body), { healthy: true, lastUpdated: "0001-01-01T00:00:00Z" });
});
