// Commands timed as a whole, and the agent started as people start it. Knows nothing of what they
// do, nor what their times should be.
import { readdir, readFile } from "node:fs/promises";
import path from "node:path";
import type { Host, Running } from "../lab/host.ts";
import type { LabNode } from "../lab/lab.ts";

/** The command that ships. */
export const BPFSVC = [
  process.execPath,
  path.resolve(import.meta.dirname, "../../dist/bpfsvc.js"),
] as const;

export interface Times {
  wallMs: number;
  /** User and system time of the command and its children. */
  cpuMs: number;
}

/** Runs a command with its output thrown away, and times it. Throws unless it ends with 0. */
export async function timeCommand(host: Host, command: readonly string[]): Promise<Times> {
  const script = '"$@" >/dev/null || exit; times';
  const start = performance.now();
  const { code, stdout, stderr } = await host.run(["sh", "-c", script, "sh", ...command], {
    timeoutSeconds: 60,
  });
  const wallMs = performance.now() - start;
  if (code !== 0) throw new Error(`'${command.join(" ")}' ended with ${code}: ${stderr}`);
  // The second line is of the children: user and system time, such as "0m0.120000s 0m0.030000s".
  const children = stdout.split("\n")[1] ?? "";
  const seconds = [...children.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, rest]) => Number(minutes) * 60 + Number(rest),
  );
  return { wallMs, cpuMs: seconds.reduce((sum, value) => sum + value, 0) * 1000 };
}

/** CPU time of all threads that a process has now, so far, in milliseconds. */
export async function cpuMs(pid: number): Promise<number> {
  let nanoseconds = 0;
  for (const thread of await readdir(`/proc/${pid}/task`))
    try {
      const text = await readFile(`/proc/${pid}/task/${thread}/schedstat`, "utf8");
      nanoseconds += Number(text.split(" ")[0]);
    } catch {
      // Threads end at any time.
    }
  return nanoseconds / 1e6;
}

/** As in deploy/Containerfile: what an agent keeps outgrows any nursery. */
const AGENT_FLAGS = ["--max-semi-space-size=2"];

/** Starts an agent on a node, with flags such as where objects are, and waits until it serves. */
export function startAgent(node: LabNode, source: readonly string[]): Promise<Running> {
  const place = ["--node", node.name, "--cgroup", node.cgroup, "--pins", `${node.pins}/agent`];
  const [runtime, command] = BPFSVC;
  return node.start([runtime, ...AGENT_FLAGS, command, "run", ...source, ...place], {
    ready: /serving/,
    timeoutSeconds: 120,
  });
}
