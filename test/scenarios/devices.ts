// Looks at how an agent serves the devices of its node: by its dump, its pins and the maps. Knows
// how to look and how to be somebody else on the same device, not what is right.
import { closeSync, openSync } from "node:fs";
import path from "node:path";
import type { ExecutionContext } from "ava";
import { device, hop } from "../../bindings/layout.ts";
import { BpfLink, deviceHook, type LinkInfo, xdpFlag } from "../../bindings/link.ts";
import { BpfMap } from "../../bindings/map.ts";
import { BpfObject } from "../../bindings/object.ts";
import { insideNetns } from "../../bindings/system.ts";
import type { DeviceDump, DumpedDevice } from "../../control/dataplane/devices/dump.ts";
import { type DeviceHook, Pins } from "../../control/dataplane/pins.ts";
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

/** The links that are pinned for devices, as the kernel describes them, by their pins' names. */
export function linksOf(node: LabNode): Record<string, LinkInfo> {
  const pins = new Pins(node.pins);
  const entries = pins.deviceLinks.map(({ hook, ifindex }) => {
    const link = BpfLink.openPinned(pins.deviceLinkPath(hook, ifindex));
    const { info } = link;
    link.close();
    return [`${hook}_${ifindex}`, info] as const;
  });
  return Object.fromEntries(entries.sort(([a], [b]) => (a < b ? -1 : 1)));
}

/** Which links hold which programs. */
export function attachments(node: LabNode): Record<string, string> {
  const entries = Object.entries(linksOf(node));
  return Object.fromEntries(
    entries.map(([name, { id, programId }]) => [name, `${id}: ${programId}`]),
  );
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
  readonly #netns: string;

  constructor(t: ExecutionContext, { netns }: LabNode) {
    this.#netns = netns;
    const file = path.join(import.meta.dirname, "testdata/foreign.bpf.o");
    this.#object = BpfObject.open(file);
    t.teardown(() => this.#object.close());
    this.#object.load();
  }

  /** Attaches one of them; it goes with the link. */
  attach(program: "foreign_first" | "foreign_last" | "foreign_xdp", ifindex: number): BpfLink {
    const hook = program === "foreign_xdp" ? deviceHook.XDP : deviceHook.TCX_INGRESS;
    const flags = program === "foreign_xdp" ? xdpFlag.NATIVE : 0;
    const fd = openSync(this.#netns, "r");
    try {
      const device = { ifindex, name: String(ifindex) };
      return insideNetns(fd, () =>
        BpfLink.attachDevice(this.#object.program(program), device, { hook, flags }),
      );
    } finally {
      closeSync(fd);
    }
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
