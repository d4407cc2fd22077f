// Locks, file systems, the barrier and the cookie of the network namespace.
import { mkdtempSync, readlinkSync, rmdirSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { BpfError } from "./errors.ts";
import {
  findKernelNames,
  isBpffs,
  isCgroup2,
  lockFolder,
  membarrier,
  mountBpffs,
  netnsCookie,
  possibleCpus,
} from "./system.ts";
import { bpffsFolder, childCgroup, hasRoot } from "./testing.ts";

test("a folder is locked once, and the second comer learns by whom", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-"));
  t.teardown(() => rmdirSync(folder));
  const lock = lockFolder(folder);
  if ("holderPid" in lock) return t.fail("a new folder is locked");
  t.deepEqual(lockFolder(folder), { holderPid: process.pid });
  lock.release();
  const again = lockFolder(folder);
  if ("holderPid" in again) return t.fail("a released folder is locked");
  again.release();
});

test("a folder on a bpf file system is locked like any other", (t) => {
  if (!hasRoot(t)) return;
  const folder = bpffsFolder(t);
  const lock = lockFolder(folder);
  if ("holderPid" in lock) return t.fail("a new folder is locked");
  t.deepEqual(lockFolder(folder), { holderPid: process.pid });
  lock.release();
});

test("what the kernel has is found by its whole name", (t) => {
  const names = ["BPF_FIB_LOOKUP_DIRECT", "bpf_fib_lookup", "BPF_FIB_LOOKUP_DIREC"] as const;
  t.deepEqual([...findKernelNames(names)], ["BPF_FIB_LOOKUP_DIRECT", "bpf_fib_lookup"]);
});

test("file systems are told apart", (t) => {
  t.false(isBpffs("/tmp"));
  t.false(isCgroup2("/tmp"));
  if (!hasRoot(t)) return;
  t.true(isBpffs(bpffsFolder(t)));
  t.true(isCgroup2(childCgroup(t)));
  t.throws(() => isBpffs("/absent"), { message: /\/absent/ });
});

test("a mount that fails names the folder", (t) => {
  const error = t.throws(() => mountBpffs("/absent"), { instanceOf: BpfError });
  t.regex(error.message, /Cannot mount a bpf file system on "\/absent": (ENOENT|EPERM)/);
});

test("a barrier leaves the event loop running, and ends once", async (t) => {
  let turned = false;
  setImmediate(() => {
    turned = true;
  });
  t.is(typeof (await membarrier()), "boolean");
  // The first may be over before the loop comes to what was put in its way; the second is not.
  await membarrier();
  t.true(turned || possibleCpus() === 1);
});

test("a network namespace has one cookie, which is no zero", (t) => {
  t.true(netnsCookie() > 0n);
  t.is(netnsCookie(), netnsCookie());
  t.log(`cookie ${netnsCookie()} of ${readlinkSync("/proc/self/ns/net")}`);
});
