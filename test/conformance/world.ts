// The lab as the vectors see it: this node with the clients' pods, and a world behind it in which
// every other address of the vectors answers, endpoints as well as the Service addresses
// themselves, so that a packet left alone is seen to arrive. Knows no Service and no expectation.
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Host, Running } from "../../lab/host.ts";
import { Lab, type LabNode } from "../../lab/lab.ts";
import type { Address } from "../../lab/sockets.ts";
import { waitFor } from "../../lab/wait.ts";
import { authority } from "./vectors.ts";

const COMMAND = path.resolve(import.meta.dirname, "../../../dist/bpfsvc.js");

/** Takes away the lab's own routes that keep Service addresses from leaving: here they are seen. */
const UNPROHIBIT = ["10.96.0.0/16", "fd00:10:96::/112"].map(
  (prefix) => `route del prohibit ${prefix}`,
);

/** Who asks: a pod by its address, or a process of the node, from this source address. */
export interface Client {
  from: "pod" | "node";
  source: string;
}

/** What a client got: who answered and whom it saw, or an errno's name. */
export type Reply = { server: string; client: string } | { error: string };

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
}

function isLoopback(address: string): boolean {
  return address.startsWith("127.") || address === "::1";
}

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
  #agent: Running | undefined;
  #steps = 0;

  private constructor(lab: Lab, folder: string) {
    this.#lab = lab;
    this.#folder = folder;
  }

  /** Makes the lab, gives everyone the vectors' addresses, and starts all servers. */
  static async open(places: Places): Promise<World> {
    const names = places.pods.map((_, index) => `pod-${index}`);
    const lab = await Lab.create({ name: "world", topology: { "node-a": names } });
    const world = new World(lab, await mkdtemp(path.join(tmpdir(), "bpfsvc-world-")));
    try {
      for (const [index, address] of places.pods.entries())
        await world.#address(lab.pods[`pod-${index}`]!, address);
      await world.#connect(places);
      for (const host of [world.#node, ...Object.values(lab.pods)])
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
    const bits = address.includes(":") ? 128 : 32;
    const node = address.includes(":") ? this.#node.addresses.ipv6 : this.#node.addresses.ipv4;
    await ip(pod, [
      // First the new one: routes go with the last address.
      `address add ${address}/${bits} dev eth0`,
      `address del ${ipv4}/32 dev eth0`,
      `address del ${ipv6}/128 dev eth0`,
      ...UNPROHIBIT,
    ]);
    await ip(this.#node, [
      `route del ${ipv4}/32`,
      `route del ${ipv6}/128`,
      `route add ${address}/${bits} dev ${pod.name} src ${node}`,
    ]);
    await ip(this.#lab.router, [`route replace ${address}/${bits} via ${node}`]);
    this.#pods.set(address, pod);
  }

  async #connect({ nodeAddresses, servers }: Places): Promise<void> {
    const node = this.#node;
    await ip(node, [
      ...nodeAddresses.map((address) => `address add ${address} dev lo`),
      ...UNPROHIBIT,
    ]);
    // For servers at addresses that are local by a route alone.
    const binding = "for file in /proc/sys/net/ipv?/ip_nonlocal_bind; do echo 1 > $file; done";
    for (const host of [node, this.#lab.router]) await host.run(["sh", "-c", binding]);
    await ip(this.#lab.router, UNPROHIBIT);
    const own = new Set([...Object.values(node.addresses), ...nodeAddresses]);
    const remote = new Set<string>();
    const placed = new Map<Host, Address[]>();
    for (const server of servers) {
      const isOwn = own.has(server.address) || isLoopback(server.address);
      const host = this.#pods.get(server.address) ?? (isOwn ? node : this.#lab.router);
      if (host === this.#lab.router) remote.add(server.address);
      placed.set(host, [...(placed.get(host) ?? []), server]);
    }
    await ip(
      this.#lab.router,
      [...remote].map((address) => `route add local ${address} dev lo`),
    );
    for (const [host, list] of placed) await serve(host, list);
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
    const reader = DumpReader.open(new Pins(this.#node.pins))!;
    // A Service's name is written after everything else of the same change.
    const isThere = async () =>
      (await reader.read({ namespace: "step", name })).services.length > 0;
    const what = `the agent to serve step ${this.#steps}; it wrote: ${this.#agent.output()}`;
    await waitFor(isThere, { what, timeoutSeconds: 20 });
  }

  /** One fresh connection over TCP or UDP. */
  async ask(client: Client, protocol: "TCP" | "UDP", target: Address): Promise<Reply> {
    const helper = this.#helper(client);
    const isPrimary = Object.values(this.#node.addresses).includes(client.source);
    const isUnbound = client.from === "pod" || isPrimary || isLoopback(client.source);
    const local = isUnbound ? {} : { local: { address: client.source } };
    const question = { ...local, timeoutSeconds: 2 };
    if (protocol === "TCP") {
      const result = await helper.tcp({ ...question, ...target });
      return "error" in result ? result : readAnswer(result.reply);
    }
    const family = target.address.includes(":") ? 6 : 4;
    const result = await helper.udp({
      ...question,
      family,
      connect: target,
      datagrams: [{ payload: "hello" }],
    });
    if ("error" in result) return result;
    const [reply] = result.replies;
    return reply ? readAnswer(reply.payload) : { error: result.errors[0] ?? "nothing" };
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

  #helper({ from, source }: Client): Helper {
    const host = from === "pod" ? this.#pods.get(source) : this.#node;
    const helper = host && this.#clients.get(host.name);
    if (!helper) throw new Error(`There is no pod with the address ${source}`);
    return helper;
  }

  async close(): Promise<void> {
    if (this.#agent && !this.#agent.ended()) await this.#agent.kill();
    await this.#lab.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
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
