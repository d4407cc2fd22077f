// One endpoint changes: the time until a real connection gets there, and what it costs the agent,
// alone and while a thousand others change a second, in clusters of any size. And from the edit of
// a manifest. The clock starts where the change is made and ends where it is used.
import { setTimeout as delay } from "node:timers/promises";
import { Pins } from "../control/dataplane/pins.ts";
import {
  GENERATED_PORT,
  GENERATED_TARGET_PORT,
  generatedClusterIp,
  generatedEndpoint,
  generateSlice,
} from "../lab/apiserver/generate.ts";
import type { Running } from "../lab/host.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { type Amount, type Feed, feed } from "./fed.ts";
import { lastCpu } from "./machine.ts";
import { Manifests } from "./manifests.ts";
import { Probe } from "./probe.ts";
import { differentBytes, mapWords, watchMaps } from "./programmed.ts";
import { figure, keep, of, type Samples } from "./rounds.ts";
import { ENDPOINT_PREFIX, endpointAddress, SERVICE_PORT, serviceAddress } from "./services.ts";
import { median, quantile } from "./statistics.ts";

const ENDPOINTS = 10;
const SIZES = [100, 10_000, 50_000] as const;
const QUICK_SIZES = [100] as const;
/** The one that has goals. */
const USUAL = 10_000;
const CHANGES = 200;
/** Changes before those that count: until the agent's compiler has seen them. */
const UNCOUNTED = 50;
const SNAPSHOTS = 5;
const RATE = 1000;
/** Changes come in groups of so many, since timers have milliseconds. */
const GROUP = 10;
const BUSY_MS = { usual: 4000, quick: 1500 } as const;
const MANIFEST_SERVICES = 1000;
const EDITS = 30;
const LONGEST_WRITE_MS = 5000;
const NS_PER_MS = 1e6;
/** Between two looks at the maps: whoever looks without a pause takes a CPU from the agent. */
const WATCH_MS = 0.02;
/** What nobody wakes up a sleeper by. */
const NOTHING = new Int32Array(new SharedArrayBuffer(4));

/** Service 0 with this one endpoint. */
function onlyEndpoint(endpoint: number) {
  return generateSlice(0, { endpoints: [endpoint] });
}

/** Any other Service, with all of its endpoints or all but the last. */
function otherSlice(service: number, isWhole: boolean) {
  const length = isWhole ? ENDPOINTS : ENDPOINTS - 1;
  const endpoints = Array.from({ length }, (_, index) => service * ENDPOINTS + index);
  return generateSlice(service, { endpoints });
}

interface Bed {
  node: LabNode;
  fed: Feed;
  agent: Running;
  probe: Probe;
  amount: Amount;
  context: Context;
}

/** Milliseconds from each change of Service 0 at the API server to a connection that shows it. */
async function timeChanges(
  { fed, probe }: Bed,
  { count, isOver = () => false }: { count: number; isOver?: () => boolean },
): Promise<number[]> {
  const service = { address: generatedClusterIp(0), port: GENERATED_PORT };
  const times: number[] = [];
  for (let turn = 0; turn < count && !isOver(); turn++) {
    const endpoint = turn % 2;
    const asked = probe.until(generatedEndpoint(endpoint), service);
    const { nanoseconds } = await fed.server.call({ do: "apply", object: onlyEndpoint(endpoint) });
    // The first change may be none, if the last series ended with this endpoint.
    const time = ((await asked) - Number(nanoseconds)) / NS_PER_MS;
    if (turn > 0) times.push(time);
    await delay(10 + (turn % 10));
  }
  return times;
}

/**
 * Milliseconds from each change of Service 0, where the API server hands it to its connection, to
 * the maps: to whatever of its row in svc_services tells the two endpoints apart.
 */
async function timeWrites({ node, fed, context }: Bed): Promise<number[]> {
  const words = mapWords(new Pins(`${node.pins}/agent`), "svc_services");
  await fed.server.call({ do: "apply", object: onlyEndpoint(0) });
  await delay(500);
  const before = words.slice();
  await fed.server.call({ do: "apply", object: onlyEndpoint(1) });
  await delay(500);
  const word = words.findIndex((value, at) => value !== before[at]);
  if (word < 0) throw new Error(`A change was not in svc_services of '${node.name}' in 500 ms`);
  const times: number[] = [];
  for (let turn = 0; turn < context.rounds(CHANGES); turn++) {
    const value = Atomics.load(words, word);
    const asked = fed.server.call({ do: "apply", object: onlyEndpoint(turn % 2) });
    const deadline = performance.now() + LONGEST_WRITE_MS;
    while (Atomics.load(words, word) === value) {
      if (performance.now() > deadline)
        throw new Error(`A change was not in the maps of '${node.name}' in ${LONGEST_WRITE_MS} ms`);
      Atomics.wait(NOTHING, 0, 0, WATCH_MS);
    }
    const seen = process.hrtime.bigint();
    await asked;
    const { value: written } = await fed.server.call({ do: "lastWrite" });
    const time = Number(seen - BigInt(written as string)) / NS_PER_MS;
    // A bookmark may have been written since.
    if (time > 0) times.push(time);
    await delay(10 + (turn % 10));
  }
  return times;
}

/** Bytes that one change changes, with nobody connecting. */
async function countBytes({ node, fed }: Bed, look: () => Uint8Array[]): Promise<number[]> {
  const counts: number[] = [];
  for (let turn = 0; turn < SNAPSHOTS; turn++) {
    const before = look();
    await fed.server.call({ do: "apply", object: otherSlice(1, turn % 2 === 1) });
    let after = look();
    for (let tries = 0; tries < 200 && differentBytes(before, after) === 0; tries++) {
      await delay(20);
      after = look();
    }
    // What one flush leaves for after the grace period belongs to the change as well.
    await delay(100);
    counts.push(differentBytes(before, look()));
  }
  if (counts.includes(0)) throw new Error(`A change was not in the maps of '${node.name}'`);
  return counts;
}

/** Changes other Services at RATE until told to stop; returns how many it made. */
async function makeChurn({ fed, amount }: Bed, until: () => boolean): Promise<number> {
  const start = performance.now();
  let made = 0;
  while (!until()) {
    const due = ((performance.now() - start) / 1000) * RATE;
    const calls: Promise<unknown>[] = [];
    for (; made < due && calls.length < 2 * GROUP; made++) {
      const service = 1 + (made % (amount.services - 1));
      const isWhole = Math.floor(made / (amount.services - 1)) % 2 === 1;
      calls.push(fed.server.call({ do: "apply", object: otherSlice(service, isWhole) }));
    }
    await Promise.all(calls);
    await delay(GROUP);
  }
  return made;
}

async function measureBusy(bed: Bed): Promise<Record<string, number | number[]>> {
  const busyMs = bed.context.quick ? BUSY_MS.quick : BUSY_MS.usual;
  const end = performance.now() + busyMs;
  const isOver = () => performance.now() > end;
  const before = await cpuMs(bed.agent.pid);
  const [made, times] = await Promise.all([
    makeChurn(bed, isOver),
    timeChanges(bed, { count: Number.POSITIVE_INFINITY, isOver }),
  ]);
  const cpu = (await cpuMs(bed.agent.pid)) - before;
  return {
    "busy rate": made / (busyMs / 1000),
    "busy cpu": (cpu * 1000) / (made + times.length),
    "busy ms": times,
  };
}

async function measureSize(bed: Bed): Promise<Samples> {
  const { agent, amount, context, node } = bed;
  const samples: Samples = {};
  const add = (what: string, values: readonly number[]) => {
    for (const value of values) keep(samples, { [`${amount.services} ${what}`]: value });
  };
  context.progress(`${amount.services} Services: changes, one at a time`);
  const count = context.rounds(CHANGES);
  await timeChanges(bed, { count: Math.min(count, UNCOUNTED) });
  for (let part = 0; part < 5; part++) {
    const before = await cpuMs(agent.pid);
    const times = await timeChanges(bed, { count: count / 5 });
    add("ms", times);
    add("cpu", [(((await cpuMs(agent.pid)) - before) * 1000) / (count / 5)]);
  }
  add("write ms", await timeWrites(bed));
  const look = watchMaps(new Pins(`${node.pins}/agent`));
  add("bytes", await countBytes(bed, look));
  context.progress(`${amount.services} Services: ${RATE} changes a second`);
  for (const [what, values] of Object.entries(await measureBusy(bed))) add(what, [values].flat());
  return samples;
}

async function measureEdits(node: LabNode, context: Context): Promise<Samples> {
  context.progress(`manifests of ${MANIFEST_SERVICES} Services`);
  const manifests = new Manifests({
    services: MANIFEST_SERVICES,
    endpoints: ENDPOINTS,
    protocolOf: () => "TCP",
  });
  const agent = await startAgent(node, ["--manifests", manifests.folder]);
  const probe = Probe.start(node, { cpu: lastCpu(), port: GENERATED_TARGET_PORT });
  const service = { address: serviceAddress(0), port: SERVICE_PORT };
  const samples: Samples = {};
  try {
    await probe.until(endpointAddress(0), service);
    for (let turn = 0; turn < context.rounds(EDITS); turn++) {
      const endpoint = endpointAddress((turn + 1) % 2);
      const start = manifests.edit(endpoint);
      keep(samples, { edit: ((await probe.until(endpoint, service)) - start) / NS_PER_MS });
      // Edits come apart: one that falls into the quiet time after another waits for its end too.
      await delay(100 + (turn % 10) * 10);
    }
    return samples;
  } finally {
    await probe.close();
    await agent.stop();
    await node.run(["rm", "-r", `${node.pins}/agent`]);
    manifests.remove();
  }
}

async function measure(node: LabNode, context: Context): Promise<Samples> {
  const samples = await measureEdits(node, context);
  for (const services of context.quick ? QUICK_SIZES : SIZES) {
    const amount = { services, endpoints: ENDPOINTS };
    await feed(node, { amount, context }, async (fed) => {
      const { agent } = await fed.startAgent(node);
      const probe = Probe.start(node, { cpu: lastCpu(), port: GENERATED_TARGET_PORT });
      try {
        Object.assign(samples, await measureSize({ node, fed, agent, probe, amount, context }));
      } finally {
        await probe.close();
        await agent.stop();
        await node.run(["rm", "-r", `${node.pins}/agent`]);
      }
    });
  }
  return samples;
}

function readSize(samples: Samples, size: number): Figure[] {
  const take = (what: string) => of(samples, `${size} ${what}`);
  const row = (what: string, values: readonly number[], rest: { unit: string; goal?: Goal }) =>
    figure(`${size} Services: ${what}`, { values, ...rest });
  const p99 = (what: string, name: string, rest: { goal?: Goal } = {}) => ({
    ...row(what, take(name), { unit: "ms", ...rest }),
    value: quantile(take(name), 0.99),
  });
  const atMost = (most: number) => (size === USUAL ? { goal: { atMost: most } } : {});
  return [
    p99("one change to a connection there, p99", "ms", atMost(3)),
    row("one change to a connection there, p50", take("ms"), { unit: "ms" }),
    p99("one change, from the API server's connection to the maps, p99", "write ms", atMost(5)),
    row("one change, from the API server's connection to the maps, p50", take("write ms"), {
      unit: "ms",
      ...atMost(1),
    }),
    row("the agent's CPU time for one change", take("cpu"), { unit: "µs" }),
    row("bytes that one change changes in the maps", take("bytes"), { unit: "bytes" }),
    row("changes a second under load", take("busy rate"), { unit: "per second" }),
    row("under load, one change to a connection there, p50", take("busy ms"), { unit: "ms" }),
    p99("under load, one change to a connection there, p99", "busy ms"),
    row("under load, the agent's CPU time for one change", take("busy cpu"), { unit: "µs" }),
  ];
}

function sizesOf(samples: Samples): number[] {
  return Object.keys(samples)
    .filter((name) => name.endsWith(" bytes"))
    .map((name) => Number(name.split(" ")[0]));
}

/** What a change costs among many Services over what it costs among few. */
function readFlatness(samples: Samples, sizes: readonly number[]): Figure[] {
  const [fewest, most] = [sizes[0]!, sizes.at(-1)!];
  if (fewest === most) return [];
  const base = median(of(samples, `${fewest} cpu`));
  const values = of(samples, `${most} cpu`).map((cpu) => cpu / base);
  const claim = `CPU time for one change among ${most} Services: over among ${fewest}`;
  return [figure(claim, { values, unit: "×", goal: { atMost: 1.2 } })];
}

function readFigures(samples: Samples): Figure[] {
  const sizes = sizesOf(samples);
  return [
    ...readFlatness(samples, sizes),
    ...sizes.flatMap((size) => readSize(samples, size)),
    figure(`edit of a manifest, ${MANIFEST_SERVICES} Services, to a connection there`, {
      values: of(samples, "edit"),
      unit: "ms",
    }),
  ];
}

function draw(samples: Samples): Plot {
  const sizes = sizesOf(samples);
  const line = (name: string, what: string, share: number) => ({
    name,
    points: sizes.map((size) => [size, quantile(of(samples, `${size} ${what}`), share)] as const),
  });
  return {
    name: "churn",
    title: "One endpoint changed at the API server, to a connection that gets there",
    unit: "ms",
    kind: "lines",
    over: "Services × 10 endpoints",
    series: [
      line("alone, p50", "ms", 0.5),
      line("alone, p99", "ms", 0.99),
      line(`beside ${RATE} a second, p50`, "busy ms", 0.5),
      line(`beside ${RATE} a second, p99`, "busy ms", 0.99),
    ],
  };
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "churn", topology: { node: [] } });
  try {
    const node = lab.nodes.node!;
    await node.ip(`route add local ${ENDPOINT_PREFIX} dev lo`);
    const samples = await measure(node, context);
    const notes = [
      "To a connection: the clock starts in the API server, before it takes the object, and ends " +
        "when a connection arrives at the new endpoint, of which one is tried every 100 µs or so.",
      "To the maps: it starts where the API server hands the event to its connection, before " +
        "HTTP/2 and TLS, and ends when another process, which looks every 80 µs or so, sees the " +
        "maps changed.",
      "API server, agent and client share the machine. minSyncPeriod is 0. Quartiles beside p99 " +
        "are of all changes.",
      "CPU time is of all threads of the agent, those of the runtime included.",
      "A manifest's agent waits 50 ms for quiet before it looks.",
    ];
    return { figures: readFigures(samples), samples, notes, plots: [draw(samples)] };
  } finally {
    await lab.close();
  }
}

export const churn: Bench = {
  name: "churn",
  claim: "A change is served at once, and its cost follows the change, not the cluster",
  goal:
    "one change in the maps within 1 ms p50 and 5 ms p99, and served within 3 ms p99, at 10,000 " +
    "Services; CPU for one within 20 % from 100 to 50,000 Services",
  run,
};
