// A node with a generator of frames on one side and a sink on the other, three network namespaces
// in a row: what the node does with a frame is all that differs between beds. Knows no Service.
//
//   generator ── node ── sink        Every ── is a veth pair; all of it works on one CPU.
import { type ChildProcess, execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { Host } from "../lab/host.ts";
import { type Lab, LabNode } from "../lab/lab.ts";
import { Frames } from "./frames.ts";
import { lastCpu } from "./machine.ts";
import { ENDPOINT_PREFIX } from "./services.ts";

const SENDER = path.resolve(import.meta.dirname, "sender");
const netnsFolder = "/run/netns";
const MACS = {
  generator: "02:00:00:00:00:01",
  in: "02:00:00:00:00:02",
  out: "02:00:00:00:00:03",
  sink: "02:00:00:00:00:04",
} as const;
/**
 * The devices by their names: the generator's, the node's towards it and away from it, the sink's.
 */
export type Device = keyof typeof MACS;
const CLIENT = "203.0.113.10";
/** 64k flows come from two addresses, more from those that follow. */
const CLIENTS = 40;
const SINK = "198.18.0.2";
export const NODE_ADDRESS = "203.0.113.1";

/** Where frames go. */
export interface Aim {
  address: string;
  port: number;
  /** A power of two. */
  flows: number;
}

/** Sends so many frames; returns nanoseconds of CPU for all that they caused. */
export type Send = (count: number) => Promise<number>;

export class Bed {
  readonly node: LabNode;
  /** What has come back to the generator, and what has come to the sink. */
  readonly home = new Frames();
  readonly far = new Frames();
  readonly #hosts: Readonly<Record<Device, Host>>;
  readonly #senders: ChildProcess[] = [];
  readonly #frames: Frames[] = [this.home, this.far];
  #pinned = 0;

  private constructor(lab: Lab, { name, pins }: { name: string; pins: string }) {
    const place = (part: string) => ({
      name: `${name}-${part}`,
      netns: `${netnsFolder}/${lab.name}.${name}-${part}`,
      cgroup: `${lab.outside.cgroup}/${name}`,
      addresses: { ipv4: "", ipv6: "" },
    });
    const beside = lab.outside.cgroup;
    const addresses = { ipv4: NODE_ADDRESS, ipv6: "" };
    const inside = { ...place("node"), addresses, pins: `${pins}/${name}`, pods: {} };
    this.node = new LabNode(inside, { beside });
    const host = (part: string) => new Host({ ...place(part), cgroup: beside });
    const [generator, sink] = [host("generator"), host("sink")];
    this.#hosts = { generator, in: this.node, out: this.node, sink };
  }

  /** Makes one beside a lab, with which it is removed. `pins` is a folder in bpffs. */
  static async create(lab: Lab, place: { name: string; pins: string }): Promise<Bed> {
    const bed = new Bed(lab, place);
    await bed.#build();
    await bed.attach("generator", { program: "sink", frames: bed.home });
    await bed.attach("sink", { program: "sink", frames: bed.far });
    return bed;
  }

  /** Puts a program on a device, in the driver; only then a veth takes frames that XDP sends. */
  async attach(
    device: Device,
    { program, frames = this.far }: { program: "pass" | "sink"; frames?: Frames },
  ): Promise<void> {
    const file = this.#pin(frames, program);
    await this.#hosts[device].ip(`link set dev ${device} xdpdrv pinned ${file}`);
  }

  /** Has one of the node's devices send all that arrives on by the other one. */
  async redirect(from: "in" | "out", to: "in" | "out"): Promise<void> {
    const frames = new Frames({ device: indexOf(this.node, to) });
    this.#frames.push(frames);
    await this.node.ip(`link set dev ${from} xdpdrv pinned ${this.#pin(frames, "forward")}`);
  }

  /** A process that sends frames to somewhere. */
  async sender({ address, port, flows }: Aim): Promise<Send> {
    const { generator } = this.#hosts;
    const frames = new Frames({
      fields: {
        destinationMac: MACS.in,
        sourceMac: MACS.generator,
        source: CLIENT,
        destination: address,
        protocol: "UDP",
        sourcePort: 1024,
        destinationPort: port,
      },
      flows,
      device: indexOf(generator, "generator"),
    });
    this.#frames.push(frames);
    const command = [SENDER, String(lastCpu()), this.#pin(frames, "generate")];
    const child = generator.spawn(command, { stdio: ["pipe", "pipe", "inherit"] });
    this.#senders.push(child);
    const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    return async (count) => {
      child.stdin!.write(`${count}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`The sender of ${this.node.name} ended; see its error`);
      return Number(value);
    };
  }

  async close(): Promise<void> {
    for (const child of this.#senders) {
      const exited = once(child, "exit");
      child.stdin!.end();
      await exited;
    }
    for (const frames of this.#frames) frames.close();
  }

  /** Pins a program where the bed's other commands find it; returns the file. */
  #pin(frames: Frames, name: Parameters<Frames["pin"]>[0]): string {
    this.#pinned += 1;
    const file = `${this.node.pins}/${name}_${this.#pinned}`;
    frames.pin(name, file);
    return file;
  }

  async #build(): Promise<void> {
    mkdirSync(path.join(this.node.cgroup, "system"), { recursive: true });
    mkdirSync(this.node.pins);
    const netns = (device: Device) => path.basename(this.#hosts[device].netns);
    const end = (device: Device) => `netns ${netns(device)} address ${MACS[device]}`;
    const pair = (one: Device, other: Device) =>
      `link add ${one} ${end(one)} type veth peer name ${other} ${end(other)}`;
    const spaces = new Set((["generator", "in", "sink"] as const).map(netns));
    const lines = [
      ...[...spaces].map((name) => `netns add ${name}`),
      pair("generator", "in"),
      pair("out", "sink"),
    ];
    execFileSync("ip", ["-batch", "-"], { input: `${lines.join("\n")}\n` });
    const { generator, sink } = this.#hosts;
    await generator.ip(`address add ${CLIENT}/16 dev generator`, "link set generator up");
    await sink.ip(`address add ${SINK}/24 dev sink`, "link set sink up");
    await this.#buildNode();
  }

  async #buildNode(): Promise<void> {
    // No packet is dropped for where it came from.
    const loose = ["in", "out", "all"].map((device) => `conf/${device}/rp_filter=0`);
    const script = ["ip_forward=1", ...loose].map((setting) => {
      const [file, value] = setting.split("=");
      return `echo ${value} > /proc/sys/net/ipv4/${file}`;
    });
    const { code, stderr } = await this.node.run(["sh", "-ec", script.join("\n")]);
    if (code !== 0) throw new Error(`Cannot set up ${this.node.name}: ${stderr}`);
    const clients = Array.from({ length: CLIENTS }, (_, index) => `203.0.113.${10 + index}`);
    await this.node.ip(
      `address add ${NODE_ADDRESS}/16 dev in`,
      "link set in up",
      "address add 198.18.0.1/24 dev out",
      "link set out up",
      `route add ${ENDPOINT_PREFIX} via ${SINK} dev out`,
      `neigh add ${SINK} lladdr ${MACS.sink} dev out nud permanent`,
      ...clients.map(
        (client) => `neigh add ${client} lladdr ${MACS.generator} dev in nud permanent`,
      ),
    );
  }
}

function indexOf(host: Host, device: string): number {
  const inside = [`--net=${host.netns}`, "ip", "-o", "link", "show", device];
  return Number(/^\d+/.exec(execFileSync("nsenter", inside, { encoding: "utf8" }))?.[0]);
}
