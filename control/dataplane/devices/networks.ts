// Network namespaces made up for tests, as brief as `ip` would show them: devices with what they
// are, their addresses and the routes through them. Knows nothing of roles.
import { deviceFlag, hardwareType, type Link, xdpMode } from "../../../bindings/rtnetlink.ts";
import { addressFamily } from "../../model/address.ts";
import type { DeviceRoute, NetworkState } from "./network.ts";

export interface DeviceSketch {
  /** "card" for a network card; else as rtnetlink calls it. */
  kind: string;
  addresses?: readonly string[];
  /** Such as "default via 192.0.2.1" or "10.244.1.5 src 192.0.2.2". */
  routes?: readonly string[];
  /** Name of the device that it is a port of. */
  master?: string;
  /** Name of the device that it stands on. */
  lower?: string;
  isDown?: boolean;
  /** Without an Ethernet header. */
  isBare?: boolean;
  xdp?: Link["xdp"];
}

const NO_HARDWARE = 0xfffe;

/** A state of the sketched devices, with ifindexes from 2 on in their order, and lo. */
export function sketchNetwork(devices: Readonly<Record<string, DeviceSketch>>): NetworkState {
  const names = Object.keys(devices);
  const indexOf = (name: string | undefined) => (name === undefined ? 0 : names.indexOf(name) + 2);
  const lo: Link = { ...sketchLink("lo", { kind: "" }), ifindex: 1, hardware: 772 };
  lo.flags |= deviceFlag.LOOPBACK;
  const links = Object.entries(devices).map(([name, sketch]) => ({
    ...sketchLink(name, sketch),
    ifindex: indexOf(name),
    master: indexOf(sketch.master),
    lower: indexOf(sketch.lower),
    portOf: sketch.master === undefined ? "" : (devices[sketch.master]?.kind ?? ""),
  }));
  const entries = Object.entries(devices);
  return {
    links: [lo, ...links],
    addresses: entries.flatMap(([name, { addresses = [] }]) =>
      addresses.map((address) => ({
        ifindex: indexOf(name),
        family: addressFamily(address),
        address,
        isUsable: true,
      })),
    ),
    routes: entries.flatMap(([name, { routes = [] }]) =>
      routes.map((route) => sketchRoute(route, indexOf(name))),
    ),
  };
}

function sketchLink(name: string, { kind, isDown, isBare, xdp }: DeviceSketch): Link {
  return {
    name,
    kind: kind === "card" ? "" : kind,
    hasParent: kind === "card",
    hardware: isBare ? NO_HARDWARE : hardwareType.ETHER,
    flags: isDown ? 0 : deviceFlag.UP,
    ifindex: 0,
    master: 0,
    lower: 0,
    portOf: "",
    mac: Uint8Array.of(2, 0, 0, 0, 0, 1),
    mtu: 1500,
    xdp: xdp ?? { mode: xdpMode.NONE, programId: 0 },
  };
}

function sketchRoute(text: string, ifindex: number): DeviceRoute {
  const [destination = "", ...rest] = text.split(" ");
  const after = (word: string) => (rest.includes(word) ? rest[rest.indexOf(word) + 1] : undefined);
  const [gateway, source] = [after("via"), after("src")];
  const isIpv6 = [destination, gateway ?? "", source ?? ""].some((each) => each.includes(":"));
  return {
    ifindex,
    family: isIpv6 ? 6 : 4,
    isDefault: destination === "default",
    gateway,
    source,
  };
}
