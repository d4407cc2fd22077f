// The other end of probe.c: starts it at a place of the lab and asks it. Knows how questions are
// put, not what the answers mean.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Host } from "../lab/host.ts";

const PROGRAM = path.resolve(import.meta.dirname, "probe");
const ATTEMPTS = 12;

export type Task =
  | "udp-same"
  | "udp-fresh"
  | "udp-life"
  | "udp-send"
  | "udp-receive"
  | "tcp-fresh"
  | "tcp-life";

/** Addresses `step` apart, `span` of them from `address` on, of which each call draws one. */
export interface Targets {
  address: string;
  port: number;
  span: number;
  step: number;
}

/** A running probe.c, on one CPU. */
export class Probe {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#errors += text;
    });
  }

  /**
   * Starts one here. Its own servers listen on all addresses at `port`, in the network namespace of
   * `servers` if that is given.
   */
  static start(
    host: Host,
    { cpu, port, servers }: { cpu: number; port: number; servers?: Host },
  ): Probe {
    const values = [String(cpu), String(port), ...(servers ? [servers.netns] : [])];
    return new Probe(host.spawn([PROGRAM, ...values], { stdio: "pipe" }));
  }

  /**
   * The thread's CPU time of one call in nanoseconds: the mean of `count` calls, of several such
   * runs the quickest, since whatever disturbs a run can only add to it.
   */
  async time(task: Task, { count, targets }: { count: number; targets: Targets }): Promise<number> {
    let best = Number.POSITIVE_INFINITY;
    for (let attempt = 0; attempt < ATTEMPTS; attempt++)
      best = Math.min(best, await this.#ask(task, { count, targets }));
    return best / count;
  }

  /**
   * Connects again and again until the endpoint is asked, and gives that moment on the clock of
   * process.hrtime(), in nanoseconds.
   */
  async until(endpoint: string, service: { address: string; port: number }): Promise<number> {
    const wanted = endpoint.split(".").reduce((value, byte) => value * 256 + Number(byte), 0);
    const targets = { ...service, span: 1, step: 0 };
    return this.#ask("tcp-until", { count: wanted, targets });
  }

  async #ask(
    task: Task | "tcp-until",
    { count, targets }: { count: number; targets: Targets },
  ): Promise<number> {
    const { address, port, span, step } = targets;
    this.#child.stdin!.write(`${task} ${count} ${address} ${port} ${span} ${step}\n`);
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`The probe ended while it timed "${task}": ${this.#errors.trim()}`);
    return Number(value);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }
}
