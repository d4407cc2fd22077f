// What the agent asks its own machine: names, addresses and file systems, from /proc and the
// kernel's interface list. Sees the network namespace that it runs in.
import { readFileSync, statfsSync } from "node:fs";
import { hostname, networkInterfaces } from "node:os";
import { canonicalAddress } from "../model/address.ts";

const CGROUP2_MAGIC = 0x63677270;
const USUAL_CGROUPS = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/** The node name that kubelet registers by default: the host name in lower case. */
export function defaultNodeName(): string {
  return hostname().toLowerCase();
}

/**
 * The root of the cgroup v2 tree as this process sees it, from /proc/self/mountinfo: the one at the
 * usual place, if several are mounted. Throws if there is none.
 */
export function cgroup2Root(
  mountinfo = readFileSync("/proc/self/mountinfo", "utf8"),
  isVisible: (folder: string) => boolean = isCgroup2,
): string {
  const roots: string[] = [];
  for (const line of mountinfo.split("\n")) {
    const [left = "", right = ""] = line.split(" - ");
    const mountPoint = left.split(" ")[4];
    if (mountPoint && right.startsWith("cgroup2 ")) roots.push(unescapeMount(mountPoint));
  }
  // A mount may lie under another, as /sys/fs/cgroup/unified under a new /sys/fs/cgroup.
  const visible = roots.filter(isVisible);
  const usual = USUAL_CGROUPS.find((folder) => visible.includes(folder));
  const root = usual ?? visible[0];
  if (root !== undefined) return root;
  throw new Error(
    'No cgroup v2 tree is mounted: run "mount -t cgroup2 none /sys/fs/cgroup", or name a folder ' +
      "in one with --cgroup",
  );
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
