import test from "ava";
import type { Figure } from "./bench.ts";
import { type Change, compareRuns, formatComparison } from "./compare.ts";
import type { Result } from "./result.ts";

const machine = {
  cpu: "one",
  cpus: 2,
  memoryBytes: 1,
  kernel: "6.18",
  node: "v20",
  clang: "14",
  commit: "abc",
  load: 0,
};

function result(figures: readonly Figure[], other: Partial<Result> = {}): Result {
  const head = { bench: "speed", claim: "", goal: "", time: "2026-01-01T00:00:00.000Z" };
  const rest = { seconds: 1, quick: false, machine, samples: {}, notes: [] };
  return { ...head, ...rest, figures: [...figures], ...other };
}

function figure(claim: string, values: readonly [number, number, number], goal?: Figure["goal"]) {
  const [low, value, high] = values;
  const base: Figure = { claim, value, spread: [low, high], unit: "ns" };
  return goal ? { ...base, goal } : base;
}

const cases: readonly {
  title: string;
  before: readonly [number, number, number];
  now: readonly [number, number, number];
  goal?: Figure["goal"];
  change: Change;
}[] = [
  {
    title: "medians whose quartiles overlap are the same, however far apart",
    before: [10, 20, 30],
    now: [29, 40, 50],
    goal: { atMost: 10 },
    change: "same",
  },
  {
    title: "less is better where there is a most",
    before: [29, 30, 31],
    now: [9, 10, 11],
    goal: { atMost: 40 },
    change: "better",
  },
  {
    title: "less is worse where there is a least",
    before: [29, 30, 31],
    now: [9, 10, 11],
    goal: { atLeast: 5 },
    change: "worse",
  },
  {
    title: "without a goal nobody knows which way is good",
    before: [29, 30, 31],
    now: [9, 10, 11],
    change: "differs",
  },
];

for (const { title, before, now, goal, change } of cases)
  test(title, (t) => {
    const earlier = result([figure("one", before, goal)]);
    const [row] = compareRuns(earlier, result([figure("one", now, goal)])).rows;
    t.is(row?.change, change);
  });

test("figures that only one run has are new or gone", (t) => {
  const earlier = result([figure("old", [1, 2, 3])]);
  const { rows } = compareRuns(earlier, result([figure("fresh", [1, 2, 3])]));
  t.deepEqual(
    rows.map(({ claim, change }) => [claim, change]),
    [
      ["fresh", "new"],
      ["old", "gone"],
    ],
  );
});

test("runs on other kernels, and quick ones beside full ones, are told apart", (t) => {
  const earlier = result([], { machine: { ...machine, kernel: "6.1" }, quick: true });
  t.deepEqual(compareRuns(earlier, result([])).unlike, [
    "kernel: 6.1, now 6.18",
    "the earlier run was quick",
  ]);
});

test("a comparison shows both values, their ratio and what became of them", (t) => {
  const goal = { atMost: 40 };
  const earlier = result([figure("one", [29, 30, 31], goal), figure("gone", [1, 1, 1])]);
  t.is(
    formatComparison(compareRuns(earlier, result([figure("one", [14, 15, 16], goal)]))),
    `speed, compared with 2026-01-01T00:00:00.000Z
FIGURE  BEFORE  NOW  UNIT  RATIO
one         30   15  ns      0.5  better
gone         1    -  ns        -  gone
`,
  );
});
