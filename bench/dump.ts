// How long `bpfsvc dump` takes, as a whole command: of a usual node, and of 100,000 endpoints
// beside what bpftool takes for the map that they lie in.
import { Lab, type LabNode } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { BPFSVC, timeCommand } from "./commands.ts";
import { Programmed } from "./programmed.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { alternating, makeRows } from "./services.ts";
import { ratios } from "./statistics.ts";

const ENDPOINTS = 10;
const USUAL = 1000;
const MANY = { usual: 10_000, quick: 2000 } as const;
const ROUNDS = 11;

async function hasBpftool(node: LabNode): Promise<boolean> {
  return (await node.run(["sh", "-c", "command -v bpftool"])).code === 0;
}

function makeCases(
  node: LabNode,
  { usual, many, bpftool }: { usual: Programmed; many: Programmed; bpftool: boolean },
): Case[] {
  const timed =
    (name: string, ...command: string[]): Case =>
    async () => {
      const { wallMs, cpuMs } = await timeCommand(node, command);
      return { [`${name} wall`]: wallMs, [`${name} cpu`]: cpuMs };
    };
  const dumpOf = ({ pins }: Programmed) => [...BPFSVC, "dump", "--pins", pins.folder];
  const map = many.pins.mapPath("svc_backends");
  return [
    timed("node", process.execPath, "-e", "0"),
    timed("usual", ...dumpOf(usual)),
    timed("table", ...dumpOf(many)),
    timed("json", ...dumpOf(many), "-o", "json"),
    ...(bpftool ? [timed("bpftool", "bpftool", "map", "dump", "pinned", map)] : []),
  ];
}

function readFigures(
  samples: Samples,
  { bpftool, services }: { bpftool: boolean; services: number },
): Figure[] {
  // Of fewer rows the start of Node is most of it.
  const most = services === MANY.usual ? 1.2 : undefined;
  const rows = services * ENDPOINTS;
  const wall = (claim: string, name: string, atMost?: number) =>
    figure(claim, {
      values: of(samples, `${name} wall`),
      unit: "ms",
      ...(atMost === undefined ? {} : { goal: { atMost } }),
    });
  const over = (claim: string, name: string, clock: string, atMost?: number) =>
    figure(claim, {
      values: ratios(of(samples, `${name} ${clock}`), of(samples, `bpftool ${clock}`)),
      unit: "×",
      ...(atMost === undefined ? {} : { goal: { atMost } }),
    });
  const compared = [
    over(`${rows} endpoints, wall time over bpftool's`, "table", "wall", most),
    over("the same as JSON, wall time over bpftool's", "json", "wall", most),
    over(`${rows} endpoints, CPU time over bpftool's`, "table", "cpu"),
    wall(`bpftool map dump of svc_backends with ${rows} rows`, "bpftool"),
  ];
  return [
    wall("dump of 1,000 Services × 10 endpoints", "usual", 250),
    ...(bpftool ? compared : []),
    wall(`dump of ${services} Services × ${ENDPOINTS} endpoints`, "table"),
    wall("the same as JSON", "json"),
    wall("Node alone, starting and ending", "node"),
  ];
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "dump", topology: { node: [] } });
  try {
    const node = lab.nodes.node!;
    const bpftool = await hasBpftool(node);
    const shape = { endpoints: ENDPOINTS, protocolOf: alternating };
    const services = context.quick ? MANY.quick : MANY.usual;
    context.progress(`programming ${USUAL} and ${services} Services × ${ENDPOINTS} endpoints`);
    const usual = Programmed.create(`${node.pins}/usual`, {
      rows: makeRows({ ...shape, services: USUAL }),
    });
    // The map is as large as what is in it: bpftool prints unused elements too.
    const many = Programmed.create(`${node.pins}/many`, {
      rows: makeRows({ ...shape, services }),
      capacities: { svc_backends: services * ENDPOINTS },
    });
    const cases = makeCases(node, { usual, many, bpftool });
    const samples = await interleave(cases, { usual: ROUNDS, context });
    const absent = "bpftool is absent (Debian package bpftool): nothing is compared with it.";
    return {
      figures: readFigures(samples, { bpftool, services }),
      samples,
      notes: bpftool ? [] : [absent],
    };
  } finally {
    await lab.close();
  }
}

export const dump: Bench = {
  name: "dump",
  claim: "Seeing what the kernel holds takes no longer than with the kernel's own tool",
  goal: "1,000 Services × 10 endpoints within 250 ms; 100,000 rows within 1.2 × of bpftool's time",
  run,
};
