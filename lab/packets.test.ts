// Crafted packets: that they arrive as they were written, and that the checks find what is wrong.
import test from "ava";
import { families } from "./addresses.ts";
import type { Answer, UdpReplies } from "./helper.ts";
import { Lab } from "./lab.ts";
import { needsLab } from "./needs.ts";
import { layerOf, Packets, type Seen } from "./packets.ts";
import { serveSctp, startSctp } from "./sctp.ts";
import { waitFor } from "./wait.ts";

const labTest = needsLab(test.serial);

/** A lab, the outside client's packets, and those of pod-b1. */
interface Place {
  lab: Lab;
  outside: Packets;
  pod: Packets;
}

let opened: Promise<Place> | undefined;
function open(): Promise<Place> {
  opened ??= (async () => {
    const lab = await Lab.create({ name: "packets" });
    const hosts = [lab.outside, lab.pods["pod-b1"]!];
    const [outside, pod] = await Promise.all(hosts.map((host) => Packets.start(host)));
    return { lab, outside: outside!, pod: pod! };
  })();
  return opened;
}
test.after.always(async () => {
  const place = await opened;
  await Promise.all([place?.outside.close(), place?.pod.close()]);
  await place?.lab.close();
});

const ETHERNET = 'Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")';
const IPV4 = `${ETHERNET}/IP(src="10.0.0.1", dst="10.0.0.2"`;
const IPV6 = `${ETHERNET}/IPv6(src="fd00::1", dst="fd00::2")`;
const jumbo = (bytes: number) =>
  `${IPV6.replace(/\)$/, ", plen=0)")}/IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=${bytes})])`;

/** Frames, and what is wrong with them. */
const cases: readonly [string, ...string[]][] = [
  [`${IPV4})/UDP()/b"odd"`],
  [`${IPV4})/UDP(chksum=0)/b"none"`],
  [`${IPV4}, options=[IPOption_Timestamp()])/TCP(options=[("MSS", 1400)])/b"data"`],
  [`${ETHERNET}/Dot1Q(vlan=5)/IP(src="10.0.0.1", dst="10.0.0.2")/UDP()`],
  [`${IPV4})/ICMP()/b"echo"`],
  [`${IPV4})/ICMP(type=3, code=4, nexthopmtu=1400)/IP(src="10.0.0.2")/UDP()`],
  [`${IPV4})/SCTP(tag=7)/SCTPChunkData(data=b"hello", tsn=1)`],
  [`${IPV6}/TCP()`],
  [`${IPV6}/IPv6ExtHdrHopByHop()/IPv6ExtHdrDestOpt()/UDP()/b"data"`],
  [`${IPV6}/ICMPv6PacketTooBig(mtu=1300)/IPv6()/UDP()`],
  [`${IPV4}, frag=10)/(b"not the first of its fragments")`],
  [`${IPV4}, len=0)/ICMP()/bytes(70000)`],
  [`${IPV4}, len=0)/ICMP()`, "ICMP: 0 bytes are no header"],
  [`${jumbo(70_028)}/TCP()/bytes(70000)`],
  [`${jumbo(7)}/TCP()/bytes(70000)`, "IPv6: 00c20400000007 does not say 70028 bytes"],
  [`${IPV4}, chksum=1)/UDP()`, "IPv4: wrong header checksum"],
  [`${IPV4}, len=1000)/ICMP()`, "IPv4: length 1000 of 28 bytes"],
  [`${IPV4})/UDP(chksum=1)`, "UDP: wrong checksum"],
  [`${IPV4})/UDP(len=100)/b"odd"`, "UDP: length 100 of 11 bytes"],
  [`${IPV4})/TCP(chksum=1)`, "TCP: wrong checksum"],
  [`${IPV4})/SCTP(chksum=1)/b"data"`, "SCTP: wrong checksum"],
  [`${IPV4}, proto=6)/b"short"`, "TCP: 5 bytes are no header"],
  [`${IPV6}/UDP(chksum=0)`, "UDP: no checksum over IPv6"],
  [`${IPV6}/IPv6ExtHdrDestOpt()/UDP(chksum=2)`, "UDP: wrong checksum"],
  [`${IPV6}/ICMPv6EchoRequest(cksum=3)`, "ICMPv6: wrong checksum"],
  [
    `${IPV4})/ICMP(type=3, code=4)/IP(src="10.0.0.2", chksum=1)/UDP()`,
    "ICMP: wrong header checksum in the quoted packet",
  ],
];

test("the checks find wrong lengths and checksums, and nothing else", async (t) => {
  const packets = await Packets.start();
  try {
    for (const [packet, ...problems] of cases) {
      const frames = await packets.build(packet);
      t.deepEqual(await packets.check(frames), [problems], packet);
    }
    await t.throwsAsync(packets.build("Nonsense()"), { message: /NameError/ });
  } finally {
    await packets.close();
  }
});

labTest("packets arrive as they were written, options, extension headers and all", async (t) => {
  const { lab, outside, pod } = await open();
  const { ipv4, ipv6 } = lab.pods["pod-b1"]!.addresses;
  const from = lab.outside.addresses;
  const ip = `IP(src="${from.ipv4}", dst="${ipv4}", options=[IPOption_NOP(), IPOption_NOP()])`;
  const sent: [string, (seen: Seen) => void][] = [
    [`${ip}/UDP(sport=1, dport=2)/b"x"`, (seen) => t.is(layerOf(seen, "IP").ihl, 6)],
    [
      `IPv6(src="${from.ipv6}", dst="${ipv6}")/IPv6ExtHdrDestOpt()/TCP(sport=1, flags="A")`,
      (seen) => t.is(layerOf(seen, "TCP").sport, 1),
    ],
    [
      `Ether()/IP(src="${from.ipv4}", dst="${ipv4}")/UDP(sport=1, dport=2, chksum=7)`,
      (seen) => t.deepEqual(seen.problems, ["UDP: wrong checksum"]),
    ],
    [
      `IP(src="${from.ipv4}", dst="${ipv4}")/ICMP(type=3, code=4, nexthopmtu=1300)/` +
        `IP(src="${ipv4}", dst="${from.ipv4}")/UDP(sport=3, dport=4)`,
      (seen) => t.is(layerOf(seen, "UDPerror").dport, 4),
    ],
  ];
  const capture = await pod.capture({ match: "IP in p or TCP in p" });
  for (const [packet, check] of sent) {
    await outside.send(packet);
    const [seen] = await capture.take();
    t.truthy(seen, packet);
    if (!/chksum/.test(packet)) t.deepEqual(seen!.problems, []);
    check(seen!);
  }
  await capture.close();
});

labTest("a packet whose TTL ends on the way is told of", async (t) => {
  const { lab, outside } = await open();
  const capture = await outside.capture({ match: "ICMP in p or ICMPv6TimeExceeded in p" });
  for (const family of families) {
    const to = lab.pods["pod-b1"]!.addresses[family];
    const from = lab.outside.addresses[family];
    const header = family === "ipv4" ? "IP(ttl=1, " : "IPv6(hlim=1, ";
    await outside.send(`${header} src="${from}", dst="${to}")/UDP(sport=5, dport=6)`);
    const [seen] = await capture.take();
    t.is(layerOf(seen!, "UDPerror").dport, 6);
  }
  await capture.close();
});

labTest("fragments in any order become the datagram that they were", async (t) => {
  const { lab, outside } = await open();
  const server = await lab.pods["pod-b1"]!.helper();
  for (const family of families) {
    const address = lab.pods["pod-b1"]!.addresses[family];
    const from = lab.outside.addresses[family];
    await server.serveUdp({ identity: "fragments", address, port: 53 });
    const udp = 'UDP(sport=5, dport=53)/(b"x" * 3000)';
    const fragments =
      family === "ipv4"
        ? `fragment(IP(src="${from}", dst="${address}", id=9)/${udp}, 1000)`
        : `fragment6(IPv6(src="${from}", dst="${address}")/IPv6ExtHdrFragment(id=9)/${udp}, 1000)`;
    // The answer comes in fragments too, of which the first says from where.
    const capture = await outside.capture({ match: "UDP in p" });
    await outside.send(`${fragments}[::-1]`);
    const [answer] = await capture.take();
    t.like(layerOf(answer!, "UDP"), { sport: 53, dport: 5 }, family);
    await capture.close();
  }
});

labTest("a frame with a VLAN tag reaches the other end of the cable with it", async (t) => {
  const { lab, outside } = await open();
  const router = await Packets.start(lab.router);
  const capture = await router.capture({ device: "outside", match: "Dot1Q in p" });
  await outside.send(`${ETHERNET}/Dot1Q(vlan=77)/IP(src="203.0.113.10", dst="203.0.113.1")/UDP()`);
  const [seen] = await capture.take();
  t.is(layerOf(seen!, "Dot1Q").vlan, 77);
  t.deepEqual(seen!.problems, []);
  await router.close();
});

labTest("a datagram sent by hand is answered to where it came from", async (t) => {
  const { lab, outside } = await open();
  const server = await lab.pods["pod-b1"]!.helper();
  const { ipv4: address } = lab.pods["pod-b1"]!.addresses;
  await server.serveUdp({ identity: "by hand", address, port: 54 });
  const client = await lab.outside.helper();
  const local = { address: "203.0.113.200", port: 4000 };
  const datagrams = [{ address, port: 54, payload: "by a socket" }];
  const { replies } = (await client.udp({ local, datagrams })) as UdpReplies;
  t.deepEqual((JSON.parse(replies[0]!.payload) as Answer).client, local);
  const capture = await outside.capture({ match: "UDP in p and p[UDP].dport == 4001" });
  await outside.send(`IP(src="203.0.113.201", dst="${address}")/UDP(sport=4001, dport=54)/b"hi"`);
  const [seen] = await capture.take();
  t.is(layerOf(seen!, "IP").dst, "203.0.113.201");
  await capture.close();
});

labTest(
  "an SCTP-shaped exchange goes on until it is stopped, and breaks with its server",
  async (t) => {
    const { lab } = await open();
    const pod = lab.pods["pod-b1"]!;
    for (const [place, address] of Object.values(pod.addresses).entries()) {
      const server = await serveSctp(pod, { identity: "sctp", address, port: 80 });
      const options = { address, port: 80, pauseMs: 1 };
      const flow = await startSctp(lab.outside, { ...options, local: { port: 6000 + place } });
      const report = await flow.stop();
      t.like(report, { identities: ["sctp"], stalls: [], wrong: 0, broken: undefined });
      t.true(report.rounds > 0);
      const other = await startSctp(lab.outside, { ...options, local: { port: 6010 + place } });
      // A server that knows nothing of the association aborts it.
      await serveSctp(pod, { identity: "next", address, port: 80 });
      await server.kill();
      await waitFor(() => other.ended(), { what: "the association to break" });
      t.like(await other.stop(), { identities: ["sctp"], broken: { code: "ABORTED" } });
    }
  },
);
