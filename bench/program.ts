// What the kernel makes of the programs of this build: instructions, bytes of machine code, and
// what the verifier had to do, by program. Counted, not timed: equal on every run of one kernel.
import { readdirSync } from "node:fs";
import path from "node:path";
import { BpfObject } from "../bindings/object.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { figure, keep, of, type Samples } from "./rounds.ts";
import { parseVerifierStatistics } from "./verifier.ts";

const OBJECTS = path.resolve(import.meta.dirname, "../../dist");
/** The verifier gives up at a million; a third leaves room for other kernels' ways. */
const MOST_VERIFIED = 333_333;
const INSTRUCTION_BYTES = 8;

/** Loads an object and reads its programs; returns what they are called in the samples. */
function readObject(file: string, samples: Samples): string[] {
  const object = BpfObject.open(path.join(OBJECTS, file));
  try {
    const statistics = object.loadWithStatistics();
    return object.programs().map((program) => {
      const { xlatedBytes, jitedBytes } = program.info();
      const { instructions, states } = parseVerifierStatistics(statistics.get(program.name)!);
      const name = `${file.replace(".bpf.o", "")} ${program.name.replace("svc_", "")}`;
      keep(samples, {
        [`${name} instructions`]: xlatedBytes / INSTRUCTION_BYTES,
        [`${name} jited`]: jitedBytes,
        [`${name} verified`]: instructions,
        [`${name} states`]: states,
      });
      return name;
    });
  } finally {
    object.close();
  }
}

function readFigures(samples: Samples, names: readonly string[]): Figure[] {
  const row = (claim: string, name: string, unit: string) =>
    figure(claim, { values: of(samples, name), unit });
  return names.flatMap((name) => [
    {
      ...row(
        `${name}: instructions that the verifier followed`,
        `${name} verified`,
        "instructions",
      ),
      goal: { atMost: MOST_VERIFIED },
    },
    row(`${name}: states of the verifier`, `${name} states`, "states"),
    row(`${name}: size after the verifier`, `${name} instructions`, "instructions"),
    row(`${name}: machine code`, `${name} jited`, "bytes"),
  ]);
}

async function run(context: Context): Promise<Measured> {
  const samples: Samples = {};
  const files = readdirSync(OBJECTS).filter((file) => file.endsWith(".bpf.o"));
  const names = files.flatMap((file) => {
    context.progress(file);
    return readObject(file, samples);
  });
  const notes = ["The kernel's own count, of the programs as dist/ has them, unconfigured."];
  return { figures: readFigures(samples, names), samples, notes };
}

export const program: Bench = {
  name: "program",
  claim: "The programs are small, and no kernel's verifier comes near its limit",
  goal: "each verified within a third of the million instructions that the verifier follows",
  run,
};
