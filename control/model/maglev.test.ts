// Properties of the tables that operators rely on: even, stable, the same everywhere.
import test from "ava";
import fc from "fast-check";
import { type MaglevBackend, maglevLength, maglevTable } from "./maglev.ts";

function makeBackends(count: number): MaglevBackend[] {
  return Array.from({ length: count }, (_, index) => ({
    address: `10.244.${index >> 8}.${index & 255}`,
    port: 8080,
    weight: 1,
  }));
}

function slotsEach(table: Uint32Array, count: number): number[] {
  const slots = new Array<number>(count).fill(0);
  for (const member of table) slots[member]!++;
  return slots;
}

test("lengths are the ladder's primes and give 100 slots a backend up to 655", (t) => {
  const lengths = Array.from({ length: 2001 }, (_, count) => maglevLength(count));
  t.deepEqual([...new Set(lengths)], [0, 251, 1021, 4093, 16381, 65537]);
  for (let count = 1; count <= 655; count++) t.true(maglevLength(count) >= 100 * count, `${count}`);
});

for (const count of [1, 2, 3, 10, 11, 40, 41, 160, 161, 655, 1000]) {
  test(`${count} backends of one weight differ by few slots`, (t) => {
    const length = maglevLength(count);
    const slots = slotsEach(maglevTable(makeBackends(count), length), count);
    t.is(
      slots.reduce((sum, each) => sum + each, 0),
      length,
    );
    t.true(Math.max(...slots) - Math.min(...slots) <= 1);
  });
}

test("the order of the backends does not matter", (t) => {
  const backends = makeBackends(24);
  const expected = maglevTable(backends, 1021);
  fc.assert(
    fc.property(
      fc.shuffledSubarray(backends, { minLength: backends.length }),
      (shuffled: MaglevBackend[]) => {
        const table = maglevTable(shuffled, 1021);
        for (const [slot, member] of table.entries()) {
          t.is(shuffled[member], backends[expected[slot]!]);
        }
      },
    ),
    { numRuns: 20 },
  );
});

test("removing one backend moves few slots of the others", (t) => {
  fc.assert(
    fc.property(fc.integer({ min: 3, max: 40 }), fc.nat(), (count, which) => {
      const backends = makeBackends(count);
      const gone = backends[which % count];
      const left = backends.filter((backend) => backend !== gone);
      const before = maglevTable(backends, 4093);
      const after = maglevTable(left, 4093);
      let moved = 0;
      for (const [slot, member] of before.entries()) {
        if (backends[member] !== gone && backends[member] !== left[after[slot]!]) moved++;
      }
      return moved < 0.06 * 4093;
    }),
    { numRuns: 60 },
  );
  t.pass();
});

test("weights set the shares", (t) => {
  const weights = [1, 2, 5, 100, 1000];
  const backends = makeBackends(5).map((backend, at) => ({ ...backend, weight: weights[at]! }));
  const slots = slotsEach(maglevTable(backends, 65537), 5);
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  for (const [at, each] of slots.entries()) {
    const fair = (65537 * weights[at]!) / total;
    t.true(Math.abs(each - fair) <= 2, `${each} of ${fair}`);
  }
});

test("ports and addresses of either family spread, whatever they have in common", (t) => {
  const ports = Array.from({ length: 10 }, (_, index) => index + 8000);
  const same = ports.map((port) => ({ address: "fd00:10:244::1", port, weight: 1 }));
  const table = maglevTable(same, 1021);
  const firsts = new Set(ports.map((_, member) => table.indexOf(member)));
  t.is(firsts.size, 10);
  let runs = 0;
  for (let slot = 1; slot < table.length; slot++) if (table[slot] === table[slot - 1]) runs++;
  t.true(runs < 0.2 * table.length, `${runs} slots continue their neighbour's backend`);
});

test("without backends there is no table", (t) => {
  t.is(maglevTable([], 0).length, 0);
  t.is(maglevTable([], 251).length, 0);
});
