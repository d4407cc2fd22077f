// The other end of probe.c: starts it at a place of the lab and asks it. Knows how questions are
// put, not what the answers mean.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Host } from "../lab/host.ts";

const PROGRAM = path.resolve(import.meta.dirname, "probe");

export type Task =
  | "udp-same"
  | "udp-fresh"
  | "udp-life"
  | "udp-send"
  | "udp-receive"
  | "tcp-fresh"
  | "tcp-life"
  | "udp-ask"
  | "tcp-request"
  | "tcp-stream";

/** Addresses `step` apart, `span` of them from `address` on, of which each call draws one. */
export interface Targets {
  address: string;
  port: number;
  span: number;
  step: number;
}

/** So many calls to these. */
export interface Question {
  runs: number;
  count: number;
  targets: Targets;
  /** In whose network namespace they are made; by default where the last ones were. */
  from?: Pick<Host, "name" | "netns">;
}

/** What one call took, in nanoseconds. */
export interface Timing {
  /** Of the thread's CPU, the mean of the quickest run's calls. */
  cpu: number;
  /** On the wall clock: the median and the 99th percentile; 0 of tasks without single calls. */
  p50: number;
  p99: number;
}

/** A running probe.c, on one CPU. */
export class Probe {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #errors = "";

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    // One that has ended says why on standard error, and is missed when its answer is.
    child.stdin!.on("error", () => {});
    child.stderr!.setEncoding("utf8").on("data", (text: string) => {
      this.#errors += text;
    });
  }

  /**
   * Starts one here. Its own servers listen on all addresses at `port`, in the network namespace of
   * `servers` if that is given.
   */
  static start(
    host: Pick<Host, "spawn">,
    { cpu, port, servers }: { cpu: number; port: number; servers?: Pick<Host, "netns"> },
  ): Probe {
    const values = [String(cpu), String(port), ...(servers ? [servers.netns] : [])];
    return new Probe(host.spawn([PROGRAM, ...values], { stdio: "pipe" }));
  }

  /** `runs` times `count` calls, of which the quickest run counts for the CPU time. */
  async time(task: Task, question: Question): Promise<Timing> {
    const [cpu = 0, p50 = 0, p99 = 0] = await this.#ask(task, question);
    return { cpu: cpu / question.count, p50, p99 };
  }

  /**
   * Connects again and again until the endpoint is asked, and gives that moment on the clock of
   * process.hrtime(), in nanoseconds.
   */
  async until(endpoint: string, service: { address: string; port: number }): Promise<number> {
    const wanted = endpoint.split(".").reduce((value, byte) => value * 256 + Number(byte), 0);
    const targets = { ...service, span: 1, step: 0 };
    const [moment = 0] = await this.#ask("tcp-until", { runs: 1, count: wanted, targets });
    return moment;
  }

  async #ask(task: Task | "tcp-until", question: Question): Promise<number[]> {
    const { runs, count, from } = question;
    const { address, port, span, step } = question.targets;
    const line = [task, runs, count, address, port, span, step, from?.netns ?? "-"].join(" ");
    this.#child.stdin!.write(`${line}\n`);
    const { value, done } = await this.#lines.next();
    if (done) {
      const where = from ? ` from ${from.name}` : "";
      const why = this.#errors.trim();
      throw new Error(`The probe ended while it timed "${task}"${where}: ${why}`);
    }
    return (value as string).split(" ").map(Number);
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }
}
