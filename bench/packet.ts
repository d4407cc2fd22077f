// What a program of the packet path costs a packet, in nanoseconds of BPF_PROG_TEST_RUN, over the
// floors of any such program. The header is whole again before each run, of each flow in turn. The
// programs of the packet path join in PATHS, each with the frame that takes that path.
import type { Program } from "../bindings/object.ts";
import type { Bench, Context, Figure, Goal, Measured } from "./bench.ts";
import type { FrameFields } from "./frame.ts";
import { Frames, isJited, VERDICTS } from "./frames.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { differences, ratios } from "./statistics.ts";

const ROUNDS = 15;
const TRIES = 6;
/** A run of a few milliseconds. */
const REPEAT = 100_000;

const FIELDS: FrameFields = {
  destinationMac: "02:00:00:00:00:02",
  sourceMac: "02:00:00:00:00:01",
  source: "203.0.113.10",
  destination: "10.96.0.1",
  protocol: "TCP",
  sourcePort: 40_000,
  destinationPort: 80,
};

/** A way through a program. */
interface Path {
  name: string;
  program: Pick<Program, "fd" | "name">;
  /** Of whose flows the frames are. */
  frames: Frames;
  verdict: keyof typeof VERDICTS;
  /** Of the time over that of the program that only parses and sends back. */
  goal?: Goal;
}

const SEND = "send back";
/** What all others are compared with. */
const FLOOR = "parse and send back";
/** The program that needs no restoring, run alone: shows what the restoring costs the others. */
const ALONE = "send back, alone";

function makePaths(frames: Frames): Path[] {
  return [
    { name: SEND, program: frames.program("tx"), frames, verdict: "tx" },
    { name: FLOOR, program: frames.program("parse_tx"), frames, verdict: "tx" },
    { name: "pass", program: frames.program("pass"), frames, verdict: "pass" },
  ];
}

function makeCase({ name, program, frames, verdict }: Path): Case {
  return async () => ({
    [name]: frames.time(program, { repeat: REPEAT, verdict: VERDICTS[verdict] }),
  });
}

/** Round by round without what the restoring of the header and the tail call to it take. */
function net(samples: Samples, name: string): number[] {
  const restoring = differences(of(samples, SEND), of(samples, ALONE));
  return differences(of(samples, name), restoring);
}

function readFigures(samples: Samples, paths: readonly Path[]): Figure[] {
  const restoring = differences(of(samples, SEND), of(samples, ALONE));
  return [
    ...paths.flatMap(({ name, goal }) => {
      const time = figure(name, { values: net(samples, name), unit: "ns" });
      if (name === FLOOR) return [time];
      const values = ratios(net(samples, name), net(samples, FLOOR));
      return [figure(`${name}: over ${FLOOR}`, { values, unit: "×", goal }), time];
    }),
    figure("restoring a header, which is in no other figure", { values: restoring, unit: "ns" }),
  ];
}

async function run(context: Context): Promise<Measured> {
  const frames = new Frames({ fields: FIELDS });
  try {
    const paths = makePaths(frames);
    const cases: Case[] = [
      async () => ({ [ALONE]: frames.timeAlone("tx", { repeat: REPEAT }) }),
      ...paths.map(makeCase),
    ];
    const samples = await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
    const notes = [
      "By the kernel's own clock, the mean of 100,000 runs, of six such series the quickest. What " +
        "the kernel takes to run a program at all is in the figures of all programs.",
      ...(isJited() ? [] : ["The programs are interpreted here: net.core.bpf_jit_enable is 0."]),
    ];
    return { figures: readFigures(samples, paths), samples, notes };
  } finally {
    frames.close();
  }
}

export const packet: Bench = {
  name: "packet",
  claim: "A packet costs little more than its parsing",
  goal: "none yet: the floors of any program, which the packet path will be held against",
  run,
};
