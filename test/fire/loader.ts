// Starts load.ts in a place of the lab and fetches what it found. Knows neither Services nor what
// a connection may meet.
import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import type { Host } from "../../lab/host.ts";
import type { LoadOrders, LoadReport } from "./load.ts";

export class Load {
  readonly #child: ChildProcess;

  /** Connects from this host from now on, until stop() or the end of the lab. */
  constructor(host: Host, orders: LoadOrders) {
    const file = path.join(import.meta.dirname, "load.js");
    const stdio = ["ignore", "inherit", "inherit", "ipc"] as const;
    this.#child = host.spawn([process.execPath, file], { stdio: [...stdio] });
    this.#child.send(orders);
  }

  /** Ends it. Throws if it has ended by itself. */
  async stop(): Promise<LoadReport> {
    const { exitCode, signalCode } = this.#child;
    if (exitCode !== null || signalCode !== null)
      throw new Error(`The load ended with ${exitCode ?? signalCode}, see standard error`);
    this.#child.send("stop");
    const [report] = (await once(this.#child, "message")) as [LoadReport];
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
    return report;
  }
}
