// What a program of the packet path costs a packet, in nanoseconds of BPF_PROG_TEST_RUN, over the
// floors of any such program. The header is whole again before each run, of each flow in turn. The
// ways that packets take are in packetpaths.ts.
import type { Capacities } from "../control/dataplane/kernel.ts";
import { Lab } from "../lab/lab.ts";
import type { Bench, Context, Figure, Goal, Measured, Plot } from "./bench.ts";
import type { FrameFields } from "./frame.ts";
import { Frames, isJited, VERDICTS } from "./frames.ts";
import { Gateway, knowRouter } from "./gateway.ts";
import { makePaths, type Path } from "./packetpaths.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { differences, median, ratios } from "./statistics.ts";
import { addressesOf, makeVips } from "./vips.ts";

const ROUNDS = 15;
const TRIES = 5;
/** A run of a millisecond or so, that some runs are left alone by everything else. */
const REPEAT = 20_000;

const SERVICES = 1000;
const MORE = { usual: [20_000, 50_000], quick: [5000] } as const;
/** Elements of svc_flows for a million connections, half of its places free. */
const LARGE = { svc_flows: 1 << 20 } as const;
const LARGE_FLOWS = 1 << 20;
/** Of half a MiB. */
const SMALL = { svc_flows: 1 << 11 } as const;

/** Maps that hold so many services with addresses for clients outside. */
function roomFor(services: number): Capacities {
  const [slots, endpoints] = [1200, 10];
  return {
    svc_slots: Math.max(1 << 21, Math.ceil((services * slots) / 2)),
    svc_backends: Math.max(1 << 18, services * (endpoints + 1)),
    svc_overflow: Math.max(1 << 17, services * 5),
  };
}

const FIELDS: FrameFields = {
  destinationMac: "02:00:00:00:00:02",
  sourceMac: "02:00:00:00:00:01",
  source: "203.0.113.10",
  destination: "10.96.0.1",
  protocol: "TCP",
  sourcePort: 40_000,
  destinationPort: 80,
};

/** What all others are compared with: what a balancer cannot do without. */
const FLOOR = "parse and send back";
const SEND = "send back";
const NEXT = "pass on at TC";
/** The same of programs that do nothing, run alone, with nothing restored. */
const alone = (name: string) => `${name}, alone`;
/** The same of a path's hook, with the path's own frames restored. */
const restored = (name: string) => `${name}: restored`;

function makeFloors(frames: Frames): Case[] {
  const repeat = REPEAT;
  const { tx, pass, next } = VERDICTS;
  return [
    async () => ({ [alone(SEND)]: frames.timeAlone({ repeat }) }),
    async () => ({ [alone(NEXT)]: frames.timeAlone({ hook: "tc", repeat }) }),
    async () => ({
      [SEND]: frames.time(frames.program("tx"), { repeat, verdict: tx }),
      [FLOOR]: frames.time(frames.program("parse_tx"), { repeat, verdict: tx }),
      pass: frames.time(frames.program("pass"), { repeat, verdict: pass }),
      [NEXT]: frames.time(frames.program("next"), { hook: "tc", repeat, verdict: next }),
    }),
  ];
}

/** One after the other: the path's program, and its hook's floor on the same frames. */
function makeCase(path: Path): Case {
  const { name, gateway, frames, hook, verdict } = path;
  const { ifindex } = gateway.uplink;
  const program = gateway.program(path.program);
  const floor = frames.floor(hook);
  const idle = hook === "xdp" ? VERDICTS.tx : VERDICTS.next;
  let warmSince = -1;
  const warm = () => {
    if (!path.begins && warmSince === gateway.forgotten) return;
    gateway.forget();
    for (const { frames, program, verdict, repeat } of path.before)
      frames.time(gateway.program(program), { name, hook, ifindex, verdict, repeat });
    warmSince = gateway.forgotten;
  };
  const repeat = path.begins ? path.flows : REPEAT;
  return async () =>
    gateway.inside(() => {
      warm();
      return {
        [name]: frames.time(program, { name, hook, ifindex, verdict, repeat }),
        [restored(name)]: frames.time(floor, { hook, ifindex, verdict: idle, repeat: REPEAT }),
      };
    });
}

/** Round by round without what the restoring of the header and the tail call to it take. */
function net(samples: Samples, { name, hook }: Pick<Path, "name" | "hook">): number[] {
  const floor = of(samples, alone(hook === "xdp" ? SEND : NEXT));
  return differences(of(samples, name), differences(of(samples, restored(name)), floor));
}

/** The same of the floors, which share their frames. */
function netFloor(samples: Samples, name: string): number[] {
  return differences(of(samples, name), restoring(samples));
}

function restoring(samples: Samples): number[] {
  return differences(of(samples, SEND), of(samples, alone(SEND)));
}

/** A path over another one of the same list, if both are there. */
interface Comparison {
  claim: string;
  path: string;
  base: string;
  goal: Goal;
}

function compare(sizes: readonly number[]): Comparison[] {
  const wide = ["not ours", "established, 1 flow", "established, 64k flows", "new flow"];
  return [
    ...wide.map((name) => ({
      claim: `${name}: IPv6 over IPv4`,
      path: `${name}, IPv6`,
      base: name,
      goal: { atMost: 1.15 },
    })),
    ...sizes.flatMap((size) => [
      {
        claim: `established, 64k flows: ${size} over ${SERVICES} services`,
        path: `established, 64k flows, ${size} services`,
        base: "established, 64k flows",
        goal: { atMost: 1.15 },
      },
      {
        claim: `new flow: ${size} over ${SERVICES} services`,
        path: `new flow, ${size} services`,
        base: "new flow",
        goal: { atMost: 1.5 },
      },
    ]),
  ];
}

function readFigures(samples: Samples, paths: readonly Path[], sizes: readonly number[]): Figure[] {
  const floor = netFloor(samples, FLOOR);
  const times = (wanted: string) =>
    net(samples, paths.find(({ name }) => name === wanted) ?? { name: wanted, hook: "xdp" });
  const over = paths.flatMap((path) => {
    const { name, goal, hook, isAdded } = path;
    const time = net(samples, path);
    if (!isAdded)
      return hook === "xdp"
        ? [figure(`${name}: over ${FLOOR}`, { values: ratios(time, floor), unit: "×", goal })]
        : [];
    const added = differences(time, of(samples, alone(NEXT)));
    return [
      figure(`${name}: added to a program that does nothing`, { values: added, unit: "ns", goal }),
    ];
  });
  const compared = compare(sizes).map(({ claim, path, base, goal }) =>
    figure(claim, { values: ratios(times(path), times(base)), unit: "×", goal }),
  );
  const isHeld = ({ goal }: Figure) => (goal ? 0 : 1);
  return [
    ...[...over, ...compared].sort((a, b) => isHeld(a) - isHeld(b)),
    ...paths.map((path) => figure(path.name, { values: net(samples, path), unit: "ns" })),
    ...[FLOOR, SEND, "pass"].map((name) =>
      figure(name, { values: netFloor(samples, name), unit: "ns" }),
    ),
    figure(NEXT, { values: of(samples, alone(NEXT)), unit: "ns" }),
    figure("restoring a header, which is in no other figure", {
      values: restoring(samples),
      unit: "ns",
    }),
  ];
}

function draw(samples: Samples, paths: readonly Path[]): Plot {
  const bar = (name: string, values: readonly number[]) => ({
    name,
    points: [[0, median(values)] as const],
  });
  return {
    name: "packet",
    title: "Time of a packet in XDP, by BPF_PROG_TEST_RUN",
    unit: "ns",
    kind: "bars",
    series: [
      bar(FLOOR, netFloor(samples, FLOOR)),
      ...paths.filter(({ isDrawn }) => isDrawn).map((path) => bar(path.name, net(samples, path))),
    ],
  };
}

/** Maps of several sizes on one node; by default as large as an agent makes them. */
function makeGateways(lab: Lab, sizes: readonly number[], { quick, progress }: Context) {
  const node = lab.nodes.node!;
  const make = (name: string, services: number, capacities: Capacities = {}) => {
    progress(`${services} services`);
    const wide = services === SERVICES;
    const rows = [...makeVips({ services, pod: node.pods.pod!.addresses.ipv4, wide })];
    const wanted = { rows, addresses: addressesOf(rows), capacities };
    return { services, gateway: new Gateway(node, { name, ...wanted }) };
  };
  return {
    few: make("few", SERVICES),
    small: make("small", SERVICES, SMALL),
    more: sizes.map((size) => make(`more-${size}`, size, roomFor(size))),
    full: quick ? undefined : make("full", SERVICES),
    large: quick ? undefined : { ...make("large", SERVICES, LARGE), flows: LARGE_FLOWS },
  };
}

async function measure(lab: Lab, context: Context): Promise<Measured> {
  const sizes = context.quick ? MORE.quick : MORE.usual;
  await knowRouter(lab.nodes.node!);
  const { few, small, more, full, large } = makeGateways(lab, sizes, context);
  const frames = new Frames({ fields: FIELDS });
  const gateways = [few, small, ...more, full, large].flatMap((one) => one?.gateway ?? []);
  let paths: Path[] = [];
  try {
    context.progress("loading programs");
    paths = makePaths({
      few,
      small,
      more,
      full,
      large,
      pod: lab.nodes.node!.pods.pod!.addresses.ipv4,
    });
    const cases = [...makeFloors(frames), ...paths.map(makeCase)];
    const samples = await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
    const notes = [
      `By the kernel's own clock, the mean of ${REPEAT} runs, of ${TRIES} such series the ` +
        "quickest. What the kernel takes to run a program at all is in the figures of " +
        "all programs.",
      `${SERVICES} services × 10 endpoints on other nodes unless said otherwise, asked at their ` +
        "load balancer addresses: destination and source are rewritten. New flows find free " +
        "places, as the agent's sweep keeps them, but where they take another's. They are 64k a " +
        "series, with affinity 16k, since a node has no more ports to one endpoint, and in " +
        "caches 512 of one Service in a table of half a MiB: what is left is the work, without " +
        "waiting for memory.",
      ...(isJited() ? [] : ["The programs are interpreted here: net.core.bpf_jit_enable is 0."]),
    ];
    const figures = readFigures(samples, paths, sizes);
    return { figures, samples, notes, plots: [draw(samples, paths)] };
  } finally {
    for (const path of paths) path.frames.close();
    for (const gateway of gateways) gateway.close();
    frames.close();
  }
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "packet", topology: { node: ["pod"] } });
  try {
    return await measure(lab, context);
  } finally {
    await lab.close();
  }
}

export const packet: Bench = {
  name: "packet",
  claim: "A packet costs little more than its parsing",
  goal:
    "over a program that parses and sends back: not ours ≤ 2 ×, established ≤ 6 × with one flow " +
    "and ≤ 20 × with 64k, new ≤ 25 ×; IPv6 within 1.15 × of IPv4; 20,000 services within 1.15 × " +
    "of 1,000, and 1.5 × for new flows; not ours at TC egress ≤ 25 ns",
  run,
};
