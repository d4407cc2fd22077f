// Connections of one table put into another of any size, with programs at work in both.
import test from "ava";
import {
  flowKind,
  flow as flowLayout,
  flowPath,
  flowState,
  limit,
  node as nodeLayout,
} from "../../bindings/layout.ts";
import { kindOf } from "./flowlock.ts";
import { FlowMove, flowHash } from "./flowmove.ts";
import { addressBytes } from "./maps.ts";

const { FLOW_FORWARD, FLOW_REVERSE } = flowKind;
const { FLOW_ANSWERED, FLOW_CLOSED, FLOW_PEER_CLOSED, FLOW_REPLIED } = flowState;
const CLOSED = FLOW_REPLIED | FLOW_CLOSED | FLOW_PEER_CLOSED;
/** Of the flows' clock, in its units. */
const NOW = 7;
const LEAST = limit.FLOW_GROUP * limit.FLOW_WAYS;

interface Half {
  client: number;
  kind: number;
  state: number;
  path: number;
  endpoint: number;
  /** When it was in use last. */
  used: number;
}

function newTable(ways = LEAST): Uint8Array {
  return new Uint8Array(ways * flowLayout.bytes);
}

/** Writes half a connection of client 0, 1, … where nobody looks for it: all of it is read. */
function write(table: Uint8Array, at: number, half: Partial<Half> & { client: number }): void {
  const { client, kind = FLOW_FORWARD, state = FLOW_REPLIED, endpoint = 0 } = half;
  const { path = flowPath.FLOW_REDIRECT, used = NOW } = half;
  const lock =
    (kind << limit.FLOW_KIND_SHIFT) |
    (path << limit.FLOW_PATH_SHIFT) |
    (1 << limit.FLOW_SOURCE_SHIFT) |
    (state << limit.FLOW_STATE_SHIFT);
  flowLayout.write(new DataView(table.buffer), at * flowLayout.bytes, {
    lock,
    lastUsed: used & 0xffff,
    hop: 5,
    clientPort: 40_000,
    frontendPort: 80,
    backendPort: 8080,
    sourcePort: 1024 + client,
    client: addressBytes(`10.1.${client >>> 8}.${client & 255}`),
    frontend: addressBytes("198.51.100.80"),
    backend: addressBytes(`10.244.1.${2 + endpoint}`),
  });
}

/** Both halves of connections. */
function writeAll(table: Uint8Array, clients: readonly number[], rest: Partial<Half> = {}): void {
  for (const [index, client] of clients.entries())
    for (const [half, kind] of [FLOW_FORWARD, FLOW_REVERSE].entries())
      write(table, 2 * index + half, { client, kind, ...rest });
}

function makeMove(table: Uint8Array): FlowMove {
  const node = new Uint8Array(nodeLayout.bytes);
  node.set(addressBytes("192.168.50.2"), nodeLayout.offset.source + nodeLayout.stride.source);
  node.fill(0x5b, nodeLayout.offset.hashKey, nodeLayout.offset.natFirst);
  return new FlowMove({ flows: table, node });
}

/** "client kind state" of every half, sorted. */
function list(table: Uint8Array): string[] {
  const view = new DataView(table.buffer);
  const found: string[] = [];
  for (let at = 0; at < table.length; at += flowLayout.bytes) {
    const { lock, sourcePort, backend } = flowLayout.read(view, at);
    if (kindOf(lock) === 0) continue;
    const kind = kindOf(lock) === FLOW_FORWARD ? "forward" : "reverse";
    found.push(`${sourcePort - 1024} ${kind} ${lock >>> limit.FLOW_STATE_SHIFT} ${backend.at(-1)}`);
  }
  return found.sort();
}

const range = (count: number) => Array.from({ length: count }, (_, index) => index);

test("a tuple's hash is of 64 bits, whatever its words", (t) => {
  // A sum of products that is small, and one of more than 64 bits.
  const small = flowHash(Uint32Array.of(1, 0, 0, 0, 2, 0, 0, 0, 3, 0), new Uint32Array(10));
  const mixed = (2n * 0x9e3779b97f4a7c15n) & 0xffff_ffff_ffff_ffffn;
  t.is(small, mixed ^ (mixed >> 32n));
  const most = new Uint32Array(10).fill(0xffff_ffff);
  const sum = (5n * 0xffff_ffffn * 0xffff_ffffn) & 0xffff_ffff_ffff_ffffn;
  const product = ((sum ^ (sum >> 32n)) * 0x9e3779b97f4a7c15n) & 0xffff_ffff_ffff_ffffn;
  t.is(flowHash(most, new Uint32Array(10)), product ^ (product >> 32n));
});

for (const ways of [LEAST, 16 * LEAST])
  test(`all connections get to a table with ${ways} places, once`, (t) => {
    const [from, to] = [newTable(4 * LEAST), newTable(ways)];
    writeAll(from, range(20));
    const move = makeMove(to);
    move.take(from, NOW);
    t.deepEqual(list(to), list(from));
    move.take(from, NOW);
    makeMove(to).take(from, NOW);
    t.deepEqual(list(to), list(from));
    t.is(move.lost, 0);
  });

test("what is new goes after, and how far connections have come", (t) => {
  const [from, to] = [newTable(), newTable()];
  writeAll(from, [1], { state: FLOW_ANSWERED });
  const move = makeMove(to);
  move.take(from, NOW);
  writeAll(from, [1, 2]);
  move.take(from, NOW);
  const state = FLOW_ANSWERED | FLOW_REPLIED;
  t.deepEqual(list(to), [
    `1 forward ${state} 2`,
    `1 reverse ${state} 2`,
    "2 forward 1 2",
    "2 reverse 1 2",
  ]);
});

test("a connection is known by the half that requests meet, and has but that in a tunnel", (t) => {
  const [from, to] = [newTable(), newTable()];
  write(from, 0, { client: 1, state: FLOW_REPLIED | FLOW_CLOSED });
  write(from, 1, { client: 2, path: flowPath.FLOW_TUNNEL });
  write(from, 2, { client: 3, kind: FLOW_REVERSE });
  const move = makeMove(to);
  move.take(from, NOW);
  t.deepEqual(list(to), [
    `1 forward ${FLOW_REPLIED | FLOW_CLOSED} 2`,
    `1 reverse ${FLOW_REPLIED | FLOW_PEER_CLOSED} 2`,
    "2 forward 1 2",
  ]);
  t.is(move.lost, 0);
});

for (const [title, used, kept] of [
  ["that was in use later stays", NOW + 1, "1 forward 1 3"],
  ["of the same moment stays", NOW, "1 forward 1 3"],
  ["that was in use before gives way, with both halves", NOW - 1, "1 forward 1 2"],
] as const)
  test(`of two connections of one tuple one ${title}`, (t) => {
    const [from, other, to] = [newTable(), newTable(), newTable()];
    writeAll(other, [1], { endpoint: 1, used });
    makeMove(to).take(other, NOW);
    writeAll(from, [1, 2]);
    const move = makeMove(to);
    move.take(from, NOW);
    const reverse = kept.replace("forward", "reverse");
    t.deepEqual(list(to), [kept, reverse, "2 forward 1 2", "2 reverse 1 2"]);
    t.is(move.lost, 0);
  });

test("a port that is used again is a new connection, whatever became of the first", (t) => {
  const [from, to] = [newTable(), newTable()];
  writeAll(from, [1], { state: CLOSED });
  const move = makeMove(to);
  move.take(from, NOW);
  writeAll(from, [1]);
  move.take(from, NOW);
  t.deepEqual(list(to), ["1 forward 1 2", "1 reverse 1 2"]);
});

test("a connection that goes on is in use here, too, and one that is over stays behind", (t) => {
  const [from, to] = [newTable(), newTable()];
  writeAll(from, [1], { used: NOW - 100 });
  makeMove(to).take(from, NOW);
  writeAll(from, [1, 2]);
  write(from, 8, { client: 3, state: 0, used: NOW - limit.FLOW_IDLE_UNREPLIED - 1 });
  makeMove(to).take(from, NOW);
  t.deepEqual(list(to), ["1 forward 1 2", "1 reverse 1 2", "2 forward 1 2", "2 reverse 1 2"]);
  const view = new DataView(to.buffer);
  for (let at = 0; at < to.length; at += flowLayout.bytes)
    if (view.getUint32(at, true) !== 0) t.is(flowLayout.read(view, at).lastUsed, NOW);
});

test("in a smaller table those get a place that most is lost with", (t) => {
  const [from, to] = [newTable(16 * LEAST), newTable()];
  writeAll(from, range(200), { state: CLOSED });
  const living = range(8).map((index) => 300 + index);
  for (const [index, client] of living.entries())
    for (const [half, kind] of [FLOW_FORWARD, FLOW_REVERSE].entries())
      write(from, 400 + 2 * index + half, { client, kind });
  const move = makeMove(to);
  move.take(from, NOW);
  const halves = list(to);
  t.true(
    living.every((client) => halves.filter((half) => half.startsWith(`${client} `)).length === 2),
  );
  t.true(move.lost >= 200 + 8 - LEAST / 2);
  const late = [400, 401];
  for (const [index, client] of late.entries()) write(from, 500 + index, { client });
  move.take(from, NOW);
  const now = list(to);
  t.true([...living, ...late].every((client) => now.includes(`${client} forward 1 2`)));
  const clients = halves.map((half) => half.split(" ")[0]);
  t.true(clients.every((client) => clients.filter((each) => each === client).length === 2));
});
