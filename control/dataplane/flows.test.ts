import test from "ava";
import {
  flowKind,
  flow as flowLayout,
  flowProtocol,
  flowState,
  limit,
  node as nodeLayout,
} from "../../bindings/layout.ts";
import { parsePlace } from "../model/place.ts";
import type { FlowFilter } from "./flowfilter.ts";
import { Flows, flowSets } from "./flows.ts";
import { addressBytes } from "./maps.ts";

const { FLOW_TCP, FLOW_UDP } = flowProtocol;
/** Of the clock, in its units: it wraps soon after. */
const NOW = 65_530;

interface Made {
  protocol?: number;
  state?: number;
  idle?: number;
  kind?: number;
  client?: string;
}

/** A table with these flows, all to other endpoints, the first at place 0. */
function makeTable(made: readonly Made[]): Flows {
  const flows = new Uint8Array(limit.FLOW_GROUP * limit.FLOW_WAYS * flowLayout.bytes);
  const node = new Uint8Array(nodeLayout.bytes);
  node.set(addressBytes("192.168.50.2"), nodeLayout.offset.source + nodeLayout.stride.source);
  const view = new DataView(flows.buffer);
  for (const [index, each] of made.entries()) {
    const { protocol = FLOW_TCP, state = flowState.FLOW_REPLIED, idle = 0 } = each;
    const { kind = flowKind.FLOW_FORWARD, client = "203.0.113.10" } = each;
    const lock =
      (kind << limit.FLOW_KIND_SHIFT) |
      (protocol << limit.FLOW_PROTOCOL_SHIFT) |
      (1 << limit.FLOW_PATH_SHIFT) |
      (1 << limit.FLOW_SOURCE_SHIFT) |
      (state << limit.FLOW_STATE_SHIFT);
    flowLayout.write(view, index * flowLayout.bytes, {
      lock,
      lastUsed: (NOW - idle) & 0xffff,
      hop: 0,
      clientPort: 40_000,
      frontendPort: 80,
      backendPort: 8080,
      sourcePort: 40_001,
      client: addressBytes(client),
      frontend: addressBytes("198.51.100.80"),
      backend: addressBytes(`10.244.1.${index + 2}`),
    });
  }
  return new Flows({ flows, node }, () => BigInt(NOW) << BigInt(limit.FLOW_CLOCK_SHIFT));
}

const backends = (flows: Flows) => [...flows.list()].map(({ backend }) => backend.address);

test("a connection is listed once, as its client's packets meet it", (t) => {
  const flows = makeTable([{ idle: 7 }, { kind: flowKind.FLOW_REVERSE }]);
  const expected = {
    protocol: "TCP",
    client: { address: "203.0.113.10", port: 40_000 },
    frontend: { address: "198.51.100.80", port: 80 },
    backend: { address: "10.244.1.2", port: 8080 },
    source: { address: "192.168.50.2", port: 40_001 },
    path: "redirect",
    state: "established",
    idleSeconds: 8,
  } as const;
  t.deepEqual([...flows.list()], [expected]);
});

const {
  FLOW_IDLE_CLOSED,
  FLOW_IDLE_HALF_CLOSED,
  FLOW_IDLE_TCP,
  FLOW_IDLE_UDP,
  FLOW_IDLE_UNREPLIED,
} = limit;
const { FLOW_ANSWERED, FLOW_CLOSED, FLOW_PEER_CLOSED, FLOW_REPLIED, FLOW_RESET } = flowState;

for (const { title, patience, ...made } of [
  { title: "an established TCP connection", patience: FLOW_IDLE_TCP },
  { title: "answered UDP", patience: FLOW_IDLE_UDP, protocol: FLOW_UDP },
  { title: "what nobody answers", patience: FLOW_IDLE_UNREPLIED, state: 0 },
  { title: "a reset connection", patience: FLOW_IDLE_CLOSED, state: FLOW_RESET },
  {
    title: "a connection that both sides closed",
    patience: FLOW_IDLE_CLOSED,
    state: FLOW_REPLIED | FLOW_CLOSED | FLOW_PEER_CLOSED,
  },
  {
    title: "a half-closed connection",
    patience: FLOW_IDLE_HALF_CLOSED,
    state: FLOW_REPLIED | FLOW_PEER_CLOSED,
  },
  {
    title: "what is answered and goes no further",
    patience: FLOW_IDLE_UNREPLIED,
    state: FLOW_ANSWERED,
  },
])
  test(`${title} is over after ${patience} units of the clock, and not before`, async (t) => {
    const flows = makeTable([
      { ...made, idle: patience },
      { ...made, idle: patience + 1 },
    ]);
    t.deepEqual(await flows.sweep(), { over: 1, stale: 0 });
    t.deepEqual(backends(flows), ["10.244.1.2"]);
  });

test("a packet that comes while a sweep goes on ends no connection", async (t) => {
  const flows = makeTable([{ idle: -1 }, { idle: -10 }, { idle: -1, protocol: FLOW_UDP }]);
  t.deepEqual(await flows.sweep(), { over: 0, stale: 0 });
  t.true([...flows.list()].every(({ idleSeconds }) => idleSeconds === 0));
});

test("only UDP is forgotten when its endpoint serves no more", async (t) => {
  const flows = makeTable([{}, { protocol: FLOW_UDP }, { protocol: FLOW_UDP }]);
  const serves = ({ backend }: { backend: { address: string } }) =>
    backend.address === "10.244.1.4";
  t.deepEqual(await flows.sweep(serves), { over: 0, stale: 1 });
  t.deepEqual(backends(flows), ["10.244.1.2", "10.244.1.4"]);
});

test("a sweep counts what it leaves, as both halves and by what connections are", async (t) => {
  const flows = makeTable([
    {},
    { kind: flowKind.FLOW_REVERSE },
    { protocol: FLOW_UDP, state: 0 },
    { protocol: FLOW_UDP, state: 0, idle: FLOW_IDLE_UNREPLIED + 1 },
    { client: "2001:db8:ffff::10" },
    { client: "2001:db8:ffff::11", state: FLOW_RESET },
  ]);
  t.is(flows.used, undefined);
  t.deepEqual(flows.counts, []);
  await flows.sweep();
  t.is(flows.used, 5);
  t.is(flows.counts.length, 2 * 3 * 3);
  t.deepEqual(
    flows.counts.filter(({ connections }) => connections > 0),
    [
      { family: 4, protocol: "TCP", state: "established", connections: 1 },
      { family: 4, protocol: "UDP", state: "unreplied", connections: 1 },
      { family: 6, protocol: "TCP", state: "established", connections: 1 },
      { family: 6, protocol: "TCP", state: "closed", connections: 1 },
    ],
  );
});

test("of many connections those that are asked for are listed", (t) => {
  const flows = makeTable([{}, { protocol: FLOW_UDP }, { client: "2001:db8:ffff::10" }]);
  const shown = (filter: FlowFilter) =>
    [...flows.list(filter)].map(({ backend }) => backend.address);
  t.deepEqual(shown({ protocol: "UDP" }), ["10.244.1.3"]);
  t.deepEqual(shown({ client: parsePlace("2001:db8::/32") }), ["10.244.1.4"]);
  t.deepEqual(shown({ endpoint: parsePlace("10.244.1.2:8080") }), ["10.244.1.2"]);
  t.deepEqual(shown({ protocol: "TCP", endpoint: parsePlace("10.244.1.3") }), []);
});

test("no request is led to an endpoint whose replies nobody would translate", async (t) => {
  const protocol = FLOW_UDP;
  const flows = makeTable([{ protocol, kind: flowKind.FLOW_REVERSE }, { protocol }]);
  const asked: string[] = [];
  await flows.sweep(({ backend }) => {
    asked.push(backend.address);
    return false;
  });
  t.deepEqual(asked, ["10.244.1.3", "10.244.1.2"]);
});

test("there is room for two flows of each connection, in a power of two of sets", (t) => {
  t.is(flowSets(1), limit.FLOW_GROUP);
  t.is(flowSets(131_072), 65_536);
  t.is(flowSets(131_073), 131_072);
});
