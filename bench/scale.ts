// The agent of a node of a cluster of any size, fed by an API server: what a cold start costs, what
// it holds once it serves, what a restart costs, and what it does when nothing changes. Beside it,
// what kube-proxy's rules for the same Services take to load: the tool and the kernel alone.
import { setTimeout as delay } from "node:timers/promises";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { cpuMs } from "./commands.ts";
import { type Amount, Feed, nameOf, readMemory } from "./fed.ts";
import { makePlaces, serveByRules } from "./pods.ts";
import { RIVALS, type Rival } from "./rivals/rivals.ts";
import { figure, keep, of, type Samples } from "./rounds.ts";
import { median } from "./statistics.ts";

type Starts = Amount & { starts: number };
/** Each with how often it is started cold. */
const AMOUNTS: readonly Starts[] = [
  { services: 100, endpoints: 10, starts: 3 },
  { services: 1000, endpoints: 10, starts: 3 },
  { services: 10_000, endpoints: 10, starts: 3 },
  { services: 5000, endpoints: 50, starts: 1 },
  { services: 50_000, endpoints: 10, starts: 1 },
];
const QUICK_AMOUNTS: readonly Starts[] = [{ services: 1000, endpoints: 10, starts: 1 }];
/** Of these the rules are loaded as well, in one transaction as kube-proxy does it. */
const RULES: readonly Amount[] = [
  { services: 100, endpoints: 10 },
  { services: 1000, endpoints: 10 },
];
/** Within the usual first of them agents collect what their start left behind (leftovers.ts). */
const TIMES = {
  usual: { settleMs: 10_000, idleSeconds: 5 },
  quick: { settleMs: 1000, idleSeconds: 1 },
} as const;

/** Issue 5's and issue 7's. */
const GOALS: Readonly<Record<string, Goal>> = {
  "10000×10 cpuSeconds": { atMost: 2 },
  "10000×10 peakMib": { atMost: 180 },
  "10000×10 steadyMib": { atMost: 150 },
  "5000×50 seconds": { atMost: 5 },
};

/** A node, the API server that feeds its agents, and what that has. */
interface Place {
  node: LabNode;
  feed: Feed;
  amount: Starts;
}

/** A cold start and a restart, and nothing pinned after them. */
async function startOnce({ node, feed, amount }: Place): Promise<Record<string, number>> {
  const name = nameOf(amount);
  const { agent, start } = await feed.startAgent(node);
  await agent.stop();
  const again = await feed.startAgent(node);
  await again.agent.stop();
  await node.run(["rm", "-r", `${node.pins}/agent`]);
  return {
    ...Object.fromEntries(Object.entries(start).map(([what, value]) => [`${name} ${what}`, value])),
    [`${name} restart`]: again.start.seconds,
    [`${name} restart cpu`]: again.start.cpuSeconds,
  };
}

async function measureStarts(place: Place, context: Context): Promise<Samples> {
  const { amount } = place;
  const samples: Samples = {};
  for (let start = 0; start < amount.starts; start++) {
    if (start > 0 && context.isLate()) break;
    context.progress(`${nameOf(amount)}: start ${start + 1} of ${amount.starts}`);
    keep(samples, await startOnce(place));
  }
  return samples;
}

/** What an agent of each size holds after a cold start, and does idle: all wait together. */
async function measureSteady(places: readonly Place[], context: Context): Promise<Samples> {
  const { settleMs, idleSeconds } = context.quick ? TIMES.quick : TIMES.usual;
  context.progress("agents of all sizes, until they are steady");
  const agents = await Promise.all(
    places.map(async ({ node, feed, amount }) => {
      const { agent } = await feed.startAgent(node);
      await delay(settleMs);
      return { name: nameOf(amount), pid: agent.pid };
    }),
  );
  const samples: Samples = {};
  for (let second = 0; second < idleSeconds; second++) {
    const before = await Promise.all(agents.map(({ pid }) => cpuMs(pid)));
    await delay(1000);
    const after = await Promise.all(agents.map(({ pid }) => cpuMs(pid)));
    for (const [index, { name }] of agents.entries())
      keep(samples, { [`${name} idle`]: after[index]! - before[index]! });
  }
  for (const { name, pid } of agents)
    keep(samples, { [`${name} steadyMib`]: readMemory(pid).ownMib });
  return samples;
}

async function measureAgent(context: Context): Promise<Samples> {
  const amounts = context.quick ? QUICK_AMOUNTS : AMOUNTS;
  const nodeOf = (index: number) => `node-${index}`;
  const topology = Object.fromEntries(amounts.map((_, index) => [nodeOf(index), []]));
  const lab = await Lab.create({ name: "scale", topology });
  const places: Place[] = [];
  const samples: Samples = {};
  try {
    for (const [index, amount] of amounts.entries()) {
      context.progress(`an API server with ${nameOf(amount)}`);
      const node = lab.nodes[nodeOf(index)]!;
      const place = { node, feed: await Feed.start(node, amount), amount };
      places.push(place);
      Object.assign(samples, await measureStarts(place, context));
    }
    return { ...samples, ...(await measureSteady(places, context)) };
  } finally {
    await Promise.all(places.map(({ feed }) => feed.close()));
    await lab.close();
  }
}

function rulesFor({ quick }: Context): readonly Amount[] {
  return quick ? RULES.slice(0, 1) : RULES;
}

async function measureRules(context: Context): Promise<Samples> {
  const samples: Samples = {};
  const places = rulesFor(context).flatMap(({ services }) =>
    RIVALS.map((rival) => placeName(rival, services)),
  );
  const made = await makePlaces("rules", places);
  try {
    for (const amount of rulesFor(context))
      for (const rival of RIVALS) {
        context.progress(`rules of ${rival} for ${nameOf(amount)}`);
        const place = made.places[placeName(rival, amount.services)]!;
        const shape = { ...amount, protocolOf: () => "TCP" as const };
        const { wallMs, kernelMib } = await serveByRules(place, { rival, shape });
        const name = `${rival} ${nameOf(amount)}`;
        keep(samples, { [`${name} seconds`]: wallMs / 1000, [`${name} kernelMib`]: kernelMib });
      }
    return samples;
  } finally {
    await made.lab.close();
  }
}

function placeName(rival: Rival, services: number): string {
  return `${rival.slice(0, 2)}${services}`;
}

const ROWS = [
  ["cold start, from process to serving", "seconds", "s"],
  ["CPU time of a cold start", "cpuSeconds", "s"],
  ["most memory beside mapped BPF memory", "peakMib", "MiB"],
  ["steady memory beside mapped BPF memory", "steadyMib", "MiB"],
  ["mapped BPF memory", "mapMib", "MiB"],
  ["restart, from process to serving", "restart", "s"],
  ["CPU time of a restart", "restart cpu", "s"],
  ["CPU time of a second without changes", "idle", "ms"],
] as const;

function sizesOf(samples: Samples): string[] {
  return Object.keys(samples)
    .filter((name) => name.endsWith(" steadyMib"))
    .map((name) => name.split(" ")[0]!);
}

function readFigures(samples: Samples): Figure[] {
  const rows = sizesOf(samples).flatMap((size) =>
    ROWS.map(([what, name, unit]) =>
      figure(`${size}: ${what}`, {
        values: of(samples, `${size} ${name}`),
        unit,
        goal: GOALS[`${size} ${name}`],
      }),
    ),
  );
  const loaded = RULES.map(nameOf).filter((size) => `nftables ${size} seconds` in samples);
  const rules = loaded.flatMap((size) =>
    RIVALS.flatMap((rival) => [
      figure(`${size}: rules of ${rival} loaded, without kube-proxy's own work`, {
        values: of(samples, `${rival} ${size} seconds`),
        unit: "s",
      }),
      figure(`${size}: memory of the kernel for rules of ${rival}`, {
        values: of(samples, `${rival} ${size} kernelMib`),
        unit: "MiB",
      }),
    ]),
  );
  const isHeld = ({ goal }: Figure) => (goal ? 0 : 1);
  return [...rows.sort((a, b) => isHeld(a) - isHeld(b)), ...rules];
}

function draw(samples: Samples): Plot[] {
  const sizes = sizesOf(samples).filter((size) => size.endsWith("×10"));
  const line = (name: string, what: string) => ({
    name,
    points: sizes.map(
      (size) => [Number(size.split("×")[0]), median(of(samples, `${size} ${what}`))] as const,
    ),
  });
  const common = { kind: "lines" as const, over: "Services × 10 endpoints" };
  return [
    {
      ...common,
      name: "scale-start",
      title: "The agent from process to serving",
      unit: "s",
      series: [
        line("cold start", "seconds"),
        line("its CPU time", "cpuSeconds"),
        line("restart", "restart"),
      ],
    },
    {
      ...common,
      name: "scale-memory",
      title: "Memory of the agent and of the maps",
      unit: "MiB",
      series: [line("agent, steady", "steadyMib"), line("maps", "mapMib")],
    },
  ];
}

async function run(context: Context): Promise<Measured> {
  const samples = { ...(await measureAgent(context)), ...(await measureRules(context)) };
  const notes = [
    "CPU time is of all threads that live at the end, the runtime's own and the verification of " +
      `the programs included. Memory is steady ${TIMES.usual.settleMs / 1000} s after a start.`,
    "Rules are loaded in one transaction. 10,000 Services would take nft minutes here: for each " +
      "Service the kernel goes through all of the transaction so far.",
  ];
  return { figures: readFigures(samples), samples, notes, plots: draw(samples) };
}

export const scale: Bench = {
  name: "scale",
  claim: "A node joins a cluster of any size at once, and the agent stays small",
  goal:
    "5,000 Services × 50 endpoints within 5 s; 10,000 × 10 with ≤ 2 s CPU and ≤ 180 MiB at most, " +
    "≤ 150 MiB steady",
  run,
};
