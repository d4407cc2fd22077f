// What a connection to a Service costs that is new: TCP connects and UDP questions per second of
// CPU, and how long one takes, from a pod and from the node to an endpoint in another pod.
// Directly, through bpfsvc, and through the rules of kube-proxy's modes, for the same Services. All
// the work, the other pod's and the node's, is on the asking thread.
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { lastCpu } from "./machine.ts";
import { makePlaces, type Place, serveByRules } from "./pods.ts";
import { Probe, type Targets } from "./probe.ts";
import { Programmed, type Programs } from "./programmed.ts";
import { RIVALS, type Rival, SERVICES_TO_A_TRANSACTION } from "./rivals/rivals.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import {
  alternating,
  ENDPOINT_PORT,
  endpointAddress,
  makeRows,
  SERVICE_PORT,
  serviceAddress,
} from "./services.ts";
import { median, ratios } from "./statistics.ts";

const ROUNDS = 9;
/** Visits of each case in a round, of which the quickest counts. */
const TRIES = 6;
/** Of a visit: a run takes two milliseconds or so, and some are left alone by everything else. */
const CALLS = { runs: 5, count: 40 };
const NS_PER_SECOND = 1e9;
const NS_PER_US = 1e3;

/** Services and endpoints of each. */
type Amount = readonly [services: number, endpoints: number];
const AMOUNTS: readonly Amount[] = [
  [10, 10],
  [1000, 10],
  [10_000, 10],
  [1000, 1],
  [100, 100],
];
const QUICK_AMOUNTS: readonly Amount[] = [
  [10, 10],
  [1000, 10],
];

/** Where is asked from. From outside it will be with the packet path: another host to be added. */
const ORIGINS = ["pod", "node"] as const;
type Origin = (typeof ORIGINS)[number];
const PROTOCOLS = ["TCP", "UDP"] as const;
type Protocol = (typeof PROTOCOLS)[number];
const TASKS = { TCP: "tcp-life", UDP: "udp-ask" } as const;

function nameOf([services, endpoints]: Amount): string {
  return `${services}×${endpoints}`;
}

/** All endpoints of so many Services: the kernel remembers things of each address it talked to. */
function directly([services, endpoints]: Amount): Targets {
  return { address: endpointAddress(0), port: ENDPOINT_PORT, span: services * endpoints, step: 1 };
}

/** The Services of a protocol: the even ones are of TCP. */
function through(protocol: Protocol, [services]: Amount): Targets {
  const address = serviceAddress(protocol === "TCP" ? 0 : 1);
  return { address, port: SERVICE_PORT, span: services / 2, step: 2 };
}

/** A way to get there, measured from all origins. */
interface Way {
  name: string;
  place: Place;
  probe: Probe;
  targets: (protocol: Protocol) => Targets;
  programs?: Programs;
}

/** "bpfsvc 1000×10 pod TCP cpu" and so on: times in nanoseconds. */
function makeCases({ name, place, probe, targets, programs }: Way): Case[] {
  const from = { pod: place.client, node: place.node };
  const measure = async () => {
    const values: Record<string, number> = {};
    for (const origin of ORIGINS)
      for (const protocol of PROTOCOLS) {
        const question = { ...CALLS, targets: targets(protocol), from: from[origin] };
        const timing = await probe.time(TASKS[protocol], question);
        for (const [what, value] of Object.entries(timing))
          values[`${name} ${origin} ${protocol} ${what}`] = value;
      }
    return values;
  };
  return [() => programs?.attached(place.node.cgroup, measure) ?? measure()];
}

/** The ways that need no rules: they share a node that has none, and its probe. */
function cleanWays(place: Place, { amounts, probe }: { amounts: readonly Amount[]; probe: Probe }) {
  const programmed = amounts.map((amount) => {
    const [services, endpoints] = amount;
    const rows = makeRows({ services, endpoints, protocolOf: alternating });
    const folder = `${place.node.pins}/${services}_${endpoints}`;
    return { amount, maps: Programmed.create(folder, { rows }) };
  });
  const common = { place, probe };
  const usual = programmed.find(({ amount }) => nameOf(amount) === "1000×10")!;
  const ways: Way[] = [
    ...amounts.map((amount) => ({
      ...common,
      name: `direct ${nameOf(amount)}`,
      targets: () => directly(amount),
    })),
    {
      ...common,
      name: "beside",
      targets: () => directly(usual.amount),
      programs: usual.maps.programs(),
    },
    {
      ...common,
      name: "remember",
      targets: (protocol) => through(protocol, usual.amount),
      programs: usual.maps.programs({ remember_tcp: 1 }),
    },
    ...programmed.map(({ amount, maps }) => ({
      ...common,
      name: `bpfsvc ${nameOf(amount)}`,
      targets: (protocol: Protocol) => through(protocol, amount),
      programs: maps.programs(),
    })),
  ];
  return ways;
}

function placeName(rival: Rival, [services, endpoints]: Amount): string {
  return `${rival.slice(0, 2)}${services}-${endpoints}`;
}

async function ruleWay(
  place: Place,
  { rival, amount, probe }: { rival: Rival; amount: Amount; probe: Probe },
): Promise<Way> {
  const [services, endpoints] = amount;
  const shape = { services, endpoints, protocolOf: alternating };
  await serveByRules(place, { rival, shape, services: SERVICES_TO_A_TRANSACTION });
  const targets = (protocol: Protocol) => through(protocol, amount);
  return { name: `${rival} ${nameOf(amount)}`, place, probe, targets };
}

async function measure(context: Context, amounts: readonly Amount[]): Promise<Samples> {
  const rules = RIVALS.flatMap((rival) => amounts.map((amount) => ({ rival, amount })));
  const names = rules.map(({ rival, amount }) => placeName(rival, amount));
  const { lab, places } = await makePlaces("connect", ["clean", ...names]);
  const probes: Probe[] = [];
  const probe = ({ client, server }: Place) => {
    const started = Probe.start(client, { cpu: lastCpu(), port: ENDPOINT_PORT, servers: server });
    probes.push(started);
    return started;
  };
  let ways: Way[] = [];
  try {
    ways = cleanWays(places.clean!, { amounts, probe: probe(places.clean!) });
    let loaded = 0;
    const load = async ({ rival, amount }: (typeof rules)[number]) => {
      const place = places[placeName(rival, amount)]!;
      const way = await ruleWay(place, { rival, amount, probe: probe(place) });
      loaded += 1;
      context.progress(`rules: ${loaded} of ${rules.length} nodes`);
      return way;
    };
    // Each tool fills one CPU, most of it with a list that it walks for each rule.
    const inOrder = async (rival: Rival) => {
      for (const one of rules.filter((each) => each.rival === rival)) ways.push(await load(one));
    };
    await Promise.all(RIVALS.map(inOrder));
    const cases = ways.flatMap(makeCases);
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    for (const one of probes) await one.close();
    for (const { programs } of ways) programs?.close();
    await lab.close();
  }
}

interface Compared {
  samples: Samples;
  origin: Origin;
  protocol: Protocol;
}

/** Round by round, how many times as many a CPU second `way` gets done as `other`. */
function rate(way: string, other: string, { samples, origin, protocol }: Compared): number[] {
  const take = (name: string) => of(samples, `${name} ${origin} ${protocol} cpu`);
  return ratios(take(other), take(way));
}

function latency(way: string, other: string, { samples, origin, protocol }: Compared): number[] {
  const take = (name: string) => of(samples, `${name} ${origin} ${protocol} p50`);
  return ratios(take(way), take(other));
}

/** What issue 7 asks of connects from a pod. */
function readHeld(samples: Samples, amounts: readonly Amount[]): Figure[] {
  const few = nameOf(amounts[0]!);
  const most = nameOf([Math.max(...amounts.map(([services]) => services)), 10]);
  const compared: Compared = { samples, origin: "pod", protocol: "TCP" };
  const ours = `bpfsvc ${most}`;
  const row = (claim: string, values: number[], goal: Goal) =>
    figure(claim, { values, unit: "×", goal });
  const what = `TCP connects per CPU second from a pod, ${most} endpoints`;
  // Without 10,000 Services, as with --quick, a rival has an easier time than the goals suppose.
  const goals = { nftables: 1.4, iptables: most === "10000×10" ? 8 : 1 };
  return [
    row(`${what}: over direct`, rate(ours, `direct ${most}`, compared), { atLeast: 0.97 }),
    ...RIVALS.map((rival) =>
      row(`${what}: over ${rival}`, rate(ours, `${rival} ${most}`, compared), {
        atLeast: goals[rival],
      }),
    ),
    row(`${what}: over ${few}`, rate(ours, `bpfsvc ${few}`, compared), { atLeast: 0.97 }),
    row(
      `median time of a connect, ${most}: over direct`,
      latency(ours, `direct ${most}`, compared),
      {
        atMost: 1.05,
      },
    ),
  ];
}

function readOthers(samples: Samples, amounts: readonly Amount[]): Figure[] {
  const figures: Figure[] = [];
  const show = (claim: string, values: number[]) =>
    figures.push(figure(claim, { values, unit: "×" }));
  const held = nameOf([Math.max(...amounts.map(([services]) => services)), 10]);
  for (const origin of ORIGINS)
    for (const protocol of PROTOCOLS) {
      const compared = { samples, origin, protocol };
      const what = `${protocol === "TCP" ? "TCP connects" : "UDP questions"} from a ${origin}`;
      for (const amount of amounts.map(nameOf)) {
        if (origin === "pod" && protocol === "TCP" && amount === held) continue;
        if (origin === "node" && amount !== held) continue;
        const ours = `bpfsvc ${amount}`;
        show(`${what}, ${amount}: over direct`, rate(ours, `direct ${amount}`, compared));
        for (const rival of RIVALS)
          show(`${what}, ${amount}: over ${rival}`, rate(ours, `${rival} ${amount}`, compared));
      }
    }
  const compared: Compared = { samples, origin: "pod", protocol: "TCP" };
  show("TCP connects with --remember-tcp, 1000×10: over direct", [
    ...rate("remember", "direct 1000×10", compared),
  ]);
  show("direct TCP connects with programs attached: over without", [
    ...rate("beside", "direct 1000×10", compared),
  ]);
  return figures;
}

/** Absolute numbers: they move from machine to machine. */
function readRates(samples: Samples, amounts: readonly Amount[]): Figure[] {
  const most = nameOf([Math.max(...amounts.map(([services]) => services)), 10]);
  const ways = ["direct", "bpfsvc", ...RIVALS].map((way) => `${way} ${most}`);
  return ways.flatMap((way) => {
    const take = (what: string) => of(samples, `${way} pod TCP ${what}`);
    const perSecond = take("cpu").map((ns) => NS_PER_SECOND / ns);
    const microseconds = (what: string) => take(what).map((ns) => ns / NS_PER_US);
    return [
      figure(`TCP connects from a pod, ${way}`, { values: perSecond, unit: "per CPU second" }),
      figure(`time of a connect, ${way}: p50`, { values: microseconds("p50"), unit: "µs" }),
      figure(`time of a connect, ${way}: p99`, { values: microseconds("p99"), unit: "µs" }),
    ];
  });
}

function drawRates(samples: Samples, amounts: readonly Amount[]): Plot[] {
  const sizes = amounts.filter(([, endpoints]) => endpoints === 10).map(([services]) => services);
  return PROTOCOLS.map((protocol) => {
    const point = (way: string) =>
      NS_PER_SECOND / median(of(samples, `${way} pod ${protocol} cpu`));
    const what = protocol === "TCP" ? "TCP connects" : "UDP questions";
    return {
      name: `connect-${protocol.toLowerCase()}`,
      title: `${what} per CPU second from a pod, 10 endpoints a Service`,
      unit: "per CPU second",
      kind: "lines" as const,
      over: "Services",
      series: ["direct", "bpfsvc", ...RIVALS].map((way) => ({
        name: way,
        points: sizes.map((size) => [size, point(`${way} ${nameOf([size, 10])}`)] as const),
      })),
    };
  });
}

async function run(context: Context): Promise<Measured> {
  const amounts = context.quick ? QUICK_AMOUNTS : AMOUNTS;
  const samples = await measure(context, amounts);
  const notes = [
    '"1000×10" are 1,000 Services, half of them of TCP and half of UDP, with 10 endpoints each. ' +
      "A TCP connect is socket(), connect() and close(); a UDP question has a socket of its own, " +
      "and ends with the answer.",
    "What a kernel thread does later is on nobody's bill: the clearing of conntrack's " +
      "table above " +
      "all, which only the rivals have.",
  ];
  const figures = [
    ...readHeld(samples, amounts),
    ...readOthers(samples, amounts),
    ...readRates(samples, amounts),
  ];
  return { figures, samples, notes, plots: drawRates(samples, amounts) };
}

export const connect: Bench = {
  name: "connect",
  claim: "A connection to a Service costs what a direct one costs",
  goal:
    "from a pod at 10,000 Services ≥ 0.97 × direct, ≥ 1.4 × nftables and ≥ 8 × iptables per CPU " +
    "second, as many as at 10 Services within 3 %, and a median time ≤ 1.05 × direct",
  run,
};
