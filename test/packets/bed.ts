// The programs of the packet path on real maps and devices of a lab, run one packet at a time by
// BPF_PROG_TEST_RUN. Packets are scapy's, so that what comes out is held against sums that are not
// ours. Knows how to run, not what is right.
import { closeSync, openSync } from "node:fs";
import {
  device as deviceLayout,
  flowKind,
  flow as flowLayout,
  limit,
  node as nodeLayout,
  reason,
} from "../../bindings/layout.ts";
import { BpfObject, type PacketRun, type Program, type TestPacket } from "../../bindings/object.ts";
import { insideNetns } from "../../bindings/system.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { NodeMap } from "../../control/dataplane/devices/node.ts";
import { Flows } from "../../control/dataplane/flows.ts";
import {
  kernelStorage,
  loadObject,
  type MapName,
  Meta,
  type OpenMaps,
  openOwn,
  type Rodata,
} from "../../control/dataplane/kernel.ts";
import { addressBytes, addressHash, Maps } from "../../control/dataplane/maps.ts";
import { objectPath } from "../../control/dataplane/objects.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { REASON_WORDS } from "../../control/dataplane/words.ts";
import type { AddressRow, ServiceRow } from "../../control/model/rows.ts";
import type { Helper } from "../../lab/host.ts";
import { Lab, type LabNode } from "../../lab/lab.ts";
import { Packets } from "../../lab/packets.ts";
import { FAMILIES, type Family, MACS, PLACES } from "./places.ts";

/** The hooks that packets meet, by the names of their programs. */
export const HOOKS = {
  xdp: { file: "xdp.bpf.o", program: "svc_xdp" },
  ingress: { file: "tc.bpf.o", program: "svc_tc_ingress" },
  egress: { file: "tc.bpf.o", program: "svc_tc_egress" },
} as const;
export type HookName = keyof typeof HOOKS;

/** Verdicts as words: "next" leaves a packet to whoever comes after. */
const VERDICTS: Readonly<Record<HookName, Readonly<Record<number, Verdict>>>> = {
  xdp: { 1: "dropped", 2: "next", 3: "sent", 4: "sent" },
  ingress: { 4294967295: "next", 2: "dropped", 7: "sent" },
  egress: { 4294967295: "next", 2: "dropped", 7: "sent" },
};
export type Verdict = "next" | "dropped" | "sent";

/** What became of a packet. */
export interface Run {
  verdict: Verdict;
  frame: Uint8Array;
}

const SKB_BYTES = 192;
const SKB_IFINDEX = 40;
const SKB_GSO_SIZE = 176;
const XDP_BYTES = 24;
const MAC_OF = /link\/ether ([0-9a-f:]+)/;
const INDEX_OF = /^(\d+):/;

interface Device {
  index: number;
  mac: Uint8Array;
}

export interface BedOptions {
  /** Variables of the programs' rodata. */
  rodata?: Rodata;
}

/** How a frame comes to a hook. */
export interface Arrival {
  hook: HookName;
  /** "eth0" unless given. */
  device?: string;
  /** The frame stands for segments with so many bytes each after their headers. */
  gsoSize?: number;
  /** See bindings. */
  isSummed?: boolean;
}

/** What struct node says, as the agent would have it here. */
const NODE = {
  natFirst: 1024,
  natCount: 28976,
  hostFirst: 32768,
  hostLast: 60999,
  nodePortFirst: 30000,
  nodePortLast: 32767,
} as const;
export type NodeNumbers = Record<keyof typeof NODE, number>;

/** A range of addresses. */
export type Range = readonly [address: string, length: number];

/** What of the node differs from case to case. */
export interface NodeSettings {
  numbers?: Partial<NodeNumbers>;
  /** Where pods are, by family; without one pods cannot be told from others. */
  pods?: Partial<Record<Family, Range>>;
  /** Its addresses; the first two are those to send from, of IPv4 and IPv6. */
  addresses?: readonly string[];
}

const PODS = { 4: ["10.244.0.0", 16], 6: ["fd00:10:244::", 56] } as const;
const ADDRESSES = FAMILIES.map((family) => PLACES[family].node);

/** A unit of a flow's clock. */
export const FLOW_UNIT_SECONDS = 2 ** limit.FLOW_CLOCK_SHIFT / 1e9;

/** A flow in the table, as its own kind of packet meets it. */
export interface FlowRecord {
  /** Of its place, counted from the table's start. */
  place: number;
  kind: "forward" | "reverse";
  state: number;
  lastUsed: number;
  /** What both halves of a connection have in common. */
  content: string;
  clientPort: number;
}

export class Bed {
  readonly packets: Packets;
  readonly node: LabNode;
  readonly maps: OpenMaps;
  readonly dataplane: Dataplane;
  readonly devices: Readonly<Record<string, Device>>;
  readonly #lab: Lab;
  readonly #lock: { release(): void };
  readonly #netns: number;
  /** Objects by configuration, since the verifier takes its time, and then by file. */
  readonly #loaded = new Map<string, Map<string, BpfObject>>();
  #objects = new Map<string, BpfObject>();
  readonly #hooks = new Map<HookName, Program>();
  #helpers: Helper[] = [];
  #marked: readonly string[] = [];
  #numbers: NodeNumbers = NODE;

  private constructor(
    parts: Pick<Bed, "packets" | "node" | "maps" | "dataplane" | "devices">,
    { lab, lock }: { lab: Lab; lock: { release(): void } },
  ) {
    this.packets = parts.packets;
    this.node = parts.node;
    this.maps = parts.maps;
    this.dataplane = parts.dataplane;
    this.devices = parts.devices;
    this.#lab = lab;
    this.#lock = lock;
    this.#netns = openSync(parts.node.netns, "r");
  }

  /** A node with one pod, another node, the maps and the programs; every neighbour is known. */
  static async open(options: BedOptions = {}): Promise<Bed> {
    const topology = { "node-a": ["pod-a1"], "node-b": ["pod-b1"] };
    const lab = await Lab.create({ name: "packets", topology });
    const node = lab.nodes["node-a"]!;
    const pins = new Pins(node.pins);
    const lock = pins.open();
    loadObject(pins, { rodata: {}, capacities: { svc_flows: 1024 } }).object.close();
    const maps = openOwn(pins)!;
    const storage = kernelStorage(maps, new Meta(maps.svc_meta, { readOnly: false }));
    const dataplane = new Dataplane(new Maps(storage));
    const devices = Object.fromEntries(
      await Promise.all(["eth0", "pod-a1"].map(async (name) => [name, await describe(node, name)])),
    );
    for (const family of [4, 6] as const) await knowNeighbours(node, family);
    const packets = await Packets.start();
    const bed = new Bed({ packets, node, maps, dataplane, devices }, { lab, lock });
    bed.describeNode();
    bed.describeDevices();
    bed.load(options);
    return bed;
  }

  async close(): Promise<void> {
    await this.closeHelpers();
    for (const objects of this.#loaded.values())
      for (const object of objects.values()) object.close();
    closeSync(this.#netns);
    await this.packets.close();
    this.#lock.release();
    await this.#lab.close();
  }

  /** Takes the programs with this configuration. */
  load({ rodata = {} }: BedOptions = {}): void {
    const key = JSON.stringify(rodata);
    this.#objects = this.#loaded.get(key) ?? new Map();
    this.#loaded.set(key, this.#objects);
    for (const { file } of Object.values(HOOKS)) {
      if (this.#objects.has(file)) continue;
      const object = BpfObject.open(objectPath(file));
      const values = { flow_set_mask: this.maps.svc_flows.info.maxEntries - 1, ...rodata };
      for (const [variable, value] of Object.entries(values)) object.setRodata(variable, value);
      for (const map of object.maps()) {
        const shared = this.maps[map.name as MapName];
        if (shared) map.reuse(shared);
      }
      object.load();
      this.#objects.set(file, object);
    }
    for (const [hook, { file, program }] of Object.entries(HOOKS))
      this.#hooks.set(hook as HookName, this.#objects.get(file)!.program(program));
  }

  /** The service rows and addresses to be programmed, in place of what is. */
  program({
    services,
    addresses = [],
    serviceRanges = [],
  }: {
    services: readonly ServiceRow[];
    addresses?: readonly AddressRow[];
    serviceRanges?: readonly string[];
  }): void {
    this.dataplane.replace(services);
    this.dataplane.replaceAddresses(addresses);
    this.dataplane.setServiceRanges(serviceRanges);
    const errors = this.dataplane.flush();
    if (errors.length > 0) throw new Error(errors.map(({ message }) => message).join(", "));
  }

  /** Forgets every connection, all that was counted, and that answers were sent. */
  forget(): void {
    for (const name of ["svc_flows", "svc_hops", "svc_answering"] as const)
      this.maps[name].withMemory((memory) => memory.fill(0));
    for (const name of ["svc_affinity", "svc_fragments"] as const)
      for (const key of this.maps[name].keys()) this.maps[name].delete(key);
    this.allowAnswers();
    const valueSize = this.maps.svc_reasons.get(new Uint8Array(4))!.length;
    const count = reason.REASON_COUNT;
    for (let index = 0; index < count; index++)
      this.maps.svc_reasons.set(Uint8Array.of(index, 0, 0, 0), new Uint8Array(valueSize));
  }

  /** Forgets how many answers were sent, of which there may be only so many in a second. */
  allowAnswers(): void {
    this.maps.svc_answers.set(new Uint8Array(4), new Uint8Array(this.maps.svc_answers.valueBytes));
  }

  /** How often each reason was counted, those that were not left out. */
  reasons(): Record<string, number> {
    const counted: Record<string, number> = {};
    for (const [word, index] of REASON_WORDS) {
      const value = this.maps.svc_reasons.get(Uint8Array.of(index, 0, 0, 0));
      if (!value) continue;
      const view = new DataView(value.buffer, value.byteOffset, value.byteLength);
      let sum = 0;
      for (let at = 0; at < value.length; at += 8) sum += Number(view.getBigUint64(at, true));
      if (sum > 0) counted[word] = sum;
    }
    return counted;
  }

  /** A frame as it comes in by a device of the node, or is about to leave by it. */
  async frame(
    packet: string,
    {
      device = "eth0",
      leaving = false,
      to,
    }: { device?: string; leaving?: boolean; to?: string } = {},
  ): Promise<Uint8Array> {
    const own = formatMac(this.devices[device]!.mac);
    const [from, addressee] = leaving ? [own, MACS.somebody] : [MACS.somebody, own];
    const frame = `Ether(src="${from}",dst="${to ?? addressee}")/${packet}`;
    return Uint8Array.from((await this.packets.build(frame))[0]!);
  }

  /** Runs a frame through a hook of a device. */
  run(frame: Uint8Array, arrival: Arrival): Run {
    return this.inside(() => this.runInside(frame, arrival));
  }

  /** Does something in the node's network namespace, at once. */
  inside<T>(action: () => T): T {
    return insideNetns(this.#netns, action);
  }

  /** The same as run(), for those who are inside() already. */
  runInside(frame: Uint8Array, { hook, device = "eth0", gsoSize = 0, isSummed }: Arrival): Run {
    const { index } = this.devices[device]!;
    const context =
      hook === "xdp" ? xdpContext(frame.length, index) : skbContext({ ifindex: index, gsoSize });
    const packet: TestPacket = { data: frame, context };
    if (isSummed) packet.isSummed = true;
    const { verdict, data }: PacketRun = this.#hooks.get(hook)!.testPacket(packet);
    const word = VERDICTS[hook][verdict];
    if (word === undefined) throw new Error(`${HOOKS[hook].program} returned ${verdict}`);
    return { verdict: word, frame: data };
  }

  /** A process of the node that has sockets; it ends with closeHelpers(). */
  async helper(): Promise<Helper> {
    const helper = await this.node.helper();
    this.#helpers.push(helper);
    return helper;
  }

  async closeHelpers(): Promise<void> {
    for (const helper of this.#helpers) await helper.close();
    this.#helpers = [];
  }

  /** Takes all flows back in time, or those that are chosen. */
  age(seconds: number, chosen: (flow: FlowRecord) => boolean = () => true): void {
    const units = Math.ceil(seconds / FLOW_UNIT_SECONDS);
    this.#eachFlow((view, at, flow) => {
      if (chosen(flow))
        view.setUint16(at + flowLayout.offset.lastUsed, flow.lastUsed - units, true);
    });
  }

  /** Has no connection begin for so long, as an agent does that moves all to another table. */
  holdFlows(seconds: number): void {
    const until = process.hrtime.bigint() + BigInt(seconds * 1e9);
    this.maps.svc_node.withMemory((memory) => new NodeMap(memory).holdFlows(until));
  }

  /** Puts all connections in an empty table, as an agent does, for programs to find them there. */
  moveFlows(): void {
    this.maps.svc_node.withMemory((node) =>
      this.maps.svc_flows.withMemory((flows) => {
        const other = flows.slice();
        flows.fill(0);
        const table = new Flows({ flows, node });
        table.newMove().take(other, table.time);
      }),
    );
  }

  /** Every flow in the table. */
  flows(): FlowRecord[] {
    const all: FlowRecord[] = [];
    this.#eachFlow((_, __, flow) => all.push(flow));
    return all;
  }

  /** The port ranges that the agent last said. */
  get numbers(): NodeNumbers {
    return this.#numbers;
  }

  /** What the agent says of the node. */
  describeNode({ numbers, pods = PODS, addresses = ADDRESSES }: NodeSettings = {}): void {
    const bytes = new Uint8Array(nodeLayout.bytes);
    const view = new DataView(bytes.buffer);
    const { offset, stride } = nodeLayout;
    for (const [index, address] of addresses.entries())
      bytes.set(addressBytes(address), offset.source + (index + 1) * stride.source);
    this.#markNode(addresses);
    for (let at = 0; at < 10; at++)
      view.setUint32(offset.hashKey + 4 * at, Math.imul(at + 1, 0x9e3779b1) >>> 0, true);
    this.#numbers = { ...NODE, ...numbers };
    for (const [field, value] of Object.entries(this.#numbers))
      view.setUint16(offset[field as keyof NodeNumbers], value, true);
    for (const [index, family] of FAMILIES.entries()) {
      const range = pods[family];
      const bits = rangeBytes(range ?? (["::", 0] as const), family);
      bytes.set(bits, offset.pods + index * stride.pods);
      view.setUint8(index === 0 ? offset.detectsIpv4 : offset.detectsIpv6, range ? 1 : 0);
    }
    this.maps.svc_node.set(new Uint8Array(4), bytes);
  }

  /** As the agent would say what each device is; eth0 leads to other hosts, or is a tunnel. */
  describeDevices({ eth0 = "uplink" }: { eth0?: "uplink" | "tunnel" } = {}): void {
    for (const [name, { index, mac }] of Object.entries(this.devices)) {
      const value = new Uint8Array(deviceLayout.bytes);
      const isOutside = name === "eth0";
      deviceLayout.write(new DataView(value.buffer), 0, {
        mac,
        sendsFrames: isOutside ? 1 : 0,
        isUplink: isOutside && eth0 === "uplink" ? 1 : 0,
        isPod: 0,
        isInside: isOutside ? 0 : 1,
        sourceIpv4: 1,
        sourceIpv6: 2,
        note: 0,
        error: 0,
      });
      const key = new Uint8Array(4);
      new DataView(key.buffer).setUint32(0, index, true);
      this.maps.svc_devices.set(key, value);
    }
  }

  /** Sets the bit FILTER_NODE of these addresses alone. */
  #markNode(addresses: readonly string[]): void {
    this.maps.svc_filter.withMemory((memory) => {
      for (const address of this.#marked) markNode(memory, addressBytes(address), false);
      for (const address of addresses) markNode(memory, addressBytes(address), true);
    });
    this.#marked = addresses;
  }

  #eachFlow(use: (view: DataView, at: number, flow: FlowRecord) => void): void {
    this.maps.svc_flows.withMemory((memory) => {
      const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
      for (let at = 0; at < memory.byteLength; at += flowLayout.bytes) {
        const lock = view.getUint32(at + flowLayout.offset.lock, true);
        const kind = (lock >> limit.FLOW_KIND_SHIFT) & 3;
        if (kind === flowKind.FLOW_FREE) continue;
        const { lastUsed, clientPort } = flowLayout.read(view, at);
        const { clientPort: from } = flowLayout.offset;
        const content = Buffer.from(memory.subarray(at + from, at + flowLayout.bytes));
        use(view, at, {
          place: at / flowLayout.bytes,
          kind: kind === flowKind.FLOW_FORWARD ? "forward" : "reverse",
          state: lock >>> limit.FLOW_STATE_SHIFT,
          lastUsed,
          clientPort,
          content: content.toString("hex"),
        });
      }
    });
  }
}

async function describe(node: LabNode, name: string): Promise<Device> {
  const { stdout } = await node.run(["ip", "-o", "link", "show", name]);
  const index = Number(INDEX_OF.exec(stdout)?.[1]);
  const mac = MAC_OF.exec(stdout)?.[1];
  if (!mac) throw new Error(`Device "${name}" has no MAC address: ${stdout}`);
  return { index, mac: Uint8Array.from(mac.split(":"), (byte) => Number.parseInt(byte, 16)) };
}

async function knowNeighbours(node: LabNode, family: Family): Promise<void> {
  const { router, nodeB } = PLACES[family];
  for (const [address, mac] of [
    [router, MACS.router],
    [nodeB, MACS.nodeB],
  ])
    await node.run(`ip neigh replace ${address} lladdr ${mac} dev eth0 nud permanent`.split(" "));
}

/** Sets or clears an address's bit FILTER_NODE. */
function markNode(filter: Uint8Array, address: Uint8Array, isSet: boolean): void {
  const words = new BigUint64Array(filter.buffer, filter.byteOffset, filter.byteLength / 8);
  const position = addressHash(address) % (words.length * limit.FILTER_POSITIONS);
  const bit = BigInt(limit.FILTER_NODE) << BigInt((position % limit.FILTER_POSITIONS) * 4);
  const word = Math.floor(position / limit.FILTER_POSITIONS);
  words[word] = isSet ? words[word]! | bit : words[word]! & ~bit;
}

/** struct service_range: an address and its mask. */
function rangeBytes([address, length]: Range, family: Family): Uint8Array {
  const bits = length + (family === 4 ? 96 : 0);
  const mask = Uint8Array.from({ length: 16 }, (_, byte) => {
    const left = Math.min(8, Math.max(0, bits - 8 * byte));
    return 0xff & (0xff00 >> left);
  });
  const bytes = addressBytes(address);
  return Uint8Array.from([...bytes.map((byte, at) => byte & mask[at]!), ...mask]);
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

/** A run only reads its context: the next one has the same. */
const XDP_CONTEXT = new DataView(new ArrayBuffer(XDP_BYTES));
const SKB_CONTEXT = new DataView(new ArrayBuffer(SKB_BYTES));

function xdpContext(length: number, ifindex: number): Uint8Array {
  XDP_CONTEXT.setUint32(4, length, true);
  XDP_CONTEXT.setUint32(12, ifindex, true);
  return new Uint8Array(XDP_CONTEXT.buffer);
}

function skbContext({ ifindex, gsoSize }: { ifindex: number; gsoSize: number }): Uint8Array {
  SKB_CONTEXT.setUint32(SKB_IFINDEX, ifindex, true);
  SKB_CONTEXT.setUint32(SKB_GSO_SIZE, gsoSize, true);
  return new Uint8Array(SKB_CONTEXT.buffer);
}
