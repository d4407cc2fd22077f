// What is said of pin folders that cannot be used. What is pinned in them is the scenarios' matter.
import { chmodSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { Pins } from "./pins.ts";

const NOBODY = 65_534;

/** Runs as a user who may not read root's folders. */
function asNobody<T>(action: () => T): T {
  const before = process.geteuid!();
  if (before === 0) process.seteuid!(NOBODY);
  try {
    return action();
  } finally {
    process.seteuid!(before);
  }
}

test("who may not read the pin folder is told to be root", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-pins-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  chmodSync(folder, 0);
  const pins = new Pins(folder);
  const told = { message: /^Cannot read "[^"]*": EACCES.*; run bpfsvc as root$/ };
  asNobody(() => {
    t.throws(() => pins.serving, told);
    t.throws(() => pins.exists(), told);
  });
});

test("a pin folder that is a file is told to be none", (t) => {
  const pins = new Pins(import.meta.filename);
  const told = { message: /^Cannot read "[^"]*": ENOTDIR.*; name a folder with --pins$/ };
  t.throws(() => pins.serving, told);
  t.throws(() => pins.exists(), told);
});

test("a pin folder that is not there has nothing in it", (t) => {
  const pins = new Pins(path.join(tmpdir(), "bpfsvc-there-is-no-such-folder"));
  t.false(pins.exists());
  t.is(pins.serving, undefined);
  t.deepEqual(pins.layouts, []);
});
