// Reader processes, each held to a CPU of its own. Knows how to start and end them, not what they
// find (oracle.ts).
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { ReaderOrders } from "./reader.ts";

/** The CPUs that this process may use, from a list such as "0-3,6". */
function allowedCpus(): number[] {
  const status = readFileSync("/proc/self/status", "utf8");
  const list = /^Cpus_allowed_list:\s*(\S+)$/m.exec(status)?.[1] ?? "0";
  return list.split(",").flatMap((range) => {
    const [first, last] = range.split("-").map(Number);
    return Array.from({ length: (last ?? first!) - first! + 1 }, (_, index) => first! + index);
  });
}

const cpus = allowedCpus();

/**
 * Keeps this process to the first CPU, apart from a single reader: what it writes is then written
 * while the reader runs. The function returned gives it all CPUs again.
 */
export function keepApart(): () => void {
  const keepTo = (list: readonly number[]) =>
    execFileSync("taskset", ["-apc", list.join(","), String(process.pid)], { stdio: "ignore" });
  keepTo(cpus.slice(0, 1));
  return () => keepTo(cpus);
}

export class Readers {
  readonly #children: ChildProcess[] = [];

  /** Starts readers, the first on the last CPU, and waits until all look up. */
  static async start(count: number, orders: ReaderOrders): Promise<Readers> {
    const readers = new Readers();
    try {
      const all = Array.from({ length: count }, (_, reader) => {
        const cpu = cpus.at(-1 - (reader % cpus.length))!;
        return readers.#start({ ...orders, rodata: { ...orders.rodata, reader } }, cpu);
      });
      await Promise.all(all);
    } catch (error) {
      await readers.stop();
      throw error;
    }
    return readers;
  }

  /** Throws if a reader has ended by itself. */
  check(): void {
    for (const { exitCode, signalCode } of this.#children)
      if (exitCode !== null || signalCode !== null)
        throw new Error(`A reader ended with ${exitCode ?? signalCode}, see standard error`);
  }

  /** Ends all readers and waits for that. */
  async stop(): Promise<void> {
    await Promise.all(
      this.#children.map(async (child) => {
        if (child.exitCode !== null || child.signalCode !== null) return;
        const exited = once(child, "exit");
        child.kill("SIGKILL");
        await exited;
      }),
    );
  }

  async #start(orders: ReaderOrders, cpu: number): Promise<void> {
    const file = path.join(import.meta.dirname, "reader.js");
    const child = spawn("taskset", ["-c", String(cpu), process.execPath, file], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    this.#children.push(child);
    child.send(orders);
    const exited = once(child, "exit").then(() => "ended");
    const [first] = [await Promise.race([once(child, "message").then(() => "ready"), exited])];
    if (first !== "ready") throw new Error(`The reader on CPU ${cpu} ended, see standard error`);
  }
}
