import { setTimeout as delay } from "node:timers/promises";
import test from "ava";
import { collectLeftovers } from "./leftovers.ts";

test("what nobody holds is given back after the wait", async (t) => {
  const left = new WeakRef({ rows: new Array(1000).fill("row") });
  t.timeout(10_000);
  collectLeftovers(1);
  while (left.deref()) await delay(1);
  t.pass();
});
