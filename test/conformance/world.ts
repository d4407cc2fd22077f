// The lab as the vectors see it: this node with the clients' pods, and a world behind it in which
// every other address of the vectors answers, endpoints as well as the Service addresses
// themselves, so that a packet left alone is seen to arrive. Whoever asks is seen by the sockets'
// hooks, or by nobody before its packets are. Knows no Service and no expectation.
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { isLoopback } from "../../control/model/address.ts";
import type { Family } from "../../lab/addresses.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Host, Running } from "../../lab/host.ts";
import { Lab, type LabNode } from "../../lab/lab.ts";
import { prepareXdp } from "../../lab/links.ts";
import { serveSctp, surveySctp } from "../../lab/sctp.ts";
import type { Address } from "../../lab/sockets.ts";
import { waitFor } from "../../lab/wait.ts";
import { authority } from "./vectors.ts";

const COMMAND = path.resolve(import.meta.dirname, "../../../dist/bpfsvc.js");

/** Takes away the lab's own routes that keep Service addresses from leaving: here they are seen. */
const UNPROHIBIT = ["10.96.0.0/16", "fd00:10:96::/112"].map(
  (prefix) => `route del prohibit ${prefix}`,
);

/** Who asks from this source address: a pod, a process of the node, or a client outside. */
export interface Client {
  from: "pod" | "node" | "external";
  source: string;
}

export interface Question extends Address {
  protocol: "TCP" | "UDP" | "SCTP";
  /** How long to wait for an answer: 2. */
  timeoutSeconds?: number;
}

/** What a client got: who answered and whom it saw, unless over SCTP, or an errno's name. */
export type Reply = { server: string; client?: string } | { error: string };

/** A connection held open. */
export interface Held {
  server: string;
  /** Sends something and returns who answered, or an errno's name. */
  exchange(): Promise<string>;
  close(): Promise<void>;
}

export interface Places {
  /** Addresses of the pods that ask, each of a pod of its own. */
  pods: readonly string[];
  /** Addresses of the node besides its own two. */
  nodeAddresses: readonly string[];
  /** All that answers, wherever it is. */
  servers: readonly Address[];
  /** Clients whose packets alone are seen. */
  unseen?: Unseen;
}

/** Pods and node processes that no socket hook sees, and clients outside. */
export interface Unseen {
  /** Addresses of clients outside. */
  outsiders: readonly string[];
  /** Where they ask: from outside these lead to the node. */
  asked: readonly string[];
  /** Addresses of servers that are on the node, in a pod unless they are the node's own. */
  local: readonly string[];
  /** All that answers SCTP. */
  sctp: readonly Address[];
}

/** The pod that holds the servers on the node. */
const SERVER_POD = "servers";
/** A table of the router for what comes from outside: what it serves itself is for others. */
const OUTSIDE_TABLE = 100;
/** That table first, in place of the one that leads to the router itself. */
const OUTSIDE_RULES = [
  `add pref 1 iif outside lookup ${OUTSIDE_TABLE}`,
  "add pref 2 lookup local",
  "del pref 0",
];

async function ip(host: Host, commands: readonly string[]): Promise<void> {
  const { code, stderr } = await host.run(["ip", "-batch", "-"], {
    input: `${commands.join("\n")}\n`,
  });
  if (code !== 0) throw new Error(`Cannot set up "${host.name}": ${stderr}`);
}

export class World {
  readonly #lab: Lab;
  readonly #folder: string;
  /** A process that asks, in each pod and on the node. */
  readonly #clients = new Map<string, Helper>();
  /** Pods by each of their addresses. */
  readonly #pods = new Map<string, Host>();
  readonly #isUnseen: boolean;
  readonly #nodeAddresses: ReadonlySet<string>;
  #agent: Running | undefined;
  #dumps: DumpReader | undefined;
  #steps = 0;
  /** The next source port of an association. */
  #sctpPort = 7100;

  private constructor(lab: Lab, { folder, places }: { folder: string; places: Places }) {
    this.#lab = lab;
    this.#folder = folder;
    this.#isUnseen = places.unseen !== undefined;
    const own = Object.values(this.#node.addresses);
    this.#nodeAddresses = new Set([...own, ...places.nodeAddresses]);
  }

  /** Makes the lab, gives everyone the vectors' addresses, and starts all servers. */
  static async open(places: Places): Promise<World> {
    const { pods, unseen } = places;
    const names = [...pods.map((_, index) => `pod-${index}`), ...(unseen ? [SERVER_POD] : [])];
    const topology = { "node-a": names };
    const lab = await Lab.create({ name: "world", topology, sandboxed: unseen ? names : [] });
    const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-world-"));
    const world = new World(lab, { folder, places });
    try {
      if (unseen) await prepareXdp(lab);
      for (const [index, address] of pods.entries())
        await world.#address(lab.pods[`pod-${index}`]!, address);
      await world.#connect(places);
      const node = unseen ? world.#node.bystander : world.#node;
      for (const host of [node, lab.outside, ...Object.values(lab.pods)])
        world.#clients.set(host.name, await host.helper());
      return world;
    } catch (error) {
      await world.close();
      throw error;
    }
  }

  get #node(): LabNode {
    return this.#lab.nodes["node-a"]!;
  }

  /** Gives a pod this address in place of the lab's own, and leads the node and the world there. */
  async #address(pod: Host, address: string): Promise<void> {
    const { ipv4, ipv6 } = pod.addresses;
    // First the new one: routes go with the last address.
    await this.#lead(pod, address);
    await ip(pod, [
      `address del ${ipv4}/32 dev eth0`,
      `address del ${ipv6}/128 dev eth0`,
      ...(this.#isUnseen ? [] : UNPROHIBIT),
    ]);
    await ip(this.#node, [`route del ${ipv4}/32`, `route del ${ipv6}/128`]);
    await ip(this.#lab.router, [`route replace ${prefixOf(address)} via ${this.#via(address)}`]);
  }

  /** Gives a pod one address more, and leads the node there. */
  async #lead(pod: Host, address: string): Promise<void> {
    const nodad = address.includes(":") ? "nodad" : "";
    await ip(pod, [`address add ${prefixOf(address)} dev eth0 ${nodad}`]);
    const source = this.#via(address);
    await ip(this.#node, [`route add ${prefixOf(address)} dev ${pod.name} src ${source}`]);
    this.#pods.set(address, pod);
  }

  async #connect({ nodeAddresses, servers, unseen }: Places): Promise<void> {
    const node = this.#node;
    await ip(node, [
      ...nodeAddresses.map((address) => `address add ${address} dev lo`),
      ...UNPROHIBIT,
    ]);
    // For servers at addresses that are local by a route alone.
    const binding = "for file in /proc/sys/net/ipv?/ip_nonlocal_bind; do echo 1 > $file; done";
    for (const host of [node, this.#lab.router]) await host.run(["sh", "-c", binding]);
    await ip(this.#lab.router, UNPROHIBIT);
    if (unseen) await this.#leadInside(unseen);
    const remote = new Set<string>();
    const placed = new Map<Host, Address[]>();
    for (const server of servers) {
      const host = this.#holder(server.address);
      if (host === this.#lab.router) remote.add(server.address);
      placed.set(host, [...(placed.get(host) ?? []), server]);
    }
    await ip(
      this.#lab.router,
      [...remote].map((address) => `route add local ${address} dev lo`),
    );
    const identified = unseen?.sctp.map((server) => ({ ...server, identity: authority(server) }));
    await Promise.all([
      ...[...placed].map(([host, list]) => serve(host, list)),
      ...(identified ?? []).map((server) => serveSctp(this.#holder(server.address), server)),
    ]);
  }

  /** Who answers at an address. */
  #holder(address: string): Host {
    const isOwn = this.#nodeAddresses.has(address) || isLoopback(address);
    return this.#pods.get(address) ?? (isOwn ? this.#node : this.#lab.router);
  }

  /**
   * Puts the servers that are on the node into a pod, gives the outside its clients, and has the
   * router lead what these ask to the node, though it serves the same addresses itself.
   */
  async #leadInside(unseen: Unseen): Promise<void> {
    const { router, outside, pods } = this.#lab;
    for (const address of unseen.local)
      if (!this.#nodeAddresses.has(address) && !this.#pods.has(address))
        await this.#lead(pods[SERVER_POD]!, address);
    const ownOutside = Object.values(outside.addresses);
    const outsiders = unseen.outsiders.filter((each) => !ownOutside.includes(each));
    const via = (address: string) => outside.addresses[familyOf(address)];
    await ip(
      outside,
      outsiders.map((address) => `route replace local ${address} dev lo`),
    );
    await ip(router, [
      ...outsiders.map((address) => `route replace ${prefixOf(address)} via ${via(address)}`),
      ...unseen.asked.map((address) => {
        const way = `via ${this.#via(address)} table ${OUTSIDE_TABLE}`;
        return `route replace ${prefixOf(address)} ${way}`;
      }),
    ]);
    // The router would take packets for its own by their sockets, and then not forward them.
    await router.run(["sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_early_demux"]);
    for (const family of ["-4", "-6"])
      for (const rule of OUTSIDE_RULES)
        await router.run(["ip", family, "rule", ...rule.split(" ")]);
  }

  /** The node's own address of the family of this one. */
  #via(address: string): string {
    return this.#node.addresses[familyOf(address)];
  }

  /** Starts the agent, or another in its place. */
  async startAgent(flags: readonly string[]): Promise<void> {
    await this.#agent?.stop();
    const { cgroup, pins } = this.#node;
    const place = ["--node", "node-a", "--cgroup", cgroup, "--pins", pins];
    this.#agent = await this.#node.start(
      [process.execPath, COMMAND, "run", "--manifests", this.#folder, ...place, ...flags],
      { ready: /serving/, timeoutSeconds: 60 },
    );
  }

  /** Makes these the only objects there are, and waits until the kernel serves them. */
  async apply(objects: readonly object[]): Promise<void> {
    this.#steps++;
    const name = `step-${this.#steps}`;
    const ports = [{ port: 1 }];
    const spec = { clusterIP: "10.95.0.1", clusterIPs: ["10.95.0.1"], ipFamilies: ["IPv4"], ports };
    const marker = {
      apiVersion: "v1",
      kind: "Service",
      metadata: { namespace: "step", name },
      spec,
    };
    const file = path.join(this.#folder, "objects.json");
    const list = { apiVersion: "v1", kind: "List", items: [...objects, marker] };
    await writeFile(`${file}.tmp`, JSON.stringify(list));
    await rename(`${file}.tmp`, file);
    if (!this.#agent) return;
    // A Service's name is written after everything else of the same change.
    const isThere = async () =>
      (await this.#reader.read({ namespace: "step", name })).services.length > 0;
    const what = `the agent to serve step ${this.#steps}; it wrote: ${this.#agent.output()}`;
    await waitFor(isThere, { what, timeoutSeconds: 20 });
  }

  /** Every address that is the node's, loopback aside. */
  get nodeAddresses(): ReadonlySet<string> {
    return this.#nodeAddresses;
  }

  get #reader(): DumpReader {
    this.#dumps ??= DumpReader.open(new Pins(this.#node.pins))!;
    return this.#dumps;
  }

  /** How often packets of each reason were seen, as the dump names them. */
  async reasons(): Promise<Readonly<Record<string, number>>> {
    return (await this.#reader.read({ namespace: "step", name: "" })).reasons;
  }

  /** One fresh connection or association. */
  async ask(client: Client, question: Question): Promise<Reply> {
    return (await this.askMany(client, { ...question, count: 1 }))[0]!;
  }

  /** Many of them at once. */
  async askMany(
    client: Client,
    { count, ...question }: Question & { count: number },
  ): Promise<Reply[]> {
    const { protocol, address, port, timeoutSeconds = 2 } = question;
    const { from, source } = client;
    if (protocol === "SCTP") return this.#survey(client, { address, port, count });
    const isPrimary = Object.values(this.#node.addresses).includes(source);
    const isUnbound = from === "pod" || (from === "node" && (isPrimary || isLoopback(source)));
    const local = isUnbound ? {} : { local: { address: source } };
    const each = Array.from({ length: count }, () => ({ address, port, timeoutSeconds, ...local }));
    const helper = this.#helper(client);
    if (protocol === "UDP") return Promise.all(each.map((target) => askUdp(helper, target)));
    const results = await helper.tcpMany(each);
    return results.map((result) => ("error" in result ? result : readAnswer(result.reply)));
  }

  async #survey(client: Client, question: Address & { count: number }): Promise<Reply[]> {
    const local = { address: client.source, port: this.#sctpPort };
    this.#sctpPort += question.count;
    const answers = await surveySctp(this.#host(client), { ...question, local });
    return answers.map((each) => ("error" in each ? each : { server: each.identity }));
  }

  /** A TCP connection that stays open. */
  async hold(client: Client, target: Address): Promise<Held> {
    const { sockets } = this.#helper(client);
    const family = target.address.includes(":") ? 6 : 4;
    const fd = await sockets.open({ protocol: "TCP", family });
    await sockets.connect(fd, target);
    const exchange = async () => {
      await sockets.send(fd, "hello\n");
      const reply = readAnswer((await sockets.receive(fd)).payload);
      return "error" in reply ? reply.error : reply.server;
    };
    return { server: await exchange(), exchange, close: () => sockets.close(fd) };
  }

  #helper(client: Client): Helper {
    return this.#clients.get(this.#host(client).name)!;
  }

  #host({ from, source }: Client): Host {
    if (from === "external") return this.#lab.outside;
    if (from === "node") return this.#isUnseen ? this.#node.bystander : this.#node;
    const pod = this.#pods.get(source);
    if (!pod) throw new Error(`There is no pod with the address ${source}`);
    return pod;
  }

  async close(): Promise<void> {
    if (this.#agent && !this.#agent.ended()) await this.#agent.kill();
    await this.#lab.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}

function familyOf(address: string): Family {
  return address.includes(":") ? "ipv6" : "ipv4";
}

/** An address as a prefix. */
function prefixOf(address: string): string {
  return `${address}/${address.includes(":") ? 128 : 32}`;
}

async function serve(host: Host, servers: readonly Address[]): Promise<void> {
  const helper = await host.helper();
  for (const server of servers) {
    const identity = authority(server);
    await helper.serveTcp({ identity, ...server });
    await helper.serveUdp({ identity, ...server });
  }
}

function readAnswer(text: string): Reply {
  const { identity, client } = JSON.parse(text) as Answer;
  return { server: identity, client: client.address };
}

async function askUdp(
  helper: Helper,
  { address, port, ...question }: Address & { local?: { address: string }; timeoutSeconds: number },
): Promise<Reply> {
  const result = await helper.udp({
    ...question,
    family: address.includes(":") ? 6 : 4,
    connect: { address, port },
    datagrams: [{ payload: "hello" }],
  });
  if ("error" in result) return result;
  const [reply] = result.replies;
  return reply ? readAnswer(reply.payload) : { error: result.errors[0] ?? "nothing" };
}
