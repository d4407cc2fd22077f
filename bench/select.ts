// Deciding: the CPU time from objects to rows for a whole cluster from nothing, and for one changed
// slice among many Services up to encoded rows. In this process and in plain memory, no kernel.
import { Dataplane } from "../control/dataplane/dataplane.ts";
import { Maps } from "../control/dataplane/maps.ts";
import { memoryStorage } from "../control/dataplane/memory.ts";
import { Cluster } from "../control/model/cluster.ts";
import type { KubernetesObject } from "../control/model/objects.ts";
import { readManifest } from "../control/source/manifest.ts";
import type { Bench, Context, Measured } from "./bench.ts";
import { manifestOf } from "./manifests.ts";
import { figure } from "./rounds.ts";
import { endpointAddress, makeManifest, type Shape } from "./services.ts";

const SERVICES = 10_000;
const ENDPOINTS = 10;
const ROUNDS = 20;
const CHANGES = 2000;
/** Changes before those that count: until the compiler has done its work. */
const UNCOUNTED = 4000;

function read(text: string): KubernetesObject[] {
  return [...readManifest(text, { file: "bench.json" }).objects.values()];
}

/** CPU microseconds that `work` takes, on all threads of this process. */
function cpuUs(work: () => void): number {
  const start = process.cpuUsage();
  work();
  const { user, system } = process.cpuUsage(start);
  return user + system;
}

function makeCluster(objects: readonly KubernetesObject[]): Cluster {
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: ["192.168.50.2"] });
  for (const object of objects) cluster.apply(object);
  return cluster;
}

/** CPU milliseconds for all rows of a cluster that had none, in each round anew. */
function timeScratch(objects: readonly KubernetesObject[], context: Context): number[] {
  const rounds = context.rounds(ROUNDS);
  return Array.from({ length: rounds }, (_, round) => {
    context.progress(`selecting from scratch, round ${round + 1} of ${rounds}`);
    return cpuUs(() => makeCluster(objects).takeDirty()) / 1000;
  });
}

/** Service 0 with its last endpoint in place or replaced by one that no Service has. */
function slices(): KubernetesObject[] {
  const endpoints = Array.from({ length: ENDPOINTS }, (_, index) => endpointAddress(index));
  const other = endpoints.with(ENDPOINTS - 1, endpointAddress(SERVICES * ENDPOINTS));
  return [other, endpoints].map((list) => {
    const objects = read(makeManifest(0, { protocol: "TCP", endpoints: list }));
    return objects.find(({ kind }) => kind === "EndpointSlice")!;
  });
}

/** CPU microseconds for one changed slice: to rows, and on to encoded rows in memory. */
async function timeChanges(
  objects: readonly KubernetesObject[],
  context: Context,
): Promise<{ rows: number[]; encoded: number[] }> {
  const cluster = makeCluster(objects);
  const storage = memoryStorage({
    services: SERVICES * 2,
    frontends: SERVICES * 2,
    backends: SERVICES * ENDPOINTS * 2,
    slots: SERVICES * ENDPOINTS * 4,
  });
  const dataplane = new Dataplane(new Maps(storage));
  const encode = () => {
    const { changed, removed } = cluster.takeDirty();
    dataplane.replace(changed);
    dataplane.remove(removed);
    const [error] = dataplane.flush();
    if (error) throw new Error(`Cannot encode "${error.key}": ${error.message}`);
  };
  encode();
  const versions = slices();
  const samples = { rows: [] as number[], encoded: [] as number[] };
  const change = (turn: number, decided: () => void) =>
    cpuUs(() => {
      cluster.apply(versions[turn & 1]!);
      decided();
    });
  const count = context.rounds(CHANGES);
  for (let turn = -UNCOUNTED; turn < count; turn++) {
    context.progress("changing one slice, to encoded rows");
    const used = change(turn, encode);
    if (turn >= 0) samples.encoded.push(used);
    await dataplane.release();
  }
  for (let turn = -UNCOUNTED; turn < count; turn++) {
    const used = change(turn, () => cluster.takeDirty());
    if (turn >= 0) samples.rows.push(used);
  }
  return samples;
}

async function run(context: Context): Promise<Measured> {
  context.progress("making objects");
  const numbers = Array.from({ length: SERVICES }, (_, service) => service);
  const ofTcp: Shape = { services: SERVICES, endpoints: ENDPOINTS, protocolOf: () => "TCP" };
  const objects = numbers.flatMap((service) => read(manifestOf(service, ofTcp)));
  const scratch = timeScratch(objects, context);
  const { rows, encoded } = await timeChanges(objects, context);
  const shape = `${SERVICES} service ports × ${ENDPOINTS} endpoints`;
  return {
    figures: [
      figure(`${shape} selected from scratch, CPU`, {
        values: scratch.slice(1),
        unit: "ms",
        goal: { atMost: 150 },
      }),
      figure("the same, first time in a process", { values: scratch.slice(0, 1), unit: "ms" }),
      figure("one changed slice among them, to encoded rows, CPU", {
        values: encoded,
        unit: "µs",
        goal: { atMost: 60 },
      }),
      figure("one changed slice among them, to rows, CPU", { values: rows, unit: "µs" }),
    ],
    samples: { scratch, rows, encoded },
    notes: [
      "CPU time of all threads: the garbage collector's helpers count, and so does the compiler.",
      `One changed slice: ${UNCOUNTED} changes are made before those that count.`,
    ],
  };
}

export const select: Bench = {
  name: "select",
  claim: "Deciding is pure and fast",
  goal: "150 ms CPU for 100,000 endpoints from scratch, 60 µs for one changed slice",
  run,
};
