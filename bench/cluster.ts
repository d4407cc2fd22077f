// What a connection to a Service costs on a node of a real cluster, whichever proxy serves there:
// TCP connects, UDP questions and requests from a pod to another one, directly and through
// Services, all on the asking thread. Knows no Kubernetes: pods are network namespaces to it.
import { spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";
import type { Bench, Context, Figure, Goal, Measured } from "./bench.ts";
import { lastCpu } from "./machine.ts";
import { Probe, type Targets, type Task } from "./probe.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { ENDPOINT_PORT, SERVICE_PORT } from "./services.ts";
import { ratios } from "./statistics.ts";

const ROUNDS = 15;
const TRIES = 6;
/** Of a visit, as in connect.ts and established.ts. */
const CALLS = {
  "tcp-life": { runs: 5, count: 40 },
  "udp-ask": { runs: 5, count: 40 },
  "tcp-request": { runs: 4, count: 100 },
} as const satisfies Partial<Record<Task, { runs: number; count: number }>>;
/** As many targets as one question draws. */
const DRAWN = 512;
/** How long a proxy may take to serve all Services. */
const SERVED_MS = 300_000;
const NS_PER_SECOND = 1e9;
const NS_PER_US = 1e3;

export interface ClusterPlace {
  /** Who serves: "bpfsvc", or kube-proxy's mode. */
  proxy: string;
  /** The network namespaces of the asking pod and of the endpoint, as files. */
  client: string;
  server: string;
  /** The endpoint's address; nothing else listens there at services.ts's ENDPOINT_PORT. */
  endpoint: string;
  /** The first of so many cluster IPs in a row, TCP and UDP at SERVICE_PORT. */
  first: string;
  count: number;
}

function startProbe({ server }: ClusterPlace): Probe {
  const host = { spawn: ([program, ...values]: readonly string[]) => spawn(program!, values) };
  return Probe.start(host, { cpu: lastCpu(), port: ENDPOINT_PORT, servers: { netns: server } });
}

/** A probe for which all Services are served. Throws what is wrong if that takes minutes. */
async function whenServed(place: ClusterPlace, targets: Targets): Promise<Probe> {
  const from = { name: "the client", netns: place.client };
  const end = performance.now() + SERVED_MS;
  while (true) {
    const probe = startProbe(place);
    try {
      for (const task of ["tcp-life", "udp-ask"] as const)
        await probe.time(task, { runs: 1, count: DRAWN, targets, from });
      return probe;
    } catch (error) {
      await probe.close();
      if (performance.now() > end) throw error;
      await sleep(2000);
    }
  }
}

async function measure(place: ClusterPlace, context: Context): Promise<Samples> {
  const { endpoint, first, count } = place;
  const service: Targets = { address: first, port: SERVICE_PORT, span: count, step: 1 };
  const direct: Targets = { address: endpoint, port: ENDPOINT_PORT, span: 1, step: 0 };
  context.progress("waiting for all Services to be served");
  const probe = await whenServed(place, service);
  const makeCase =
    (way: string, targets: Targets): Case =>
    async () => {
      const values: Record<string, number> = {};
      for (const task of Object.keys(CALLS) as (keyof typeof CALLS)[]) {
        const timing = await probe.time(task, { ...CALLS[task], targets });
        for (const [what, value] of Object.entries(timing))
          values[`${way} ${task} ${what}`] = value;
      }
      return values;
    };
  try {
    const cases = [makeCase("direct", direct), makeCase("service", service)];
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    await probe.close();
  }
}

function readFigures(samples: Samples, { proxy, count }: ClusterPlace): Figure[] {
  const what = `through one of ${count} Services, by ${proxy}`;
  const both = (name: string) =>
    [of(samples, `direct ${name}`), of(samples, `service ${name}`)] as const;
  const rate = (claim: string, task: string, goal?: Goal) => {
    const values = ratios(...both(`${task} cpu`));
    return figure(`${claim} ${what}: over direct`, { values, unit: "×", goal });
  };
  const time = (claim: string, task: string, goal?: Goal) => {
    const [direct, service] = both(`${task} p50`);
    const values = ratios(service, direct);
    return figure(`median time of ${claim} ${what}: over direct`, { values, unit: "×", goal });
  };
  const held = (goal: Goal) => (proxy === "bpfsvc" ? goal : undefined);
  return [
    rate("TCP connects per CPU second", "tcp-life", held({ atLeast: 0.97 })),
    rate("UDP questions per CPU second", "udp-ask"),
    time("a connect", "tcp-life", held({ atMost: 1.05 })),
    time("a request on a connection", "tcp-request", held({ atMost: 1.01 })),
    ...(["direct", "service"] as const).flatMap((way) => [
      figure(`TCP connects, ${way}`, {
        values: of(samples, `${way} tcp-life cpu`).map((ns) => NS_PER_SECOND / ns),
        unit: "per CPU second",
      }),
      figure(`time of a connect, ${way}: p99`, {
        values: of(samples, `${way} tcp-life p99`).map((ns) => ns / NS_PER_US),
        unit: "µs",
      }),
    ]),
  ];
}

/** The bench of a place. What it finds with one proxy is compared with another cluster's. */
export function clusterBench(place: ClusterPlace): Bench {
  return {
    name: `cluster-${place.proxy}`,
    claim: "In a cluster, a connection to a Service costs what a direct one costs",
    goal:
      "with bpfsvc: connects per CPU second ≥ 0.97 × direct, median time ≤ 1.05 × direct, and of " +
      "requests on a connection ≤ 1.01 × direct",
    run: async (context): Promise<Measured> => {
      const samples = await measure(place, context);
      const notes = [
        "Direct connections pass through what the cluster has of netfilter, kube-proxy's rules " +
          "and connection tracking among it: with kube-proxy direct is no free ride either.",
      ];
      return { figures: readFigures(samples, place), samples, notes };
    },
  };
}
