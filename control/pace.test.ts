import test from "ava";
import { FakeClock } from "./fakeclock.ts";
import { Pace } from "./pace.ts";

/** A pace of one second whose updates take 300 ms, and the times at which they began. */
function makePace(minPeriodMs = 1000) {
  const clock = new FakeClock();
  const begun: number[] = [];
  const pace: Pace = new Pace({
    minPeriodMs,
    clock,
    update: () => {
      begun.push(clock.now());
      clock.pass(300);
      pace.ended();
    },
  });
  return { clock, pace, begun };
}

test("the first change after a quiet spell is served at once, the next ones wait", (t) => {
  const { clock, pace, begun } = makePace();
  clock.pass(5000);
  pace.request();
  clock.pass(0);
  t.deepEqual(begun, [5000]);
  pace.request();
  clock.pass(100);
  pace.request();
  clock.pass(899);
  t.deepEqual(begun, [5000]);
  clock.pass(1);
  t.deepEqual(begun, [5000, 6300]);
  clock.pass(60_000);
  t.is(begun.length, 2);
  pace.request();
  clock.pass(0);
  t.is(begun.length, 3);
});

test("without a period every change is served at once, never within the call that asks", (t) => {
  const { clock, pace, begun } = makePace(0);
  pace.request();
  pace.request();
  t.deepEqual(begun, []);
  clock.pass(0);
  pace.request();
  clock.pass(0);
  t.deepEqual(begun, [0, 300]);
});

test("an update that nobody asked for puts off those that are asked for later", (t) => {
  const { clock, pace, begun } = makePace();
  pace.ended();
  pace.request();
  clock.pass(999);
  t.deepEqual(begun, []);
  clock.pass(1);
  t.deepEqual(begun, [1000]);
});

test("what was asked for is called off by stopping", (t) => {
  const { clock, pace, begun } = makePace();
  pace.request();
  pace.stop();
  clock.pass(5000);
  t.deepEqual(begun, []);
});
