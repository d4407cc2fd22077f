// What passes every hook as it is: what is no Service's, what is another host's, what is broken,
// what is tagged, and what must lead nowhere.
import { HOOKS, type HookName } from "../bed.ts";
import { MACS } from "../places.ts";
import {
  ENDPOINT_PORT,
  LOCAL_PORT,
  LOOPBACK_PORT,
  MULTICAST_PORT,
  NODE_PORT,
  PORT,
} from "../services.ts";
import {
  everyTransport,
  KEPT,
  PAYLOAD,
  TRANSPORTS,
  tcp,
  udp,
  type Words,
  wordsOf,
} from "../words.ts";
import type { Case, Step } from "./cases.ts";
import { throughNode } from "./ways.ts";

const hooks = Object.keys(HOOKS) as HookName[];
const inward = ["xdp", "ingress"] as const;

/** The same packet at each hook. */
function everywhere(packet: string, at: readonly HookName[] = hooks): Step[] {
  return at.map((hook) => ({ hook, packet, verdict: "next" }));
}

const others: Case[] = [
  {
    title: "what is no Service's passes every hook untouched",
    steps: ({ at, ip }) =>
      everyTransport.flatMap((transport) =>
        everywhere(`${ip(at.client, at.stranger)}/${TRANSPORTS[transport](KEPT, PORT)}`),
      ),
  },
  {
    title: "a port that a load balancer address does not have is left alone",
    steps: ({ at, ip }) => everywhere(`${ip(at.client, at.vip)}/${tcp(KEPT, 999)}`),
  },
  {
    title: "the node's own traffic passes, also from where endpoints are",
    steps: ({ at, ip }) => [
      ...everywhere(`${ip(at.remote, at.node)}/${tcp(5000, 22)}`, inward),
      ...everywhere(`${ip(at.client, at.node)}/${tcp(5000, 22)}`, inward),
      ...everywhere(`${ip(at.node, at.client)}/${tcp(22, 5000, "SA")}`, ["egress"]),
    ],
  },
  {
    title: "other protocols pass, and so do frames of none that is known",
    steps: ({ at, ip, family }) => [
      ...everywhere(`${ip(at.client, at.vip)}/GRE()/b"0123456789abcdef"`),
      ...everywhere(`ARP(psrc="192.0.2.1",pdst="192.0.2.2")`),
      ...everywhere(`${ip(at.client, at.vip, { more: family === 4 ? ",proto=59" : ",nh=59" })}`),
    ],
  },
  {
    title: "frames with a VLAN's tag pass: they are served on its own device",
    steps: ({ at, ip }) => [
      ...everywhere(`Dot1Q(vlan=7)/${ip(at.client, at.vip)}/${tcp(KEPT, PORT)}`),
      ...everywhere(`Dot1AD(vlan=7)/Dot1Q(vlan=8)/${ip(at.client, at.vip)}/${tcp(KEPT, PORT)}`),
    ],
  },
  {
    title: "what an uplink hears of another host's traffic passes, also of a known connection",
    steps: (words) => {
      const { at, ip } = words;
      const unknown = `${ip(at.client, at.vip)}/${tcp(KEPT + 1, PORT)}`;
      const [request, reply] = throughNode(words, "TCP");
      const overheard = (packet: string): Step[] =>
        everywhere(packet, inward).map((step) => ({ ...step, addressee: MACS.nodeB }));
      return [
        ...overheard(unknown),
        request!,
        reply!,
        ...overheard(request!.packet),
        ...overheard(reply!.packet),
      ];
    },
  },
];

const broken: Case[] = [
  {
    title: "a frame for everybody with a packet for one passes: each node would send it on",
    steps: (words) => {
      const { at, ip } = words;
      const unknown = `${ip(at.client, at.vip)}/${tcp(KEPT + 1, PORT)}`;
      const [request] = throughNode(words, "TCP");
      const toAll = (packet: string): Step[] =>
        ["ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:09"].flatMap((addressee) =>
          everywhere(packet, inward).map((step) => ({ ...step, addressee })),
        );
      return [...toAll(unknown), request!, ...toAll(request!.packet)];
    },
  },
  {
    title: "IPv4 addresses in an IPv6 header are nobody's, also of a known connection",
    families: [6],
    steps: () => {
      const [v4, v6] = [wordsOf(4), wordsOf(6)];
      const mapped = (address: string) => `::ffff:${address}`;
      const packets = [
        [mapped(v4.at.client), mapped(v4.at.vip)],
        [v6.at.client, mapped(v4.at.vip)],
        [mapped(v4.at.client), v6.at.vip],
      ].flatMap(([from, to]) =>
        ["ip", "optional"].map(
          (head) => `${v6[head as "ip" | "optional"](from!, to!)}/${tcp(KEPT, PORT)}`,
        ),
      );
      return [
        ...packets.flatMap((packet) => everywhere(packet)),
        {
          hook: "ingress",
          packet: `${v4.ip(v4.at.client, v4.at.vip)}/${tcp(KEPT, PORT)}`,
          verdict: "sent",
          becomes: `${v4.ip(v4.at.node, v4.at.remote, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
        },
        ...everywhere(packets[0]!),
        ...everywhere(packets[1]!),
      ];
    },
  },
  {
    title: "what is broken passes untouched, for the stack to drop",
    steps: ({ at, ip, family }) => {
      const head = (more: string) => `${ip(at.client, at.vip, { more })}/${tcp(KEPT, PORT)}`;
      const sizes =
        family === 4 ? [",len=30", ",len=2000", ",len=0"] : [",plen=10", ",plen=2000", ",plen=0"];
      return [
        ...(family === 4 ? everywhere(head(",chksum=1"), inward) : []),
        ...(family === 4 ? everywhere(head(",ihl=4"), inward) : []),
        ...everywhere(head(",version=5"), inward),
        ...sizes.flatMap((more) => everywhere(head(more), inward)),
        ...everywhere(`Raw(bytes(${head("")})[:${family === 4 ? 38 : 58}])`, inward),
      ];
    },
  },
  {
    title: "a packet without a length passes untouched, unless it is segments of TCP",
    steps: ({ at, ip, family }) => {
      const none = ip(at.client, at.vip, { more: family === 4 ? ",len=0" : ",plen=0" });
      const jumbo = `${none}/IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=35)])/${tcp(KEPT, PORT)}`;
      return [
        { hook: "ingress", packet: `${none}/${udp(KEPT, PORT)}`, gsoSize: 5, verdict: "next" },
        ...(family === 6 ? everywhere(jumbo, inward) : []),
      ];
    },
  },
  {
    title: "a checksum that is left to the device is left to the stack",
    steps: ({ at, ip }) => [
      ...[tcp(KEPT, PORT), udp(KEPT, PORT)].map((transport) => ({
        hook: "xdp" as const,
        packet: `partial(${ip(at.client, at.vip)}/${transport})`,
        verdict: "next" as const,
      })),
      {
        hook: "xdp",
        packet: [
          ip(at.client, at.vip),
          `SCTP(sport=${KEPT},dport=${PORT},chksum=0)/SCTPChunkData(data=b"1")`,
        ].join("/"),
        verdict: "next",
      },
    ],
  },
];

const nowhere: Case[] = [
  {
    title: "a loopback address has no node ports to the outside",
    steps: ({ at, ip }) => [
      ...everywhere(`${ip(at.client, at.loopback)}/${tcp(KEPT, NODE_PORT)}`, inward),
      ...everywhere(`${ip(at.client, at.loopback)}/${tcp(KEPT, PORT)}`, inward),
    ],
  },
  {
    title: "an endpoint that is a loopback or multicast address is led to by nothing",
    steps: ({ at, ip }) => [
      ...[LOOPBACK_PORT, MULTICAST_PORT].flatMap((port): Step[] => [
        { hook: "xdp", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, port)}`, verdict: "next" },
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${tcp(KEPT, port)}`,
          verdict: "dropped",
          reason: "no_route",
        },
      ]),
    ],
  },
  {
    title: "whoever claims to be nobody, many, or this node itself is left to the stack to drop",
    steps: ({ at, ip, icmp, family }: Words) => {
      const nobody = family === 4 ? ["0.0.0.0", "255.255.255.255"] : ["::"];
      const martians = [...nobody, at.loopback, at.multicast];
      return [
        ...[...martians, at.node].flatMap((source) => [
          ...everywhere(`${ip(source, at.vip)}/${udp(KEPT, PORT)}`, inward),
          ...everywhere(`${ip(source, at.vip)}/${udp(KEPT, LOCAL_PORT)}`, inward),
          ...everywhere(`${ip(source, at.node)}/${udp(ENDPOINT_PORT, NODE_PORT)}`, inward),
        ]),
        ...martians.flatMap((source) =>
          everywhere(`${ip(source, at.vip)}/${icmp.echo}/${PAYLOAD}`, inward),
        ),
      ];
    },
  },
];

export const UNTOUCHED: readonly Case[] = [...others, ...broken, ...nowhere];
