// What becomes of packets, one after the other, at the hooks of the packet path: a table of cases
// for IPv4 and IPv6 alike. Packets are in scapy's notation.
import { type Family, type HookName, type MACS, PLACES, type Verdict } from "./bed.ts";
import {
  DROP_PORT,
  EMPTY_PORT,
  ENDPOINT_PORT,
  GUARDED_PORT,
  LOCAL_PORT,
  NODE_PORT,
  PORT,
} from "./services.ts";

/** One packet and what becomes of it. */
export interface Step {
  hook: HookName;
  /** "eth0" unless given. */
  device?: "eth0" | "pod-a1";
  packet: string;
  verdict: Verdict;
  /** The packet that it becomes; itself unless given. */
  becomes?: string;
  /** Where XDP sends it; the MAC address of that neighbour. */
  to?: keyof typeof MACS;
  /** What is counted by it. */
  reason?: string;
}

export interface Case {
  title: string;
  /** The programs' configuration, where it differs from the default. */
  rodata?: Readonly<Record<string, number>>;
  /** Left out where one family has no such thing. */
  families?: readonly Family[];
  steps(family: Words): Step[];
}

/** How packets of one family are written. */
export interface Words {
  family: Family;
  at: (typeof PLACES)[Family];
  /** An IP header. */
  ip(source: string, destination: string, fields?: { ttl?: number; more?: string }): string;
  /** The IP header of an answer of our own. */
  answer(source: string, destination: string): string;
  /** An ICMP error header: port unreachable, too big, or time exceeded. */
  error(what: "unreachable" | "tooBig" | "time", mtu?: number): string;
  icmp: { echo: string; reply: string };
}

export function wordsOf(family: Family): Words {
  const is4 = family === 4;
  return {
    family,
    at: PLACES[family],
    ip: (source, destination, { ttl = 64, more = "" } = {}) =>
      is4
        ? `IP(src="${source}",dst="${destination}",ttl=${ttl}${more})`
        : `IPv6(src="${source}",dst="${destination}",hlim=${ttl}${more})`,
    answer: (source, destination) =>
      is4
        ? `IP(src="${source}",dst="${destination}",ttl=64,id=0)`
        : `IPv6(src="${source}",dst="${destination}",hlim=64)`,
    error: (what, mtu = 0) => {
      if (is4)
        return {
          unreachable: "ICMP(type=3,code=3)",
          tooBig: `ICMP(type=3,code=4,nexthopmtu=${mtu})`,
          time: "ICMP(type=11,code=0)",
        }[what];
      return {
        unreachable: "ICMPv6DestUnreach(code=4)",
        tooBig: `ICMPv6PacketTooBig(mtu=${mtu})`,
        time: "ICMPv6TimeExceeded()",
      }[what];
    },
    icmp: is4
      ? { echo: "ICMP(type=8,id=7,seq=1)", reply: "ICMP(type=0,id=7,seq=1)" }
      : { echo: "ICMPv6EchoRequest(id=7,seq=1)", reply: "ICMPv6EchoReply(id=7,seq=1)" },
  };
}

/** A client's port that the host never takes itself, so that it may stay. */
const KEPT = 20000;
/** One that it does. */
const TAKEN = 40000;

const PAYLOAD = `b"0123456789abcde"`;
const TRANSPORTS = {
  TCP: (sport: number, dport: number) => `TCP(sport=${sport},dport=${dport},flags="A")/${PAYLOAD}`,
  UDP: (sport: number, dport: number) => `UDP(sport=${sport},dport=${dport})/${PAYLOAD}`,
  SCTP: (sport: number, dport: number) =>
    `SCTP(sport=${sport},dport=${dport},tag=7)/SCTPChunkData(data=${PAYLOAD})`,
} as const;
type Transport = keyof typeof TRANSPORTS;

const tcp = (sport: number, dport: number, flags = "S") =>
  `TCP(sport=${sport},dport=${dport},flags="${flags}",seq=1000,ack=2000)`;

/** Request and reply of a connection through this node to another one. */
function throughNode({ at, ip }: Words, transport: Transport, hook: "xdp" | "ingress"): Step[] {
  const write = TRANSPORTS[transport];
  return [
    {
      hook,
      packet: `${ip(at.client, at.vip)}/${write(KEPT, PORT)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${write(KEPT, ENDPOINT_PORT)}`,
      to: "nodeB",
    },
    {
      hook,
      packet: `${ip(at.remote, at.node)}/${write(ENDPOINT_PORT, KEPT)}`,
      verdict: "sent",
      becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${write(PORT, KEPT)}`,
      to: "router",
    },
  ];
}

/** The same to a pod of this node: the stack sees client and endpoint. */
function throughStack({ at, ip }: Words, transport: Transport): Step[] {
  const write = TRANSPORTS[transport];
  return [
    {
      hook: "xdp",
      packet: `${ip(at.client, at.vip)}/${write(TAKEN, LOCAL_PORT)}`,
      verdict: "next",
    },
    {
      hook: "ingress",
      packet: `${ip(at.client, at.vip)}/${write(TAKEN, LOCAL_PORT)}`,
      verdict: "next",
      becomes: `${ip(at.client, at.local)}/${write(TAKEN, ENDPOINT_PORT)}`,
    },
    {
      hook: "ingress",
      device: "pod-a1",
      packet: `${ip(at.local, at.client)}/${write(ENDPOINT_PORT, TAKEN)}`,
      verdict: "next",
    },
    {
      hook: "egress",
      packet: `${ip(at.local, at.client)}/${write(ENDPOINT_PORT, TAKEN)}`,
      verdict: "next",
      becomes: `${ip(at.vip, at.client)}/${write(LOCAL_PORT, TAKEN)}`,
    },
  ];
}

const everyTransport = Object.keys(TRANSPORTS) as Transport[];

const translated: Case[] = everyTransport.flatMap((transport) => [
  ...(["xdp", "ingress"] as const).map((hook) => ({
    title: `${transport} to an endpoint elsewhere goes on from ${hook}, and so do replies`,
    steps: (words: Words) => throughNode(words, transport, hook),
  })),
  {
    title: `${transport} to a pod of this node keeps its client, and the stack sees the endpoint`,
    steps: (words: Words) => throughStack(words, transport),
  },
]);

const untouched: Case[] = [
  {
    title: "what is no Service's passes every hook untouched",
    steps: ({ at, ip }) =>
      (["xdp", "ingress", "egress"] as const).flatMap((hook) =>
        everyTransport.map((transport) => ({
          hook,
          packet: `${ip(at.client, at.stranger)}/${TRANSPORTS[transport](KEPT, PORT)}`,
          verdict: "next" as const,
        })),
      ),
  },
  {
    title: "a port that a load balancer address does not have is left alone",
    steps: ({ at, ip }) => [
      { hook: "xdp", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, 999)}`, verdict: "next" },
      { hook: "ingress", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, 999)}`, verdict: "next" },
    ],
  },
  {
    title: "the node's own traffic passes, also from where endpoints are",
    steps: ({ at, ip }) => [
      { hook: "xdp", packet: `${ip(at.remote, at.node)}/${tcp(5000, 22)}`, verdict: "next" },
      { hook: "ingress", packet: `${ip(at.remote, at.node)}/${tcp(5000, 22)}`, verdict: "next" },
      { hook: "ingress", packet: `${ip(at.client, at.node)}/${tcp(5000, 22)}`, verdict: "next" },
    ],
  },
];

const refusals: Case[] = [
  {
    title: "no endpoint anywhere: a connection is reset, anything else is told so",
    steps: ({ at, ip, answer, error }) => [
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT)}`,
        verdict: "sent",
        becomes: `${answer(at.vip, at.client)}/TCP(sport=${EMPTY_PORT},dport=${KEPT},flags="RA",seq=0,ack=1001,window=0)`,
        reason: "refused",
      },
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT, "A")}/${PAYLOAD}`,
        verdict: "sent",
        becomes: `${answer(at.vip, at.client)}/TCP(sport=${EMPTY_PORT},dport=${KEPT},flags="R",seq=2000,ack=0,window=0)`,
        reason: "refused",
      },
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip)}/UDP(sport=${KEPT},dport=${EMPTY_PORT})/${PAYLOAD}`,
        verdict: "sent",
        becomes: `${answer(at.vip, at.client)}/${error("unreachable")}/Raw(bytes(${ip(at.client, at.vip)}/UDP(sport=${KEPT},dport=${EMPTY_PORT})/${PAYLOAD})[:QUOTE])`,
        reason: "refused",
      },
      { hook: "xdp", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT)}`, verdict: "next" },
    ],
  },
  {
    title: "an undefined port of a cluster IP is refused",
    steps: ({ at, ip, answer }) => [
      {
        hook: "ingress",
        packet: `${ip(at.client, at.clusterIP)}/${tcp(KEPT, 999)}`,
        verdict: "sent",
        becomes: `${answer(at.clusterIP, at.client)}/TCP(sport=999,dport=${KEPT},flags="RA",seq=0,ack=1001,window=0)`,
        reason: "undefined_port",
      },
    ],
  },
  ...(["xdp", "ingress"] as const).map((hook) => ({
    title: `${hook} drops what may not be: no local endpoint, nobody's address, a wrong source`,
    steps: ({ at, ip }: Words): Step[] => [
      {
        hook,
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT, DROP_PORT)}`,
        verdict: "dropped",
        reason: "dropped",
      },
      {
        hook,
        packet: `${ip(at.client, at.unowned)}/${tcp(KEPT, PORT)}`,
        verdict: "dropped",
        reason: "unowned_address",
      },
      {
        hook,
        packet: `${ip(at.other, at.vip)}/${tcp(KEPT, GUARDED_PORT)}`,
        verdict: "dropped",
        reason: "source_range",
      },
      {
        hook,
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT, GUARDED_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
      },
      {
        hook,
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT + 1, PORT, "R")}`,
        verdict: "dropped",
        reason: "no_connection",
      },
    ],
  })),
];

const sources: Case[] = [
  {
    title: "a node port leads on, and replies come from it",
    steps: ({ at, ip }) => [
      {
        hook: "xdp",
        packet: `${ip(at.client, at.node)}/${tcp(KEPT, NODE_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
        to: "nodeB",
      },
      {
        hook: "xdp",
        packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, KEPT, "SA")}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.client, { ttl: 63 })}/${tcp(NODE_PORT, KEPT, "SA")}`,
        to: "router",
      },
    ],
  },
  {
    title: "a pod of this node keeps its address wherever the endpoint is",
    steps: ({ at, ip }) => [
      {
        hook: "ingress",
        device: "pod-a1",
        packet: `${ip(at.local, at.clusterIP)}/${tcp(TAKEN, PORT)}`,
        verdict: "next",
        becomes: `${ip(at.local, at.remote)}/${tcp(TAKEN, ENDPOINT_PORT)}`,
      },
      {
        hook: "xdp",
        packet: `${ip(at.remote, at.local)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
      },
      {
        hook: "egress",
        device: "pod-a1",
        packet: `${ip(at.remote, at.local)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
        becomes: `${ip(at.clusterIP, at.local)}/${tcp(PORT, TAKEN, "SA")}`,
      },
    ],
  },
  {
    title: "a pod that draws itself sees the node, and answers through it",
    steps: ({ at, ip }) => [
      {
        hook: "ingress",
        device: "pod-a1",
        packet: `${ip(at.local, at.clusterIP)}/${tcp(KEPT, LOCAL_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.local, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
      },
      {
        hook: "ingress",
        device: "pod-a1",
        packet: `${ip(at.local, at.node)}/${tcp(ENDPOINT_PORT, KEPT, "SA")}`,
        verdict: "sent",
        becomes: `${ip(at.clusterIP, at.local, { ttl: 63 })}/${tcp(LOCAL_PORT, KEPT, "SA")}`,
      },
    ],
  },
  {
    title: "what the node itself sends to a Service is translated as it leaves",
    steps: ({ at, ip }) => [
      {
        hook: "egress",
        packet: `${ip(at.node, at.clusterIP)}/${tcp(TAKEN, PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote)}/${tcp(TAKEN, ENDPOINT_PORT)}`,
      },
      {
        hook: "xdp",
        packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
      },
      {
        hook: "ingress",
        packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
        becomes: `${ip(at.clusterIP, at.node)}/${tcp(PORT, TAKEN, "SA")}`,
      },
    ],
  },
];

const unusual: Case[] = [
  {
    title: "UDP without a checksum stays without",
    families: [4],
    steps: ({ at, ip }) =>
      (["xdp", "ingress"] as const).map((hook) => ({
        hook,
        packet: `${ip(at.client, at.vip)}/UDP(sport=${KEPT},dport=${PORT},chksum=0)/${PAYLOAD}`,
        verdict: "sent" as const,
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/UDP(sport=${KEPT},dport=${ENDPOINT_PORT},chksum=0)/${PAYLOAD}`,
      })),
  },
  {
    title: "IP options and extension headers go by the stack's hooks",
    steps: ({ at, ip, family }) => {
      const between = family === 4 ? "" : "/IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])";
      const more = family === 4 ? ",options=[IPOption_Router_Alert()]" : "";
      const request = `${ip(at.client, at.vip, { more })}${between}/${tcp(KEPT, PORT)}`;
      return [
        { hook: "xdp", packet: request, verdict: "next" },
        {
          hook: "ingress",
          packet: request,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63, more })}${between}/${tcp(KEPT, ENDPOINT_PORT)}`,
        },
      ];
    },
  },
  {
    title: "a packet that has passed too many routers comes back to its sender",
    steps: ({ at, ip, answer, error }) => {
      const request = `${ip(at.client, at.vip, { ttl: 1 })}/UDP(sport=${KEPT},dport=${PORT})/${PAYLOAD}`;
      return [
        { hook: "xdp", packet: request, verdict: "next" },
        {
          hook: "ingress",
          packet: request,
          verdict: "sent",
          becomes: `${answer(at.vip, at.client)}/${error("time")}/Raw(bytes(${request})[:QUOTE])`,
          reason: "ttl_exceeded",
        },
      ];
    },
  },
  {
    title: "a ping to a Service's address is answered, one to a stranger is not",
    steps: ({ at, ip, answer, icmp }) => [
      ...[at.vip, at.clusterIP].map((address) => ({
        hook: "ingress" as const,
        packet: `${ip(at.client, address, { ttl: 9 })}/${icmp.echo}/${PAYLOAD}`,
        verdict: "sent" as const,
        becomes: `${answer(address, at.client)}/${icmp.reply}/${PAYLOAD}`,
      })),
      {
        hook: "ingress",
        packet: `${ip(at.client, at.stranger)}/${icmp.echo}/${PAYLOAD}`,
        verdict: "next",
      },
      {
        hook: "ingress",
        packet: `${ip(at.client, at.node)}/${icmp.echo}/${PAYLOAD}`,
        verdict: "next",
      },
    ],
  },
  {
    title: "an ICMP error about a packet that was sent on reaches the client, as about its own",
    steps: (words) => {
      const { at, ip, error } = words;
      const own = `${ip(at.client, at.vip, { ttl: 60 })}/UDP(sport=${KEPT},dport=${PORT})/${PAYLOAD}`;
      const sent = `${ip(at.node, at.remote, { ttl: 60 })}/UDP(sport=${KEPT},dport=${ENDPOINT_PORT})/${PAYLOAD}`;
      return [
        throughNode(words, "UDP", "xdp")[0]!,
        {
          hook: "ingress",
          packet: `${ip(at.remote, at.node)}/${error("unreachable")}/${sent}`,
          verdict: "sent",
          becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${error("unreachable")}/${own}`,
        },
        {
          hook: "ingress",
          packet: `${ip(at.router, at.node)}/${error("tooBig", 1300)}/${sent}`,
          verdict: "sent",
          becomes: `${ip(at.router, at.client, { ttl: 63 })}/${error("tooBig", 1300)}/${own}`,
        },
      ];
    },
  },
  {
    title: "an ICMP error about a reply reaches the endpoint, here and elsewhere",
    steps: (words) => {
      const { at, ip, error } = words;
      const reply = (from: string, to: string, ports: string) =>
        `${ip(from, to, { ttl: 60 })}/UDP(${ports})/${PAYLOAD}`;
      return [
        throughNode(words, "UDP", "ingress")[0]!,
        {
          hook: "ingress",
          packet: `${ip(at.router, at.vip)}/${error("tooBig", 1300)}/${reply(at.vip, at.client, `sport=${PORT},dport=${KEPT}`)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${error("tooBig", 1300)}/${reply(at.remote, at.node, `sport=${ENDPOINT_PORT},dport=${KEPT}`)}`,
        },
        throughStack(words, "UDP")[1]!,
        {
          hook: "ingress",
          packet: `${ip(at.router, at.vip)}/${error("tooBig", 1300)}/${reply(at.vip, at.client, `sport=${LOCAL_PORT},dport=${TAKEN}`)}`,
          verdict: "next",
          becomes: `${ip(at.router, at.local)}/${error("tooBig", 1300)}/${reply(at.local, at.client, `sport=${ENDPOINT_PORT},dport=${TAKEN}`)}`,
        },
        {
          hook: "egress",
          packet: `${ip(at.local, at.client)}/${error("unreachable")}/${reply(at.client, at.local, `sport=${TAKEN},dport=${ENDPOINT_PORT}`)}`,
          verdict: "next",
          becomes: `${ip(at.vip, at.client)}/${error("unreachable")}/${reply(at.client, at.vip, `sport=${TAKEN},dport=${LOCAL_PORT}`)}`,
        },
      ];
    },
  },
  {
    title: "a checksum that is left to the device is left to the stack",
    steps: ({ at, ip }) => [
      {
        hook: "xdp",
        packet: `partial(${ip(at.client, at.vip)}/${tcp(KEPT, PORT)})`,
        verdict: "next",
      },
    ],
  },
];

const broken: Case[] = [
  {
    title: "what is broken passes untouched, for the stack to drop",
    steps: ({ at, ip, family }) => [
      ...(family === 4
        ? [
            {
              hook: "xdp" as const,
              packet: `IP(src="${at.client}",dst="${at.vip}",chksum=1)/${tcp(KEPT, PORT)}`,
              verdict: "next" as const,
            },
          ]
        : []),
      {
        hook: "xdp",
        packet: `${ip(at.client, at.vip, { more: family === 4 ? ",len=30" : ",plen=10" })}/${tcp(KEPT, PORT)}`,
        verdict: "next",
      },
      {
        hook: "xdp",
        packet: `${ip(at.client, at.vip, { more: family === 4 ? ",len=2000" : ",plen=2000" })}/${tcp(KEPT, PORT)}`,
        verdict: "next",
      },
    ],
  },
];

export const CASES: readonly Case[] = [
  ...translated,
  ...untouched,
  ...refusals,
  ...sources,
  ...unusual,
  ...broken,
];
