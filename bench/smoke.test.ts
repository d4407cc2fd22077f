// That benches run: one tiny round of the ones that take no time. What they find is nobody's test.
import test from "ava";
import { needsLab } from "../lab/needs.ts";
import type { Bench, Context } from "./bench.ts";
import { BENCHES } from "./benches.ts";

const labTest = needsLab(test.serial);
const context: Context = {
  quick: true,
  rounds: () => 1,
  isLate: () => true,
  progress: () => {},
};

function named(name: string): Bench {
  return BENCHES.find((bench) => bench.name === name)!;
}

for (const name of ["packet", "program"])
  labTest(`the bench "${name}" runs, and every figure of it has a value`, async (t) => {
    const { figures } = await named(name).run(context);
    t.true(figures.length > 0);
    for (const { claim, value } of figures) t.true(Number.isFinite(value), claim);
  });

test("every bench has a name of its own, which is its file's", (t) => {
  const names = BENCHES.map(({ name }) => name);
  t.is(new Set(names).size, names.length);
  for (const name of names) t.regex(name, /^[a-z-]+$/);
});
