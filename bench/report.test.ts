import test from "ava";
import type { Bench, Measured } from "./bench.ts";
import { formatMeasured, formatNumber, toEntries } from "./report.ts";

const bench: Bench = {
  name: "speed",
  claim: "It is fast",
  goal: "at most 40 ns",
  run: () => Promise.resolve(measured),
};
const measured: Measured = {
  figures: [
    { claim: "in time", value: 31.23, spread: [30, 33], unit: "ns", goal: { atMost: 40 } },
    { claim: "too slow", value: 0.9, spread: [0.8, 1], unit: "×", goal: { atLeast: 0.97 } },
    { claim: "for comparison", value: 12345.6, spread: [12000, 13000], unit: "ns" },
  ],
  samples: {},
  notes: ["The machine was busy."],
};

test("a table shows each figure with its quartiles, its goal and whether it holds", (t) => {
  t.is(
    formatMeasured(bench, measured),
    `speed: It is fast
goal: at most 40 ns

FIGURE          MEDIAN  UNIT  QUARTILES      GOAL
in time           31.2  ns    30 … 33        ≤ 40    holds
too slow           0.9  ×     0.8 … 1        ≥ 0.97  MISSED
for comparison   12346  ns    12000 … 13000
note: The machine was busy.
`,
  );
});

test("an entry names the command that measures it again, and null stands for no goal", (t) => {
  t.deepEqual(toEntries(bench, measured)[0], {
    claim: "speed: in time",
    value: 31.23,
    unit: "ns",
    goal: "≤ 40",
    holds: true,
    command: "npm run bench speed",
  });
  t.is(toEntries(bench, measured)[1]?.holds, false);
  t.like(toEntries(bench, measured)[2], { goal: null, holds: null });
});

test("numbers have three significant digits, whole ones all", (t) => {
  t.deepEqual([0.01234, 1.234, -12.34, 123.4, 1234567].map(formatNumber), [
    "0.0123",
    "1.23",
    "-12.3",
    "123",
    "1234567",
  ]);
});
