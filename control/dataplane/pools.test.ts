import test from "ava";
import fc from "fast-check";
import { type Extent, Extents } from "./extents.ts";
import { Ids } from "./ids.ts";

test("ids are handed out once, up to the capacity, the longest unused first", (t) => {
  const ids = new Ids(3);
  t.deepEqual([ids.take(), ids.take(), ids.take(), ids.take()], [0, 1, 2, undefined]);
  ids.release(1);
  ids.release(0);
  t.deepEqual([ids.take(), ids.take(), ids.take()], [1, 0, undefined]);
});

test("ids found in a pinned map are not handed out until they are released", (t) => {
  const ids = new Ids(4);
  ids.reserve(0);
  ids.reserve(2);
  t.deepEqual([ids.take(), ids.take(), ids.take()], [1, 3, undefined]);
  ids.release(2);
  t.is(ids.take(), 2);
});

test("an id that is not in use cannot be released", (t) => {
  const ids = new Ids(2);
  t.throws(() => ids.release(0), { message: /Id 0 is released but not in use/ });
});

/** True if some slot belongs to two extents, or lies outside. */
function overlap(extents: readonly Extent[], capacity: number): boolean {
  const sorted = [...extents].sort((a, b) => a.offset - b.offset);
  return sorted.some(({ offset, length }, index) => {
    const next = sorted[index + 1];
    return offset + length > (next?.offset ?? capacity);
  });
}

test("extents never overlap, whatever is taken, released and restored", (t) => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("take" as const), length: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant("release" as const), which: fc.nat() }),
    fc.record({ kind: fc.constant("restore" as const) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 80 }), (steps) => {
      let pool = new Extents(128);
      const held: Extent[] = [];
      for (const each of steps) {
        if (each.kind === "take") {
          const offset = pool.take(each.length);
          if (offset !== undefined) held.push({ offset, length: each.length });
        } else if (each.kind === "release" && held.length > 0)
          pool.release(held.splice(each.which % held.length, 1)[0]!);
        else if (each.kind === "restore") {
          pool = new Extents(128);
          pool.restore(held);
        }
        t.false(overlap(held, 128));
      }
      for (const extent of held) pool.release(extent);
      t.is(pool.used, 0);
      t.is(pool.take(128), 0, "all that was released is one extent again");
    }),
  );
});

test("a pool that is full says so, and neighbours that were released are joined", (t) => {
  const pool = new Extents(16);
  const offsets = [pool.take(4), pool.take(4), pool.take(4), pool.take(4)];
  t.deepEqual(offsets, [0, 4, 8, 12]);
  t.is(pool.take(1), undefined);
  pool.release({ offset: 4, length: 4 });
  pool.release({ offset: 8, length: 4 });
  t.is(pool.take(8), 4);
});
