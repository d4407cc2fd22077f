// The other end of main.ts: starts the API server as a process of its own and sends it commands, so
// that a bench measures its client alone. Knows lines and the process, not what commands do.
import { type ChildProcess, type SpawnOptions, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Host } from "../host.ts";
import type { Command, Description, Reply } from "./control.ts";

const program = path.join(import.meta.dirname, "main.js");

export class RemoteApiServer {
  readonly description: Description;
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;

  constructor(child: ChildProcess, lines: AsyncIterator<string>, description: Description) {
    this.#child = child;
    this.#lines = lines;
    this.description = description;
  }

  /** The server's process id, for measurements. */
  get pid(): number {
    return this.#child.pid!;
  }

  /**
   * Has the server do something; to be called one after the other. Returns the value and the time,
   * of process.hrtime(), when that began. Throws what the server says against it.
   */
  async call(command: Command): Promise<Exclude<Reply, { error: string }>> {
    this.#child.stdin!.write(`${JSON.stringify(command)}\n`);
    const { value, done } = await this.#lines.next();
    if (done)
      throw new Error(`The API server ended before it could '${command.do}'; see its errors`);
    const reply: Reply = JSON.parse(value);
    if ("error" in reply) throw new Error(`The API server cannot '${command.do}': ${reply.error}`);
    return reply;
  }

  /** Ends it; a second call does nothing. */
  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const closed = once(this.#child, "close");
    this.#child.stdin!.end();
    await closed;
  }
}

/**
 * Starts main.ts with these options, on a host of the lab or here; resolves when it answers
 * requests.
 */
export async function startRemoteApiServer(
  options: readonly string[],
  { host }: { host?: Pick<Host, "spawn"> } = {},
): Promise<RemoteApiServer> {
  const command = [process.execPath, program, ...options];
  const stdio: SpawnOptions = { stdio: ["pipe", "pipe", "inherit"] };
  const child = host?.spawn(command, stdio) ?? spawn(command[0]!, command.slice(1), stdio);
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
  const { value, done } = await lines.next();
  if (done) throw new Error("The API server ended before it could be asked; see its errors");
  return new RemoteApiServer(child, lines, JSON.parse(value));
}
