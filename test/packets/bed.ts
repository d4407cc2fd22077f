// The programs of the packet path on real maps and devices of a lab, run one packet at a time by
// BPF_PROG_TEST_RUN. Packets are scapy's, so that what comes out is held against sums that are not
// ours. Knows how to run, not what is right.
import { closeSync, openSync } from "node:fs";
import {
  device as deviceLayout,
  limit,
  node as nodeLayout,
  reason,
} from "../../bindings/layout.ts";
import { BpfObject } from "../../bindings/object.ts";
import { insideNetns } from "../../bindings/system.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
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
import { Lab, type LabNode } from "../../lab/lab.ts";
import { Packets } from "../../lab/packets.ts";

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

/** struct __sk_buff is longer; the kernel takes what is there. */
const SKB_BYTES = 192;
const SKB_IFINDEX = 40;
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

/** Addresses of the bed, by family; those of the lab's routed network. */
export const PLACES = {
  4: {
    client: "203.0.113.10",
    other: "203.0.113.77",
    router: "192.168.50.1",
    node: "192.168.50.2",
    nodeB: "192.168.50.3",
    local: "10.244.1.2",
    remote: "10.244.2.2",
    clusterIP: "10.96.0.80",
    vip: "198.51.100.80",
    vipLocal: "198.51.100.81",
    unowned: "10.96.7.7",
    stranger: "192.0.2.200",
  },
  6: {
    client: "2001:db8:ffff::10",
    other: "2001:db8:ffff::77",
    router: "2001:db8:50::1",
    node: "2001:db8:50::2",
    nodeB: "2001:db8:50::3",
    local: "fd00:10:244:1::2",
    remote: "fd00:10:244:2::2",
    clusterIP: "fd00:10:96::80",
    vip: "2001:db8:51::80",
    vipLocal: "2001:db8:51::81",
    unowned: "fd00:10:96::7707",
    stranger: "2001:db8:52::200",
  },
} as const;
export type Family = keyof typeof PLACES;

export class Bed {
  readonly packets: Packets;
  readonly node: LabNode;
  readonly maps: OpenMaps;
  readonly dataplane: Dataplane;
  readonly devices: Readonly<Record<string, Device>>;
  readonly #lab: Lab;
  readonly #lock: { release(): void };
  #objects = new Map<string, BpfObject>();

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
    bed.#describeNode();
    bed.load(options);
    return bed;
  }

  async close(): Promise<void> {
    this.unload();
    await this.packets.close();
    this.#lock.release();
    await this.#lab.close();
  }

  /** Loads the programs, in place of those that are loaded. */
  load({ rodata = {} }: BedOptions = {}): void {
    this.unload();
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
  }

  unload(): void {
    for (const object of this.#objects.values()) object.close();
    this.#objects = new Map();
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

  /** Forgets every connection and all that was counted. */
  forget(): void {
    for (const name of ["svc_flows", "svc_hops", "svc_answering"] as const)
      this.maps[name].withMemory((memory) => memory.fill(0));
    const valueSize = this.maps.svc_reasons.get(new Uint8Array(4))!.length;
    const count = reason.REASON_COUNT;
    for (let index = 0; index < count; index++)
      this.maps.svc_reasons.set(Uint8Array.of(index, 0, 0, 0), new Uint8Array(valueSize));
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
  async frame(packet: string, { device = "eth0", leaving = false } = {}): Promise<Uint8Array> {
    const own = formatMac(this.devices[device]!.mac);
    const other = "02:00:00:00:00:99";
    const [from, to] = leaving ? [own, other] : [other, own];
    const [built] = await this.packets.build(`Ether(src="${from}",dst="${to}")/${packet}`);
    return Uint8Array.from(built!);
  }

  /** Runs a frame through a hook of a device. */
  run(frame: Uint8Array, { hook, device = "eth0" }: { hook: HookName; device?: string }): Run {
    const { file, program } = HOOKS[hook];
    const { index } = this.devices[device]!;
    const context = hook === "xdp" ? xdpContext(frame.length, index) : skbContext(index);
    const loaded = this.#objects.get(file)!.program(program);
    const fd = openSync(this.node.netns, "r");
    try {
      const { verdict, data } = insideNetns(fd, () => loaded.testPacket({ data: frame, context }));
      const word = VERDICTS[hook][verdict];
      if (word === undefined) throw new Error(`${program} returned ${verdict}`);
      return { verdict: word, frame: data };
    } finally {
      closeSync(fd);
    }
  }

  /** What the agent says of the node and its devices. */
  #describeNode(): void {
    const bytes = new Uint8Array(nodeLayout.bytes);
    const view = new DataView(bytes.buffer);
    const { offset } = nodeLayout;
    for (const [index, family] of [4, 6].entries()) {
      const { node } = PLACES[family as Family];
      const address = addressBytes(node);
      bytes.set(address, offset.source + (index + 1) * address.length);
      this.maps.svc_filter.withMemory((memory) => markNode(memory, address));
    }
    for (let at = 0; at < 10; at++)
      view.setUint32(offset.hashKey + 4 * at, Math.imul(at + 1, 0x9e3779b1) >>> 0, true);
    const numbers = {
      natFirst: 1024,
      natCount: 28976,
      hostFirst: 32768,
      hostLast: 60999,
      nodePortFirst: 30000,
      nodePortLast: 32767,
    } as const;
    for (const [field, value] of Object.entries(numbers))
      view.setUint16(offset[field as keyof typeof numbers], value, true);
    this.setPods(view, { 4: ["10.244.0.0", 16], 6: ["fd00:10:244::", 56] });
    this.maps.svc_node.set(new Uint8Array(4), bytes);
    for (const [name, { index, mac }] of Object.entries(this.devices)) {
      const value = new Uint8Array(deviceLayout.bytes);
      const isUplink = name === "eth0";
      deviceLayout.write(new DataView(value.buffer), 0, {
        mac,
        sendsFrames: isUplink ? 1 : 0,
        isUplink: isUplink ? 1 : 0,
        isPod: 0,
        isInside: isUplink ? 0 : 1,
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

  /** Where pods are, by family: an address and its prefix length. */
  private setPods(view: DataView, pods: Record<Family, readonly [string, number]>): void {
    const { offset, stride } = nodeLayout;
    for (const [index, family] of ([4, 6] as const).entries()) {
      const [address, length] = pods[family];
      const bits = length + (family === 4 ? 96 : 0);
      const at = offset.pods + index * stride.pods;
      const mask = Uint8Array.from({ length: 16 }, (_, byte) => {
        const left = Math.min(8, Math.max(0, bits - 8 * byte));
        return 0xff & (0xff00 >> left);
      });
      for (let byte = 0; byte < 16; byte++) {
        view.setUint8(at + byte, addressBytes(address)[byte]! & mask[byte]!);
        view.setUint8(at + 16 + byte, mask[byte]!);
      }
    }
    view.setUint8(offset.detectsIpv4, 1);
    view.setUint8(offset.detectsIpv6, 1);
  }
}

async function describe(node: LabNode, name: string): Promise<Device> {
  const { stdout } = await node.run(["ip", "-o", "link", "show", name]);
  const index = Number(INDEX_OF.exec(stdout)?.[1]);
  const mac = MAC_OF.exec(stdout)?.[1];
  if (!mac) throw new Error(`Device "${name}" has no MAC address: ${stdout}`);
  return { index, mac: Uint8Array.from(mac.split(":"), (byte) => Number.parseInt(byte, 16)) };
}

/** MAC addresses of the bed's neighbours. */
export const MACS = { router: "02:00:00:00:00:01", nodeB: "02:00:00:00:00:02" } as const;

async function knowNeighbours(node: LabNode, family: Family): Promise<void> {
  const { router, nodeB } = PLACES[family];
  for (const [address, mac] of [
    [router, MACS.router],
    [nodeB, MACS.nodeB],
  ])
    await node.run(`ip neigh replace ${address} lladdr ${mac} dev eth0 nud permanent`.split(" "));
}

/** Sets an address's bit FILTER_NODE. */
function markNode(filter: Uint8Array, address: Uint8Array): void {
  const words = new BigUint64Array(filter.buffer, filter.byteOffset, filter.byteLength / 8);
  const position = addressHash(address) % (words.length * limit.FILTER_POSITIONS);
  const shift = BigInt((position % limit.FILTER_POSITIONS) * 4);
  words[Math.floor(position / limit.FILTER_POSITIONS)]! |= BigInt(limit.FILTER_NODE) << shift;
}

export function formatMac(mac: Uint8Array): string {
  return Array.from(mac, (byte) => byte.toString(16).padStart(2, "0")).join(":");
}

function xdpContext(length: number, ifindex: number): Uint8Array {
  const context = new Uint8Array(XDP_BYTES);
  const view = new DataView(context.buffer);
  view.setUint32(4, length, true);
  view.setUint32(12, ifindex, true);
  return context;
}

function skbContext(ifindex: number): Uint8Array {
  const context = new Uint8Array(SKB_BYTES);
  new DataView(context.buffer).setUint32(SKB_IFINDEX, ifindex, true);
  return context;
}
