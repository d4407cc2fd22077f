// Since when something is not in the maps, by a clock of the test's own.
import test from "ava";
import { Backlog, familiesOf } from "./backlog.ts";

function makeBacklog() {
  const clock = { nowMs: 0 };
  const now = () => clock.nowMs;
  return { clock, backlog: new Backlog({ now, epochMs: now }) };
}

const ROW = "shop/web:http/TCP/4";

test("a row that cannot be written waits since its change came, not since it was tried", (t) => {
  const { clock, backlog } = makeBacklog();
  backlog.synced([]);
  backlog.queue([4]);
  clock.nowMs = 700;
  t.deepEqual(backlog.synced([ROW]), [4]);
  t.is(backlog.countRows(4), 1);
  clock.nowMs = 1000;
  t.is(backlog.get().get(4)?.pendingMs, 1000);
  t.is(backlog.get().get(6)?.pendingMs, undefined);
  t.deepEqual(backlog.synced([ROW]), [4], "a try in vain changes nothing");
  t.is(backlog.get().get(4)?.pendingMs, 1000);
  t.deepEqual(backlog.synced([]), [4]);
  t.deepEqual(backlog.get().get(4), { updatedMs: 1000, pendingMs: undefined });
});

test("what comes before the first update is not late", (t) => {
  const { clock, backlog } = makeBacklog();
  backlog.queue([4]);
  clock.nowMs = 5000;
  t.deepEqual(backlog.synced([]), [4, 6]);
  t.is(backlog.get().get(4)?.pendingMs, undefined);
});

for (const { key, families } of [
  { key: ROW, families: [4] },
  { key: "shop/web:/UDP/6", families: [6] },
  { key: "10.96.0.0/16", families: [4] },
  { key: "fd00:10:96::1", families: [6] },
  { key: "svc_names", families: [4, 6] },
] as const)
  test(`what is wrong with "${key}" concerns IPv${families.join(" and IPv")}`, (t) => {
    t.deepEqual(familiesOf(key), families);
  });
