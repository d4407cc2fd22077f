// What the agent asks its own machine: names, addresses and file systems, from /proc and the
// kernel's interface list. Sees the network namespace that it runs in.
import { existsSync, readFileSync, statfsSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";
import path from "node:path";
import { canonicalAddress } from "../model/address.ts";

const CGROUP2_MAGIC = 0x63677270;
const USUAL_CGROUPS = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/** The node name that kubelet registers by default: the host name in lower case. */
export function defaultNodeName(): string {
  return hostname().toLowerCase();
}

/** Where cgroup2Root() looks; the machine's own unless given. */
export interface CgroupView {
  /** /proc/self/mountinfo. */
  mountinfo?: string;
  /** /proc/self/cgroup: the cgroup that this process is in. */
  own?: string;
  /** Whether a folder is in a cgroup v2 tree; another mount may hide it. */
  isVisible?: (folder: string) => boolean;
  /** Whether a folder is the root of the machine's tree, which alone has no type. */
  isMachineRoot?: (folder: string) => boolean;
}

/**
 * The outermost folder of the cgroup v2 tree that this process can see, and of several mounts of it
 * the usual one. In a container that is the machine's tree only if it was mounted there; its own
 * one, which holds no pod, is refused. Throws, naming the fix, if there is none.
 */
export function cgroup2Root({
  mountinfo = readFileSync("/proc/self/mountinfo", "utf8"),
  own = readFileSync("/proc/self/cgroup", "utf8"),
  isVisible = isCgroup2,
  isMachineRoot = (folder) => !existsSync(path.join(folder, "cgroup.type")),
}: CgroupView = {}): string {
  const trees: { folder: string; depth: number }[] = [];
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const [, , , root, mountPoint] = left.split(" ");
    if (!root || !mountPoint || !right.startsWith("cgroup2 ")) continue;
    const folder = unescapeMount(mountPoint);
    // A mount may lie under another, as /sys/fs/cgroup/unified under a new /sys/fs/cgroup.
    if (isVisible(folder)) trees.push({ folder, depth: depthOf(unescapeMount(root)) });
  }
  const depth = Math.min(...trees.map((tree) => tree.depth));
  const outermost = trees.filter((tree) => tree.depth === depth).map(({ folder }) => folder);
  const root = USUAL_CGROUPS.find((folder) => outermost.includes(folder)) ?? outermost[0];
  if (root === undefined)
    throw new Error(
      'No cgroup v2 tree is mounted: run "mount -t cgroup2 none /sys/fs/cgroup", or name ' +
        "a folder " +
        "in one with --cgroup",
    );
  const isOwn = depth === 0 && /^0::\/$/m.test(own) && !isMachineRoot(root);
  if (!isOwn) return root;
  throw new Error(
    `Only this container's own cgroup is to be seen, at "${root}", and no pod is in it: ` +
      `mount the ` +
      "host's /sys/fs/cgroup into the container, or name a folder with --cgroup",
  );
}

/** How far a mount's root lies below the cgroup namespace's; above it has parts "..". */
function depthOf(root: string): number {
  const parts = root.split("/").filter((part) => part !== "");
  return parts.reduce((depth, part) => depth + (part === ".." ? -1 : 1), 0);
}

function isCgroup2(folder: string): boolean {
  try {
    return statfsSync(folder).type === CGROUP2_MAGIC;
  } catch {
    return false;
  }
}

/** The global addresses of the devices that have a default route. */
export function defaultRouteAddresses(
  devices: ReadonlySet<string> = defaultRouteDevices(),
  interfaces: ReturnType<typeof networkInterfaces> = networkInterfaces(),
): string[] {
  const addresses: string[] = [];
  for (const device of devices)
    for (const { address, internal, scopeid } of interfaces[device] ?? []) {
      const canonical = canonicalAddress(address);
      if (canonical !== undefined && !internal && !scopeid) addresses.push(canonical);
    }
  return [...new Set(addresses)];
}

/** Every address of this network namespace, without loopback and link-local ones. */
export function localAddresses(
  interfaces: ReturnType<typeof networkInterfaces> = networkInterfaces(),
): string[] {
  const found = new Set<string>();
  for (const addresses of Object.values(interfaces))
    for (const { address, scopeid } of addresses ?? []) {
      const canonical = canonicalAddress(address);
      // Not by device: a virtual address may be on the loopback device.
      const isLoopback = address === "::1" || address.startsWith("127.");
      if (canonical !== undefined && !isLoopback && !scopeid) found.add(canonical);
    }
  return [...found];
}

/** Devices with a default route of either family, from /proc/net/route and ipv6_route. */
export function defaultRouteDevices(
  read: (file: string) => string = (file) => readFileSync(file, "utf8"),
): Set<string> {
  const devices = new Set<string>();
  for (const line of lines(read, "/proc/net/route")) {
    const [device, destination, , , , , , mask] = line;
    if (device && destination === "00000000" && mask === "00000000") devices.add(device);
  }
  for (const fields of lines(read, "/proc/net/ipv6_route")) {
    const [destination, prefix] = fields;
    const device = fields.at(-1);
    const isDefault = prefix === "00" && destination !== undefined && /^0+$/.test(destination);
    if (device && isDefault && device !== "lo") devices.add(device);
  }
  return devices;
}

function lines(read: (file: string) => string, file: string): string[][] {
  try {
    return read(file)
      .split("\n")
      .map((line) => line.trim().split(/\s+/));
  } catch {
    return []; // A kernel without this family has no such file.
  }
}

/** Mount points write blanks and backslashes as octal. */
function unescapeMount(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, octal: string) =>
    String.fromCharCode(Number.parseInt(octal, 8)),
  );
}
