// What following the network costs an agent: CPU time while nothing happens, and in storms of
// neighbours and of routes, beside an agent without a packet path. Knows nothing of what it does.
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Running } from "../lab/host.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { figure, interleave, of, type Samples } from "./rounds.ts";

const PODS = 200;
const ROUNDS = 3;
const TIMES = {
  usual: { settleMs: 1500, idleMs: 6000, stormMs: 2500 },
  quick: { settleMs: 300, idleMs: 500, stormMs: 400 },
} as const;
/** A storm comes in batches of so many events, so often. */
const BATCH = 1000;
const BATCH_MS = 100;

type Storm = (batch: number) => string[];

/** Neighbours of the uplink whose MAC changes with every batch. */
const neighbours: Storm = (batch) =>
  Array.from({ length: BATCH }, (_, index) => {
    const address = `192.168.50.${10 + (index % 200)}`;
    const mac = `02:00:00:00:${(batch % 256).toString(16)}:${(index % 251).toString(16)}`;
    return `neighbour replace ${address} lladdr ${mac} dev eth0 nud stale`;
  });

/** Routes that come and go. */
const routes: Storm = () =>
  Array.from({ length: BATCH / 2 }, (_, index) => [
    `route add 10.99.${index >> 8}.${index & 255} dev eth0`,
    `route delete 10.99.${index >> 8}.${index & 255} dev eth0`,
  ]).flat();

const STORMS = { neighbours, routes } as const;

/** Devices as pods have them, each with its route. */
async function addPods(node: LabNode): Promise<void> {
  const lines = Array.from({ length: PODS }, (_, index) => [
    `link add name pod${index} type veth peer name far${index}`,
    `link set pod${index} up`,
    `route add 10.98.0.${index} dev pod${index}`,
  ]);
  await runIp(node, lines.flat());
}

async function runIp(node: LabNode, lines: readonly string[]): Promise<void> {
  const input = `${lines.join("\n")}\n`;
  const { code, stderr } = await node.run(["ip", "-batch", "-"], { input, timeoutSeconds: 30 });
  if (code !== 0) throw new Error(`ip: ${stderr}`);
}

/** The percentage of one CPU that a process takes while something goes on. */
async function shareWhile(pid: number, action: () => Promise<unknown>): Promise<number> {
  const [before, start] = [await cpuMs(pid), performance.now()];
  await action();
  return ((await cpuMs(pid)) - before) / ((performance.now() - start) / 100);
}

/** Returns how many events there were a second: a busy machine does not get to what is wanted. */
async function blow(node: LabNode, storm: Storm, stormMs: number): Promise<number> {
  const start = performance.now();
  let batch = 0;
  for (; performance.now() - start < stormMs; batch++) {
    await runIp(node, storm(batch));
    await delay(Math.max(0, start + (batch + 1) * BATCH_MS - performance.now()));
  }
  return (batch * BATCH) / ((performance.now() - start) / 1000);
}

/** The agents' flags by what they are called in the samples, where they have nodes of their own. */
const AGENTS = { with: [], without: ["--device=none"] } as const;

/** Both agents: while nothing happens at the same time, in storms one after the other. */
async function measure(lab: Lab, quick: boolean): Promise<Record<string, number>> {
  const { settleMs, idleMs, stormMs } = quick ? TIMES.quick : TIMES.usual;
  const manifests = mkdtempSync(path.join(tmpdir(), "bpfsvc-bench-"));
  const agents: { name: string; node: LabNode; agent: Running }[] = [];
  try {
    for (const [name, flags] of Object.entries(AGENTS)) {
      const node = lab.nodes[name]!;
      agents.push({
        name,
        node,
        agent: await startAgent(node, ["--manifests", manifests, ...flags]),
      });
    }
    await delay(settleMs);
    const values: Record<string, number> = {};
    const idle = async (name: string, pid: number) => {
      values[`idle ${name}`] = await shareWhile(pid, () => delay(idleMs));
    };
    await Promise.all(agents.map(({ name, agent }) => idle(name, agent.pid)));
    for (const [kind, storm] of Object.entries(STORMS))
      for (const { name, node, agent } of agents)
        values[`${kind} ${name}`] = await shareWhile(agent.pid, async () => {
          values[`${kind} a second ${name}`] = await blow(node, storm, stormMs);
        });
    return values;
  } finally {
    for (const { node, agent } of agents) {
      await agent.stop();
      await node.run(["rm", "-r", `${node.pins}/agent`]);
    }
    rmSync(manifests, { recursive: true });
  }
}

function readFigures(samples: Samples): Figure[] {
  const added = (claim: string, name: string, atMost: number) => {
    const without = of(samples, `${name} without`);
    const values = of(samples, `${name} with`).map((share, round) => share - without[round]!);
    return figure(claim, { values, unit: "% of a CPU", goal: { atMost } });
  };
  return [
    added(`${PODS} pods' devices, nothing happens: added to no packet path`, "idle", 0.5),
    added("a storm of neighbours: added to no packet path", "neighbours", 20),
    added("a storm of routes: added to no packet path", "routes", 20),
    ...Object.keys(STORMS).map((kind) =>
      figure(`${kind} that changed in it`, {
        values: of(samples, `${kind} a second with`),
        unit: "a second",
      }),
    ),
  ];
}

async function run(context: Context): Promise<Measured> {
  const topology = Object.fromEntries(Object.keys(AGENTS).map((name) => [name, []]));
  const lab = await Lab.create({ name: "devices", topology });
  try {
    await Promise.all(Object.values(lab.nodes).map(addPods));
    const usual = context.quick ? 1 : ROUNDS;
    const cases = [() => measure(lab, context.quick)];
    const samples = await interleave(cases, { usual, warmUp: false, context });
    const notes = ["CPU time of the agent alone; what the events cost the kernel is not in it."];
    return { figures: readFigures(samples), samples, notes };
  } finally {
    await lab.close();
  }
}

export const devices: Bench = {
  name: "devices",
  claim: "Following the network costs nothing while it is quiet, and little in a storm",
  goal: "idle at most 0.5 % of a CPU for 200 pods; bounded in storms of 10,000 events a second",
  run,
};
