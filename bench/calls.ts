// What a Service costs at the moment of connect(), sendmsg() and recvmsg(), in nanoseconds of the
// calling thread's CPU over the same call with no program attached. One process makes all calls, on
// loopback in a namespace of its own; programs come and go around it.
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { lastCpu } from "./machine.ts";
import { Probe, type Targets, type Task } from "./probe.ts";
import { Programmed, Programs } from "./programmed.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import {
  alternating,
  ENDPOINT_PORT,
  ENDPOINT_PREFIX,
  endpointAddress,
  makeRows,
  SERVICE_PORT,
  serviceAddress,
} from "./services.ts";
import { differences, median, ratios } from "./statistics.ts";

const FEW = 1000;
const MANY = { usual: 20_000, quick: 5000 } as const;
const ENDPOINTS = 10;
/** Services that fresh sockets ask, one after the other: more than a pod has business with. */
const ASKED = 50;
const ROUNDS = 9;
/** Visits to a case in a round, of which the least counts: a neighbour can slow a whole visit. */
const TRIES = 7;
/** Of each task in a round. */
const RUNS = 12;

/** Calls to a run: about a millisecond, so that some runs are left alone by everything else. */
const CALLS = {
  "udp-same": 1000,
  "udp-fresh": 256,
  "udp-life": 256,
  "udp-send": 256,
  "udp-receive": 256,
  "tcp-fresh": 64,
  "tcp-life": 64,
} as const satisfies Partial<Record<Task, number>>;
type Call = keyof typeof CALLS;
/** Endpoints of this number and on are of no Service. */
const BEYOND = 1 << 21;
const ALL = Object.keys(CALLS) as Call[];

/** One address for a socket that stays with it, all of them for fresh sockets. */
function spanOf(task: Call, span: number): number {
  return task.endsWith("-fresh") || task.endsWith("-life") ? span : 1;
}

/** Endpoints asked by their own addresses. */
function directly(task: Call): Targets {
  const span = spanOf(task, ASKED * ENDPOINTS);
  return { address: endpointAddress(0), port: ENDPOINT_PORT, span, step: 1 };
}

/** Addresses that are neither Services' nor endpoints'. */
function strangers(task: Call): Targets {
  return { ...directly(task), address: endpointAddress(BEYOND) };
}

/** Services of the task's protocol: the even ones are of TCP. */
function throughServices(task: Call, asked: number): Targets {
  const first = task.startsWith("tcp") ? 0 : 1;
  const span = spanOf(task, asked);
  return { address: serviceAddress(first), port: SERVICE_PORT, span, step: 2 };
}

function manyFor({ quick }: Pick<Context, "quick">): number {
  return quick ? MANY.quick : MANY.usual;
}

interface State {
  name: string;
  tasks: readonly Call[];
  targets: (task: Call) => Targets;
  /** Absent: no program at all. */
  programs?: Programs;
  /** Where they are attached: what is measured runs in the node's. */
  cgroup: string;
}

function makeStates(
  node: LabNode,
  { few, many, services }: { few: Programmed; many: Programmed; services: number },
): State[] {
  const plain = few.programs();
  const empty = Programs.test("empty");
  const asking = Programs.test("empty", { rodata: { ask_cookie: 1 } });
  const single = ALL.filter((task) => task !== "udp-life" && task !== "tcp-life");
  const spread: Call[] = ["udp-same", "udp-fresh", "tcp-fresh"];
  const toSome = (task: Call) => throughServices(task, ASKED);
  const { cgroup } = node;
  const elsewhere = node.bystander.cgroup;
  const remembering: Call[] = ["tcp-fresh", "tcp-life"];
  const remember = few.programs({ remember_tcp: 1 });
  return [
    { name: "none", tasks: ALL, targets: directly, cgroup },
    {
      name: "elsewhere",
      tasks: ["udp-same"],
      targets: directly,
      programs: empty,
      cgroup: elsewhere,
    },
    { name: "empty", tasks: single, targets: directly, programs: empty, cgroup },
    { name: "cookie", tasks: ["udp-same"], targets: directly, programs: asking, cgroup },
    { name: "stranger", tasks: single, targets: strangers, programs: plain, cgroup },
    { name: "direct", tasks: single, targets: directly, programs: plain, cgroup },
    { name: "some", tasks: ALL, targets: toSome, programs: plain, cgroup },
    { name: "remember", tasks: remembering, targets: toSome, programs: remember, cgroup },
    {
      name: "few",
      tasks: spread,
      targets: (task) => throughServices(task, FEW / 2),
      programs: plain,
      cgroup,
    },
    {
      name: "many",
      tasks: spread,
      targets: (task) => throughServices(task, services / 2),
      programs: many.programs(),
      cgroup,
    },
  ];
}

function makeCase(state: State, probe: Probe): Case {
  const measure = async () => {
    const result: Record<string, number> = {};
    for (const task of state.tasks) {
      const targets = state.targets(task);
      const question = { runs: RUNS, count: CALLS[task], targets };
      result[`${task} ${state.name}`] = (await probe.time(task, question)).cpu;
    }
    return result;
  };
  return () => state.programs?.attached(state.cgroup, measure) ?? measure();
}

/** Round by round what a state adds to another one. */
function added(
  samples: Samples,
  { task, state, base = "none" }: { task: Call; state: string; base?: string },
): number[] {
  return differences(of(samples, `${task} ${state}`), of(samples, `${task} ${base}`));
}

/** The goals, each asked twice: over no program, and of that what is ours and not the hook's. */
function readHeld(samples: Samples): Figure[] {
  const rows: readonly [string, Call, string, number][] = [
    ["repeated connect() of a UDP socket", "udp-same", "some", 40],
    ["repeated connect() of a UDP socket to no Service", "udp-same", "stranger", 30],
    ["connect() of a fresh UDP socket", "udp-fresh", "some", 500],
    ["connect() of a fresh UDP socket to no Service", "udp-fresh", "stranger", 30],
    ["connect() of a fresh TCP socket", "tcp-fresh", "some", 500],
    ["connect() of a fresh TCP socket with --remember-tcp", "tcp-fresh", "remember", 500],
    ["connect() of a fresh TCP socket to no Service", "tcp-fresh", "stranger", 30],
  ];
  return rows.flatMap(([what, task, state, atMost]) => [
    figure(`${what}: over no program`, {
      values: added(samples, { task, state }),
      unit: "ns",
      goal: { atMost },
    }),
    figure(`${what}: over a program that does nothing`, {
      values: added(samples, { task, state, base: "empty" }),
      unit: "ns",
      goal: { atMost },
    }),
  ]);
}

/** The share of a whole fresh TCP connect, in percent. To be the default it must be at most 3. */
function readShares(samples: Samples): Figure[] {
  const share = (state: string) => {
    const values = added(samples, { task: "tcp-fresh", state });
    return ratios(values, of(samples, "tcp-fresh none")).map((ratio) => ratio * 100);
  };
  const goal = { atMost: 3 };
  const claim = "added to connect() of a fresh TCP socket";
  return [
    figure(claim, { values: share("some"), unit: "%" }),
    figure(`${claim} with --remember-tcp`, { values: share("remember"), unit: "%", goal }),
  ];
}

/** Calls among many Services over calls among 1,000: fresh sockets ask all of them in turn. */
function readFlatness(samples: Samples, services: number): Figure[] {
  const tasks: readonly [Call, string][] = [
    ["udp-same", "repeated connect() of a UDP socket"],
    ["udp-fresh", "connect() of fresh UDP sockets"],
    ["tcp-fresh", "connect() of fresh TCP sockets"],
  ];
  return tasks.flatMap(([task, what]) => {
    const whole = ratios(of(samples, `${task} many`), of(samples, `${task} few`));
    // What is added is small and can be next to nothing in a round: its median is the divisor.
    const few = median(added(samples, { task, state: "few", base: "empty" }));
    const values = added(samples, { task, state: "many", base: "empty" }).map((ns) => ns / few);
    return [
      figure(`${what}: at ${services} Services over at ${FEW}`, {
        values: whole,
        unit: "×",
        goal: { atMost: 1.25 },
      }),
      figure(`${what}: added to an empty program at ${services} over at ${FEW}`, {
        values,
        unit: "×",
      }),
    ];
  });
}

/** What no issue sets a goal for. */
function readOthers(samples: Samples): Figure[] {
  const row = (claim: string, task: Call, state: string) =>
    figure(`${claim}: over no program`, { values: added(samples, { task, state }), unit: "ns" });
  const whole = (claim: string, task: Call) =>
    figure(`${claim}, no program`, { values: of(samples, `${task} none`), unit: "ns" });
  return [
    row("sendmsg() of an unconnected UDP socket", "udp-send", "some"),
    row("sendmsg() to no Service", "udp-send", "stranger"),
    row("recvmsg() of the answer", "udp-receive", "some"),
    row("recvmsg() from no Service", "udp-receive", "stranger"),
    row("repeated connect() of a UDP socket to an endpoint itself", "udp-same", "direct"),
    row("connect() of a fresh UDP socket to an endpoint itself", "udp-fresh", "direct"),
    row("connect() of fresh UDP sockets to all Services in turn", "udp-fresh", "few"),
    row("connect() of fresh TCP sockets to all Services in turn", "tcp-fresh", "few"),
    row("socket(), connect(), close() of UDP", "udp-life", "some"),
    row("socket(), connect(), close() of TCP", "tcp-life", "some"),
    row("socket(), connect(), close() of TCP with --remember-tcp", "tcp-life", "remember"),
    row("a program that does nothing at connect()", "udp-same", "empty"),
    row("a program that asks for the socket's cookie at connect()", "udp-same", "cookie"),
    row("a program that does nothing at sendmsg()", "udp-send", "empty"),
    row("a program that does nothing at recvmsg()", "udp-receive", "empty"),
    row("programs in another cgroup only, at connect()", "udp-same", "elsewhere"),
    whole("repeated connect() of a UDP socket", "udp-same"),
    whole("connect() of a fresh UDP socket", "udp-fresh"),
    whole("connect() of a fresh TCP socket", "tcp-fresh"),
    whole("sendmsg() of an unconnected UDP socket", "udp-send"),
    whole("recvmsg()", "udp-receive"),
  ];
}

function readFigures(samples: Samples, services: number): Figure[] {
  return [
    ...readHeld(samples),
    ...readShares(samples),
    ...readFlatness(samples, services),
    ...readOthers(samples),
  ];
}

async function measure(node: LabNode, context: Context): Promise<Samples> {
  await node.ip(`route add local ${ENDPOINT_PREFIX} dev lo`);
  const shape = { endpoints: ENDPOINTS, protocolOf: alternating };
  const services = manyFor(context);
  context.progress(`programming ${FEW} and ${services} Services × ${ENDPOINTS} endpoints`);
  const few = Programmed.create(`${node.pins}/few`, {
    rows: makeRows({ ...shape, services: FEW }),
  });
  const many = Programmed.create(`${node.pins}/many`, {
    rows: makeRows({ ...shape, services }),
  });
  const probe = Probe.start(node, { cpu: lastCpu(), port: ENDPOINT_PORT });
  const states = makeStates(node, { few, many, services });
  try {
    const cases = states.map((state) => makeCase(state, probe));
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    await probe.close();
    for (const programs of new Set(states.map((state) => state.programs))) programs?.close();
  }
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "calls", topology: { node: [] } });
  try {
    const samples = await measure(lab.nodes.node!, context);
    return {
      figures: readFigures(samples, manyFor(context)),
      samples,
      notes: [
        "A program that others attach to any cgroup of the machine makes the calls without a " +
          "program dearer (the kernel asks for programs only once there are some), and so what " +
          "is added to no program too small.",
      ],
    };
  } finally {
    await lab.close();
  }
}

export const calls: Bench = {
  name: "calls",
  claim: "A Service costs little at connect() and nothing after it",
  goal:
    "over no program: +40 ns for a repeated UDP connect, +500 ns for a fresh socket, +30 ns to " +
    "no Service, all within 1.25 × from 1,000 to 20,000 Services",
  run,
};
