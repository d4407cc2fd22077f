// What the tests of this folder stand on: root, compiled test programs, a bpf file system, a cgroup
// and a network namespace of their own, removed when the test ends.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmdirSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { ExecutionContext } from "ava";
import { insideNetns, isCgroup2, mountBpffs, unmount } from "./system.ts";

let cgroups = 0;

/** Whether the test can run; without root it is left out aloud, and on CI it fails. */
export function hasRoot(t: ExecutionContext): boolean {
  if (process.getuid?.() === 0) return true;
  if (process.env.CI) t.fail("left out: needs root, which CI must give");
  else t.pass();
  t.log("left out: needs root");
  return false;
}

/** Path of an object compiled from testdata/NAME.bpf.c. */
export function testdata(name: string): string {
  return path.join(import.meta.dirname, "testdata", `${name}.bpf.o`);
}

/** A folder on a bpf file system that is mounted for this test alone. */
export function bpffsFolder(t: ExecutionContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-"));
  mountBpffs(folder);
  t.teardown(() => {
    unmount(folder);
    rmdirSync(folder);
  });
  return folder;
}

/** An empty cgroup v2 folder below the root of the tree. */
export function childCgroup(t: ExecutionContext): string {
  const lines = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const mounts = lines.filter((line) => line.includes(" - cgroup2 "));
  // One mount may hide another.
  const mount = mounts
    .map((line) => line.split(" ")[4] ?? "")
    .find((folder) => existsSync(folder) && isCgroup2(folder));
  if (mount === undefined)
    throw new Error("No cgroup v2 tree is mounted, see /proc/self/mountinfo");
  const folder = path.join(mount, `bpfsvc-test-${process.pid}-${++cgroups}`);
  mkdirSync(folder);
  t.teardown(() => removeCgroup(folder));
  return folder;
}

/** Removes a cgroup. What was killed leaves it only a moment after its end was told. */
export async function removeCgroup(folder: string): Promise<void> {
  const events = path.join(folder, "cgroup.events");
  const isEmpty = () => readFileSync(events, "utf8").includes("populated 0");
  for (let tries = 0; tries < 500 && !isEmpty(); tries++) await delay(10);
  rmdirSync(folder);
}

/** A network namespace with nothing but lo, which is up. */
export interface TestNetwork {
  /** Its file. */
  readonly file: string;
  /** Runs a synchronous function in it. */
  run<T>(action: () => T): T;
  /** Runs lines of `ip -batch` in it. */
  ip(...lines: string[]): void;
  /** Runs a command in it, and gives its output. */
  command(program: string, ...values: string[]): string;
}

/** A network namespace for this test alone; it ends with the test, and with its process. */
export async function testNetwork(t: ExecutionContext): Promise<TestNetwork> {
  const hold = "ip link set lo up && echo up && exec cat";
  const holder = spawn("unshare", ["--net", "--", "sh", "-ec", hold], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  await once(holder.stdout!, "data");
  const file = `/proc/${holder.pid}/ns/net`;
  const fd = openSync(file, "r");
  t.teardown(async () => {
    closeSync(fd);
    const ended = once(holder, "exit");
    holder.kill("SIGKILL");
    await ended;
  });
  const enter = (input: string, ...command: string[]) =>
    execFileSync("nsenter", [`--net=${file}`, "--", ...command], { input, encoding: "utf8" });
  return {
    file,
    run: (action) => insideNetns(fd, action),
    ip: (...lines) => void enter(`${lines.join("\n")}\n`, "ip", "-batch", "-"),
    command: (program, ...values) => enter("", program, ...values),
  };
}
