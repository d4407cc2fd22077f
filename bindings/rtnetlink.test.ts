// Devices, addresses, routes and neighbours of network namespaces that the test made, against what
// it made there.
import test from "ava";
import { BpfError } from "./errors.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import {
  deviceFlag,
  findNeighbour,
  hardwareType,
  listAddresses,
  listLinks,
  listNeighbours,
  listRoutes,
  manageNeighbour,
  type Neighbour,
  neighbourFlag,
  neighbourState,
  type Route,
  routeType,
  xdpMode,
} from "./rtnetlink.ts";
import { hasRoot, type TestNetwork, testNetwork } from "./testing.ts";

function ask<T>({ run }: TestNetwork, question: (socket: NetlinkSocket) => T): T {
  return run(() => {
    const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
    try {
      return question(socket);
    } finally {
      socket.close();
    }
  });
}

const hex = (bytes: Uint8Array | undefined) => bytes && Buffer.from(bytes).toString("hex");
const ipv4 = (text: string) => Uint8Array.from(text.split("."), Number);

test("devices are told with what they are, and whose ports they are", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip(
    "link add name left index 10 address 02:00:00:00:00:01 mtu 1400 type veth peer name right",
    "link add name bridge index 20 type bridge",
    "link set right master bridge",
    "link set left up",
    "link add name flannel.1 index 30 type vxlan id 1 dev left dstport 8472",
    "tuntap add tunnel mode tun",
    "link add link left name upper type macvlan",
  );
  const links = ask(network, listLinks);
  const named = (name: string) => links.find((link) => link.name === name)!;
  t.deepEqual(links.map(({ name }) => name).sort(), [
    "bridge",
    "flannel.1",
    "left",
    "lo",
    "right",
    "tunnel",
    "upper",
  ]);
  const { ETHER, LOOPBACK } = hardwareType;
  t.like(named("lo"), { kind: "", hardware: LOOPBACK, ifindex: 1, hasParent: false });
  t.like(named("left"), { kind: "veth", hardware: ETHER, ifindex: 10, mtu: 1400, portOf: "" });
  t.is(hex(named("left").mac), "020000000001");
  t.truthy(named("left").flags & deviceFlag.UP);
  t.falsy(named("bridge").flags & deviceFlag.UP);
  t.like(named("right"), { kind: "veth", master: 20, portOf: "bridge", lower: 10 });
  t.like(named("bridge"), { kind: "bridge", master: 0 });
  t.like(named("flannel.1"), { kind: "vxlan", lower: 0, hardware: ETHER });
  t.like(named("upper"), { kind: "macvlan", lower: 10 });
  t.like(named("tunnel"), { kind: "tun", hardware: 0xfffe });
  t.is(named("tunnel").mac.length, 0);
  t.like(named("left").xdp, { mode: xdpMode.NONE, programId: 0 });
});

test("addresses have their device, family, scope and flags", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip(
    "link add name left index 10 type veth peer name right",
    "address add 192.0.2.2/24 dev left",
    "address add 10.0.0.1 peer 10.0.0.2/32 dev left",
    "address add 169.254.1.1/32 dev left scope link",
    "address add 2001:db8::2/64 dev left nodad",
  );
  const addresses = ask(network, listAddresses).filter(({ ifindex }) => ifindex === 10);
  t.deepEqual(
    addresses.map(({ family, address, prefixLength, scope }) => [
      family,
      hex(address),
      prefixLength,
      scope,
    ]),
    [
      [4, "a9fe0101", 32, 253],
      [4, "c0000202", 24, 0],
      [4, "0a000001", 32, 0],
      [6, "20010db8000000000000000000000002", 64, 0],
    ],
  );
});

test("routes of all tables have their next hops and the source they prefer", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip(
    "link add name left index 10 type veth peer name right index 11",
    "link set left up",
    "link set right up",
    "address add 192.0.2.2/24 dev left",
    "address add 198.51.100.2/24 dev right",
    "route add default via 192.0.2.1",
    "route add 10.244.1.5 dev right src 192.0.2.2",
    "route add 10.9.0.0/16 nexthop via 192.0.2.9 nexthop via 198.51.100.9",
    "route add default via 198.51.100.1 table 1000",
    "route add prohibit 10.96.0.0/16",
    "route add 10.7.0.0/16 via inet6 fe80::7 dev left",
    "route add fd00:7::/64 via fe80::1 dev left",
  );
  const routes = ask(network, listRoutes);
  const find = (destination: string | undefined, table = 254): Route =>
    routes.find((each) => each.table === table && hex(each.destination) === destination)!;
  t.like(find(undefined), { family: 4, prefixLength: 0, type: routeType.UNICAST });
  const hops = (route: Route) => route.nextHops.map((hop) => [hop.ifindex, hex(hop.gateway)]);
  t.deepEqual(hops(find(undefined)), [[10, "c0000201"]]);
  t.deepEqual(hops(find(undefined, 1000)), [[11, "c6336401"]]);
  const host = find("0af40105");
  t.is(host.prefixLength, 32);
  t.is(hex(host.source), "c0000202");
  t.deepEqual(hops(host), [[11, undefined]]);
  t.deepEqual(hops(find("0a090000")), [
    [10, "c0000209"],
    [11, "c6336409"],
  ]);
  t.is(find("0a600000").type, 8);
  t.deepEqual(hops(find("0a070000")), [[10, "fe800000000000000000000000000007"]]);
  const ipv6 = find("fd000007000000000000000000000000");
  t.like(ipv6, { family: 6, prefixLength: 64 });
  t.deepEqual(hops(ipv6), [[10, "fe800000000000000000000000000001"]]);
  t.is(find("c0000202", 255).type, routeType.LOCAL);
});

test("a neighbour is managed and released, and what else it is stays", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip(
    "link add name left index 10 type veth peer name right",
    "link set left up",
    "link set right up",
    "address add 192.0.2.2/24 dev left",
    "neighbour add 192.0.2.9 lladdr 02:00:00:00:00:09 dev left nud stale extern_learn",
    "neighbour add 192.0.2.8 lladdr 02:00:00:00:00:08 dev left nud permanent",
  );
  const find = (last: number): Neighbour | undefined =>
    ask(network, (socket) =>
      findNeighbour(socket, { ifindex: 10, address: ipv4(`192.0.2.${last}`) }),
    );
  const { EXTERNALLY_LEARNED } = neighbourFlag;
  t.like(find(9), { ifindex: 10, flags: EXTERNALLY_LEARNED, isManaged: false, protocol: 0 });
  t.is(find(8)!.state, neighbourState.PERMANENT);
  t.is(find(7), undefined);
  const manage = (isManaged: boolean) =>
    ask(network, (socket) =>
      manageNeighbour(socket, { ...find(9)!, protocol: 181 }, { isManaged }),
    );
  manage(true);
  t.like(find(9), { isManaged: true, flags: EXTERNALLY_LEARNED, protocol: 181 });
  t.is(hex(find(9)!.mac), "020000000009");
  manage(false);
  t.like(find(9), { isManaged: false, flags: EXTERNALLY_LEARNED });
  t.is(hex(find(9)!.mac), "020000000009");
  const all = ask(network, listNeighbours).filter(({ family }) => family === 4);
  t.deepEqual(all.map(({ address }) => hex(address)).sort(), ["c0000208", "c0000209"]);
});

test("what the kernel refuses is told by name and in the kernel's words", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  const neighbour = { ifindex: 99, address: ipv4("192.0.2.9"), flags: 0, protocol: 0 };
  t.throws(
    () => ask(network, (socket) => manageNeighbour(socket, neighbour, { isManaged: true })),
    { instanceOf: BpfError, message: /Cannot manage "neighbour on device 99": ENODEV/ },
  );
  t.throws(
    () =>
      ask(network, (socket) =>
        manageNeighbour(
          socket,
          { ...neighbour, ifindex: 1, address: ipv4("1.2.3") },
          {
            isManaged: true,
          },
        ),
      ),
    { instanceOf: BpfError, message: /Cannot manage .*: EINVAL, [A-Z]/ },
  );
  const closed = new NetlinkSocket(netlinkProtocol.ROUTE);
  closed.close();
  t.throws(() => listLinks(closed), { message: 'Netlink socket "netlink" is closed' });
});
