// Looks at how an agent serves the devices of its node: by its dump, its pins and the maps. Knows
// how to look and how to be somebody else on the same device, not what is right.
import { closeSync, openSync } from "node:fs";
import { release } from "node:os";
import path from "node:path";
import type { ExecutionContext } from "ava";
import { filterPoint, findFilter } from "../../bindings/filter.ts";
import { device, flow, flowKind, flowState, hop, limit } from "../../bindings/layout.ts";
import { BpfLink, deviceHook, xdpFlag } from "../../bindings/link.ts";
import { BpfMap } from "../../bindings/map.ts";
import { NetlinkSocket, netlinkProtocol, numberAttribute } from "../../bindings/netlink.ts";
import { BpfObject } from "../../bindings/object.ts";
import { listLinks, rtm } from "../../bindings/rtnetlink.ts";
import { insideNetns } from "../../bindings/system.ts";
import type { DeviceDump, DumpedDevice } from "../../control/dataplane/devices/dump.ts";
import { filterPlace } from "../../control/dataplane/devices/hooks.ts";
import { NodeMap } from "../../control/dataplane/devices/node.ts";
import { type DeviceHook, Pins } from "../../control/dataplane/pins.ts";
import type { Host } from "../../lab/host.ts";
import type { LabNode } from "../../lab/lab.ts";
import { waitFor } from "../../lab/wait.ts";
import { COMMAND } from "./stage.ts";

/** Runs `ip` on a node. Throws with what it says. */
export async function ip(node: LabNode, ...lines: string[]): Promise<void> {
  const input = `${lines.join("\n")}\n`;
  const { code, stderr } = await node.run(["ip", "-batch", "-"], { input });
  if (code !== 0) throw new Error(`ip on ${node.name}: ${stderr}`);
}

/** What `bpfsvc dump devices` says on a node. */
export async function dumpDevices(node: LabNode): Promise<DumpedDevice[]> {
  const command = [process.execPath, COMMAND, "dump", "devices", "-o", "json"];
  const { stdout, stderr } = await node.run([...command, "--pins", node.pins]);
  if (stdout === "") throw new Error(stderr);
  return (JSON.parse(stdout) as DeviceDump).devices;
}

/** A device as the dump has it; undefined if it is not served. */
export async function dumpDevice(node: LabNode, name: string): Promise<DumpedDevice | undefined> {
  return (await dumpDevices(node)).find((each) => each.name === name);
}

/** Waits until a device is served as wanted, and returns what is dumped of it. */
export function served(
  node: LabNode,
  name: string,
  isWanted: (device: DumpedDevice) => boolean = () => true,
): Promise<DumpedDevice> {
  return waitFor(
    async () => {
      const found = await dumpDevice(node, name);
      return found && isWanted(found) ? found : undefined;
    },
    { what: `"${name}" to be served as wanted`, timeoutSeconds: 20 },
  );
}

/** Waits until a device is not served any more. */
export async function unserved(node: LabNode, name: string): Promise<void> {
  const isGone = async () => (await dumpDevice(node, name)) === undefined;
  await waitFor(isGone, { what: `"${name}" not to be served`, timeoutSeconds: 30 });
}

/** How this kernel attaches TC programs: TCX since Linux 6.6. */
export const TC: "tcx" | "clsact" = isAtLeast(6, 6) ? "tcx" : "clsact";

function isAtLeast(major: number, minor: number): boolean {
  const [first = 0, second = 0] = release().split(".").map(Number);
  return first > major || (first === major && second >= minor);
}

/** A program of ours on a device, and the id of the link that holds it; "filter" for none. */
export interface Attachment {
  holder: number | "filter";
  programId: number;
}

const DIRECTIONS = [
  { name: "ingress", hook: "tcx_ingress", point: filterPoint.INGRESS },
  { name: "egress", hook: "tcx_egress", point: filterPoint.EGRESS },
] as const;

/** What holds which program where: "xdp_2", "ingress_2" and "egress_2" are of device 2. */
export function attachments(node: LabNode): Record<string, Attachment> {
  const pins = new Pins(node.pins);
  const names = new Map<string, string>(DIRECTIONS.map(({ hook, name }) => [hook, name]));
  const found: [string, Attachment][] = pins.deviceLinks.map(({ hook, ifindex }) => {
    const link = BpfLink.openPinned(pins.deviceLinkPath(hook, ifindex));
    const { id: holder, programId } = link.info;
    link.close();
    return [`${names.get(hook) ?? hook}_${ifindex}`, { holder, programId }];
  });
  if (TC === "clsact") found.push(...onNode(node, () => filtersOf(pins)));
  return Object.fromEntries(found.sort(([a], [b]) => (a < b ? -1 : 1)));
}

function filtersOf(pins: Pins): [string, Attachment][] {
  const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
  const devices = listLinks(socket);
  socket.close();
  return devices.flatMap((device) =>
    DIRECTIONS.flatMap(({ name, point }): [string, Attachment][] => {
      const programId = findFilter(filterPlace(pins, device, point));
      if (programId === undefined) return [];
      return [[`${name}_${device.ifindex}`, { holder: "filter", programId }]];
    }),
  );
}

/** Runs a synchronous function in the network namespace of a node. */
function onNode<T>({ netns }: Host, action: () => T): T {
  const fd = openSync(netns, "r");
  try {
    return insideNetns(fd, action);
  } finally {
    closeSync(fd);
  }
}

const LINK_BYTES = 16;
/** IFLA_GSO_MAX_SIZE and IFLA_GRO_MAX_SIZE, and those of IPv4, which iproute2 knows from 6.3 on. */
const SIZES = [41, 58, 63, 64] as const;

/**
 * Lets devices of a host, all but tunnels or those with these names, send and put together packets
 * of so many bytes, as `ip link set DEVICE gso_max_size … gro_ipv4_max_size …` does.
 */
export function letTake(host: Host, bytes: number, names?: readonly string[]): void {
  const attributes = SIZES.map((type) => [type, numberAttribute(bytes, 4)] as const);
  onNode(host, () => {
    const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
    try {
      for (const { ifindex, name, kind } of listLinks(socket)) {
        if (!(names?.includes(name) ?? ["veth", "bridge"].includes(kind))) continue;
        const body = new Uint8Array(LINK_BYTES);
        new DataView(body.buffer).setInt32(4, ifindex, true);
        const told = { operation: "change", subject: name };
        socket.request({ type: rtm.NEWLINK, body, attributes }, told);
      }
    } finally {
      socket.close();
    }
  });
}

/** Takes a program off as `bpftool link detach` does. */
export function detachLink(node: LabNode, hook: DeviceHook, ifindex: number): void {
  const link = BpfLink.openPinned(new Pins(node.pins).deviceLinkPath(hook, ifindex));
  link.detach();
  link.close();
}

/** A row of svc_devices. */
export function deviceRow(node: LabNode, ifindex: number) {
  const map = BpfMap.openPinned(new Pins(node.pins).mapPath("svc_devices"));
  const value = map.get(new Uint8Array(Uint32Array.of(ifindex).buffer));
  map.close();
  return value && device.read(new DataView(value.buffer, value.byteOffset), 0);
}

/**
 * Makes this node have had as many addresses as svc_node takes, while no agent runs, a connection
 * that is sent on from the first of those that went, and a next hop on this device that knows the
 * second; returns both.
 */
export function wearOutAddresses(node: LabNode, ifindex: number): (string | undefined)[] {
  const [nodes, flows, hops] = (["svc_node", "svc_flows", "svc_hops"] as const).map((name) =>
    BpfMap.openPinned(new Pins(node.pins).mapPath(name)),
  );
  const table = new NodeMap(nodes!.mmap());
  const { length } = table.addresses;
  for (let index = length; index < limit.NODE_SOURCES - 1; index++)
    table.indexOf(`198.18.0.${index}`);
  const lock =
    (flowKind.FLOW_REVERSE << limit.FLOW_KIND_SHIFT) |
    ((length + 1) << limit.FLOW_SOURCE_SHIFT) |
    (flowState.FLOW_REPLIED << limit.FLOW_STATE_SHIFT);
  new DataView(flows!.mmap().buffer).setUint32(flow.offset.lock, lock, true);
  const row = new DataView(hops!.mmap().buffer);
  hop.write(row, 0, { ...hop.read(row, 0), ifindex, source: length + 2 });
  for (const map of [nodes!, flows!, hops!]) map.close();
  return [1, 2].map((each) => table.addressOf(length + each));
}

/** The addresses of this node that programs know, by index; undefined where there is none. */
export function knownAddresses(node: LabNode): (string | undefined)[] {
  const map = BpfMap.openPinned(new Pins(node.pins).mapPath("svc_node"));
  const table = new NodeMap(map.mmap());
  map.close();
  return Array.from({ length: limit.NODE_SOURCES }, (_, index) => table.addressOf(index));
}

/** svc_hops as memory, until the end of the test. */
export function openHops(t: ExecutionContext, node: LabNode) {
  const map = BpfMap.openPinned(new Pins(node.pins).mapPath("svc_hops"));
  const view = new DataView(map.mmap().buffer);
  t.teardown(() => map.close());
  return {
    read: (index: number) => hop.read(view, index * hop.bytes),
    write: (index: number, row: ReturnType<typeof hop.read>) =>
      hop.write(view, index * hop.bytes, row),
  };
}

/** Programs of somebody else; they count what they see. */
export class Stranger {
  readonly #object: BpfObject;
  readonly #node: LabNode;

  constructor(t: ExecutionContext, node: LabNode) {
    this.#node = node;
    const file = path.join(import.meta.dirname, "testdata/foreign.bpf.o");
    this.#object = BpfObject.open(file);
    t.teardown(() => this.#object.close());
    this.#object.load();
  }

  /** Attaches one of them; it goes with the link. */
  attach(program: "foreign_first" | "foreign_last" | "foreign_xdp", ifindex: number): BpfLink {
    const hook = program === "foreign_xdp" ? deviceHook.XDP : deviceHook.TCX_INGRESS;
    const flags = program === "foreign_xdp" ? xdpFlag.NATIVE : 0;
    const device = { ifindex, name: String(ifindex) };
    return onNode(this.#node, () =>
      BpfLink.attachDevice(this.#object.program(program), device, { hook, flags }),
    );
  }

  /** How many packets each has seen: first, last, XDP. */
  seen(): number[] {
    const map = this.#object.map("foreign_seen").toMap();
    const counts = [0, 1, 2].map((index) => {
      const value = map.get(new Uint8Array(Uint32Array.of(index).buffer))!;
      return Number(Buffer.from(value).readBigUInt64LE());
    });
    map.close();
    return counts;
  }
}
