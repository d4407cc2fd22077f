// What a router would say to a packet: that it has passed too many, or is too large for what
// comes.
import { ENDPOINT_PORT, LOCAL_PORT, PORT } from "../services.ts";
import { KEPT, TAKEN, TRANSPORTS, type Transport, udp, type Words } from "../words.ts";
import type { Case, Event, Step } from "./cases.ts";
import { throughNode } from "./ways.ts";

/** The MTU of the route to other nodes' pods from then on. */
const SMALL = 1300;
const USUAL = 1500;
const LEAST_IPV6 = 1280;
const ROUTES = {
  4: "route replace 10.244.2.0/24 via 192.168.50.3",
  6: "route replace fd00:10:244:2::/64 via 2001:db8:50::3",
} as const;

function narrow({ family }: Words, mtu: number): Event {
  return {
    what: `the way to other nodes takes ${mtu} bytes`,
    happens: async (bed) => {
      await bed.node.ip(`${ROUTES[family]} dev eth0 mtu lock ${mtu}`);
      bed.forget();
    },
  };
}

/** Packets of so many bytes from the IP header on. */
function sized(bytes: number, { family }: Words, transport: "TCP" | "UDP"): string {
  const headers = (family === 4 ? 20 : 40) + (transport === "TCP" ? 20 : 8);
  return `(b"x"*${bytes - headers})`;
}

const dontFragment = ({ family }: Words) => (family === 4 ? ',flags="DF"' : "");

function tooBig(
  words: Words,
  transport: "TCP" | "UDP",
  options: { more?: string; mtu?: number; told?: number } = {},
): Step {
  const { more = dontFragment(words), mtu = SMALL, told = mtu } = options;
  const { at, ip, answer, error, family } = words;
  const payload = sized(mtu + 1, words, transport);
  const request = [
    ip(at.client, at.vip, { more }),
    TRANSPORTS[transport](KEPT, PORT, payload),
  ].join("/");
  const quoted = (family === 4 ? 20 : 40) + (transport === "TCP" ? 20 : 8);
  return {
    hook: "ingress",
    packet: request,
    verdict: "sent",
    becomes: [
      answer(at.vip, at.client),
      `${error("tooBig", told)}/Raw(bytes(${request})[:${quoted}])`,
    ].join("/"),
    reason: "too_big",
  };
}

function fits(words: Words, transport: "TCP" | "UDP", hook: Step["hook"]): Step {
  const { at, ip } = words;
  const more = dontFragment(words);
  const write = (sport: number, dport: number) =>
    TRANSPORTS[transport](sport, dport, sized(SMALL, words, transport));
  return {
    hook,
    packet: `${ip(at.client, at.vip, { more })}/${write(KEPT, PORT)}`,
    verdict: "sent",
    becomes: `${ip(at.node, at.remote, { ttl: 63, more })}/${write(KEPT, ENDPOINT_PORT)}`,
  };
}

const sizes: Case[] = [
  ...(["TCP", "UDP"] as const).map((transport) => ({
    title: `${transport} that is larger than the way takes comes back, and what fits does not`,
    steps: (words: Words) => [
      narrow(words, SMALL),
      { hook: "xdp" as const, packet: tooBig(words, transport).packet, verdict: "next" as const },
      tooBig(words, transport),
      fits(words, transport, "xdp"),
      fits(words, transport, "ingress"),
      narrow(words, USUAL),
    ],
  })),
  {
    title: "a packet that may be cut comes back too: nobody does that who sends it on from here",
    families: [4],
    steps: (words) => [
      narrow(words, SMALL),
      tooBig(words, "UDP", { more: "" }),
      narrow(words, USUAL),
    ],
  },
  {
    title: "what has no room for a tunnel's header comes back, whether it may be cut or not",
    rodata: { forwarding: 1 },
    steps: (words) => {
      const mtu = SMALL - (words.family === 4 ? 20 : 40);
      // No sender over IPv6 heeds less than every way there takes.
      const told = words.family === 4 ? mtu : LEAST_IPV6;
      return [
        narrow(words, SMALL),
        tooBig(words, "TCP", { mtu, told }),
        tooBig(words, "UDP", { mtu, told, more: "" }),
        narrow(words, USUAL),
      ];
    },
  },
  {
    title: "a packet that may be cut goes into a tunnel of the node's: the kernel cuts its own",
    families: [4],
    steps: (words) => {
      const { at, ip } = words;
      const write = (sport: number, dport: number) =>
        TRANSPORTS.UDP(sport, dport, sized(SMALL + 1, words, "UDP"));
      return [
        narrow(words, SMALL),
        { what: "the way is a tunnel", happens: (bed) => bed.describeDevices({ eth0: "tunnel" }) },
        tooBig(words, "UDP"),
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${write(KEPT, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${write(KEPT, ENDPOINT_PORT)}`,
        },
        { what: "it is none any more", happens: (bed) => bed.describeDevices() },
        narrow(words, USUAL),
      ];
    },
  },
];

interface SegmentsOptions {
  /** Further fields of the IP header. */
  fields?: string;
  /** A header between IP's and the transport's, with a slash before it. */
  extension?: string;
}

/** A packet of many segments, each with so many bytes. */
function segments(
  words: Words,
  transport: Transport,
  gsoSize: number,
  { fields = "", extension = "" }: SegmentsOptions = {},
): Step {
  const { at, ip } = words;
  const more = dontFragment(words) + fields;
  const write = (sport: number, dport: number) =>
    TRANSPORTS[transport](sport, dport, `(b"x"*3000)`);
  return {
    hook: "ingress",
    packet: `${ip(at.client, at.vip, { more })}${extension}/${write(KEPT, PORT)}`,
    gsoSize,
    verdict: "sent",
    becomes: [
      `${ip(at.node, at.remote, { ttl: 63, more })}${extension}`,
      write(KEPT, ENDPOINT_PORT),
    ].join("/"),
  };
}

function tooLargeSegments(
  words: Words,
  transport: "TCP" | "UDP",
  gsoSize: number,
  options?: SegmentsOptions,
): Step {
  const { at, answer, error, family } = words;
  const step = segments(words, transport, gsoSize, options);
  const quoted = (family === 4 ? 20 : 40) + (transport === "TCP" ? 20 : 8);
  return {
    ...step,
    becomes: [
      answer(at.vip, at.client),
      `${error("tooBig", USUAL)}/Raw(bytes(${step.packet})[:${quoted}])`,
    ].join("/"),
    reason: "too_big",
  };
}

/** The kernel's mark of an SCTP packet whose segments are each as long as they are. */
const GSO_BY_FRAGS = 0xffff;

const segmented: Case[] = [
  {
    title: "a packet of segments is as large as one of them",
    steps: (words) => {
      const network = words.family === 4 ? 20 : 40;
      return [
        segments(words, "TCP", USUAL - network - 20),
        tooLargeSegments(words, "TCP", USUAL - network - 20 + 1),
        segments(words, "UDP", USUAL - network - 8),
        tooLargeSegments(words, "UDP", USUAL - network - 8 + 1),
        segments(words, "SCTP", GSO_BY_FRAGS),
      ];
    },
  },
  {
    title: "segments of TCP whose IP header says no length are as long as they are (BIG TCP)",
    steps: (words) => {
      const most = USUAL - (words.family === 4 ? 20 : 40) - 20;
      const fields = words.family === 4 ? ",len=0" : ",plen=0";
      return [
        segments(words, "TCP", most, { fields }),
        tooLargeSegments(words, "TCP", most + 1, { fields }),
      ];
    },
  },
  {
    title: "segments of TCP whose length is in an option are as long as they are (BIG TCP)",
    families: [6],
    steps: (words) => {
      const extension = "/IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=3028)])";
      return [segments(words, "TCP", 1400, { fields: ",plen=0", extension })];
    },
  },
];

/** Comes back with the news that it has passed too many routers. */
function expired({ answer, error, family }: Words, request: string, ways: Partial<Step>): Step {
  const [, source, destination] = /src="(.*?)",dst="(.*?)"/.exec(request)!;
  const isTcp = request.includes("TCP(");
  const quoted = (family === 4 ? 20 : 40) + (isTcp ? 20 : 8);
  return {
    hook: "ingress",
    packet: request,
    verdict: "sent",
    becomes: `${answer(destination!, source!)}/${error("time")}/Raw(bytes(${request})[:${quoted}])`,
    reason: "ttl_exceeded",
    ...ways,
  };
}

const lives: Case[] = [
  ...(["TCP", "UDP", "SCTP"] as const).map((transport) => ({
    title: `${transport} that has passed too many routers comes back to its sender`,
    steps: (words: Words): Step[] => {
      const { at, ip } = words;
      const write = TRANSPORTS[transport];
      const request = (ttl: number) => `${ip(at.client, at.vip, { ttl })}/${write(KEPT, PORT)}`;
      const reply = `${ip(at.remote, at.node, { ttl: 1 })}/${write(ENDPOINT_PORT, KEPT)}`;
      return [
        { hook: "xdp", packet: request(1), verdict: "next" },
        expired(words, request(1), {}),
        expired(words, request(0), {}),
        ...(["xdp", "ingress"] as const).map(
          (hook): Step => ({
            hook,
            packet: request(2),
            verdict: "sent",
            becomes: `${ip(at.node, at.remote, { ttl: 1 })}/${write(KEPT, ENDPOINT_PORT)}`,
          }),
        ),
        { hook: "xdp", packet: reply, verdict: "next" },
        expired(words, reply, {}),
      ];
    },
  })),
  {
    title: "what goes up the stack has its routers counted there",
    steps: ({ at, ip }) => [
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip, { ttl: 1 })}/${udp(TAKEN, LOCAL_PORT)}`,
        verdict: "next",
        becomes: `${ip(at.client, at.local, { ttl: 1 })}/${udp(TAKEN, ENDPOINT_PORT)}`,
      },
    ],
  },
  {
    title: "IP options and extension headers go by the stack's hooks",
    steps: ({ at, optional }) => {
      const request = `${optional(at.client, at.vip)}/${udp(KEPT, PORT)}`;
      return [
        { hook: "xdp", packet: request, verdict: "next" },
        {
          hook: "ingress",
          packet: request,
          verdict: "sent",
          becomes: `${optional(at.node, at.remote, { ttl: 63 })}/${udp(KEPT, ENDPOINT_PORT)}`,
        },
        {
          hook: "ingress",
          packet: `${optional(at.remote, at.node)}/${udp(ENDPOINT_PORT, KEPT)}`,
          verdict: "sent",
          becomes: `${optional(at.vip, at.client, { ttl: 63 })}/${udp(PORT, KEPT)}`,
        },
      ];
    },
  },
  {
    title: "UDP without a checksum stays without",
    families: [4],
    steps: (words) => {
      const bare = (packet: string) => packet.replace(/(UDP\([^)]*)\)/, "$1,chksum=0)");
      return (["xdp", "ingress"] as const).flatMap((hook) =>
        throughNode(words, "UDP", { hook }).map((step) => ({
          ...step,
          packet: bare(step.packet),
          becomes: bare(step.becomes!),
        })),
      );
    },
  },
  {
    title: "a checksum of SCTP that is left to the device stays so",
    steps: ({ at, ip }) => {
      const write = (sport: number, dport: number) =>
        `SCTP(sport=${sport},dport=${dport},tag=7,chksum=0)/SCTPChunkData(data=b"0123")`;
      return [
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${write(KEPT, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${write(KEPT, ENDPOINT_PORT)}`,
        },
      ];
    },
  },
];

export const SIZES: readonly Case[] = [...sizes, ...segmented, ...lives];
