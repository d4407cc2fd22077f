import test from "ava";
import { formatMeasured, formatNumber, formatTable, toEntries } from "./report.ts";

const measured = {
  bench: "speed",
  claim: "It is fast",
  goal: "at most 40 ns",
  figures: [
    { claim: "in time", value: 31.23, spread: [30, 33], unit: "ns", goal: { atMost: 40 } },
    { claim: "too slow", value: 0.9, spread: [0.8, 1], unit: "×", goal: { atLeast: 0.97 } },
    { claim: "for comparison", value: 12345.6, spread: [12000, 13000], unit: "ns" },
  ],
  notes: ["The machine was busy."],
} as const;

test("a table shows each figure with its quartiles, its goal and whether it holds", (t) => {
  t.is(
    formatMeasured({ ...measured, figures: [...measured.figures], notes: [...measured.notes] }),
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

const entries = toEntries({ bench: "speed", figures: [...measured.figures] });

test("an entry names the command that measures it again, and null stands for no goal", (t) => {
  t.deepEqual(entries[0], {
    claim: "speed: in time",
    value: 31.23,
    unit: "ns",
    goal: "≤ 40",
    holds: true,
    command: "npm run bench speed",
  });
  t.is(entries[1]?.holds, false);
  t.like(entries[2], { goal: null, holds: null });
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

test("columns of numbers are aligned to the right, the last one leaves no blanks", (t) => {
  const rows = [
    ["a", "1", ""],
    ["bcd", "234", "x"],
  ];
  t.deepEqual(formatTable(["NAME", "N", ""], rows, { numbers: [1] }), [
    "NAME    N",
    "a       1",
    "bcd   234  x",
  ]);
});
