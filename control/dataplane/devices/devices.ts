// Makes svc_devices, svc_node and the programs on devices say what the network says, in an order in
// which no program meets half of it: addresses, rows, programs; and back. Knows what the network is
// now, not when it changes.
import { errnoNumber } from "../../../bindings/errors.ts";
import { deviceNote, device as layout, limit } from "../../../bindings/layout.ts";
import type { Link } from "../../../bindings/rtnetlink.ts";
import { canSendFrames } from "../../../bindings/xdp.ts";
import { NodeFilter } from "../filter.ts";
import type { KernelStorage } from "../kernel.ts";
import { addressBytes } from "../maps.ts";
import { bytesToText, Table, textToBytes } from "../table.ts";
import type { DeviceHooks, Served, Verify } from "./hooks.ts";
import { Hops } from "./hops.ts";
import { type Note, type WantedDevice, wantDevices, type XdpWish } from "./modes.ts";
import type { NetworkState } from "./network.ts";
import {
  findRoles,
  hasEthernet,
  type NamedUplinks,
  type Role,
  RoleKeeper,
  whyNoRole,
} from "./roles.ts";

/** How long a role is kept after its reason has gone. */
const HOLD_MS = 10_000;
const MAC_BYTES = 6;

export interface DeviceSettings {
  /** "none": no device has programs. */
  uplinks: NamedUplinks | "none" | undefined;
}

/** What this node is, beside its network. */
export interface NodeFacts {
  /** The Node's addresses, first the primary ones; canonical. */
  addresses: readonly string[];
  /** Whether pods are behind a device of this name, where devices tell that (§10.8). */
  isPodDevice: (name: string) => boolean;
}

/** A device as it is served now. */
export interface ServedDevice {
  name: string;
  role: Role;
  served: Served;
}

export interface Synced {
  devices: ReadonlyMap<number, ServedDevice>;
  /** The addresses that this node has, canonical. */
  addresses: ReadonlySet<string>;
  /** What is wrong, by what it is about. */
  problems: { key: string; message: string; ifindex?: number }[];
  /** Devices whose own address is another than before: next hops by them are to be looked up. */
  readdressed: ReadonlySet<number>;
  /** When to sync again though nothing changes; undefined for never. */
  again: number | undefined;
}

/** Calls what replaces programs on devices, in a way that no connection falls between two. */
type Replacing = <T>(replace: () => T) => T;

export class Devices {
  readonly #storage: KernelStorage;
  readonly #hooks: DeviceHooks;
  readonly #settings: DeviceSettings;
  readonly #replacing: Replacing;
  readonly #table: Table;
  readonly #filter: NodeFilter;
  readonly #keeper: RoleKeeper;
  /** The devices with native XDP, and whether frames can be sent to them. */
  #senders: readonly { link: Link; sends: boolean }[] = [];

  constructor(options: {
    storage: KernelStorage;
    hooks: DeviceHooks;
    settings: DeviceSettings;
    replacing: Replacing;
  }) {
    this.#storage = options.storage;
    this.#hooks = options.hooks;
    this.#settings = options.settings;
    this.#replacing = options.replacing;
    this.#table = new Table(this.#storage.devices);
    this.#filter = new NodeFilter(this.#storage.filter);
    const known = new Map<number, Role>();
    for (const [key, value] of this.#table.actual) known.set(indexOf(key), roleOf(read(value)));
    this.#keeper = new RoleKeeper({ holdMs: HOLD_MS, uplinks: this.#uplinks, known });
  }

  get #uplinks(): NamedUplinks | undefined {
    const { uplinks } = this.#settings;
    return uplinks === "none" ? undefined : uplinks;
  }

  /** Whether frames can be sent to other devices than before: of that nobody tells. */
  get haveOtherSenders(): boolean {
    return this.#senders.some(({ link, sends }) => canSendFrames(link) !== sends);
  }

  /** Makes everything so, at a time in milliseconds. What cannot be is told; all else is done. */
  sync(
    state: NetworkState,
    { facts, verify, now }: { facts: NodeFacts; verify: Verify; now: number },
  ): Synced {
    const { roles, again } = this.#settle(state, facts, now);
    const wanted = wantDevices(state, {
      roles,
      uplinks: this.#uplinks,
      primary: facts.addresses,
      isOwnXdp: (id) => this.#hooks.isOwnXdp(id),
    });
    const problems: Synced["problems"] = [];
    const addresses = new Set(state.addresses.map(({ address }) => address));
    const used = usedSources(state, wanted).filter((each) => addresses.has(each));
    const sources = this.#setAddresses(addresses, { used, facts, problems });
    const rowOf = (device: WantedDevice, served: Served, sendsFrames: boolean) =>
      encode(device, { served, sendsFrames, sources, isPod: isPod(device, state, facts) });
    const readdressed = this.#announce(wanted, rowOf);
    const devices = this.#serve(wanted, verify);
    problems.push(...gatherProblems(devices));
    const sends = this.#findSenders(wanted, devices);
    for (const device of wanted) {
      const { ifindex } = device.link;
      this.#set(ifindex, rowOf(device, devices.get(ifindex)!.served, sends.has(ifindex)));
    }
    this.#withdrawOthers(devices, { state, problems });
    problems.push(...this.#uselessNames(state));
    for (const { error } of [...this.#table.writeRemovals(), ...this.#table.writeAdditions()])
      problems.push({ key: "svc_devices", message: error.message });
    return { devices, addresses, problems, readdressed, again };
  }

  #serve(wanted: readonly WantedDevice[], verify: Verify): Map<number, ServedDevice> {
    this.#hooks.prepare(wanted);
    return this.#replacing(() => {
      const devices = new Map<number, ServedDevice>();
      for (const device of wanted) {
        const { name, ifindex } = device.link;
        const served = this.#hooks.serve(device, verify);
        devices.set(ifindex, { name, role: device.role, served });
      }
      return devices;
    });
  }

  #settle(state: NetworkState, { addresses }: NodeFacts, now: number) {
    if (this.#settings.uplinks === "none")
      return { roles: new Map<number, Role>(), again: undefined };
    const found = findRoles(state, { nodeAddresses: addresses, uplinks: this.#uplinks });
    return this.#keeper.settle(found, { links: state.links, now });
  }

  /** Gives addresses that stand for this node their index, and their bit as long as it has them. */
  #setAddresses(
    own: ReadonlySet<string>,
    {
      used,
      facts,
      problems,
    }: { used: readonly string[]; facts: NodeFacts; problems: Synced["problems"] },
  ): ReadonlyMap<string, number> {
    const { node, frontends } = this.#storage;
    const primary = used.length === 0 ? [] : facts.addresses.filter((each) => own.has(each));
    const sources = new Map<string, number>();
    const addresses = new Set([...primary, ...used]);
    this.#makeRoom(addresses, own);
    for (const address of addresses) {
      const index = node.indexOf(address);
      if (index !== undefined) sources.set(address, index);
      else
        problems.push({
          key: address,
          message:
            "svc_node has no room for this address of the node: no connection is sent on from it " +
            `until fewer than ${limit.NODE_SOURCES} are in use, by devices and by connections`,
        });
    }
    const present = used.length === 0 ? [] : node.addresses.filter((each) => own.has(each));
    this.#filter.set(present.map(addressBytes));
    frontends.setOwnAddresses(own);
    return sources;
  }

  /**
   * If not all of these addresses can have an index, takes those of addresses back that the node
   * has no more, and that no row and no connection refers to.
   */
  #makeRoom(addresses: ReadonlySet<string>, own: ReadonlySet<string>): void {
    const { node, flows, hops } = this.#storage;
    const known = new Set(node.addresses);
    const added = [...addresses].filter((each) => !known.has(each));
    if (known.size + added.length < limit.NODE_SOURCES) return;
    if ([...known].every((each) => own.has(each))) return;
    const used = flows.sourcesInUse();
    for (const { source } of new Hops(hops).used()) used.add(source);
    for (const row of this.#table.actual.values()) {
      const { sourceIpv4, sourceIpv6 } = read(row);
      used.add(sourceIpv4).add(sourceIpv6);
    }
    node.release((each, index) => own.has(each) || used.has(index));
  }

  /** Writes the rows of devices that are new before programs run there. */
  #announce(
    wanted: readonly WantedDevice[],
    rowOf: (device: WantedDevice, served: Served, sendsFrames: boolean) => string,
  ): ReadonlySet<number> {
    const readdressed = new Set<number>();
    for (const device of wanted) {
      const { ifindex } = device.link;
      const before = this.#table.actual.get(keyOf(ifindex));
      const row = rowOf(device, { xdp: "none", note: device.note, code: "" }, false);
      if (before === undefined) this.#set(ifindex, row);
      else if (!hasSameSources(read(before), read(row))) readdressed.add(ifindex);
    }
    this.#table.writeAdditions();
    return readdressed;
  }

  /**
   * The devices that XDP can send to. What generic XDP sends goes through the stack, whatever the
   * driver; what native XDP sends does not.
   */
  #findSenders(
    wanted: readonly WantedDevice[],
    devices: ReadonlyMap<number, ServedDevice>,
  ): ReadonlySet<number> {
    const links = wanted.map(({ link }) => link);
    const inMode = (mode: XdpWish) =>
      links.filter(({ ifindex }) => devices.get(ifindex)!.served.xdp === mode);
    const [native, generic] = [inMode("native"), inMode("generic")];
    this.#senders = native.map((link) => ({ link, sends: canSendFrames(link) }));
    const sending = this.#senders.filter(({ sends }) => sends).map(({ link }) => link);
    if (native.length === 0) sending.push(...generic);
    return new Set(sending.map(({ ifindex }) => ifindex));
  }

  #withdrawOthers(
    devices: ReadonlyMap<number, ServedDevice>,
    { state, problems }: { state: NetworkState; problems: Synced["problems"] },
  ): void {
    const ours = new Set([...this.#hooks.ifindexes, ...[...this.#table.keys()].map(indexOf)]);
    for (const ifindex of ours) {
      if (devices.has(ifindex)) continue;
      const present = state.links.find((link) => link.ifindex === ifindex);
      const name = present?.name ?? `device ${ifindex}`;
      try {
        this.#hooks.withdraw({ ifindex, name });
        this.#table.remove(keyOf(ifindex));
      } catch (error) {
        problems.push({ key: name, message: (error as Error).message, ifindex });
      }
    }
  }

  /** The uplinks that were named, and are not there or never can be one. */
  #uselessNames({ links }: NetworkState): Synced["problems"] {
    const linkOf = new Map(links.map((link) => [link.name, link]));
    return [...(this.#uplinks?.keys() ?? [])].flatMap((name) => {
      const link = linkOf.get(name);
      if (!link) return { key: name, message: `There is no device "${name}" yet, which was named` };
      const why = whyNoRole(link);
      if (why === undefined) return [];
      return { key: name, message: `Device "${name}", which was named, is not served: ${why}` };
    });
  }

  #set(ifindex: number, row: string): void {
    this.#table.set(keyOf(ifindex), row);
  }
}

/** What stands for this node on these devices, and what routes by them prefer to that. */
function usedSources({ routes }: NetworkState, wanted: readonly WantedDevice[]): string[] {
  const ifindexes = new Set(wanted.map(({ link }) => link.ifindex));
  const preferred = routes.filter(({ ifindex }) => ifindexes.has(ifindex));
  return [
    ...wanted.flatMap(({ ipv4, ipv6 }) => [ipv4, ipv6]),
    ...preferred.map(({ source }) => source),
  ].filter((each) => each !== undefined);
}

/** What went wrong on devices; once for all where it is not a device's own fault. */
function gatherProblems(devices: ReadonlyMap<number, ServedDevice>): Synced["problems"] {
  const found = new Map<string, { name: string; ifindex: number; isShared: boolean }>();
  for (const [ifindex, { name, served }] of devices) {
    const { problem } = served;
    if (problem === undefined) continue;
    const first = found.get(problem);
    if (first) first.isShared = true;
    else found.set(problem, { name, ifindex, isShared: false });
  }
  return [...found].map(([problem, { name, ifindex, isShared }]) => {
    const message = `Device "${name}"${isShared ? " and others" : ""}: ${problem}`;
    return { key: name, ifindex, message };
  });
}

/** Pods' devices by name; a bridge's ports are what the bridge is (§10.8). */
function isPod(
  { link }: WantedDevice,
  { links }: NetworkState,
  { isPodDevice }: NodeFacts,
): boolean {
  const master = link.master && links.find(({ ifindex }) => ifindex === link.master);
  return isPodDevice(link.name) || (master ? isPodDevice(master.name) : false);
}

function keyOf(ifindex: number): string {
  return bytesToText(new Uint8Array(Uint32Array.of(ifindex).buffer));
}

function indexOf(key: string): number {
  return new DataView(textToBytes(key).buffer).getUint32(0, true);
}

function read(row: string) {
  return layout.read(new DataView(textToBytes(row).buffer), 0);
}

/** What a row says that its device is. */
export function roleOf({ isUplink, isInside }: { isUplink: number; isInside: number }): Role {
  if (isUplink) return "uplink";
  return isInside ? "pod-facing" : "tunnel";
}

type Row = ReturnType<typeof read>;

function hasSameSources(a: Row, b: Row): boolean {
  return a.sourceIpv4 === b.sourceIpv4 && a.sourceIpv6 === b.sourceIpv6;
}

function encode(
  { link, role, ipv4, ipv6 }: WantedDevice,
  {
    served,
    sendsFrames,
    sources,
    isPod,
  }: {
    served: Served;
    sendsFrames: boolean;
    sources: ReadonlyMap<string, number>;
    isPod: boolean;
  },
): string {
  const bytes = new Uint8Array(layout.bytes);
  const indexOfSource = (address: string | undefined) => sources.get(address ?? "") ?? 0;
  layout.write(new DataView(bytes.buffer), 0, {
    mac: macOf(link),
    sendsFrames: Number(sendsFrames),
    isUplink: Number(role === "uplink"),
    isPod: Number(isPod),
    isInside: Number(role === "pod-facing"),
    sourceIpv4: indexOfSource(ipv4),
    sourceIpv6: indexOfSource(ipv6),
    note: noteNumber(served.note),
    error: errnoNumber(served.code),
  });
  return bytesToText(bytes);
}

/** Tunnels without Ethernet have addresses of other lengths in its place. */
function macOf(link: Link): Uint8Array {
  return hasEthernet(link) ? link.mac : new Uint8Array(MAC_BYTES);
}

function noteNumber(note: Note): number {
  return deviceNote[`NOTE_${note.toUpperCase() as Uppercase<Note>}`];
}
