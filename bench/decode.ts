// What the first list of a cluster costs to decode and to keep, and what an event costs, beside
// JSON.parse of the same list. Measures this process alone; knows no server and no connection.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { KubernetesObject } from "../control/model/objects.ts";
import { Decoder, type WatchedKind } from "../control/source/kubernetes/decode.ts";
import { makeEventReader, makeListReader, PROTOBUF } from "../control/source/kubernetes/stream.ts";
import { generateObjects } from "../lab/apiserver/generate.ts";
import { Version } from "../lab/apiserver/objects.ts";
import { resourceOfKind } from "../lab/apiserver/resources.ts";
import { type Encoding, eventFrame, listBody } from "../lab/apiserver/wire.ts";
import type { Bench, Context, Measured } from "./bench.ts";
import { figure, of, type Samples } from "./rounds.ts";
import { ratios } from "./statistics.ts";

const SERVICES = { usual: 10_000, quick: 2000 } as const;
const ENDPOINTS = 10;
const ROUNDS = 20;
/** Rounds before those that count: compilers need a few. */
const WARM_UP = 3;
const EVENTS = 4000;
/** Series of events in a round, of which the least counts: whatever disturbs one only adds. */
const SERIES = 5;
const PIECE_BYTES = 65_536;
const MIB = 1024 * 1024;
const KINDS = ["Service", "EndpointSlice"] as const;

/** The bodies of the lists of all kinds, in one encoding. */
type Bodies = Readonly<Record<(typeof KINDS)[number], Buffer>>;

function makeVersions(services: number): Version[] {
  const objects = generateObjects({ services, endpoints: ENDPOINTS });
  let resourceVersion = 100_000;
  return Array.from(objects, (object) => {
    const metadata = { ...object.metadata, resourceVersion: String(++resourceVersion) };
    return new Version(resourceOfKind(object.kind!), { ...object, metadata });
  });
}

function makeBodies(versions: readonly Version[], encoding: Encoding): Bodies {
  const makeBody = (kind: WatchedKind) => {
    const resource = resourceOfKind(kind);
    const items = versions.filter((version) => version.resource === resource);
    const list = { resource, metadata: { resourceVersion: "200000" }, items };
    return Buffer.concat([...listBody(list, encoding).pieces]);
  };
  return { Service: makeBody("Service"), EndpointSlice: makeBody("EndpointSlice") };
}

function parseAll(bodies: Bodies): unknown {
  return KINDS.map((kind) => JSON.parse(bodies[kind].toString("utf8")));
}

function decodeAll(bodies: Bodies): unknown {
  return KINDS.map((kind) => {
    const kept: (KubernetesObject | undefined)[] = [];
    const body = bodies[kind];
    const reader = makeListReader(PROTOBUF, new Decoder(kind), ({ object }) => kept.push(object))!;
    for (let at = 0; at < body.length; at += PIECE_BYTES)
      reader.push(body.subarray(at, at + PIECE_BYTES));
    reader.end();
    return kept;
  });
}

/** User and system time of all threads, in ms. What `action` returns is kept until it is over. */
function timeCpu(action: () => unknown): { cpuMs: number; kept: unknown } {
  const before = process.cpuUsage();
  const kept = action();
  const { user, system } = process.cpuUsage(before);
  return { cpuMs: (user + system) / 1000, kept };
}

/** What stays on the heap of what `action` returns, in bytes. */
function measureHeap(action: () => unknown, collect: () => void): number {
  collect();
  const before = process.memoryUsage().heapUsed;
  const kept = action();
  collect();
  const bytes = process.memoryUsage().heapUsed - before;
  if (kept === undefined) throw new Error("There was nothing to keep; decode a list");
  return bytes;
}

function timeEvents(frame: Buffer): number {
  const decoder = new Decoder("EndpointSlice");
  let events = 0;
  const reader = makeEventReader(PROTOBUF, decoder, () => events++)!;
  const { cpuMs } = timeCpu(() => {
    for (let event = 0; event < EVENTS; event++) reader.push(frame);
  });
  if (events !== EVENTS) throw new Error(`${events} of ${EVENTS} events were decoded`);
  return (cpuMs * 1000) / EVENTS;
}

function measure(context: Context, services: number): Samples {
  context.progress(`making ${services} Services`);
  const versions = makeVersions(services);
  const json = makeBodies(versions, "json");
  const protobuf = makeBodies(versions, "protobuf");
  const slice = versions.find(({ resource }) => resource.kind === "EndpointSlice")!;
  const frame = eventFrame("MODIFIED", slice, "protobuf");
  versions.length = 0;
  const samples: Samples = { parse: [], decode: [], event: [], "first decode": [] };
  const rounds = context.rounds(ROUNDS);
  for (let round = -WARM_UP; round < rounds; round++) {
    context.progress(`round ${round} of ${rounds}`);
    const [parse, decode] = [timeCpu(() => parseAll(json)), timeCpu(() => decodeAll(protobuf))];
    const events = Array.from({ length: SERIES }, () => timeEvents(frame));
    if (round === -WARM_UP) samples["first decode"]!.push(decode.cpuMs);
    if (round < 0) continue;
    samples.parse!.push(parse.cpuMs);
    samples.decode!.push(decode.cpuMs);
    samples.event!.push(Math.min(...events));
  }
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  samples["parse heap"] = [measureHeap(() => parseAll(json), collect) / MIB];
  samples["decode heap"] = [measureHeap(() => decodeAll(protobuf), collect) / MIB];
  return samples;
}

async function run(context: Context): Promise<Measured> {
  const services = context.quick ? SERVICES.quick : SERVICES.usual;
  const samples = measure(context, services);
  const take = (name: string) => of(samples, name);
  const cpu = ratios(take("decode"), take("parse"));
  const heap = ratios(take("decode heap"), take("parse heap"));
  const what = `${services} Services and ${services * ENDPOINTS} endpoints`;
  const figures = [
    figure(`JSON.parse of a list of ${what}: CPU`, { values: take("parse"), unit: "ms" }),
    figure("decoded to objects of the model: CPU", { values: take("decode"), unit: "ms" }),
    figure("the same, of that of JSON.parse", { values: cpu, unit: "×", goal: { atMost: 0.5 } }),
    figure("the same, the first time in a process", { values: take("first decode"), unit: "ms" }),
    figure("JSON.parse: heap kept", { values: take("parse heap"), unit: "MiB" }),
    figure("decoded: heap kept", { values: take("decode heap"), unit: "MiB" }),
    figure("the same, of that of JSON.parse", { values: heap, unit: "×", goal: { atMost: 0.25 } }),
    figure(`a watch event of ${ENDPOINTS} endpoints: CPU`, {
      values: take("event"),
      unit: "µs",
      goal: { atMost: 12 },
    }),
  ];
  const notes = [
    `CPU is of all threads, compilers and collectors included, after ${WARM_UP} rounds to warm ` +
      "up. JSON.parse makes plain values: nothing is checked in them.",
  ];
  return { figures, samples, notes };
}

export const decode: Bench = {
  name: "decode",
  claim: "The first list of a large cluster costs little to read and to keep",
  goal: "half the CPU and a quarter of the heap of JSON.parse, and 12 µs an event",
  run,
};
