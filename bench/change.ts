// One endpoint of one Service changes among many Services: CPU time and bytes in the maps from
// object to kernel, and the time from the edit of a manifest until a real connection gets there.
import { setTimeout as delay } from "node:timers/promises";
import { Cluster } from "../control/model/cluster.ts";
import { readManifest } from "../control/source/manifest.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { lastCpu } from "./machine.ts";
import { Manifests, manifestOf, SERVICES_TO_A_FILE } from "./manifests.ts";
import { Probe } from "./probe.ts";
import { Programmed } from "./programmed.ts";
import { figure, of, type Samples } from "./rounds.ts";
import {
  ENDPOINT_PORT,
  ENDPOINT_PREFIX,
  endpointAddress,
  makeManifest,
  SERVICE_PORT,
  serviceAddress,
} from "./services.ts";
import { quantile } from "./statistics.ts";

const SIZES = [1000, 10_000] as const;
const ENDPOINTS = 10;
const CHANGES = 200;
const EDITS = 100;

/** Service 0 with its last endpoint in place or replaced by one that no Service has. */
function editedManifest(turn: number, services: number): string {
  const endpoints = Array.from({ length: ENDPOINTS }, (_, index) => endpointAddress(index));
  if (turn % 2 === 1) endpoints[ENDPOINTS - 1] = endpointAddress(services * ENDPOINTS);
  return makeManifest(0, { protocol: "TCP", endpoints });
}

function applyText(cluster: Cluster, text: string): void {
  for (const object of readManifest(text, { file: "bench.json" }).objects.values())
    cluster.apply(object);
}

/** CPU microseconds and changed bytes of one change, from parsed objects to the maps. */
async function timeChanges(
  node: LabNode,
  { services, count }: { services: number; count: number },
): Promise<{ cpuUs: number[]; bytes: number[] }> {
  const cluster = new Cluster({ nodeName: node.name, fallbackNodeAddresses: [] });
  for (let service = 0; service < services; service++)
    applyText(cluster, manifestOf(service, ENDPOINTS));
  const programmed = Programmed.create(`${node.pins}/change-${services}`, { rows: [] });
  const { dataplane } = programmed;
  const sync = () => {
    const { changed, removed } = cluster.takeDirty();
    dataplane.replace(changed);
    dataplane.remove(removed);
    const [error] = dataplane.flush();
    if (error) throw new Error(`Cannot program "${error.key}": ${error.message}`);
  };
  sync();
  const result = { cpuUs: [] as number[], bytes: [] as number[] };
  for (let turn = 0; turn < count; turn++) {
    const { objects } = readManifest(editedManifest(turn + 1, services), { file: "bench.json" });
    const before = turn < 10 ? programmed.copy() : undefined;
    const start = process.cpuUsage();
    for (const object of objects.values()) cluster.apply(object);
    sync();
    const { user, system } = process.cpuUsage(start);
    result.cpuUs.push(user + system);
    if (before) result.bytes.push(programmed.differentBytes(before));
    await dataplane.release();
  }
  return result;
}

/** Milliseconds from edit to traffic, and the agent's CPU milliseconds for each edit. */
async function timeEdits(
  node: LabNode,
  { services, count, context }: { services: number; count: number; context: Context },
): Promise<{ latencyMs: number[]; cpuMs: number }> {
  const manifests = new Manifests({ services, endpoints: ENDPOINTS });
  const agent = await startAgent(node, ["--manifests", manifests.folder]);
  const probe = Probe.start(node, { cpu: lastCpu(), port: ENDPOINT_PORT });
  const service = { address: serviceAddress(0), port: SERVICE_PORT };
  const latencyMs: number[] = [];
  try {
    await probe.until(endpointAddress(0), service);
    const before = await cpuMs(agent.pid);
    for (let turn = 0; turn < count; turn++) {
      context.progress(`${services} Services: edit ${turn + 1} of ${count}`);
      const endpoint = endpointAddress((turn + 1) % 2);
      const start = manifests.edit(endpoint);
      latencyMs.push(((await probe.until(endpoint, service)) - start) / 1e6);
      // Edits come apart: one that falls into the quiet time after another waits for its end too.
      await delay(150 + (turn % 10) * 10);
    }
    return { latencyMs, cpuMs: ((await cpuMs(agent.pid)) - before) / count };
  } finally {
    await probe.close();
    await agent.stop();
    await node.run(["rm", "-r", `${node.pins}/agent`]);
    manifests.remove();
  }
}

function readFigures(samples: Samples): Figure[] {
  const row = (claim: string, name: string, unit: string) =>
    figure(claim, { values: of(samples, name), unit });
  return SIZES.flatMap((size) => {
    const among = `one endpoint among ${size} Services:`;
    const latency = of(samples, `latency ${size}`);
    const p99 = { ...row("", `latency ${size}`, "ms"), value: quantile(latency, 0.99) };
    return [
      row(`${among} CPU time from objects to maps`, `cpu ${size}`, "µs"),
      row(`${among} bytes changed in the maps`, `bytes ${size}`, "bytes"),
      row(`${among} edit of a manifest to traffic, p50`, `latency ${size}`, "ms"),
      { ...p99, claim: `${among} edit of a manifest to traffic, p99` },
      row(`${among} the agent's CPU time of an edit`, `edit cpu ${size}`, "ms"),
    ];
  });
}

async function measure(node: LabNode, context: Context): Promise<Samples> {
  const samples: Samples = {};
  await node.run(["ip", "route", "add", "local", ENDPOINT_PREFIX, "dev", "lo"]);
  for (const services of SIZES) {
    context.progress(`changing one of ${services} Services`);
    const { cpuUs, bytes } = await timeChanges(node, { services, count: context.rounds(CHANGES) });
    samples[`cpu ${services}`] = cpuUs;
    samples[`bytes ${services}`] = bytes;
    const count = context.rounds(EDITS);
    const edits = await timeEdits(node, { services, count, context });
    samples[`latency ${services}`] = edits.latencyMs;
    samples[`edit cpu ${services}`] = [edits.cpuMs];
  }
  return samples;
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "change", topology: { node: [] } });
  try {
    const samples = await measure(lab.nodes.node!, context);
    const notes = [
      `Manifests: a folder of files with ${SERVICES_TO_A_FILE} Services each; the edited one has ` +
        "a file of its own. The agent waits 50 ms for quiet before it looks.",
      "The quartiles beside p99 are those of all edits.",
    ];
    return { figures: readFigures(samples), samples, notes };
  } finally {
    await lab.close();
  }
}

export const change: Bench = {
  name: "change",
  claim: "The cost of a change follows the change, not the cluster",
  goal: "none yet; among 10,000 Services it should cost what it costs among 1,000",
  run,
};
