// A node with a generator of frames on one side and a sink on the other, three network namespaces
// in a row: what the node does with a frame is all that differs between beds. Knows no Service.
//
//   generator ── node ── sink        Every ── is a veth pair; all of it works on one CPU.
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import { Host } from "../lab/host.ts";
import type { Lab } from "../lab/lab.ts";
import { makeFrame } from "./frame.ts";
import { Frames } from "./frames.ts";
import { lastCpu } from "./machine.ts";
import { ENDPOINT_PREFIX } from "./services.ts";

const SENDER = path.resolve(import.meta.dirname, "sender");
const netnsFolder = "/run/netns";
const MACS = {
  generator: "02:00:00:00:00:01",
  nodeIn: "02:00:00:00:00:02",
  nodeOut: "02:00:00:00:00:03",
  sink: "02:00:00:00:00:04",
} as const;
const CLIENT = "203.0.113.10";
/** 64k flows come from two addresses, more from those that follow. */
const CLIENTS = 40;
const SINK = "198.18.0.2";
export const NODE_ADDRESS = "203.0.113.1";
export const NODE_IN = "in";
export const NODE_OUT = "out";

/** Where frames go. */
export interface Aim {
  address: string;
  port: number;
  /** A power of two. */
  flows: number;
}

export class Bed {
  readonly node: Host;
  readonly #generator: Host;
  readonly #sink: Host;
  readonly #pins: string;
  readonly #senders: ChildProcess[] = [];
  readonly #frames: Frames[] = [];
  #pinned = 0;

  private constructor(lab: Lab, { name, pins }: { name: string; pins: string }) {
    const host = (part: string) =>
      new Host({
        name: `${name}-${part}`,
        netns: `${netnsFolder}/${lab.name}.${name}-${part}`,
        cgroup: lab.outside.cgroup,
        addresses: { ipv4: "", ipv6: "" },
      });
    this.node = host("node");
    this.#generator = host("generator");
    this.#sink = host("sink");
    this.#pins = `${pins}/${name}`;
  }

  /** Makes one beside a lab, with which it is removed. `pins` is a folder in bpffs. */
  static async create(lab: Lab, place: { name: string; pins: string }): Promise<Bed> {
    const bed = new Bed(lab, place);
    await bed.#build();
    return bed;
  }

  /** The index of one of the node's devices, NODE_IN or NODE_OUT. */
  device(name: string): number {
    return indexOf(this.node, name);
  }

  /** Puts a program on where frames arrive at the node, or at the sink, in the driver. */
  async attach(where: "node" | "sink", file: string): Promise<void> {
    const [host, device] = where === "node" ? [this.node, NODE_IN] : [this.#sink, "sink"];
    await host.ip(`link set dev ${device} xdpdrv pinned ${file}`);
  }

  /** Frames that are sent to somewhere: a function that sends so many and says what they took. */
  async sender({ address, port, flows }: Aim): Promise<(count: number) => Promise<number>> {
    const frame = makeFrame({
      destinationMac: MACS.nodeIn,
      sourceMac: MACS.generator,
      source: CLIENT,
      destination: address,
      protocol: "UDP",
      sourcePort: 1024,
      destinationPort: port,
    });
    const frames = new Frames({ frame, flows, device: indexOf(this.#generator, "generator") });
    this.#frames.push(frames);
    const command = [SENDER, String(lastCpu()), this.pin(frames, "generate")];
    const child = this.#generator.spawn(command, { stdio: ["pipe", "pipe", "inherit"] });
    this.#senders.push(child);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    return async (count) => {
      child.stdin!.write(`${count}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`The sender of ${this.node.name} ended; see its error`);
      return Number(value);
    };
  }

  /** Pins a program where the bed's other commands find it; returns the file. */
  pin(frames: Frames, name: Parameters<Frames["pin"]>[0]): string {
    this.#pinned += 1;
    const file = `${this.#pins}_${this.#pinned}`;
    frames.pin(name, file);
    return file;
  }

  async close(): Promise<void> {
    for (const child of this.#senders) {
      const exited = once(child, "exit");
      child.stdin!.end();
      await exited;
    }
    for (const frames of this.#frames) frames.close();
  }

  async #build(): Promise<void> {
    const [generator, node, sink] = [this.#generator, this.node, this.#sink].map((host) =>
      path.basename(host.netns),
    );
    const pair = (one: string, other: string) => `link add ${one} type veth peer name ${other}`;
    const lines = [
      ...[generator, node, sink].map((name) => `netns add ${name}`),
      pair(
        `generator netns ${generator} address ${MACS.generator}`,
        `${NODE_IN} netns ${node} address ${MACS.nodeIn}`,
      ),
      pair(
        `${NODE_OUT} netns ${node} address ${MACS.nodeOut}`,
        `sink netns ${sink} address ${MACS.sink}`,
      ),
    ];
    execFileSync("ip", ["-batch", "-"], { input: `${lines.join("\n")}\n` });
    await this.#generator.ip(`address add ${CLIENT}/16 dev generator`, "link set generator up");
    await this.#sink.ip(`address add ${SINK}/24 dev sink`, "link set sink up");
    await this.#buildNode();
  }

  async #buildNode(): Promise<void> {
    const settings = ["ip_forward=1", ...[NODE_IN, NODE_OUT, "all"].map(looseFilter)];
    const script = settings.map((setting) => {
      const [file, value] = setting.split("=");
      return `echo ${value} > /proc/sys/net/ipv4/${file}`;
    });
    const { code, stderr } = await this.node.run(["sh", "-ec", script.join("\n")]);
    if (code !== 0) throw new Error(`Cannot set up ${this.node.name}: ${stderr}`);
    const clients = Array.from({ length: CLIENTS }, (_, index) => `203.0.113.${10 + index}`);
    await this.node.ip(
      `address add ${NODE_ADDRESS}/16 dev ${NODE_IN}`,
      `link set ${NODE_IN} up`,
      `address add 198.18.0.1/24 dev ${NODE_OUT}`,
      `link set ${NODE_OUT} up`,
      `route add ${ENDPOINT_PREFIX} via ${SINK} dev ${NODE_OUT}`,
      `neigh add ${SINK} lladdr ${MACS.sink} dev ${NODE_OUT} nud permanent`,
      ...clients.map(
        (client) => `neigh add ${client} lladdr ${MACS.generator} dev ${NODE_IN} nud permanent`,
      ),
    );
  }
}

/** No packet is dropped for where it came from. */
function looseFilter(device: string): string {
  return `conf/${device}/rp_filter=0`;
}

function indexOf(host: Host, device: string): number {
  const inside = [`--net=${host.netns}`, "ip", "-o", "link", "show", device];
  return Number(/^\d+/.exec(execFileSync("nsenter", inside, { encoding: "utf8" }))?.[0]);
}
