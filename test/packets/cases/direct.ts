// Direct server return: requests go to endpoints of other nodes in a tunnel, and are taken out of
// it where the endpoint is; replies go to the client from there.
import { filterTwin } from "../places.ts";
import { ENDPOINT_PORT, LOCAL_PORT, NODE_PORT, PORT } from "../services.ts";
import {
  everyTransport,
  KEPT,
  LONG_PAYLOAD,
  TRANSPORTS,
  type Transport,
  tcp,
  udp,
  type Words,
} from "../words.ts";
import type { Case, Step } from "./cases.ts";
import { throughNode, throughStack } from "./ways.ts";

/** Values of the programs' setting. */
const DSR = { forwarding: 1 };
const HYBRID = { forwarding: 2 };
const OTHER_PORT = 8443;
const NETWORK_BYTES = { 4: 20, 6: 40 } as const;
/** No error quotes more, itself being of 576 or 1280 bytes. */
const MOST_QUOTED = { 4: 576 - 28, 6: 1280 - 48 } as const;
/** What clients hear of a tunnel that found no way. */
const NO_HOST = { 4: "ICMP(type=3,code=1)", 6: "ICMPv6DestUnreach(code=3)" } as const;

/** The tunnel's header; the endpoint's port stands in it. */
function outer(
  { ip, family }: Words,
  [source, destination]: [string, string],
  port = ENDPOINT_PORT,
): string {
  const more = family === 4 ? `,flags="DF",id=${port}` : `,fl=${port}`;
  return ip(source, destination, { more });
}

/** A request to an endpoint elsewhere. */
function intoTunnel(words: Words, transport: Transport, hook: Step["hook"]): Step {
  const { at, ip } = words;
  const rest = TRANSPORTS[transport](KEPT, PORT);
  return {
    hook,
    packet: `${ip(at.client, at.vip)}/${rest}`,
    verdict: "sent",
    becomes: `${outer(words, [at.node, at.remote])}/${ip(at.client, at.vip, { ttl: 63 })}/${rest}`,
    isTunnelled: true,
    to: "nodeB",
  };
}

/** A request to the pod of this node, from a node that chose it, and its reply. */
function outOfTunnel(words: Words, transport: Transport): Step[] {
  const { at, ip } = words;
  const write = TRANSPORTS[transport];
  const inner = ip(at.client, at.vip, { ttl: 63 });
  return [
    {
      hook: "xdp",
      packet: `${outer(words, [at.nodeB, at.local])}/${inner}/${write(KEPT, LOCAL_PORT)}`,
      verdict: "next",
    },
    {
      hook: "ingress",
      packet: `${outer(words, [at.nodeB, at.local])}/${inner}/${write(KEPT, LOCAL_PORT)}`,
      verdict: "next",
      becomes: `${ip(at.client, at.local, { ttl: 63 })}/${write(KEPT, ENDPOINT_PORT)}`,
    },
    {
      hook: "egress",
      packet: `${ip(at.local, at.client)}/${write(ENDPOINT_PORT, KEPT)}`,
      verdict: "next",
      becomes: `${ip(at.vip, at.client)}/${write(LOCAL_PORT, KEPT)}`,
    },
  ];
}

/** A packet for the pod of this node in a tunnel of this port, and the port that it gets to. */
function arriving(words: Words, rest: (dport: number) => string, [port, at]: [number, number]) {
  const { at: place, ip } = words;
  const inner = ip(place.client, place.vip, { ttl: 63 });
  return {
    hook: "ingress",
    packet: `${outer(words, [place.nodeB, place.local], port)}/${inner}/${rest(LOCAL_PORT)}`,
    verdict: "next",
    becomes: `${ip(place.client, place.local, { ttl: 63 })}/${rest(at)}`,
  } as const;
}

/** Packets in a tunnel that is not for us to open. */
function strange(words: Words): Step[] {
  const { at, ip } = words;
  const inside = (destination: string) => `${ip(at.client, destination)}/${udp(KEPT, LOCAL_PORT)}`;
  const tunnels = [
    `${outer(words, [at.nodeB, at.local])}/${inside(at.stranger)}`,
    `${outer(words, [at.nodeB, at.local])}/${inside(filterTwin(at.vip))}`,
    `${outer(words, [at.nodeB, at.stranger])}/${inside(at.vip)}`,
    `${outer(words, [at.nodeB, at.remote])}/${inside(at.vip)}`,
  ];
  return tunnels.map((packet) => ({ hook: "ingress", packet, verdict: "next" }));
}

/** What a router between the nodes may say of a tunnel, and what the client hears of it. */
const COMPLAINTS = {
  4: [
    { error: "ICMP(type=3,code=4,nexthopmtu=1300)", told: "ICMP(type=3,code=4,nexthopmtu=1280)" },
    { error: "ICMP(type=3,code=4,nexthopmtu=0)", told: "ICMP(type=3,code=4,nexthopmtu=0)" },
    { error: "ICMP(type=3,code=1)", told: "ICMP(type=3,code=1)" },
    { error: "ICMP(type=3,code=2)", told: "ICMP(type=3,code=1)" },
    { error: "ICMP(type=11,code=0)", told: "ICMP(type=3,code=1)" },
  ],
  6: [
    { error: "ICMPv6PacketTooBig(mtu=1400)", told: "ICMPv6PacketTooBig(mtu=1360)" },
    { error: "ICMPv6PacketTooBig(mtu=1319)", told: "ICMPv6PacketTooBig(mtu=1280)" },
    { error: "ICMPv6DestUnreach(code=3)", told: "ICMPv6DestUnreach(code=3)" },
    { error: "ICMPv6ParamProblem(code=1,ptr=6)", told: "ICMPv6DestUnreach(code=3)" },
    { error: "ICMPv6TimeExceeded(code=0)", told: "ICMPv6DestUnreach(code=3)" },
  ],
} as const;

/** A router's error about this node's tunnel becomes one to the client, about what was in it. */
function becomesTold(
  { at, ip, answer }: Words,
  { report, told, about, bytes }: { report: string; told: string; about: string; bytes: number },
): Step {
  return {
    hook: "ingress",
    packet: `${ip(at.router, at.node)}/${report}`,
    verdict: "sent",
    becomes: `${answer(at.vip, at.client)}/${told}/Raw(bytes(${about})[:${bytes}])`,
    reason: /code=4,|TooBig/.test(told) ? "too_big" : "tunnel_refused",
  };
}

/** An error about a packet that this node has put into a tunnel. */
function aboutTunnel(words: Words, transport: Transport, index: number): Step {
  const { at, ip, family } = words;
  const { error, told } = COMPLAINTS[family][index]!;
  const about = `${ip(at.client, at.vip, { ttl: 63 })}/${TRANSPORTS[transport](KEPT, PORT)}`;
  const report = `${error}/${outer(words, [at.node, at.remote])}/${about}`;
  const bytes = NETWORK_BYTES[family] + (transport === "TCP" ? 20 : 8);
  return becomesTold(words, { report, told, about, bytes });
}

/** An error that quotes no more of a tunnelled packet than it must. */
function aboutStart(words: Words, transport: Transport): Step {
  const { at, ip, error, family } = words;
  const about = `${ip(at.client, at.vip, { ttl: 63 })}/${TRANSPORTS[transport](KEPT, PORT)}`;
  const tunnel = `${outer(words, [at.node, at.remote])}/${about}`;
  const bytes = NETWORK_BYTES[family] + 8;
  const report = `${error("time")}/Raw(bytes(${tunnel})[:${NETWORK_BYTES[family] + bytes}])`;
  return becomesTold(words, { report, told: NO_HOST[family], about, bytes });
}

/** An error that quotes as much of a tunnelled packet as may be, and it with one byte wrong. */
function aboutMost(words: Words): Step[] {
  const { at, ip, error, family } = words;
  const transport = `UDP(sport=${KEPT},dport=${PORT})/(b"0123456789abcdef"*88)`;
  const about = `${ip(at.client, at.vip, { ttl: 63 })}/${transport}`;
  const quoted = `bytes(${outer(words, [at.node, at.remote])}/${about})[:${MOST_QUOTED[family]}]`;
  const header = NETWORK_BYTES[family];
  const report = `${error("tooBig", 1500)}/Raw(${quoted})`;
  const told = error("tooBig", 1500 - header);
  const sound = becomesTold(words, { report, told, about, bytes: header + 8 });
  const spoilt = `${family === 4 ? "IP" : "IPv6"}(bytes(${sound.packet})[:-1]+b"!")`;
  return [sound, { hook: "ingress", packet: spoilt, verdict: "next" }];
}

/** An error that quotes a checksum as it stands where a device is to complete it. */
function aboutPartial(words: Words): Step {
  const { at, ip, error, family } = words;
  const head = ip(at.client, at.vip, { ttl: 63 });
  const sum = `checksum(bytes(in${family}_pseudoheader(17,${head},23)))`;
  const about = `${head}/${udp(KEPT, PORT).replace(")", `,chksum=65535^${sum})`)}`;
  const report = `${error("time")}/${outer(words, [at.node, at.remote])}/${about}`;
  const bytes = NETWORK_BYTES[family] + 8;
  return becomesTold(words, { report, told: NO_HOST[family], about, bytes });
}

/** Errors about tunnels that are not this node's, or whose packets it has not sent. */
function aboutOthers(words: Words): Step[] {
  const { at, ip, error, optional, family } = words;
  const inside = (to: string, port: number) =>
    `${ip(at.client, to, { ttl: 63 })}/${udp(KEPT, port)}`;
  const tunnel = outer(words, [at.node, at.remote]);
  const ours = inside(at.vip, PORT);
  const report = (about: string) => `${ip(at.router, at.node)}/${error("time")}/${about}`;
  const quoted = [
    `${tunnel}/${inside(at.stranger, PORT)}`,
    `${tunnel}/${inside(filterTwin(at.vip), PORT)}`,
    `${tunnel}/${inside(at.vip, PORT + 1)}`,
    `${outer(words, [at.nodeB, at.remote])}/${ours}`,
    `${outer(words, [at.node, at.second])}/${ours}`,
    `${optional(at.node, at.remote)}/${ours}`,
    `${tunnel}/${tunnel}/${ours}`,
    ...(family === 4 ? [`${tunnel.replace('"DF"', '"MF"')}/${ours}`] : []),
  ];
  return [
    intoTunnel(words, "UDP", "ingress"),
    ...quoted.map((about): Step => ({ hook: "ingress", packet: report(about), verdict: "next" })),
  ];
}

/** Errors that say nothing, or something wrong, of a tunnel of this node. */
function aboutNothing(words: Words): Step[] {
  const { at, ip, error, family } = words;
  const inside = `${ip(at.client, at.vip, { ttl: 63 })}/${udp(KEPT, PORT)}`;
  const about = `${outer(words, [at.node, at.remote])}/${inside}`;
  const from = ip(at.router, at.node);
  const bytes = `bytes(${about})`;
  const ends = [8, NETWORK_BYTES[family], 2 * NETWORK_BYTES[family], 2 * NETWORK_BYTES[family] + 7];
  const sum = family === 4 ? "chksum=7" : "cksum=7";
  const packets = [
    `${from}/${error("time").replace(/\)$/, `,${sum})`).replace("(,", "(")}/${about}`,
    ...ends.flatMap((end) => [
      `${from}/${error("time")}/Raw(${bytes}[:${end}])`,
      `${from}/${error("time")}/Raw(${bytes}[:${end}])/Padding(${bytes}[${end}:])`,
    ]),
    ...(family === 6 ? [`${from}/${error("tooBig", 1279)}/${about}`] : []),
  ];
  return [
    intoTunnel(words, "UDP", "ingress"),
    ...packets.map((packet): Step => ({ hook: "ingress", packet, verdict: "next" })),
  ];
}

/** An error that quotes a first fragment with other ports, and a later one of the true datagram. */
function forgedFragment(words: Words): Step[] {
  const { at, ip, error, fragment } = words;
  const datagram = (port: number, ttl: number) => ({
    id: 77,
    head: ip(at.client, at.vip, { ttl }),
    transport: TRANSPORTS.UDP(KEPT, port, LONG_PAYLOAD),
  });
  const tunnel = outer(words, [at.node, at.remote]);
  const report = `${ip(at.router, at.node)}/${error("time")}/${tunnel}`;
  const goes = (index: number): Step => ({
    hook: "ingress",
    packet: fragment(index, datagram(PORT, 64)),
    verdict: "sent",
    becomes: `${tunnel}/${fragment(index, datagram(PORT, 63))}`,
    isTunnelled: true,
  });
  return [
    goes(0),
    {
      hook: "ingress",
      packet: `${report}/${fragment(0, datagram(LOCAL_PORT, 63))}`,
      verdict: "next",
    },
    goes(1),
  ];
}

/** An error about a reply that a client got from the endpoint's node. */
function errorAboutReply({ at, ip, error, family }: Words, transport: Transport, port: number) {
  const bytes = NETWORK_BYTES[family] + 8;
  const reply = (from: string, sport: number) =>
    `${ip(from, at.client, { ttl: 60 })}/${TRANSPORTS[transport](sport, KEPT)}`;
  const about = (from: string, sport: number) =>
    `${error("tooBig", 1300)}/Raw(bytes(${reply(from, sport)})[:${bytes}])`;
  return { asSent: about(at.vip, port), asKnown: about(at.local, ENDPOINT_PORT) };
}

export const DIRECT: readonly Case[] = [
  ...everyTransport.flatMap((transport): Case[] => [
    {
      title: `${transport} to an endpoint elsewhere goes in a tunnel, as it is`,
      rodata: DSR,
      steps: (words) => [
        intoTunnel(words, transport, "ingress"),
        intoTunnel(words, transport, "xdp"),
      ],
    },
    {
      title: `${transport} from a tunnel goes to the endpoint that the other node chose, and back`,
      steps: (words) => outOfTunnel(words, transport),
    },
    {
      title: `${transport} to an endpoint of this node goes in no tunnel`,
      rodata: DSR,
      steps: (words) => throughStack(words, transport),
    },
    {
      title: `an error about a tunnel of ${transport} reaches the client, about what it sent`,
      rodata: DSR,
      steps: (words) => [
        intoTunnel(words, transport, "ingress"),
        ...COMPLAINTS[words.family].map((_, index) => aboutTunnel(words, transport, index)),
        aboutStart(words, transport),
      ],
    },
    {
      title: `an error about a reply of ${transport} goes in the tunnel of its connection`,
      rodata: DSR,
      steps: (words) => {
        const { at, ip } = words;
        const { asSent } = errorAboutReply(words, transport, PORT);
        return [
          intoTunnel(words, transport, "xdp"),
          {
            hook: "ingress",
            packet: `${ip(at.router, at.vip)}/${asSent}`,
            verdict: "sent",
            becomes: [
              outer(words, [at.node, at.remote]),
              ip(at.router, at.vip, { ttl: 63 }),
              asSent,
            ].join("/"),
            isTunnelled: true,
          },
        ];
      },
    },
    {
      title: `an error about a reply of ${transport} reaches the endpoint out of a tunnel`,
      steps: (words) => {
        const { at, ip } = words;
        const { asSent, asKnown } = errorAboutReply(words, transport, LOCAL_PORT);
        const tunnel = outer(words, [at.nodeB, at.local]);
        return [
          ...outOfTunnel(words, transport),
          {
            hook: "ingress",
            packet: `${tunnel}/${ip(at.router, at.vip, { ttl: 63 })}/${asSent}`,
            verdict: "next",
            becomes: `${ip(at.router, at.local, { ttl: 63 })}/${asKnown}`,
          },
        ];
      },
    },
  ]),
  {
    title: "hybrid: TCP goes in a tunnel, UDP from this node's address",
    rodata: HYBRID,
    steps: (words) => [
      intoTunnel(words, "TCP", "xdp"),
      ...throughNode(words, "UDP", { hook: "xdp" }),
    ],
  },
  {
    title: "node ports go in no tunnel: no other node has this address to answer from",
    rodata: DSR,
    steps: ({ at, ip }) =>
      (["ingress", "xdp"] as const).map((hook) => ({
        hook,
        packet: `${ip(at.client, at.node)}/${udp(KEPT, NODE_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${udp(KEPT, ENDPOINT_PORT)}`,
        to: "nodeB",
      })),
  },
  {
    title: "segments of one packet, whose identifications count up, go to one port",
    steps: (words) =>
      (["TCP", "UDP"] as const).flatMap((transport) => {
        const rest = (dport: number) => TRANSPORTS[transport](KEPT, dport);
        return [0, 1, 2].map((segment) =>
          arriving(words, rest, [ENDPOINT_PORT + segment, ENDPOINT_PORT]),
        );
      }),
  },
  {
    title: "a connection that begins again goes where it is led now",
    steps: (words) =>
      [ENDPOINT_PORT, OTHER_PORT].map((port) =>
        arriving(words, (dport) => tcp(KEPT, dport), [port, port]),
      ),
  },
  {
    title: "tunnels of others, or to endpoints of other nodes, are left alone",
    steps: strange,
  },
  {
    title: "errors about tunnels of others, or of unknown connections, are left alone",
    rodata: DSR,
    steps: aboutOthers,
  },
  {
    title: "errors about a tunnel that are broken, or quote too little, are left alone",
    rodata: DSR,
    steps: aboutNothing,
  },
  {
    title: "an error about a tunnel that quotes a partial checksum has a right one itself",
    rodata: DSR,
    steps: (words) => [intoTunnel(words, "UDP", "ingress"), aboutPartial(words)],
  },
  {
    title:
      "an error about a tunnel may quote as much as errors ever do, all of it as it was summed",
    rodata: DSR,
    steps: (words) => [intoTunnel(words, "UDP", "ingress"), ...aboutMost(words)],
  },
  {
    title: "what an error quotes of a fragment tells later fragments nothing",
    rodata: DSR,
    steps: forgedFragment,
  },
];
