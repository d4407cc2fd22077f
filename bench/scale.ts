// The agent of a node of a cluster of any size, fed by an API server: what a cold start costs, what
// it holds once it serves, what a restart costs, and what it does when nothing changes. Beside it,
// what kube-proxy's rules for the same Services take to load: the tool and the kernel alone.
import { setTimeout as delay } from "node:timers/promises";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { cpuMs } from "./commands.ts";
import { type Amount, type Feed, feed, nameOf, readMemory } from "./fed.ts";
import { makePlaces, serveByRules } from "./pods.ts";
import { RIVALS, type Rival } from "./rivals/rivals.ts";
import { figure, keep, of, type Samples } from "./rounds.ts";
import { median } from "./statistics.ts";

/** Each with how often it is started cold. */
const AMOUNTS: readonly (Amount & { starts: number })[] = [
  { services: 100, endpoints: 10, starts: 3 },
  { services: 1000, endpoints: 10, starts: 3 },
  { services: 10_000, endpoints: 10, starts: 3 },
  { services: 5000, endpoints: 50, starts: 1 },
  { services: 50_000, endpoints: 10, starts: 1 },
];
const QUICK_AMOUNTS = [{ services: 1000, endpoints: 10, starts: 1 }] as const;
/** Of these the rules are loaded as well, in one transaction as kube-proxy does it. */
const RULES: readonly Amount[] = [
  { services: 100, endpoints: 10 },
  { services: 1000, endpoints: 10 },
];
/** After the first the runtime has collected what a start left behind, as it does when idle. */
const TIMES = {
  usual: { settleMs: 15_000, idleMs: 5000 },
  quick: { settleMs: 1000, idleMs: 1000 },
} as const;

/** Issue 5's and issue 7's. */
const GOALS: Readonly<Record<string, Goal>> = {
  "10000×10 cpuSeconds": { atMost: 2 },
  "10000×10 peakMib": { atMost: 180 },
  "10000×10 steadyMib": { atMost: 150 },
  "5000×50 seconds": { atMost: 5 },
};

interface Times {
  settleMs: number;
  idleMs: number;
}

/** A cold start and a restart; between them, with `times`, what the agent holds and does idle. */
async function startOnce(
  node: LabNode,
  { fed, amount }: { fed: Feed; amount: Amount },
  times: Times | undefined,
): Promise<Samples> {
  const samples: Samples = {};
  const name = nameOf(amount);
  const { agent, start } = await fed.startAgent(node);
  for (const [what, value] of Object.entries(start)) keep(samples, { [`${name} ${what}`]: value });
  if (times) {
    await delay(times.settleMs);
    keep(samples, { [`${name} steadyMib`]: readMemory(agent.pid).ownMib });
    const before = await cpuMs(agent.pid);
    await delay(times.idleMs);
    const idle = ((await cpuMs(agent.pid)) - before) / (times.idleMs / 1000);
    keep(samples, { [`${name} idle`]: idle });
  }
  await agent.stop();
  const again = await fed.startAgent(node);
  keep(samples, {
    [`${name} restart`]: again.start.seconds,
    [`${name} restart cpu`]: again.start.cpuSeconds,
  });
  await again.agent.stop();
  await node.run(["rm", "-r", `${node.pins}/agent`]);
  return samples;
}

async function measureAgent(context: Context): Promise<Samples> {
  const lab = await Lab.create({ name: "scale", topology: { node: [] } });
  const node = lab.nodes.node!;
  const samples: Samples = {};
  try {
    for (const { starts, ...amount } of context.quick ? QUICK_AMOUNTS : AMOUNTS)
      await feed(node, { amount, context }, async (fed) => {
        for (let start = 0; start < starts; start++) {
          if (start > 0 && context.isLate()) break;
          context.progress(`${nameOf(amount)}: start ${start + 1} of ${starts}`);
          const times = context.quick ? TIMES.quick : TIMES.usual;
          const once = await startOnce(node, { fed, amount }, start === 0 ? times : undefined);
          for (const [name, values] of Object.entries(once))
            for (const value of values) keep(samples, { [name]: value });
        }
      });
    return samples;
  } finally {
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
      `the programs included. Memory is steady ${TIMES.usual.settleMs / 1000} s after the start.`,
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
