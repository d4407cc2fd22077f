// What a Service costs a connection that stands: requests and bulk over one, directly, through
// bpfsvc, and through the rules of kube-proxy's modes. Both ends are on one thread, in two pods.
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { lastCpu } from "./machine.ts";
import { makePlaces, type Place, serveByRules } from "./pods.ts";
import { Probe, type Targets } from "./probe.ts";
import { Programmed } from "./programmed.ts";
import { RIVALS } from "./rivals/rivals.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import {
  ENDPOINT_PORT,
  endpointAddress,
  makeRows,
  SERVICE_PORT,
  serviceAddress,
} from "./services.ts";
import { median, ratios } from "./statistics.ts";

const SHAPE = { services: 100, endpoints: 10, protocolOf: () => "TCP" as const };
const ROUNDS = 15;
const TRIES = 12;
/** Each run has a connection of its own. */
const CALLS = {
  "tcp-request": { runs: 4, count: 100 },
  "tcp-stream": { runs: 4, count: 64 },
} as const;
const BLOCK_BITS = 32_768 * 8;
const NS_PER_US = 1e3;

const direct: Targets = {
  address: endpointAddress(0),
  port: ENDPOINT_PORT,
  span: SHAPE.services * SHAPE.endpoints,
  step: 1,
};
const service: Targets = {
  address: serviceAddress(0),
  port: SERVICE_PORT,
  span: SHAPE.services,
  step: 1,
};

async function ask(name: string, probe: Probe, targets: Targets): Promise<Record<string, number>> {
  const request = await probe.time("tcp-request", { ...CALLS["tcp-request"], targets });
  const stream = await probe.time("tcp-stream", { ...CALLS["tcp-stream"], targets });
  return {
    [`${name} request cpu`]: request.cpu,
    [`${name} request p50`]: request.p50,
    [`${name} request p99`]: request.p99,
    [`${name} block cpu`]: stream.cpu,
  };
}

async function measure(context: Context): Promise<Samples> {
  const { lab, places } = await makePlaces("established", ["clean", ...RIVALS]);
  const probes: Probe[] = [];
  const start = ({ client, server }: Place) => {
    const probe = Probe.start(client, { cpu: lastCpu(), port: ENDPOINT_PORT, servers: server });
    probes.push(probe);
    return probe;
  };
  const { node } = places.clean;
  const clean = start(places.clean);
  const programmed = Programmed.create(`${node.pins}/bench`, { rows: makeRows(SHAPE) });
  const programs = programmed.programs();
  const cases: Case[] = [
    () => ask("direct", clean, direct),
    () => programs.attached(node.cgroup, () => ask("bpfsvc", clean, service)),
  ];
  try {
    for (const rival of RIVALS) {
      await serveByRules(places[rival], { rival, shape: SHAPE });
      const probe = start(places[rival]);
      cases.push(() => ask(rival, probe, service));
    }
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    for (const probe of probes) await probe.close();
    programs.close();
    await lab.close();
  }
}

function readFigures(samples: Samples): Figure[] {
  const row = (claim: string, values: number[], goal?: Goal) =>
    figure(claim, { values, unit: "×", goal });
  const over = (what: string, way: string, other: string) =>
    ratios(of(samples, `${way} ${what}`), of(samples, `${other} ${what}`));
  const bulk = (way: string) => over("block cpu", way, "bpfsvc");
  const latency = "time of a request on a connection, p50";
  const stream = "throughput of a connection per CPU second";
  const gbit = (way: string) => of(samples, `${way} block cpu`).map((ns) => BLOCK_BITS / ns);
  return [
    row(`${latency}: over direct`, over("request p50", "bpfsvc", "direct"), { atMost: 1.01 }),
    row(`${stream}: over direct`, bulk("direct"), { atLeast: 0.99 }),
    ...RIVALS.map((rival) =>
      row(`${latency}: ${rival} over direct`, over("request p50", rival, "direct")),
    ),
    ...RIVALS.map((rival) => row(`${stream}: over ${rival}`, bulk(rival))),
    ...["direct", "bpfsvc", ...RIVALS].flatMap((way) => [
      figure(`time of a request, ${way}: p50`, {
        values: of(samples, `${way} request p50`).map((ns) => ns / NS_PER_US),
        unit: "µs",
      }),
      figure(`throughput, ${way}`, { values: gbit(way), unit: "Gbit per CPU second" }),
    ]),
  ];
}

function draw(samples: Samples): Plot {
  const bar = (way: string) => ({
    name: way,
    points: [[0, median(of(samples, `${way} request p50`)) / NS_PER_US] as const],
  });
  return {
    name: "established",
    title: "Time of a request of 64 bytes on a connection that stands, p50",
    unit: "µs",
    kind: "bars",
    series: ["direct", "bpfsvc", ...RIVALS].map(bar),
  };
}

async function run(context: Context): Promise<Measured> {
  const samples = await measure(context);
  const notes = [
    "A request and its answer have 64 bytes each. Bulk is blocks of 32 KiB that are written and " +
      "then read to the end. 100 Services × 10 endpoints: what stands is in no list of rules.",
  ];
  return { figures: readFigures(samples), samples, notes, plots: [draw(samples)] };
}

export const established: Bench = {
  name: "established",
  claim: "A connection to a Service that stands costs what a direct one costs",
  goal: "time of a request and throughput within 1 % of direct",
  run,
};
