// Where figures come from: machine, kernel and versions, stored with every result, and which CPU a
// measurement may have. Reads /proc; knows no bench.
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import os from "node:os";

export interface Machine {
  cpu: string;
  cpus: number;
  memoryBytes: number;
  kernel: string;
  node: string;
  clang: string;
  /** The checkout's commit, with "+" if something in it differs; empty if that cannot be told. */
  commit: string;
  /** The load average over a minute when the bench began. */
  load: number;
}

function output(command: string, ...values: string[]): string {
  try {
    return execFileSync(command, values, { encoding: "utf8", stdio: ["ignore", "pipe", "ignore"] });
  } catch {
    return "";
  }
}

/** What this is measured on. `checkout` is a folder of the git tree. */
export function readMachine(checkout: string): Machine {
  const git = ["-c", "safe.directory=*", "-C", checkout];
  const commit = output("git", ...git, "rev-parse", "--short", "HEAD").trim();
  const isDirty = output("git", ...git, "status", "--porcelain") !== "";
  return {
    cpu: os.cpus()[0]?.model.trim() ?? "",
    cpus: os.cpus().length,
    memoryBytes: os.totalmem(),
    kernel: os.release(),
    node: process.version,
    clang: /version (\S+)/.exec(output("clang", "--version"))?.[1] ?? "",
    commit: commit + (isDirty ? "+" : ""),
    load: os.loadavg()[0] ?? 0,
  };
}

/** The last CPU that this process may run on: the first is where most of a machine's work is. */
export function lastCpu(): number {
  const status = readFileSync("/proc/self/status", "utf8");
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? "0";
  return Number(/(\d+)$/.exec(list)?.[1] ?? 0);
}
