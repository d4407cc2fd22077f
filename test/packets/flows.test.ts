// The flow table. On two CPUs at once: whatever is looked up is whole and the asker's own, both
// halves of a connection are there or none, and no two connections have the same replies; and the
// proof that this test notices: each protection taken out makes it fail.
import test from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { type Race, type RaceCounts, Racecourse, SETS } from "./race.ts";

const labTest = needsLab(test.serial);

let course: Racecourse;

test.before(() => {
  if (whyNoLab() === undefined) course = new Racecourse();
});

test.after.always(() => course?.close());

/** More connections than fit, all of which share a set: places change hands all the time. */
const CROWDED = { clients: 48, sets: 1 };
/** Room for all, which all want the same port. */
const ALIKE = { clients: 64, sets: SETS, samePort: true, isAmple: true };

const VIOLATIONS = ["torn", "stranger", "half", "shared"] as const;
const violations = (counts: RaceCounts) => VIOLATIONS.reduce((sum, name) => sum + counts[name], 0);

labTest("connections that take each other's places are read whole", async (t) => {
  const counts = await course.run({ ...CROWDED, seconds: 3 });
  t.log(JSON.stringify(counts));
  t.is(violations(counts), 0);
  t.true(counts.found > 100_000 && counts.inserted > 100_000 && counts.ended > 1000);
});

labTest(
  "connections that want the same port appear whole, each with replies of its own",
  async (t) => {
    const counts = await course.run({ ...ALIKE, seconds: 3 });
    t.log(JSON.stringify(counts));
    t.is(violations(counts), 0);
    t.true(counts.portChanged > 10_000 && counts.ended > 10_000);
  },
);

const SLOW = { ...CROWDED, pauseNs: 2000 };

labTest("reads and writes that dawdle are whole", async (t) => {
  const counts = await course.run({ ...SLOW, seconds: 2 });
  t.log(JSON.stringify(counts));
  t.is(violations(counts), 0);
  t.true(counts.found > 10_000 && counts.inserted > 10_000);
});

/** What is taken out, and the violation that comes of it. */
const MUTANTS: readonly (Omit<Race, "seconds"> & {
  title: string;
  missed: (typeof VIOLATIONS)[number];
})[] = [
  {
    title: "without reading the lock again flows are torn",
    ...SLOW,
    without: "recheck",
    missed: "torn",
  },
  {
    title: "without marking a place as busy flows are torn",
    ...SLOW,
    without: "busy",
    missed: "torn",
  },
  {
    title: "without comparing the whole tuple flows are a stranger's",
    ...CROWDED,
    without: "whole",
    missed: "stranger",
  },
  {
    title: "without looking whether it is alone a connection's replies are another one's",
    ...ALIKE,
    without: "alone",
    missed: "shared",
  },
];

for (const { title, missed, ...mutant } of MUTANTS)
  labTest(title, async (t) => {
    const counts = await course.run({ ...mutant, seconds: 30, until: (seen) => seen[missed] > 3 });
    t.log(JSON.stringify(counts));
    t.true(counts[missed] > 3);
  });
