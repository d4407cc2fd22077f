// An agent that is fed by an API server of the lab, a process apart, with so many generated
// Services. Knows how they are started and what can be read of them, not what it should be.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { type RemoteApiServer, startRemoteApiServer } from "../lab/apiserver/remote.ts";
import type { Running } from "../lab/host.ts";
import type { LabNode } from "../lab/lab.ts";
import type { Context } from "./bench.ts";
import { cpuMs, startAgent } from "./commands.ts";
import { parseSmaps } from "./smaps.ts";

const MIB = 1024 * 1024;
/** What the agent's maps hold unless flags say otherwise. */
const USUAL_BACKENDS = 262_144;
const USUAL_SERVICES = 65_536;

export interface Amount {
  services: number;
  /** Endpoints of each. */
  endpoints: number;
}

export function nameOf({ services, endpoints }: Amount): string {
  return `${services}×${endpoints}`;
}

/** An API server with so many Services, whose agents have these flags. */
export class Feed {
  readonly server: RemoteApiServer;
  readonly flags: readonly string[];
  readonly #folder: string;

  private constructor(place: { server: RemoteApiServer; folder: string; flags: string[] }) {
    this.server = place.server;
    this.#folder = place.folder;
    this.flags = place.flags;
  }

  static async start(node: LabNode, { services, endpoints }: Amount): Promise<Feed> {
    const amount = ["--services", String(services), "--endpoints", String(endpoints)];
    const server = await startRemoteApiServer(amount, { host: node });
    const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-feed-"));
    const kubeconfig = path.join(folder, "kubeconfig");
    writeFileSync(kubeconfig, server.description.kubeconfig);
    const flags = ["--kubeconfig", kubeconfig, "--nftables-min-sync-period", "0s"];
    // Changes take new places before they give back the old ones.
    const backends = services * endpoints * 1.2;
    if (backends > USUAL_BACKENDS) flags.push("--max-backends", String(Math.ceil(backends)));
    if (services > USUAL_SERVICES) flags.push("--max-services", String(services));
    return new Feed({ server, folder, flags });
  }

  /** Starts an agent and waits until it serves; says what that took. */
  async startAgent(node: LabNode): Promise<{ agent: Running; start: Start }> {
    const begin = performance.now();
    const agent = await startAgent(node, this.flags);
    const seconds = (performance.now() - begin) / 1000;
    const memory = readMemory(agent.pid);
    return { agent, start: { seconds, cpuSeconds: (await cpuMs(agent.pid)) / 1000, ...memory } };
  }

  async close(): Promise<void> {
    await this.server.close();
    rmSync(this.#folder, { recursive: true });
  }
}

export interface Memory {
  /** What the process holds beside BPF maps that it has mapped, in MiB. */
  ownMib: number;
  /** The most that it ever held beside what it has mapped now. */
  peakMib: number;
  mapMib: number;
}

export interface Start extends Memory {
  /** From the process to "serving". */
  seconds: number;
  /** Of all threads, the verification of the programs included. */
  cpuSeconds: number;
}

export function readMemory(pid: number): Memory {
  const { residentBytes, mapBytes } = parseSmaps(readFileSync(`/proc/${pid}/smaps`, "utf8"));
  const status = readFileSync(`/proc/${pid}/status`, "utf8");
  const peakMib = Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  const mapMib = mapBytes / MIB;
  return { ownMib: residentBytes / MIB - mapMib, peakMib: peakMib - mapMib, mapMib };
}

/** Tells people what is being made; sizes differ a hundredfold in how long they take. */
export async function feed<T>(
  node: LabNode,
  { amount, context }: { amount: Amount; context: Context },
  work: (fed: Feed) => Promise<T>,
): Promise<T> {
  context.progress(`an API server with ${nameOf(amount)}`);
  const fed = await Feed.start(node, amount);
  try {
    return await work(fed);
  } finally {
    await fed.close();
  }
}
