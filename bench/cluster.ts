// The agent of a node of a large cluster, fed by an API server: what a cold start costs, how long a
// change takes from socket to map, and what it costs when nothing changes. The API server is the
// lab's own, a process apart.
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { service } from "../bindings/layout.ts";
import { BpfMap } from "../bindings/map.ts";
import { DumpReader } from "../control/dataplane/dump.ts";
import { Pins } from "../control/dataplane/pins.ts";
import { GENERATED_NAMESPACE, generatedName, generateSlice } from "../lab/apiserver/generate.ts";
import { type RemoteApiServer, startRemoteApiServer } from "../lab/apiserver/remote.ts";
import type { Running } from "../lab/host.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { figure, of, type Samples } from "./rounds.ts";
import { parseSmaps } from "./smaps.ts";
import { quantile } from "./statistics.ts";

const SERVICES = 10_000;
const ENDPOINTS = 10;
const STARTS = 5;
const CHANGES = 200;
const IDLE_MS = 10_000;
const MIB = 1024 * 1024;
/** Between two looks at a map: short against what is measured, and the CPU is free meanwhile. */
const GLANCE_MS = 0.05;
const MOST_WAIT_MS = 5000;

/** The number of a line of /proc/PID/status, in MiB. */
function statusMib(status: string, line: string): number {
  return Number(new RegExp(`^${line}:\\s+(\\d+) kB$`, "m").exec(status)?.[1]) / 1024;
}

async function startOnce(node: LabNode, source: readonly string[]) {
  const start = performance.now();
  const agent = await startAgent(node, source);
  const wallMs = performance.now() - start;
  const [status, smaps] = await Promise.all(
    ["status", "smaps"].map((file) => readFile(`/proc/${agent.pid}/${file}`, "utf8")),
  );
  const mapMib = parseSmaps(smaps!).mapBytes / MIB;
  const sample = {
    "start wall": wallMs / 1000,
    "start cpu": (await cpuMs(agent.pid)) / 1000,
    peak: statusMib(status!, "VmHWM") - mapMib,
    maps: mapMib,
  };
  return { agent, sample };
}

/** Milliseconds from each change of a slice at the API server to the table in the map. */
async function timeChanges(
  node: LabNode,
  { server, context }: { server: RemoteApiServer; context: Context },
): Promise<number[]> {
  const pins = new Pins(`${node.pins}/agent`);
  const name = generatedName(0);
  const found = await DumpReader.open(pins)!.read({ namespace: GENERATED_NAMESPACE, name });
  const map = BpfMap.openPinned(pins.mapPath("svc_services"));
  const rows = map.mmap({ readOnly: true });
  const words = new BigUint64Array(rows.buffer, rows.byteOffset, rows.byteLength / 8);
  const table = (found.services[0]!.id * service.bytes + service.offset.table) / 8;
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const times: number[] = [];
  const count = context.rounds(CHANGES);
  for (let turn = 0; turn < count; turn++) {
    context.progress(`change ${turn + 1} of ${count}`);
    const endpoints = Array.from({ length: ENDPOINTS - (turn % 2 === 0 ? 1 : 0) }, (_, at) => at);
    const before = Atomics.load(words, table);
    const reply = server.call({ do: "apply", object: generateSlice(0, { endpoints }) });
    const deadline = performance.now() + MOST_WAIT_MS;
    while (Atomics.load(words, table) === before && performance.now() < deadline)
      Atomics.wait(clock, 0, 0, GLANCE_MS);
    const end = process.hrtime.bigint();
    if (Atomics.load(words, table) === before)
      throw new Error(`A change was not in the map after ${MOST_WAIT_MS} ms`);
    times.push(Number(end - BigInt((await reply).nanoseconds)) / 1e6);
    await delay(20);
  }
  map.close();
  return times;
}

async function measureIdle(agent: Running, context: Context): Promise<number> {
  const idleMs = context.quick ? IDLE_MS / 5 : IDLE_MS;
  context.progress(`nothing changes for ${idleMs / 1000} s`);
  const before = await cpuMs(agent.pid);
  await delay(idleMs);
  return ((await cpuMs(agent.pid)) - before) / (idleMs / 1000);
}

async function measure(node: LabNode, context: Context): Promise<Samples> {
  const samples: Samples = {};
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-cluster-"));
  const kubeconfig = path.join(folder, "kubeconfig");
  context.progress(`an API server with ${SERVICES} Services × ${ENDPOINTS} endpoints`);
  const amount = ["--services", String(SERVICES), "--endpoints", String(ENDPOINTS)];
  const server = await startRemoteApiServer(amount, { host: node });
  await writeFile(kubeconfig, server.description.kubeconfig);
  const source = ["--kubeconfig", kubeconfig, "--nftables-min-sync-period", "0s"];
  try {
    const count = context.quick ? 1 : STARTS;
    for (let round = 0; round < count; round++) {
      context.progress(`cold start ${round + 1} of ${count}`);
      const { agent, sample } = await startOnce(node, source);
      for (const [name, value] of Object.entries(sample)) {
        samples[name] ??= [];
        samples[name].push(value);
      }
      if (round === count - 1) {
        samples.change = await timeChanges(node, { server, context });
        samples.idle = [await measureIdle(agent, context)];
      }
      await agent.stop();
      await node.run(["rm", "-r", `${node.pins}/agent`]);
    }
    return samples;
  } finally {
    await server.close();
    await rm(folder, { recursive: true });
  }
}

function readFigures(samples: Samples): Figure[] {
  const what = `${SERVICES} Services × ${ENDPOINTS} endpoints`;
  const row = (claim: string, name: string, rest: { unit: string; goal?: { atMost: number } }) =>
    figure(claim, { values: of(samples, name), ...rest });
  const p99 = row("", "change", { unit: "ms", goal: { atMost: 5 } });
  return [
    row(`${what}: CPU time of a cold start`, "start cpu", { unit: "s", goal: { atMost: 2 } }),
    row(`${what}: cold start, from process to serving`, "start wall", { unit: "s" }),
    row(`${what}: peak memory beside mapped BPF memory`, "peak", {
      unit: "MiB",
      goal: { atMost: 180 },
    }),
    row(`${what}: mapped BPF memory`, "maps", { unit: "MiB" }),
    row("one EndpointSlice, from socket to map, p50", "change", {
      unit: "ms",
      goal: { atMost: 1 },
    }),
    {
      ...p99,
      claim: "one EndpointSlice, from socket to map, p99",
      value: quantile(of(samples, "change"), 0.99),
    },
    row("CPU time of a second without changes", "idle", { unit: "ms" }),
  ];
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "cluster", topology: { node: [] } });
  try {
    const samples = await measure(lab.nodes.node!, context);
    const notes = [
      "CPU time is of the whole process, the runtime's own threads and the verification of the " +
        "programs included. The change's clock starts in the API server, before it takes the " +
        "object. The quartiles beside p99 are those of all changes.",
    ];
    return { figures: readFigures(samples), samples, notes };
  } finally {
    await lab.close();
  }
}

export const cluster: Bench = {
  name: "cluster",
  claim: "A node joins a large cluster at once, and follows it within a millisecond",
  goal: "≤ 2 s CPU and ≤ 180 MiB to the first sync; a slice ≤ 1 ms p50 and ≤ 5 ms p99",
  run,
};
