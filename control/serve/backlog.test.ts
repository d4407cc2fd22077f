// Since when something waits to be in the maps, family by family. What is told of it is compared
// with the vectors.
import test from "ava";
import { FakeClock } from "../fakeclock.ts";
import { Backlog, familiesOf } from "./backlog.ts";

function makeBacklog() {
  const clock = new FakeClock();
  const now = () => clock.now();
  const backlog = new Backlog({ now, epochMs: () => 1_000_000 + now() });
  /** How long each family waits, in seconds. */
  const waits = () => {
    const ms = Array.from(backlog.get().values(), ({ pendingMs }) => pendingMs);
    return ms.map((each) => each && each / 1000);
  };
  return { backlog, clock, waits };
}

for (const [key, families] of [
  ["shop/web:http/TCP/4", [4]],
  ["shop/web:/UDP/6", [6]],
  ["10.96.0.1", [4]],
  ["10.96.0.0/12", [4]],
  ["fd00:10:96::1", [6]],
  ["fd00:10:96::/112", [6]],
  ["service id 7", [4, 6]],
] as const)
  test(`what is pending as "${key}" is of IPv${families.join(" and IPv")}`, (t) => {
    t.deepEqual(familiesOf(key), families);
  });

test("what comes before the first sync is not late, and that sync is of both families", (t) => {
  const { backlog, clock, waits } = makeBacklog();
  backlog.queue([4, 6]);
  clock.pass(100_000);
  t.deepEqual(waits(), []);
  t.deepEqual(backlog.synced([]), [4, 6]);
  t.deepEqual(
    [...backlog.get()],
    [
      [4, { updatedMs: 1_100_000, pendingMs: undefined }],
      [6, { updatedMs: 1_100_000, pendingMs: undefined }],
    ],
  );
});

test("the oldest change counts, until a sync takes it; the other family is left alone", (t) => {
  const { backlog, clock, waits } = makeBacklog();
  backlog.synced([]);
  clock.pass(10_000);
  backlog.queue([4]);
  clock.pass(20_000);
  backlog.queue([4]);
  t.deepEqual(waits(), [20, undefined]);
  t.deepEqual(backlog.synced([]), [4]);
  t.deepEqual(waits(), [undefined, undefined]);
  t.deepEqual(
    Array.from(backlog.get().values(), ({ updatedMs }) => updatedMs),
    [1_030_000, 1_000_000],
  );
});

test("a row that could not be written waits on, whatever else is written meanwhile", (t) => {
  const { backlog, clock, waits } = makeBacklog();
  backlog.synced([]);
  clock.pass(10_000);
  backlog.queue([4]);
  backlog.synced(["shop/web:/TCP/4"]);
  clock.pass(30_000);
  backlog.queue([4, 6]);
  t.deepEqual(backlog.synced(["shop/web:/TCP/4", "shop/dns:/UDP/4"]), [4, 6]);
  clock.pass(5000);
  t.deepEqual(waits(), [35, undefined]);
  t.is(backlog.countRows(4), 2);
  backlog.synced(["shop/dns:/UDP/4"]);
  t.deepEqual(waits(), [5, undefined], "the older of the two is written");
  backlog.synced([]);
  t.deepEqual(waits(), [undefined, undefined]);
});

test("a fault that makes the maps useless counts for both families while it lasts", (t) => {
  const { backlog, clock, waits } = makeBacklog();
  backlog.synced([]);
  backlog.setFault("programs", true);
  clock.pass(7000);
  backlog.setFault("programs", true);
  t.deepEqual(waits(), [7, 7]);
  backlog.setFault("programs", false);
  t.deepEqual(waits(), [undefined, undefined]);
});
