// A lab with an agent on one node (more, if wanted), servers in all pods and a folder of manifests:
// where scenarios play. Knows how to start and look, not what is right.
import { createHash } from "node:crypto";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { BpfLink } from "../../bindings/link.ts";
import { BpfMap } from "../../bindings/map.ts";
import { type Dump, type DumpedService, DumpReader } from "../../control/dataplane/dump.ts";
import { HOOKS, MAP_NAMES, Pins } from "../../control/dataplane/pins.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Host, Outcome, Running } from "../../lab/host.ts";
import { Lab, type LabNode } from "../../lab/lab.ts";
import type { LabOptions } from "../../lab/topology.ts";
import { PATIENCE, waitFor } from "../../lab/wait.ts";
import { type Manifest, makeNode } from "./objects.ts";

export const COMMAND = path.resolve(import.meta.dirname, "../../../dist/bpfsvc.js");
/** The port that every pod's TCP and UDP server listens on, over both families. */
export const POD_PORT = 8080;
/** On a slow machine maps are small: a dump goes through all of them, and tests dump often. */
const SIZES =
  PATIENCE > 1
    ? ["--max-frontends=4096", "--max-services=1024", "--max-backends=4096", "--max-slots=16384"]
    : [];

export interface AgentOptions {
  arguments?: readonly string[];
  /** Flags that say where objects are; the folder of manifests unless given. */
  source?: readonly string[];
  /** Whose; of node-a unless given. */
  node?: LabNode;
  /** Of another build; this one's unless given. */
  command?: string;
}

export class Stage {
  readonly lab: Lab;
  readonly node: LabNode;
  /** The folder of manifests that the agent watches. */
  readonly folder: string;
  readonly #helpers = new Map<Host, Promise<Helper>>();
  #agent: Running | undefined;
  #dumps: DumpReader | undefined;

  private constructor(lab: Lab, folder: string) {
    this.lab = lab;
    this.node = lab.nodes["node-a"]!;
    this.folder = folder;
  }

  /**
   * One node with the given pods, or another lab with a node-a; each pod with its servers. The Node
   * objects are in place.
   */
  static async open(
    place: readonly string[] | LabOptions = ["client", "pod-b", "pod-c"],
  ): Promise<Stage> {
    const options: LabOptions = "at" in place ? { topology: { "node-a": place } } : place;
    const lab = await Lab.create({ name: "test", ...options });
    const stage = new Stage(lab, await mkdtemp(path.join(tmpdir(), "bpfsvc-test-")));
    try {
      await Promise.all(Object.values(lab.pods).map((pod) => serve(pod)));
      const nodes = Object.values(lab.nodes);
      await stage.apply(
        "node",
        nodes.map(({ name, addresses }) => makeNode(name, Object.values(addresses))),
      );
      return stage;
    } catch (error) {
      await stage.close();
      throw error;
    }
  }

  pod(name: string): Host {
    return this.lab.pods[name]!;
  }

  /** A helper for clients, started at the first use. */
  client(host: Host): Promise<Helper> {
    const started = this.#helpers.get(host) ?? host.helper();
    this.#helpers.set(host, started);
    return started;
  }

  /** Starts the agent and waits until it serves. */
  async startAgent(options: AgentOptions = {}): Promise<Running> {
    const { node = this.node } = options;
    const agent = await node.start(this.agentCommand(options), {
      ready: /serving/,
      timeoutSeconds: 60,
    });
    if (node === this.node) this.#agent = agent;
    return agent;
  }

  /** What startAgent() runs. */
  agentCommand(options: AgentOptions = {}): string[] {
    const { arguments: rest = [], source, node = this.node, command = COMMAND } = options;
    const { name, cgroup, pins } = node;
    const place = ["--node", name, "--cgroup", cgroup, "--pins", pins];
    const flags = [...(source ?? ["--manifests", this.folder]), ...place, ...SIZES, ...rest];
    return [process.execPath, command, "run", ...flags];
  }

  get agentFlags(): string[] {
    return this.agentCommand().slice(3);
  }

  /** The agent of node-a that startAgent() started last. */
  get agent(): Running {
    if (!this.#agent) throw new Error("No agent was started");
    return this.#agent;
  }

  /** Runs a verb of the command on the node to its end. */
  command(...values: string[]): Promise<Outcome> {
    return this.node.run([process.execPath, COMMAND, ...values], { timeoutSeconds: 60 });
  }

  /** Writes a manifest file at once, as an editor or a ConfigMap does. */
  async apply(file: string, objects: readonly Manifest[]): Promise<void> {
    const target = path.join(this.folder, `${file}.yaml`);
    const text = objects.map((object) => JSON.stringify(object)).join("\n---\n");
    await writeFile(`${target}.tmp`, text);
    await rename(`${target}.tmp`, target);
  }

  /** Takes a manifest file away. */
  async withdraw(file: string): Promise<void> {
    await rm(path.join(this.folder, `${file}.yaml`));
  }

  /** What the kernel holds now. */
  async dump(): Promise<Dump> {
    this.#dumps ??= DumpReader.open(new Pins(this.node.pins));
    if (!this.#dumps) throw new Error("Nothing is pinned");
    return this.#dumps.read();
  }

  /** Waits until a Service's rows are as wanted, and returns them. */
  async programmed(
    name: string,
    isWanted: (rows: DumpedService[]) => boolean = (rows) => rows.length > 0,
  ): Promise<DumpedService[]> {
    return waitFor(
      async () => {
        const rows = (await this.dump()).services.filter((service) => service.name === name);
        return isWanted(rows) ? rows : undefined;
      },
      { what: `Service "${name}" to be programmed`, timeoutSeconds: 20 },
    );
  }

  /** Waits until each row of a Service has just so many endpoints. */
  async withEndpoints(name: string, count: number): Promise<DumpedService[]> {
    return this.programmed(
      name,
      (rows) => rows.length > 0 && rows.every(({ endpoints }) => endpoints.length === count),
    );
  }

  /** The last lines that the agent wrote. */
  agentOutput(): string {
    return this.#agent?.output() ?? "";
  }

  async close(): Promise<void> {
    if (this.#agent && !this.#agent.ended()) await this.#agent.kill();
    await this.lab.close();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/** The servers of a pod: TCP and UDP, each answering with the pod's name. */
async function serve(pod: Host): Promise<void> {
  const helper = await pod.helper();
  const { ipv4, ipv6 } = pod.addresses;
  for (const address of [ipv4, ipv6]) {
    await helper.serveTcp({ identity: pod.name, address, port: POD_PORT });
    await helper.serveUdp({ identity: pod.name, address, port: POD_PORT });
  }
}

/** What a server of the stage answered, or the error that the client got instead. */
export type Asked = (Answer & { localAddress: string; peerAddress: string }) | { error: string };

/** One TCP connection to a server of the stage. */
export async function askTcp(
  client: Helper,
  question: { address: string; port: number; local?: { address?: string; port?: number } },
): Promise<Asked> {
  const result = await client.tcp({ timeoutSeconds: 5, ...question });
  if ("error" in result) return result;
  const answer = JSON.parse(result.reply) as Answer;
  const { localAddress, peerAddress } = result;
  return { ...answer, localAddress, peerAddress };
}

/** Who answered one TCP connection, or the errno. */
export async function whoTcp(
  client: Helper,
  question: { address: string; port: number },
): Promise<string> {
  const asked = await askTcp(client, question);
  return "error" in asked ? asked.error : asked.identity;
}

/** Who answered one datagram from a fresh unconnected socket and from where, or the errno. */
export async function whoUdp(
  client: Helper,
  { address, port }: { address: string; port: number },
): Promise<{ identity: string; from: string } | { error: string }> {
  const family = address.includes(":") ? 6 : 4;
  const result = await client.udp({
    family,
    datagrams: [{ address, port, payload: "hello" }],
    timeoutSeconds: 3,
  });
  if ("error" in result) return result;
  const [reply] = result.replies;
  if (!reply) return { error: result.errors[0] ?? "nothing" };
  return {
    identity: (JSON.parse(reply.payload) as Answer).identity,
    from: `${reply.address}|${reply.port}`,
  };
}

/** All that a restart must leave as it is: the attached programs, and every byte of the maps. */
export function fingerprint({ node }: Stage): string {
  const pins = new Pins(node.pins);
  const lines = HOOKS.map((hook) => {
    const link = BpfLink.openPinned(pins.linkPath(hook));
    const { id, programId } = link.info;
    link.close();
    return `${hook}: link ${id}, program ${programId}`;
  });
  for (const name of MAP_NAMES) {
    if (name.startsWith("svc_socket")) continue;
    const map = BpfMap.openPinned(pins.mapPath(name));
    const hash = createHash("sha256");
    for (const { keys, values } of map.entries()) hash.update(keys).update(values);
    lines.push(`${name}: map ${map.info.id}, ${hash.digest("hex")}`);
    map.close();
  }
  return lines.join("\n");
}
