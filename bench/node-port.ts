// Packets that a node translates and sends on: CPU time for one, from the generator to the sink, for
// kernel forwarding, for the rules of kube-proxy's modes at a node port, and for the floors of XDP
// on the same devices. The packet path joins in WAYS. All of it is on one CPU and one thread; what
// is counted is what arrives.
import { Lab } from "../lab/lab.ts";
import { Bed, NODE_ADDRESS, NODE_OUT } from "./bed.ts";
import type { Bench, Context, Figure, Measured, Plot } from "./bench.ts";
import { Frames } from "./frames.ts";
import { loadRules, RIVALS, type Rival, rulesOf } from "./rivals/rivals.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { ENDPOINT_PORT, endpointAddress, makeRows } from "./services.ts";
import { median, ratios } from "./statistics.ts";

const SERVICES = 100;
const ENDPOINTS = 10;
const FIRST_NODE_PORT = 30_000;
const FLOWS = [1, 65_536] as const;
const ROUNDS = 12;
const TRIES = 5;
const PACKETS = { usual: 40_000, quick: 10_000 } as const;
/** Until every flow is known: their order is drawn. */
const WARM_UP = { usual: 400_000, quick: 10_000 } as const;
/** A bed that loses packets measures how quickly. */
const LEAST_ARRIVED = 0.999;

const NODE_PORT = { address: NODE_ADDRESS, port: FIRST_NODE_PORT } as const;
const ENDPOINT = { address: endpointAddress(0), port: ENDPOINT_PORT } as const;

/** What a node does with packets, once its bed is there. */
interface Way {
  name: string;
  aim: { address: string; port: number };
  setUp(bed: Bed, frames: Frames): Promise<void>;
}

/** A packet that goes up the stack needs a program on the device: only then veth takes frames. */
async function useStack(bed: Bed, frames: Frames): Promise<void> {
  await bed.attach("node", bed.pin(frames, "pass"));
}

async function useRules(bed: Bed, rival: Rival): Promise<void> {
  const rows = makeRows({
    services: SERVICES,
    endpoints: ENDPOINTS,
    protocolOf: () => "UDP",
    nodePortOf: (service) => ({ address: NODE_ADDRESS, port: FIRST_NODE_PORT + service }),
  });
  const node = {
    clusterCidr: "10.244.0.0/16",
    serviceCidr: "10.96.0.0/16",
    addresses: [NODE_ADDRESS],
  };
  await loadRules(bed.node, rival, rulesOf(rival, { rows, node }));
}

const WAYS: readonly Way[] = [
  {
    name: "XDP drop",
    aim: ENDPOINT,
    // The sink's program on the node's own device: the generator's price, and that of arriving.
    setUp: async (bed, frames) => bed.attach("node", bed.pin(frames, "sink")),
  },
  {
    name: "XDP redirect",
    aim: ENDPOINT,
    setUp: async (bed) => {
      const forward = new Frames({ frame: new Uint8Array(64), device: bed.device(NODE_OUT) });
      await bed.attach("node", bed.pin(forward, "forward"));
      forward.close();
    },
  },
  { name: "kernel forwarding", aim: ENDPOINT, setUp: useStack },
  ...RIVALS.map((rival) => ({
    name: rival,
    aim: NODE_PORT,
    setUp: async (bed: Bed, frames: Frames) => {
      await useStack(bed, frames);
      await useRules(bed, rival);
    },
  })),
];

function flowsFor(quick: boolean): readonly number[] {
  return quick ? FLOWS.slice(0, 1) : FLOWS;
}

/** Nanoseconds of CPU for each packet that arrives. */
async function makeCases(
  bed: Bed,
  { way, arrived, quick }: { way: Way; arrived: () => number; quick: boolean },
): Promise<Case[]> {
  const cases: Case[] = [];
  const packets = quick ? PACKETS.quick : PACKETS.usual;
  for (const flows of flowsFor(quick)) {
    const send = await bed.sender({ ...way.aim, flows });
    await send(quick ? WARM_UP.quick : WARM_UP.usual);
    cases.push(async () => {
      const before = arrived();
      const time = await send(packets);
      const count = arrived() - before;
      if (count < packets * LEAST_ARRIVED)
        throw new Error(`${way.name}: of ${packets} packets only ${count} arrived`);
      return { [`${way.name} ${flows}`]: time / count };
    });
  }
  return cases;
}

async function measure(lab: Lab, context: Context): Promise<Samples> {
  const cases: Case[] = [];
  const beds: Bed[] = [];
  const sinks: Frames[] = [];
  const { pins } = lab.nodes.node!;
  try {
    for (const [index, way] of WAYS.entries()) {
      context.progress(`setting up ${way.name}`);
      const bed = await Bed.create(lab, { name: `bed${index}`, pins });
      beds.push(bed);
      const frames = new Frames({ frame: new Uint8Array(64) });
      sinks.push(frames);
      await bed.attach("sink", bed.pin(frames, "sink"));
      await way.setUp(bed, frames);
      cases.push(
        ...(await makeCases(bed, { way, arrived: frames.counter(), quick: context.quick })),
      );
    }
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    for (const bed of beds) await bed.close();
    for (const frames of sinks) frames.close();
  }
}

function flowsOf(flows: number): string {
  return flows === 1 ? "1 flow" : `${flows / 1024}k flows`;
}

function readFigures(samples: Samples, quick: boolean): Figure[] {
  return flowsFor(quick).flatMap((flows) => [
    ...WAYS.filter(({ name }) => name !== "kernel forwarding").map(({ name }) =>
      figure(`${flowsOf(flows)}, ${name}: over kernel forwarding`, {
        values: ratios(of(samples, `kernel forwarding ${flows}`), of(samples, `${name} ${flows}`)),
        unit: "× as many packets",
      }),
    ),
    ...WAYS.map(({ name }) =>
      figure(`${flowsOf(flows)}, ${name}`, {
        values: of(samples, `${name} ${flows}`),
        unit: "ns a packet",
      }),
    ),
  ]);
}

function draw(samples: Samples): Plot {
  return {
    name: "node-port",
    title: "CPU time of a packet of 64 bytes through a node, 1 flow, generator and sink included",
    unit: "ns",
    kind: "bars",
    series: WAYS.map(({ name }) => ({
      name,
      points: [[0, median(of(samples, `${name} 1`))] as const],
    })),
  };
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "nodeport", topology: { node: [] } });
  try {
    const samples = await measure(lab, context);
    const notes = [
      "UDP packets of 64 bytes in one direction, over veth with native XDP; every flow is known " +
        `before the clock starts. Rules are those of ${SERVICES} Services × ${ENDPOINTS} ` +
        "endpoints: the destination is translated and the source masqueraded.",
      "The generator and the sink take what XDP drop takes, in every figure.",
    ];
    return { figures: readFigures(samples, context.quick), samples, notes, plots: [draw(samples)] };
  } finally {
    await lab.close();
  }
}

export const nodePort: Bench = {
  name: "node-port",
  claim: "A packet to a node port is sent on for a fraction of what rules take",
  goal: "none yet: the bed and the rivals; the packet path is to be ≥ 4.5 × nftables, 64k ≥ 3.5 ×",
  run,
};
