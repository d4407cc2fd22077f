import test from "ava";
import fc from "fast-check";
import { differences, median, quantile, quartiles, ratios } from "./statistics.ts";

test("a median lies in the middle, between the two middle ones of an even number", (t) => {
  t.is(median([3, 1, 2]), 2);
  t.is(median([4, 1, 3, 2]), 2.5);
  t.is(median([7]), 7);
});

test("quartiles are interpolated", (t) => {
  t.deepEqual(quartiles([1, 2, 3, 4, 5]), [2, 4]);
  t.deepEqual(quartiles([1, 2, 3, 4]), [1.75, 3.25]);
});

test("a quantile lies within the samples, grows with its share and changes no sample", (t) => {
  const samples = fc.array(fc.double({ noNaN: true, min: -1e9, max: 1e9 }), { minLength: 1 });
  const share = fc.double({ noNaN: true, min: 0, max: 1 });
  fc.assert(
    fc.property(samples, share, share, (values, one, other) => {
      const before = [...values];
      const low = quantile(values, Math.min(one, other));
      const high = quantile(values, Math.max(one, other));
      t.true(low <= high + 1e-6);
      t.true(low >= Math.min(...values) - 1e-6 && high <= Math.max(...values) + 1e-6);
      t.deepEqual(values, before);
    }),
  );
});

test("a machine that drifts alike under both cases does not show in their differences", (t) => {
  const drift = [0, 100, 5, 1000];
  const base = drift.map((more) => 50 + more);
  t.deepEqual(
    differences(
      drift.map((more) => 57 + more),
      base,
    ),
    [7, 7, 7, 7],
  );
  t.deepEqual(
    ratios(
      base.map((value) => value * 2),
      base,
    ),
    [2, 2, 2, 2],
  );
});

test("no samples, and samples of different rounds, are refused", (t) => {
  t.throws(() => median([]), { instanceOf: RangeError });
  t.throws(() => differences([1], [1, 2]), { instanceOf: RangeError });
});
