// Which devices play which role on nodes of all kinds of networks, how they are served, and which
// address stands for the node there.
import test from "ava";
import { xdpMode } from "../../../bindings/rtnetlink.ts";
import { type Note, type WantedDevice, wantDevices, type XdpWish } from "./modes.ts";
import { type DeviceSketch, sketchNetwork } from "./networks.ts";
import { findRoles, type NamedUplinks, type Role, RoleKeeper } from "./roles.ts";

/** A role, and for uplinks which XDP is wanted and why. */
type Expected = Role | readonly ["uplink", XdpWish, Note];

interface Case {
  title: string;
  devices: Readonly<Record<string, DeviceSketch>>;
  nodeAddresses?: readonly string[];
  uplinks?: NamedUplinks;
  /** By name; devices that are left out have no role. */
  expected: Readonly<Record<string, Expected>>;
  /** This node's IPv4 address towards who is behind some devices. */
  sources?: Readonly<Record<string, string | undefined>>;
}

const NODE = "192.168.50.2";
const NATIVE = ["uplink", "native", "none"] as const;
const eth0: DeviceSketch = {
  kind: "card",
  addresses: [NODE, "2001:db8:50::2"],
  routes: ["default via 192.168.50.1", `192.168.50.0/24 src ${NODE}`],
};

const CASES: readonly Case[] = [
  {
    title: "pods that are routed, each by its veth",
    devices: {
      eth0: { ...eth0, routes: [...eth0.routes!, `10.244.2.0/24 via 192.168.50.3 src ${NODE}`] },
      pod1: { kind: "veth", routes: [`10.244.1.2 src ${NODE}`, "fd00:10:244:1::2"] },
      idle: { kind: "veth" },
    },
    expected: { eth0: NATIVE, pod1: "pod-facing" },
    sources: { eth0: NODE, pod1: NODE },
  },
  {
    title: "pods on a bridge with its ports",
    devices: {
      eth0,
      cni0: { kind: "bridge", addresses: ["10.244.1.1"], routes: ["10.244.1.0/24 src 10.244.1.1"] },
      veth1: { kind: "veth", master: "cni0" },
      veth2: { kind: "veth", master: "cni0", isDown: true },
    },
    expected: { eth0: NATIVE, cni0: "pod-facing", veth1: "pod-facing", veth2: "pod-facing" },
    sources: { cni0: "10.244.1.1", veth1: "10.244.1.1" },
  },
  {
    title: "flannel's vxlan",
    devices: {
      eth0,
      cni0: { kind: "bridge", addresses: ["10.244.1.1"], routes: ["10.244.1.0/24 src 10.244.1.1"] },
      veth1: { kind: "veth", master: "cni0" },
      "flannel.1": {
        kind: "vxlan",
        lower: "eth0",
        addresses: ["10.244.1.0"],
        routes: ["10.244.2.0/24 via 10.244.2.0"],
      },
    },
    expected: { eth0: NATIVE, cni0: "pod-facing", veth1: "pod-facing", "flannel.1": "tunnel" },
    sources: { "flannel.1": "10.244.1.0" },
  },
  {
    title: "calico's ipip, and a tunnel without routes",
    devices: {
      eth0,
      tunl0: {
        kind: "ipip",
        isBare: true,
        addresses: ["10.244.1.0"],
        routes: ["10.244.2.0/26 via 192.168.50.3"],
      },
      gre0: { kind: "gre", isBare: true },
      cali1: { kind: "veth", routes: ["10.244.1.7"] },
    },
    expected: { eth0: NATIVE, tunl0: "tunnel", cali1: "pod-facing" },
    sources: { cali1: NODE, tunl0: "10.244.1.0" },
  },
  {
    title: "a bond, and not its slaves",
    devices: {
      eno1: { kind: "card", master: "bond0" },
      eno2: { kind: "card", master: "bond0" },
      bond0: { ...eth0, kind: "bond" },
    },
    expected: { bond0: NATIVE },
  },
  {
    title: "VLAN devices by themselves, on a bond that has no address",
    devices: {
      eno1: { kind: "card", master: "bond0" },
      bond0: { kind: "bond" },
      "bond0.10": { ...eth0, kind: "vlan", lower: "bond0" },
      "bond0.20": {
        kind: "vlan",
        lower: "bond0",
        addresses: ["10.20.0.2"],
        routes: ["10.20.0.0/24 src 10.20.0.2"],
      },
    },
    expected: { "bond0.10": NATIVE, "bond0.20": NATIVE },
    sources: { "bond0.20": "10.20.0.2" },
  },
  {
    title: "several uplinks: a card with any route, a veth with a Node address or a gateway",
    devices: {
      eth0,
      eth1: { kind: "card", addresses: ["10.5.0.2"], routes: ["10.5.0.0/24 src 10.5.0.2"] },
      eth2: { kind: "veth", addresses: ["10.6.0.2"], routes: ["10.6.0.0/24 src 10.6.0.2"] },
      eth3: { kind: "veth", routes: ["10.244.7.0/24 via 10.7.0.1"] },
      eth4: { kind: "card" },
    },
    nodeAddresses: ["10.6.0.2"],
    expected: {
      eth0: NATIVE,
      eth1: NATIVE,
      eth2: ["uplink", "none", "veth"],
      eth3: ["uplink", "none", "veth"],
    },
  },
  {
    title: "a node in a container with docker0 beside",
    devices: {
      eth0: { ...eth0, kind: "veth" },
      docker0: {
        kind: "bridge",
        addresses: ["172.17.0.1"],
        routes: ["172.17.0.0/16 src 172.17.0.1"],
      },
      vethc: { kind: "veth", master: "docker0" },
      veth1: { kind: "veth", routes: ["10.244.0.5"] },
    },
    expected: {
      eth0: ["uplink", "none", "veth"],
      docker0: "pod-facing",
      vethc: "pod-facing",
      veth1: "pod-facing",
    },
    sources: { docker0: "172.17.0.1" },
  },
  {
    title: "an uplink that is a bridge, whose ports are left alone",
    devices: {
      eno1: { kind: "card", master: "br0" },
      vnet0: { kind: "tun", master: "br0" },
      br0: { ...eth0, kind: "bridge" },
      eno2: { kind: "card", master: "br1" },
      br1: { kind: "bridge", addresses: ["10.9.0.1"], routes: ["10.9.0.0/24 src 10.9.0.1"] },
    },
    expected: { br0: NATIVE, br1: NATIVE },
  },
  {
    title: "a tunnel that is a port of the pods' bridge",
    devices: {
      eth0,
      cni0: { kind: "bridge", routes: ["10.244.0.0/16"] },
      vxlan9: { kind: "vxlan", lower: "eth0", master: "cni0" },
    },
    expected: { eth0: NATIVE, cni0: "pod-facing", vxlan9: "tunnel" },
  },
  {
    title: "a CNI's device that is its own gateway",
    devices: {
      eth0,
      cilium_host: {
        kind: "veth",
        addresses: ["10.0.1.7"],
        routes: ["10.0.1.0/24 via 10.0.1.7 src 10.0.1.7", "10.0.2.0/24 via 10.0.1.7"],
      },
    },
    expected: { eth0: NATIVE, cilium_host: "pod-facing" },
  },
  {
    title: "addresses on a dummy device, and an uplink without Ethernet",
    devices: {
      wg0: { kind: "wireguard", isBare: true, routes: ["default", `10.9.0.0/16 src ${NODE}`] },
      dummy0: { kind: "dummy", addresses: [NODE] },
    },
    nodeAddresses: [NODE],
    expected: { wg0: ["uplink", "none", "no_ethernet"] },
    sources: { wg0: NODE },
  },
  {
    title: "uplinks that were named, and no others",
    devices: {
      eth0,
      eth1: { kind: "card", routes: ["10.5.0.0/24"] },
      eth2: { kind: "veth" },
      eth3: { kind: "veth" },
      eth4: { kind: "card" },
      "flannel.1": { kind: "vxlan", routes: ["10.244.2.0/24 via 10.244.2.0"] },
    },
    uplinks: new Map([
      ["eth1", "tc"],
      ["eth2", "xdp"],
      ["eth3", "generic"],
      ["eth4", "auto"],
      ["eth9", "auto"],
    ]),
    expected: {
      eth0: "pod-facing",
      eth1: ["uplink", "none", "asked"],
      eth2: ["uplink", "native", "asked"],
      eth3: ["uplink", "generic", "asked"],
      eth4: NATIVE,
      "flannel.1": "tunnel",
    },
  },
  {
    title: "an XDP program of somebody else, and one of our own",
    devices: {
      eth0: { ...eth0, xdp: { mode: xdpMode.NATIVE, programId: 77 } },
      eth1: { ...eth0, xdp: { mode: xdpMode.NATIVE, programId: 5 } },
      eth2: { ...eth0, xdp: { mode: xdpMode.MULTIPLE, programId: 0 } },
    },
    expected: {
      eth0: ["uplink", "none", "foreign"],
      eth1: NATIVE,
      eth2: ["uplink", "none", "foreign"],
    },
  },
];

function wanted({ devices, nodeAddresses = [], uplinks }: Omit<Case, "title" | "expected">) {
  const state = sketchNetwork(devices);
  const roles = findRoles(state, { nodeAddresses, uplinks });
  const isOwnXdp = (id: number) => id === 5;
  return wantDevices(state, { roles, uplinks, primary: nodeAddresses, isOwnXdp });
}

function show({ role, xdp, note }: WantedDevice): Expected {
  return role === "uplink" ? [role, xdp, note] : role;
}

for (const { title, expected, sources = {}, ...given } of CASES)
  test(`roles: ${title}`, (t) => {
    const found = wanted(given);
    t.deepEqual(Object.fromEntries(found.map((each) => [each.link.name, show(each)])), expected);
    for (const [name, source] of Object.entries(sources))
      t.is(found.find(({ link }) => link.name === name)?.ipv4, source, name);
  });

test("a source that routes disagree on, or that is not ours, is not taken", (t) => {
  const [disagreeing, foreign] = wanted({
    devices: {
      eth0: {
        kind: "card",
        addresses: ["10.0.0.1", "10.0.0.2"],
        routes: ["10.1.0.0/16 src 10.0.0.2", "10.2.0.0/16 src 10.0.0.3", "default via 10.0.0.9"],
      },
      pod: { kind: "veth", routes: ["10.244.0.5 src 10.9.9.9", "fd00::5"] },
    },
  });
  t.like(disagreeing, { ipv4: "10.0.0.1", ipv6: undefined });
  t.like(foreign, { ipv4: "10.0.0.1", ipv6: undefined });
});

test("a role that a device loses is kept for a while, one that it gains is not waited for", (t) => {
  const keeper = new RoleKeeper({ holdMs: 100, uplinks: undefined, known: new Map() });
  const at = (now: number, devices: Readonly<Record<string, DeviceSketch>>) => {
    const { links } = sketchNetwork(devices);
    const found = findRoles(sketchNetwork(devices), { nodeAddresses: [], uplinks: undefined });
    const { roles, again } = keeper.settle(found, { links, now });
    return { roles: links.map(({ ifindex }) => roles.get(ifindex)).slice(1), again };
  };
  const routed: DeviceSketch = { kind: "veth", routes: ["10.244.0.5"] };
  const leading: DeviceSketch = { kind: "veth", routes: ["default via 10.0.0.1"] };
  const bare: DeviceSketch = { kind: "veth" };
  const bridge: DeviceSketch = { kind: "bridge" };
  t.deepEqual(at(0, { a: routed, b: leading }).roles, ["pod-facing", "uplink"]);
  t.deepEqual(at(10, { a: leading, b: routed }), { roles: ["uplink", "uplink"], again: 110 });
  t.deepEqual(at(20, { a: bare, b: leading }), { roles: ["uplink", "uplink"], again: 120 });
  t.deepEqual(at(119, { a: bare, b: leading }).roles, ["uplink", "uplink"]);
  t.deepEqual(at(120, { a: bare, b: leading }), {
    roles: [undefined, "uplink"],
    again: undefined,
  });
  const down = { ...bare, isDown: true };
  t.deepEqual(at(130, { a: bare, b: down }), { roles: [undefined, "uplink"], again: undefined });
  t.deepEqual(at(990, { a: bare, b: down }).roles, [undefined, "uplink"]);
  t.deepEqual(at(995, { a: bare, b: { ...down, master: "c" }, c: bridge }).roles, [
    undefined,
    undefined,
    undefined,
  ]);
  const port = { ...bare, master: "c" };
  const pods: DeviceSketch = { kind: "bridge", routes: ["10.9.0.0/16"] };
  t.deepEqual(at(996, { a: bare, b: port, c: pods }).roles.slice(1), ["pod-facing", "pod-facing"]);
  t.deepEqual(at(996, { a: bare, b: down, c: pods }).roles.slice(1), [undefined, "pod-facing"]);
  t.deepEqual(at(996, { a: bare, b: leading }).roles, [undefined, "uplink"]);
  t.deepEqual(at(997, { a: bare }), { roles: [undefined], again: undefined });
});

test("roles from before this process are kept for devices that are down alone", (t) => {
  const devices: Record<string, DeviceSketch> = {
    a: { kind: "card", isDown: true },
    b: { kind: "card" },
  };
  const known = new Map<number, Role>([
    [2, "uplink"],
    [3, "uplink"],
    [4, "uplink"],
  ]);
  const { links } = sketchNetwork(devices);
  const settle = (uplinks: NamedUplinks | undefined) =>
    new RoleKeeper({ holdMs: 100, uplinks, known }).settle(new Map(), { links, now: 0 }).roles;
  t.deepEqual([...settle(undefined)], [[2, "uplink"]]);
  t.deepEqual([...settle(new Map([["a", "tc"]]))], [[2, "uplink"]]);
  t.deepEqual([...settle(new Map([["b", "tc"]]))], []);
});
