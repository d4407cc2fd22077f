// The page and its pictures: what they say, and that those in docs/ are what is made of the runs
// kept beside them.
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";
import type { Plot } from "../bench.ts";
import { BENCHES } from "../benches.ts";
import { readResult } from "../result.ts";
import { type Kept, writeDocument } from "./document.ts";
import { drawPlot, spread } from "./svg.ts";

const docs = path.resolve(import.meta.dirname, "../../../docs");
const kept = path.join(docs, "benchmarks");

const lines: Plot = {
  name: "speed",
  title: 'Connects & "questions"',
  unit: "per second",
  kind: "lines",
  over: "Services",
  series: [
    {
      name: "bpfsvc",
      points: [
        [10, 20_000],
        [1000, 19_900],
      ],
    },
    {
      name: "iptables",
      points: [
        [10, 15_000],
        [1000, 14_000],
      ],
    },
  ],
};

const run: Kept = {
  bench: "speed",
  claim: "It is fast",
  goal: "at most 40 ns",
  time: "2026-01-02T03:04:05.000Z",
  seconds: 12,
  quick: false,
  machine: {
    cpu: "A CPU",
    cpus: 2,
    memoryBytes: 4 * 1024 ** 3,
    kernel: "6.18",
    node: "v20",
    clang: "14",
    commit: "abc",
    load: 0.5,
  },
  figures: [
    { claim: "a | b", value: 31.2, spread: [30, 33], unit: "ns", goal: { atMost: 40 } },
    { claim: "slow", value: 0.5, spread: [0.4, 0.6], unit: "×", goal: { atLeast: 1 } },
    { claim: "shown", value: 1234, spread: [1200, 1300], unit: "ns" },
  ],
  notes: ["The machine was busy."],
  plots: [lines],
};

test("a page has every figure, what is missed, the command, the machine and the pictures", (t) => {
  const page = writeDocument([run]);
  for (const part of [
    "| a \\| b | 31.2 ns | 30 … 33 | ≤ 40 holds |",
    "| slow | 0.5 × | 0.4 … 0.6 | ≥ 1 **missed** |",
    "| shown | 1234 ns | 1200 … 1300 |  |",
    "| [speed](#speed): slow | 0.5 × | 0.4 … 0.6 | ≥ 1 **missed** |",
    "`npm run bench speed`",
    '![Connects & "questions"](benchmarks/speed.svg)',
    "> The machine was busy.",
    "2026-01-02, 12 s on A CPU, 2 CPUs, 4 GiB; Linux 6.18",
  ])
    t.true(page.includes(part), part);
});

test("a picture names and draws every series, inside its frame, and is well-formed", (t) => {
  const bars: Plot = { ...lines, kind: "bars" };
  for (const plot of [lines, bars]) {
    const picture = drawPlot(plot);
    t.true(picture.includes("Connects &#38; &#34;questions&#34;"));
    for (const { name } of plot.series) t.true(picture.includes(`>${name}`), name);
    t.notRegex(picture, /NaN|Infinity|undefined/);
    for (const [, value] of picture.matchAll(/ (?:x|cx|x1|x2)="([^"]+)"/g))
      t.true(Number(value) >= 0 && Number(value) <= 720, value);
    const [opened, closed] = [/<(text|svg|title|style)\b/g, /<\/(text|svg|title|style)>/g].map(
      (pattern) => [...picture.matchAll(pattern)].length,
    );
    t.is(opened, closed);
  }
});

test("values far apart are drawn on a logarithmic scale", (t) => {
  const wide: Plot = {
    ...lines,
    series: [
      {
        name: "one",
        points: [
          [10, 1],
          [1000, 5000],
        ],
      },
    ],
  };
  const picture = drawPlot(wide);
  for (const tick of ["1", "10", "100", "1,000", "10,000"])
    t.true(picture.includes(`text-anchor="end">${tick}</text>`), tick);
});

test("labels that would lie on each other move apart, the others stay", (t) => {
  t.deepEqual(spread([100, 102, 200], 16), [100, 116, 200]);
  t.deepEqual(spread([102, 100], 16), [116, 100]);
});

test("docs/benchmarks.md and its pictures are what is made of the runs kept beside it", (t) => {
  const runs = BENCHES.map(({ name }) => path.join(kept, `${name}.json`))
    .filter(existsSync)
    .map(readResult);
  const again = "run npm run bench:report";
  t.is(readFileSync(path.join(docs, "benchmarks.md"), "utf8"), writeDocument(runs), again);
  const plots = runs.flatMap(({ plots = [] }) => plots);
  for (const plot of plots)
    t.is(readFileSync(path.join(kept, `${plot.name}.svg`), "utf8"), drawPlot(plot), again);
  const pictures = readdirSync(kept).filter((file) => file.endsWith(".svg"));
  t.deepEqual(pictures.sort(), plots.map(({ name }) => `${name}.svg`).sort());
});
