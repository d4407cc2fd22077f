// A place where commands run: one network namespace and one cgroup. Pods, nodes, the outside
// client and bystanders are hosts. Knows nothing of how the place was made (lab.ts does that).
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import type { Addresses } from "./addresses.ts";
import type { Calls, Request, Response, SocketCalls } from "./helper.ts";
import { PATIENCE, waitFor } from "./wait.ts";

export interface Outcome {
  code: number;
  stdout: string;
  stderr: string;
}

type Promised<T> = {
  [K in keyof T]: T[K] extends (...values: infer V) => infer R
    ? (...values: V) => Promise<Awaited<R>>
    : never;
};

/** A process in a host's place that does what it is asked, see helper.ts and sockets.ts. */
export interface Helper extends Promised<Calls> {
  /** Blocks the helper while it runs: use another helper for the servers that are asked. */
  sockets: Promised<SocketCalls>;
  close(): Promise<void>;
}

/** A command that goes on in the background. */
export class Running {
  readonly pid: number;
  readonly #child: ChildProcess;
  readonly #exited: Promise<unknown>;
  #output = "";
  #ended = false;

  constructor(child: ChildProcess) {
    this.#child = child;
    this.pid = child.pid ?? 0;
    this.#exited = once(child, "exit");
    child.once("close", () => {
      this.#ended = true;
    });
    for (const stream of [child.stdout, child.stderr]) {
      stream?.setEncoding("utf8").on("data", (text: string) => {
        this.#output += text;
      });
    }
  }

  /** All it has written so far, to standard output and standard error. */
  output(): string {
    return this.#output;
  }

  /** Whether it has ended and all its output is there. */
  ended(): boolean {
    return this.#ended;
  }

  /** Asks it to end (SIGTERM) and waits for that; after 5 seconds it is killed. */
  async stop(): Promise<void> {
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    this.#child.kill("SIGTERM");
    await this.#exited;
    clearTimeout(timer);
  }

  /** Kills it (SIGKILL) and waits until it is dead. */
  async kill(): Promise<void> {
    this.#child.kill("SIGKILL");
    await this.#exited;
  }
}

export class Host {
  readonly name: string;
  /** The network namespace's file. */
  readonly netns: string;
  /** The cgroup folder; a node's holds its pods' folders too, and is where its agent attaches. */
  readonly cgroup: string;
  readonly addresses: Addresses;
  /** The cgroup folder that its processes are put in. */
  readonly #processes: string;

  constructor(
    place: Pick<Host, "name" | "netns" | "cgroup" | "addresses">,
    options: { processes?: string } = {},
  ) {
    this.name = place.name;
    this.netns = place.netns;
    this.cgroup = place.cgroup;
    this.addresses = place.addresses;
    this.#processes = options.processes ?? place.cgroup;
  }

  /** Starts a command here as Node's `spawn` does; its process id is the command's own. */
  spawn(command: readonly string[], options: SpawnOptions): ChildProcess {
    // The network namespace first: `ip netns exec` would also hide bpffs and cgroups.
    const enter = 'echo 0 > "$0/cgroup.procs" && exec "$@"';
    const place = [`--net=${this.netns}`, "--", "sh", "-c", enter, this.#processes];
    return spawn("nsenter", [...place, ...command], options);
  }

  /** Runs a command to its end, at most `timeoutSeconds` (10). Any exit status is a result. */
  async run(
    command: readonly string[],
    options: { timeoutSeconds?: number; input?: string; env?: Record<string, string> } = {},
  ): Promise<Outcome> {
    const seconds = (options.timeoutSeconds ?? 10) * PATIENCE;
    const child = this.spawn(command, {
      env: { ...process.env, ...options.env },
      timeout: seconds * 1000,
      killSignal: "SIGKILL",
    });
    const outcome = { code: 0, stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name]?.setEncoding("utf8").on("data", (text: string) => {
        outcome[name] += text;
      });
    }
    // A command may end without reading its input: its exit status says more than EPIPE.
    child.stdin?.on("error", () => {}).end(options.input ?? "");
    const [code] = await once(child, "close");
    if (code === null) {
      const late =
        child.signalCode === "SIGKILL" ? `did not end within ${seconds} s` : "was killed";
      throw new Error(`'${command.join(" ")}' on '${this.name}' ${late}`, {
        cause: outcome.stderr,
      });
    }
    return { ...outcome, code };
  }

  /** Gives `ip -batch` these lines here, such as "link set eth0 down". Throws when one fails. */
  async ip(...lines: readonly string[]): Promise<void> {
    const input = lines.map((line) => `${line}\n`).join("");
    const { code, stderr } = await this.run(["ip", "-batch", "-"], { input });
    if (code !== 0) throw new Error(`'ip' on '${this.name}' failed on:\n${input}${stderr}`);
  }

  /**
   * Starts a command in the background and waits until its output matches `ready`, if given, at
   * most `timeoutSeconds` (10). Throws with its output if it ends before.
   */
  async start(
    command: readonly string[],
    options: { ready?: RegExp; timeoutSeconds?: number; env?: Record<string, string> } = {},
  ): Promise<Running> {
    const env = { ...process.env, ...options.env };
    const child = this.spawn(command, { env, stdio: ["ignore", "pipe", "pipe"] });
    const running = new Running(child);
    const { ready, timeoutSeconds = 10 } = options;
    if (ready !== undefined) {
      const what = `'${command.join(" ")}' on '${this.name}' to write ${String(ready)}`;
      try {
        await waitFor(() => running.ended() || ready.test(running.output()), {
          what,
          timeoutSeconds,
        });
      } catch (error) {
        await running.kill();
        throw new Error(`${(error as Error).message}. It wrote:\n${running.output()}`);
      }
      if (running.ended() && !ready.test(running.output())) {
        throw new Error(`'${command.join(" ")}' on '${this.name}' ended:\n${running.output()}`);
      }
    }
    return running;
  }

  /** Starts a helper here (about 80 ms). */
  async helper(): Promise<Helper> {
    const file = path.join(import.meta.dirname, "helper.js");
    const child = this.spawn([process.execPath, file], {
      stdio: ["ignore", "inherit", "inherit", "ipc"],
    });
    const call = await connectHelper(child, this.name);
    const sockets = callsOf<SocketCalls>(call);
    const helper = { sockets, close: () => endHelper(child) };
    return Object.assign(callsOf<Calls>(call), helper);
  }
}

type Call = (name: string, values: unknown[]) => Promise<unknown>;

/** An object whose every method is asked over IPC. It must not look like a promise. */
function callsOf<T>(call: Call): Promised<T> {
  return new Proxy({} as Promised<T>, {
    get: (own, name) => {
      if (name in own) return own[name as keyof Promised<T>];
      if (typeof name === "symbol" || name === "then") return undefined;
      return (...values: unknown[]) => call(name, values);
    },
  });
}

async function connectHelper(child: ChildProcess, name: string): Promise<Call> {
  const waiting = new Map<number, Waiting>();
  let lastId = 0;
  const ask = (id: number) =>
    new Promise<unknown>((resolve, reject) => waiting.set(id, { resolve, reject }));
  child.on("message", ({ id, value, error }: Response) => {
    const request = waiting.get(id);
    waiting.delete(id);
    if (error === undefined) request?.resolve(value);
    else request?.reject(Object.assign(new Error(error.message), { code: error.code }));
  });
  child.on("exit", () => {
    for (const request of waiting.values()) {
      request.reject(new Error(`The helper on '${name}' has ended`));
    }
  });
  await ask(0);
  return (call, values) => {
    lastId += 1;
    child.send({ id: lastId, name: call, values } satisfies Request);
    return ask(lastId);
  };
}

interface Waiting {
  resolve(value: unknown): void;
  reject(error: Error): void;
}

async function endHelper(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}
