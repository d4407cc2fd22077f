// All that the packet path's devices take, opened together: the monitor, programs, links, maps and
// next hops. Says what changed and does what it is told; when is the caller's.
import { type NetlinkListener, NetlinkSocket, netlinkProtocol } from "../../../bindings/netlink.ts";
import { listLinks } from "../../../bindings/rtnetlink.ts";
import type { Rodata } from "../kernel.ts";
import { type Kernel, replaceOnDevices } from "../takeover.ts";
import { type DeviceSettings, Devices, type NodeFacts, type Synced } from "./devices.ts";
import { DeviceHooks } from "./hooks.ts";
import { Hops } from "./hops.ts";
import { monitorNetwork, NetworkChange } from "./monitor.ts";
import { ManagedNeighbours } from "./neighbours.ts";
import { readNetwork } from "./network.ts";
import { DevicePrograms } from "./programs.ts";

/** When next hops that a program was just writing are tried again. */
const BUSY_MS = 2;

export interface PathOptions {
  kernel: Kernel;
  settings: DeviceSettings;
  rodata: Rodata;
  /** Called when sync() is due; not from within a call of this class. */
  onChange: () => void;
}

/** What look() found. */
export interface Look {
  /** Whether sync() is due though nobody told of a change. */
  isSyncDue: boolean;
  /** Whether somebody took links or filters off. */
  isDamaged: boolean;
  /** Pins that were gone, and are back. */
  restoredPins: number;
  /** Whether the kernel has come to offer more, and programs that use it are to be attached. */
  isRenewed: boolean;
  /** Why they could not be loaded. */
  outdated: Error | undefined;
  /** What is wrong with next hops. */
  error: Error | undefined;
}

export class DevicePath {
  readonly #options: PathOptions;
  readonly #socket: NetlinkSocket;
  /** Absent where no device has programs, whatever becomes of it. */
  readonly #listener: NetlinkListener | undefined;
  readonly #programs: DevicePrograms;
  readonly #hooks: DeviceHooks;
  readonly #devices: Devices;
  readonly #hops: Hops;
  readonly #neighbours: ManagedNeighbours;
  /** What the next sync has to look at beside the network. */
  #verify = { links: true, filters: true };
  #synced: Synced | undefined;
  #isClosed = false;

  /** Opens everything and listens from now on. Attaches nothing yet. Throws BpfError. */
  constructor(options: PathOptions) {
    this.#options = options;
    const { kernel, settings, rodata } = options;
    const { pins, maps, storage } = kernel;
    this.#socket = new NetlinkSocket(netlinkProtocol.ROUTE);
    this.#programs = new DevicePrograms({ pins, maps, rodata });
    this.#hooks = new DeviceHooks({ pins, programs: this.#programs });
    this.#devices = new Devices({
      storage,
      hooks: this.#hooks,
      settings,
      replacing: (replace) => replaceOnDevices(kernel, replace),
    });
    this.#hops = new Hops(storage.hops);
    this.#neighbours = new ManagedNeighbours(this.#socket);
    if (settings.uplinks !== "none")
      this.#listener = monitorNetwork((change) => this.#changed(change));
  }

  /** Makes everything as the network is now. Throws BpfError if that cannot be seen. */
  sync(facts: NodeFacts, now: number): Synced {
    const verify = this.#verify;
    const state = readNetwork(this.#socket);
    const synced = this.#devices.sync(state, { facts, verify, now });
    this.#verify = { links: false, filters: false };
    this.#programs.tidy();
    this.#retireReaddressed(synced);
    this.#synced = { ...synced, problems: this.#ofPresent(synced.problems) };
    return this.#synced;
  }

  /** Looks at what nobody tells, and puts back what can be put back at once. */
  look(now: number): Look {
    const isDamaged = this.#isDamaged();
    if (isDamaged) this.#verify.links = true;
    const isRenewed = this.#programs.renew();
    if (isRenewed) this.#verify.filters = true;
    const waits = [...(this.#synced?.devices.values() ?? [])].some(
      ({ served }) => served.note === "foreign" || served.note === "no_tc",
    );
    const restoredPins = this.#hooks.restorePins();
    const [error] = this.#neighbours.look(this.#hops.used(), now);
    const isSyncDue = isDamaged || isRenewed || waits || this.#devices.haveOtherSenders;
    const { outdated } = this.#programs;
    return { isDamaged, isRenewed, outdated, restoredPins, error, isSyncDue };
  }

  /** Of a device that has gone netlink tells. */
  #isDamaged(): boolean {
    const { damaged } = this.#hooks;
    return damaged.size > 0 && listLinks(this.#socket).some(({ ifindex }) => damaged.has(ifindex));
  }

  /** Tells no more. What is attached stays so. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#listener?.close();
    this.#hooks.close();
    this.#programs.close();
    this.#socket.close();
  }

  #changed(change: NetworkChange): void {
    for (const neighbour of change.neighbours) this.#neighbours.changed(neighbour);
    if (change.concernsHops) this.#retire(change);
    if (change.filters) this.#verify.filters = true;
    if (change.network) this.#verify.links = true;
    if (change.network || change.filters) this.#options.onChange();
  }

  #retire(change: NetworkChange): void {
    if (this.#isClosed) return;
    const busy = this.#hops.retire((hop) => change.concerns(hop));
    if (busy > 0) setTimeout(() => this.#retire(change), BUSY_MS);
  }

  #retireReaddressed({ readdressed }: Synced): void {
    if (readdressed.size === 0) return;
    const change = new NetworkChange();
    for (const ifindex of readdressed) change.ifindexes.add(ifindex);
    this.#retire(change);
  }

  /** Without what went wrong because a device went meanwhile. */
  #ofPresent(problems: Synced["problems"]): Synced["problems"] {
    if (problems.every(({ ifindex }) => ifindex === undefined)) return problems;
    const present = new Set(listLinks(this.#socket).map(({ ifindex }) => ifindex));
    return problems.filter(({ ifindex }) => ifindex === undefined || present.has(ifindex));
  }
}
