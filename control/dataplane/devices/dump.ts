// How devices are served now, from the pins and the kernel's state alone: agent or no agent. Sees
// the devices of the network namespace that it runs in. Writes nothing.
import { errnoName } from "../../../bindings/errors.ts";
import { filterPoint, findFilter } from "../../../bindings/filter.ts";
import { device as layout } from "../../../bindings/layout.ts";
import { BpfLink } from "../../../bindings/link.ts";
import type { BpfMap } from "../../../bindings/map.ts";
import { NetlinkSocket, netlinkProtocol } from "../../../bindings/netlink.ts";
import { type Link, listLinks, xdpMode } from "../../../bindings/rtnetlink.ts";
import { RunningProgram } from "../../../bindings/running.ts";
import { openProgrammed } from "../kernel.ts";
import type { DeviceHook, Pins } from "../pins.ts";
import { NOTE_WORDS } from "../words.ts";
import { roleOf } from "./devices.ts";
import { filterPlace } from "./hooks.ts";
import type { Note } from "./modes.ts";
import { NodeMap } from "./node.ts";
import type { Role } from "./roles.ts";

export interface DumpedDevice {
  name: string;
  ifindex: number;
  role: Role;
  /** "none": nothing of ours is attached. */
  mode: "xdp native" | "xdp generic" | "tc" | "none";
  /** How TC programs are attached, whatever the mode: "none" if they are not. */
  tc: "tcx" | "clsact" | "none";
  /** Why so, in words, "" where it is usual; and as a word and an errno's name. */
  reason: string;
  note: Note;
  error: string;
  mac: string;
  mtu: number;
  /** The addresses that stand for this node behind the device. */
  sources: string[];
  /** Whether XDP can send to it. */
  sendsFrames: boolean;
  /** Whether pods are behind it, where devices tell that. */
  isPod: boolean;
}

export interface DeviceDump {
  node: string;
  devices: DumpedDevice[];
}

/** Undefined if nothing is programmed. Throws LayoutError for those of another build. */
export function dumpDevices(pins: Pins): DeviceDump | undefined {
  const opened = openProgrammed(pins);
  if (!opened) return undefined;
  const { maps, meta } = opened;
  const rows = readRows(maps.svc_devices);
  // After the rows: an agent gives an address its index, and a device its row, in this order.
  const node = new NodeMap(maps.svc_node.mmap({ readOnly: true }));
  const devices = presentLinks().flatMap((link) => {
    const row = rows.get(link.ifindex);
    return row === undefined ? [] : [describe(link, row, { pins, node })];
  });
  for (const map of Object.values(maps)) map.close();
  return { node: meta.node, devices: devices.sort((a, b) => a.ifindex - b.ifindex) };
}

type Row = ReturnType<typeof layout.read>;

/** The rows of svc_devices by ifindex. */
function readRows(map: BpfMap): ReadonlyMap<number, Row> {
  const rows = new Map<number, Row>();
  for (const { keys, values, count } of map.entries()) {
    const ifindexes = new DataView(keys.buffer, keys.byteOffset, keys.byteLength);
    const view = new DataView(values.buffer, values.byteOffset, values.byteLength);
    for (let index = 0; index < count; index++)
      rows.set(ifindexes.getUint32(index * 4, true), layout.read(view, index * layout.bytes));
  }
  return rows;
}

function presentLinks(): Link[] {
  const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
  try {
    return listLinks(socket);
  } finally {
    socket.close();
  }
}

function describe(
  link: Link,
  row: Row,
  { pins, node }: { pins: Pins; node: NodeMap },
): DumpedDevice {
  const tc = findTc(pins, link);
  const note = NOTE_WORDS.get(row.note) as Note;
  const error = row.error === 0 ? "" : errnoName(row.error);
  const sources = [row.sourceIpv4, row.sourceIpv6].map((index) => node.addressOf(index));
  return {
    name: link.name,
    ifindex: link.ifindex,
    role: roleOf(row),
    mode: findMode(pins, link, tc),
    tc,
    reason: explain(link, { note, error }),
    note,
    error,
    mac: [...link.mac].map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
    mtu: link.mtu,
    sources: sources.filter((source) => source !== undefined),
    sendsFrames: row.sendsFrames !== 0,
    isPod: row.isPod !== 0,
  };
}

function findMode(pins: Pins, link: Link, tc: DumpedDevice["tc"]): DumpedDevice["mode"] {
  if (isAttached(pins, "xdp", link))
    return link.xdp.mode === xdpMode.GENERIC ? "xdp generic" : "xdp native";
  return tc === "none" ? "none" : "tc";
}

function findTc(pins: Pins, link: Link): DumpedDevice["tc"] {
  if (isAttached(pins, "tcx_ingress", link) && isAttached(pins, "tcx_egress", link)) return "tcx";
  const { INGRESS, EGRESS } = filterPoint;
  const filters = [INGRESS, EGRESS].map((point) => findFilter(filterPlace(pins, link, point)));
  return filters.every((id) => id !== undefined) ? "clsact" : "none";
}

function isAttached(pins: Pins, hook: DeviceHook, { ifindex }: Link): boolean {
  try {
    const link = BpfLink.openPinned(pins.deviceLinkPath(hook, ifindex));
    const { info } = link;
    link.close();
    return info.ifindex === ifindex;
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return false;
    throw error;
  }
}

/** A note as people read it. */
function explain(link: Link, { note, error }: { note: Note; error: string }): string {
  switch (note) {
    case "none":
      return "";
    case "asked":
      return "asked for";
    case "veth":
      return "veth: frames that XDP sends may vanish at its other end";
    case "no_ethernet":
      return "packets without an Ethernet header";
    case "foreign":
      return `another XDP program ${nameProgram(link.xdp.programId)}is attached`;
    case "refused":
      return `driver refuses XDP: ${error}`;
    case "not_loaded":
      return `kernel refuses the XDP program: ${error}`;
    case "no_tc":
      return `cannot be attached: ${error}`;
  }
}

/** "(id 7, its_name) "; without the name where programs may not be looked at. */
function nameProgram(id: number): string {
  if (id === 0) return "";
  try {
    const program = RunningProgram.openById(id);
    program.close();
    return `(id ${id}, ${program.name}) `;
  } catch {
    return `(id ${id}) `;
  }
}
