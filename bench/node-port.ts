// Packets that a node translates and sends on: CPU time for one, from the generator to the sink, or
// from there back to the generator as well. For bpfsvc's agent in XDP and at TC, kernel forwarding,
// the rules of kube-proxy's modes at a node port, and the floors of XDP on the same devices. All of
// it is on one CPU and one thread; what is counted is what arrives.
import { Lab } from "../lab/lab.ts";
import { Bed, NODE_ADDRESS, type Send } from "./bed.ts";
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { startAgent } from "./commands.ts";
import { Manifests } from "./manifests.ts";
import { loadRules, RIVALS, type Rival, rulesOf } from "./rivals/rivals.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { ENDPOINT_PORT, endpointAddress, makeRows, type Shape } from "./services.ts";
import { median, ratios } from "./statistics.ts";

const FIRST_NODE_PORT = 30_000;
const SHAPE: Shape = {
  services: 100,
  endpoints: 10,
  protocolOf: () => "UDP",
  nodePortOf: (service) => ({ address: NODE_ADDRESS, port: FIRST_NODE_PORT + service }),
};
const FLOWS = [1, 65_536] as const;
const ROUNDS = 12;
const TRIES = 5;
const PACKETS = { usual: 20_000, quick: 10_000 } as const;
/** Until every flow is known, and has been answered: some may get lost. */
const WARM_UP = { usual: 200_000, quick: 10_000 } as const;
/** A bed that loses packets measures how quickly. */
const LEAST_ARRIVED = 0.999;
const ATTEMPTS = 5;

const NODE_PORT = { address: NODE_ADDRESS, port: FIRST_NODE_PORT } as const;
const ENDPOINT = { address: endpointAddress(0), port: ENDPOINT_PORT } as const;

/** What a node does with packets, once its bed is there. */
interface Way {
  name: string;
  aim: { address: string; port: number };
  /** Whether what the sink sends back comes back to the generator. */
  returns: boolean;
  setUp(bed: Bed): Promise<void>;
}

/** A packet that goes up the stack needs a program on the device: only then veth takes frames. */
async function useStack(bed: Bed): Promise<void> {
  await bed.attach("in", { program: "pass" });
  await bed.attach("out", { program: "pass" });
}

async function useRules(bed: Bed, rival: Rival): Promise<void> {
  const node = {
    clusterCidr: "10.244.0.0/16",
    serviceCidr: "10.96.0.0/16",
    addresses: [NODE_ADDRESS],
  };
  await loadRules(bed.node, rival, rulesOf(rival, { rows: makeRows(SHAPE), node }));
}

/** The agent as it ships, told that both devices are uplinks. */
async function useAgent({ node }: Bed, mode: "xdp" | "tc"): Promise<void> {
  const manifests = new Manifests(SHAPE, { name: node.name, address: NODE_ADDRESS });
  const devices = ["in", "out"].flatMap((device) => ["--device", `${device}=${mode}`]);
  try {
    await startAgent(node, ["--manifests", manifests.folder, ...devices]);
  } finally {
    manifests.remove();
  }
}

const FORWARDING = "kernel forwarding";
const XDP = "bpfsvc in XDP";
const TC = "bpfsvc at TC";

const WAYS: readonly Way[] = [
  {
    name: "XDP drop",
    aim: ENDPOINT,
    returns: false,
    // The sink's program on the node's own device: the generator's price, and that of arriving.
    setUp: (bed) => bed.attach("in", { program: "sink" }),
  },
  {
    name: "XDP redirect",
    aim: ENDPOINT,
    returns: true,
    setUp: async (bed) => {
      await bed.redirect("in", "out");
      await bed.redirect("out", "in");
    },
  },
  {
    name: XDP,
    aim: NODE_PORT,
    returns: true,
    setUp: (bed) => useAgent(bed, "xdp"),
  },
  {
    name: TC,
    aim: NODE_PORT,
    returns: true,
    setUp: async (bed) => {
      await useStack(bed);
      await useAgent(bed, "tc");
    },
  },
  { name: FORWARDING, aim: ENDPOINT, returns: true, setUp: useStack },
  ...RIVALS.map((rival) => ({
    name: rival,
    aim: NODE_PORT,
    returns: true,
    setUp: async (bed: Bed) => {
      await useStack(bed);
      await useRules(bed, rival);
    },
  })),
];
const RETURNING = WAYS.filter(({ returns }) => returns);

/** Where packets go: to the sink, or from there back to the generator. */
const TRIPS = ["there", "there and back"] as const;
type Trip = (typeof TRIPS)[number];

function flowsFor(quick: boolean): readonly number[] {
  return quick ? FLOWS.slice(0, 1) : FLOWS;
}

function nameOf(way: string, flows: number, trip: Trip): string {
  return `${way} ${flows} ${trip}`;
}

/**
 * Sends so many and gives nanoseconds of CPU for each. Again if some were lost, as happens when the
 * machine is so busy that others do the work of softirqs. Throws if they never arrive.
 */
async function timePackets(
  bed: Bed,
  { way, send, trip, count }: { way: Way; send: Send; trip: Trip; count: number },
): Promise<number> {
  bed.far.reflects = trip === "there and back";
  const end = bed.far.reflects ? bed.home : bed.far;
  const arrivals: number[] = [];
  while (arrivals.length < ATTEMPTS) {
    const before = end.sunk;
    const time = await send(count);
    const arrived = end.sunk - before;
    if (arrived >= count * LEAST_ARRIVED) return time / arrived;
    arrivals.push(arrived);
  }
  const counts = arrivals.join(", ");
  throw new Error(`${way.name}, ${trip}: of ${count} packets each time only ${counts} arrived`);
}

async function makeCases(bed: Bed, way: Way, { quick }: Context): Promise<Case[]> {
  const cases: Case[] = [];
  const count = quick ? PACKETS.quick : PACKETS.usual;
  for (const flows of flowsFor(quick)) {
    const send = await bed.sender({ ...way.aim, flows });
    bed.far.reflects = true;
    await send(quick ? WARM_UP.quick : WARM_UP.usual);
    for (const trip of way.returns ? TRIPS : TRIPS.slice(0, 1))
      cases.push(async () => ({
        [nameOf(way.name, flows, trip)]: await timePackets(bed, { way, send, trip, count }),
      }));
  }
  return cases;
}

async function measure(lab: Lab, context: Context): Promise<Samples> {
  const cases: Case[] = [];
  const beds: Bed[] = [];
  const { pins } = lab.nodes.node!;
  try {
    for (const [index, way] of WAYS.entries()) {
      context.progress(`setting up ${way.name}`);
      const bed = await Bed.create(lab, { name: `bed${index}`, pins });
      beds.push(bed);
      await way.setUp(bed);
      cases.push(...(await makeCases(bed, way, context)));
    }
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    for (const bed of beds) await bed.close();
  }
}

function flowsOf(flows: number): string {
  return flows === 1 ? "1 flow" : `${flows / 1024}k flows`;
}

/** What issue 6 asks for. */
const GOALS: Readonly<Record<number, Goal>> = { 1: { atLeast: 4.5 }, 65536: { atLeast: 3.5 } };

function readFigures(samples: Samples, quick: boolean): Figure[] {
  const times = (way: string, flows: number, trip: Trip) => of(samples, nameOf(way, flows, trip));
  const over = (claim: string, values: number[], goal?: Goal) =>
    figure(claim, { values, unit: "× as many packets", goal });
  const cases = TRIPS.flatMap((trip) => flowsFor(quick).map((flows) => ({ trip, flows })));
  const compared = cases.flatMap(({ trip, flows }) => {
    const what = `${flowsOf(flows)}, ${trip}`;
    const ratio = (way: string, other: string) =>
      ratios(times(other, flows, trip), times(way, flows, trip));
    const goal = trip === "there" ? GOALS[flows] : undefined;
    return [
      over(`${what}: ${XDP} over nftables`, ratio(XDP, "nftables"), goal),
      over(`${what}: ${XDP} over iptables`, ratio(XDP, "iptables")),
      over(`${what}: ${XDP} over ${FORWARDING}`, ratio(XDP, FORWARDING)),
      over(`${what}: ${TC} over nftables`, ratio(TC, "nftables")),
      over(`${what}: ${TC} over ${FORWARDING}`, ratio(TC, FORWARDING)),
    ];
  });
  const isHeld = ({ goal }: Figure) => (goal ? 0 : 1);
  const absolute = cases.flatMap(({ trip, flows }) =>
    (trip === "there" ? WAYS : RETURNING).map(({ name }) =>
      figure(`${flowsOf(flows)}, ${trip}: ${name}`, {
        values: times(name, flows, trip),
        unit: "ns a packet",
      }),
    ),
  );
  return [...compared.sort((a, b) => isHeld(a) - isHeld(b)), ...absolute];
}

function draw(samples: Samples, quick: boolean): Plot[] {
  return flowsFor(quick).map((flows) => ({
    name: `node-port-${flows}`,
    title: `CPU time of a packet of 64 bytes through a node, ${flowsOf(flows)}, generator included`,
    unit: "ns",
    kind: "bars",
    series: WAYS.map(({ name }) => ({
      name,
      points: [[0, median(of(samples, nameOf(name, flows, "there")))] as const],
    })),
  }));
}

async function run(context: Context): Promise<Measured> {
  const { quick } = context;
  const lab = await Lab.create({ name: "nodeport", topology: { node: [] } });
  try {
    const samples = await measure(lab, context);
    const notes = [
      "UDP packets of 64 bytes over veth with native XDP; every flow is known and " +
        "answered before " +
        `the clock starts. ${SHAPE.services} Services × ${SHAPE.endpoints} endpoints on other ` +
        "nodes: the destination is translated and the source is rewritten.",
      "The generator and the sink take what XDP drop takes, in every figure. There and back a " +
        "packet passes through the node twice, and through the sink in between.",
    ];
    const figures = readFigures(samples, quick);
    return { figures, samples, notes, plots: draw(samples, quick) };
  } finally {
    await lab.close();
  }
}

export const nodePort: Bench = {
  name: "node-port",
  claim: "A packet to a node port is sent on for a fraction of what rules take",
  goal: "packets per CPU second ≥ 4.5 × nftables with one flow, ≥ 3.5 × with 64k flows",
  run,
};
