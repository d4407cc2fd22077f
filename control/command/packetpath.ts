// Keeps the devices of the packet path served while the agent runs: when to look at the network,
// and what people are told. What is done is dataplane/devices/'s business.
import { readFileSync } from "node:fs";
import type { DeviceSettings, ServedDevice, Synced } from "../dataplane/devices/devices.ts";
import { DevicePath } from "../dataplane/devices/path.ts";
import type { Flow } from "../dataplane/flows.ts";
import type { Rodata } from "../dataplane/kernel.ts";
import type { Kernel } from "../dataplane/takeover.ts";
import type { Logger } from "../log.ts";
import type { Cluster } from "../model/cluster.ts";
import { machineClock, Pace } from "../pace.ts";

/** How often is looked at what nobody tells: pins, links, use of next hops, ports of the host. */
const LOOK_MS = 5000;
/** The least time from one sync to the next, and how much of all time they may take. */
const LEAST_PAUSE_MS = 20;
const SHARE = 0.1;
const PORT_RANGE_FILE = "/proc/sys/net/ipv4/ip_local_port_range";
/** An address that has gone for longer is not waited for. */
const LOST_MS = 10_000;
/** Fewer ports than this for rewritten sources may run out. */
const FEW_PORTS = 1024;

export interface PacketPathOptions {
  kernel: Kernel;
  cluster: Cluster;
  settings: DeviceSettings;
  rodata: Rodata;
  log: Logger;
  /** Called when this node has lost an address for good. */
  onAddressGone: () => void;
}

export class PacketPath {
  readonly #options: PacketPathOptions;
  readonly #pace: Pace;
  #path: DevicePath | undefined;
  #looks: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #pauseMs = LEAST_PAUSE_MS;
  #served: ReadonlyMap<number, ServedDevice> = new Map();
  /** The addresses that this node has, and since when it is without those that it had just now. */
  readonly #addresses = new Map<string, number | undefined>();
  #nodeAddresses = "";
  /** What is wrong, as last told, by what it is about. */
  readonly #told = new Map<string, string>();

  constructor(options: PacketPathOptions) {
    this.#options = options;
    const pauseMs = () => this.#pauseMs;
    this.#pace = new Pace({
      get minPeriodMs() {
        return pauseMs();
      },
      clock: machineClock,
      update: () => this.#sync(),
    });
  }

  /** Attaches to the devices as they are now, and follows them. */
  start(): void {
    this.#look();
    this.#sync();
    this.#looks = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Whether replies to a connection come here, as far as is known. */
  isAnswered({ client, source }: Pick<Flow, "client" | "source">): boolean {
    const isUnknown = this.#addresses.size === 0;
    return isUnknown || source.address === client.address || this.#addresses.has(source.address);
  }

  /** Follows no more. What is attached stays so. */
  stop(): void {
    clearInterval(this.#looks);
    clearTimeout(this.#again);
    this.#pace.stop();
    this.#path?.close();
    this.#path = undefined;
  }

  /** Opened when it is first needed, and tried again if that fails. */
  #opened(): DevicePath {
    const { kernel, settings, rodata } = this.#options;
    const onChange = () => this.#pace.request();
    this.#path ??= new DevicePath({ kernel, settings, rodata, onChange });
    return this.#path;
  }

  #look(): void {
    this.#try("devices", () => {
      const { log } = this.#options;
      const now = performance.now();
      const path = this.#opened();
      this.#setNode();
      this.#giveUpAddresses(now);
      const look = path.look(now);
      const { isSyncDue, isDamaged, isRenewed, outdated, restoredPins, error } = look;
      if (isDamaged) log.warn("Programs were taken off devices: attaching them again");
      if (restoredPins > 0) log.warn(`${restoredPins} pins of devices were gone: pinned again`);
      if (isRenewed) log.info("nf_conntrack was loaded: it is asked about replies at node ports");
      if (isSyncDue || this.#told.has("network")) this.#pace.request();
      const astray = "Replies at node ports to what is masqueraded may go astray";
      this.#tell("programs", outdated && `${outdated.message}. ${astray}`);
      this.#tell("next hops", error && `${error.message}. Its new MAC would be noticed late`);
    });
  }

  /** What the Node and the host say. */
  #setNode(): void {
    const { kernel, cluster } = this.#options;
    const { node } = kernel.storage;
    const [first = 0, last = 0] = readFileSync(PORT_RANGE_FILE, "utf8").split(/\s+/).map(Number);
    node.setHostPorts({ first, last });
    const { count } = node.natPorts;
    const few =
      `net.ipv4.ip_local_port_range, ${first} to ${last}, leaves ${count} ports for connections ` +
      "whose source is rewritten: make it smaller";
    this.#tell("ports", count < FEW_PORTS ? few : undefined);
    node.setPods(cluster.detector);
    const nodeAddresses = cluster.nodeAddresses.join();
    if (nodeAddresses !== this.#nodeAddresses) this.#pace.request();
    this.#nodeAddresses = nodeAddresses;
  }

  #sync(): void {
    const begin = performance.now();
    this.#try("network", () => {
      const { detector, nodeAddresses: addresses } = this.#options.cluster;
      const isPodDevice = (device: string) =>
        detector.isByDevice && detector.isPod({ source: "", device });
      const synced = this.#opened().sync({ addresses, isPodDevice }, begin);
      this.#report(synced);
      this.#setAddresses(synced.addresses, begin);
      this.#syncAgainAt(synced.again);
    });
    const tookMs = performance.now() - begin;
    this.#pauseMs = Math.max(LEAST_PAUSE_MS, tookMs * (1 / SHARE - 1));
    this.#pace.ended();
  }

  #setAddresses(present: ReadonlySet<string>, now: number): void {
    for (const [address, since = now] of this.#addresses)
      if (!present.has(address)) this.#addresses.set(address, since);
    for (const address of present) this.#addresses.set(address, undefined);
  }

  /** Addresses come back when a link does, or a lease is renewed: they are waited for. */
  #giveUpAddresses(now: number): void {
    const { size } = this.#addresses;
    for (const [address, since = now] of this.#addresses)
      if (now - since > LOST_MS) this.#addresses.delete(address);
    if (this.#addresses.size < size) this.#options.onAddressGone();
  }

  #syncAgainAt(time: number | undefined): void {
    clearTimeout(this.#again);
    if (time === undefined) return;
    const waitMs = Math.max(0, time - performance.now());
    this.#again = setTimeout(() => this.#pace.request(), waitMs);
  }

  #report({ devices, problems }: Synced): void {
    for (const [ifindex, device] of devices) {
      const before = this.#served.get(ifindex);
      if (before && describe(before) === describe(device)) continue;
      this.#tellOf(device, `Serving device "${device.name}" (${describe(device)})`);
    }
    for (const [ifindex, device] of this.#served)
      if (!devices.has(ifindex))
        this.#tellOf(device, `Device "${device.name}" is no longer served`);
    this.#served = devices;
    const wrong = new Map(problems.map(({ key, message }) => [`device ${key}`, message]));
    for (const key of this.#told.keys())
      if (key.startsWith("device ") && !wrong.has(key)) this.#tell(key, undefined);
    for (const [key, message] of wrong) this.#tell(key, message);
  }

  /** Pods come and go by the hundred. */
  #tellOf({ role }: ServedDevice, message: string): void {
    const { log } = this.#options;
    if (role === "pod-facing") log.debug(message);
    else log.info(message);
  }

  /** Says once that something is wrong, and once that it is so no more. */
  #tell(key: string, message: string | undefined): void {
    const { log } = this.#options;
    const before = this.#told.get(key);
    if (message === before) return;
    if (message === undefined) {
      this.#told.delete(key);
      log.info(`No longer: ${before}`);
    } else {
      this.#told.set(key, message);
      log.warn(message);
    }
  }

  #try(key: string, action: () => void): void {
    try {
      action();
      this.#tell(key, undefined);
    } catch (error) {
      const { message } = error as Error;
      this.#tell(key, `Traffic from outside is not served as it should be: ${message}`);
    }
  }
}

function describe({ role, served }: ServedDevice): string {
  if (served.note === "no_tc") return `${role}, not attached`;
  return served.xdp === "none" ? `${role}, TC` : `${role}, ${served.xdp} XDP and TC`;
}
