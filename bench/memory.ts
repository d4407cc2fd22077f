// The memory of a running agent: what the process holds, and what of that is maps of the kernel
// that it only looks into. Reads /proc/PID/smaps; knows nothing of why.
import { readFile } from "node:fs/promises";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Measured } from "./bench.ts";
import { startAgent } from "./commands.ts";
import { Manifests } from "./manifests.ts";
import { figure, of, type Samples } from "./rounds.ts";
import { parseSmaps } from "./smaps.ts";

const SIZES = [1, 1000, 10_000] as const;
const ENDPOINTS = 10;
const ROUNDS = 3;
const MIB = 1024 * 1024;
/** Issue 7's bound is for 100,000 endpoints. */
const MOST_MIB = 150;

async function measureOne(node: LabNode, services: number): Promise<Record<string, number>> {
  const manifests = new Manifests({ services, endpoints: ENDPOINTS });
  try {
    const start = performance.now();
    const agent = await startAgent(node, ["--manifests", manifests.folder]);
    const seconds = (performance.now() - start) / 1000;
    const memory = parseSmaps(await readFile(`/proc/${agent.pid}/smaps`, "utf8"));
    await agent.stop();
    await node.run(["rm", "-r", `${node.pins}/agent`]);
    return {
      [`resident ${services}`]: memory.residentBytes / MIB,
      [`own ${services}`]: (memory.residentBytes - memory.mapBytes) / MIB,
      [`start ${services}`]: seconds,
    };
  } finally {
    manifests.remove();
  }
}

async function measure(node: LabNode, context: Context): Promise<Samples> {
  const samples: Samples = {};
  const count = context.quick ? 1 : ROUNDS;
  for (let round = 0; round < count; round++)
    for (const services of SIZES) {
      context.progress(`round ${round + 1} of ${count}: ${services} Services`);
      for (const [name, value] of Object.entries(await measureOne(node, services))) {
        samples[name] ??= [];
        samples[name].push(value);
      }
    }
  return samples;
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "memory", topology: { node: [] } });
  try {
    const samples = await measure(lab.nodes.node!, context);
    const figures = SIZES.flatMap((services) => {
      const what = `${services} Services × ${ENDPOINTS} endpoints`;
      const own = { values: of(samples, `own ${services}`), unit: "MiB" };
      const isLargest = services === SIZES.at(-1);
      return [
        figure(`${what}: resident`, { values: of(samples, `resident ${services}`), unit: "MiB" }),
        figure(
          `${what}: resident without mapped BPF memory`,
          isLargest ? { ...own, goal: { atMost: MOST_MIB } } : own,
        ),
        figure(`${what}: from start to serving`, {
          values: of(samples, `start ${services}`),
          unit: "s",
        }),
      ];
    });
    const notes = [
      "Read just after the first sync: garbage of the start is in it. The objects come from YAML " +
        "files, not from an API server.",
    ];
    return { figures, samples, notes };
  } finally {
    await lab.close();
  }
}

export const memory: Bench = {
  name: "memory",
  claim: "The agent is small",
  goal: "at most 150 MiB beside mapped BPF memory with 100,000 endpoints",
  run,
};
