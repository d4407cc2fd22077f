// `bpfsvc dump devices`: how each device is served and why so. What is there comes from
// dataplane/devices/dump.ts; this knows how it looks.
import {
  type DeviceDump,
  type DumpedDevice,
  dumpDevices as read,
} from "../dataplane/devices/dump.ts";
import { Pins } from "../dataplane/pins.ts";
import { type Format, formatData, formatTable } from "../print.ts";
import { nothingPinned } from "./dump.ts";
import { printWatched, type WatchOptions } from "./watching.ts";

export interface DumpDevicesOptions extends WatchOptions {
  pins: string;
}

/** Prints the devices as they are now. Throws UserError if nothing is pinned. */
export async function dumpDevices(options: DumpDevicesOptions): Promise<void> {
  const pins = new Pins(options.pins);
  await printWatched(options, () => {
    const dump = read(pins);
    if (!dump) throw nothingPinned(pins);
    return formatDevices(dump, options.output);
  });
}

/** A dump as text in one of the formats. The JSON form is documented in docs/operating.md. */
async function formatDevices(dump: DeviceDump, format: Format): Promise<string> {
  if (format === "json" || format === "yaml") return formatData(dump, format);
  if (dump.devices.length === 0) return "No devices.\n";
  const header = ["DEVICE", "ROLE", "MODE", "REASON", "SOURCES", "MAC", "MTU"];
  const isWide = format === "wide";
  if (isWide) header.push("IFINDEX", "SENDS FRAMES", "POD");
  return formatTable(
    header,
    dump.devices.map((device) => [...cellsOf(device), ...(isWide ? wideCells(device) : [])]),
  );
}

function cellsOf(device: DumpedDevice): string[] {
  const { name, role, mode, tc, reason, sources, mac, mtu } = device;
  const how = mode === "tc" ? `tc (${tc})` : mode;
  return [name, role, how, reason || "-", sources.join(",") || "-", mac || "-", String(mtu)];
}

function wideCells({ ifindex, sendsFrames, isPod }: DumpedDevice): string[] {
  return [String(ifindex), sendsFrames ? "yes" : "no", isPod ? "yes" : "no"];
}
