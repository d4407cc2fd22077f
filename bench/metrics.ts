// What it costs the agent to be asked for metrics: CPU time of a scrape on a small node and in a
// large cluster, beside that of the agent's other work. Asks a running agent; knows no metric.
import { readFile } from "node:fs/promises";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { Manifests } from "./manifests.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { alternating, serviceName } from "./services.ts";
import { ratios } from "./statistics.ts";

const SIZES = { small: 100, large: 10_000 } as const;
const ENDPOINTS = 10;
/** Service ports with series of their own, as many as there are by default. */
const TOLD = 100;
const ROUNDS = 9;
/** Scrapes to a sample: CPU time is told in ticks of 10 ms. */
const SCRAPES = { usual: 100, quick: 25 } as const;
/** How often Prometheus asks, unless it is told otherwise. */
const INTERVAL_MS = 15_000;
const URL = "http://127.0.0.1:10249";

/** Asks for a page again and again over one connection; returns the bytes of all answers. */
async function ask(node: LabNode, { path, times }: { path: string; times: number }) {
  const command = ["curl", "-sf", "-o", "/dev/null", "-w", "%{size_download}\n"];
  const urls = `${URL}${path}?n=[1-${times}]`;
  const { code, stdout, stderr } = await node.run([...command, urls], { timeoutSeconds: 120 });
  if (code !== 0)
    throw new Error(`The agent did not answer at ${urls}: curl ended with ${code} ${stderr}`);
  return stdout.split("\n").reduce((sum, size) => sum + Number(size), 0);
}

interface Agent {
  name: string;
  node: LabNode;
  pid: number;
}

/** The agent's CPU time for one answer. */
function timePage(
  { name, node, pid }: Agent,
  { path, times }: { path: string; times: number },
): Case {
  return async () => {
    const before = await cpuMs(pid);
    await ask(node, { path, times });
    return { [`${name} ${path}`]: ((await cpuMs(pid)) - before) / times };
  };
}

function readFigures(samples: Samples, bytes: Readonly<Record<string, number>>): Figure[] {
  const what = `${SIZES.large} Services × ${ENDPOINTS} endpoints`;
  const large = of(samples, "large /metrics");
  const small = of(samples, "small /metrics");
  const share = large.map((ms) => (100 * ms) / INTERVAL_MS);
  return [
    figure(`${what}: CPU time of a scrape`, { values: large, unit: "ms", goal: { atMost: 15 } }),
    figure(`${what}: the same of one CPU, asked every ${INTERVAL_MS / 1000} s`, {
      values: share,
      unit: "%",
      goal: { atMost: 0.1 },
    }),
    figure(`${SIZES.small} Services: CPU time of a scrape`, { values: small, unit: "ms" }),
    figure(`${what} over ${SIZES.small} Services`, { values: ratios(large, small), unit: "×" }),
    figure("CPU time of /healthz beside it, which reads nothing", {
      values: of(samples, "large /healthz"),
      unit: "ms",
    }),
    figure(`${what}: size of an answer`, { values: [bytes.large! / 1024], unit: "KiB" }),
    figure(`${SIZES.small} Services: size of an answer`, {
      values: [bytes.small! / 1024],
      unit: "KiB",
    }),
  ];
}

async function measure(lab: Lab, context: Context): Promise<Measured> {
  const agents: Agent[] = [];
  const bytes: Record<string, number> = {};
  const manifests: Manifests[] = [];
  // Named ones are told of without a connection, too: as many as the busiest by default.
  const told = Array.from({ length: TOLD }, (_, service) => `bench/${serviceName(service)}`).join();
  try {
    for (const [name, services] of Object.entries(SIZES)) {
      context.progress(`an agent with ${services} Services × ${ENDPOINTS} endpoints`);
      const node = lab.nodes[name]!;
      const folder = new Manifests({ services, endpoints: ENDPOINTS, protocolOf: alternating });
      manifests.push(folder);
      const { pid } = await startAgent(node, [
        ...["--manifests", folder.folder],
        ...["--metrics-services", told],
      ]);
      agents.push({ name, node, pid });
      bytes[name] = await ask(node, { path: "/metrics", times: 1 });
    }
    const times = context.quick ? SCRAPES.quick : SCRAPES.usual;
    const cases = agents.map((agent) => timePage(agent, { path: "/metrics", times }));
    const large = agents.find(({ name }) => name === "large")!;
    cases.push(timePage(large, { path: "/healthz", times }));
    const samples = await interleave(cases, { usual: ROUNDS, context });
    const status = await readFile(`/proc/${agents.at(-1)!.pid}/status`, "utf8");
    const threads = /^Threads:\s+(\d+)/m.exec(status)?.[1];
    const notes = [
      `CPU time is that of all ${threads} threads of the agent, user and system, over ${times} ` +
        `scrapes a sample, one after the other over one connection. ${TOLD} service ports are ` +
        "told of singly.",
    ];
    return { figures: readFigures(samples, bytes), samples, notes };
  } finally {
    for (const each of manifests) each.remove();
  }
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "metrics", topology: { small: [], large: [] } });
  try {
    return await measure(lab, context);
  } finally {
    await lab.close();
  }
}

export const metrics: Bench = {
  name: "metrics",
  claim: "Being watched costs a node nothing that it would miss, however large the cluster is",
  goal: "a scrape of 10,000 Services × 10 endpoints within 15 ms and 0.1 % of a CPU",
  run,
};
