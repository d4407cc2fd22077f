// Pings to Service addresses, and ICMP errors, which are about other packets: each reaches whoever
// sent the packet, as about the one that it sent.
import { ENDPOINT_PORT, LOCAL_PORT, PORT } from "../services.ts";
import {
  everyTransport,
  KEPT,
  LONG_PAYLOAD,
  PAYLOAD,
  TAKEN,
  TRANSPORTS,
  type Transport,
  tcp,
  udp,
  type Words,
} from "../words.ts";
import type { Case, Step } from "./cases.ts";
import { throughNode, throughStack } from "./ways.ts";

/** Every kind of error that is about a packet, by family. */
const ERRORS = {
  4: [
    "ICMP(type=3,code=0)",
    "ICMP(type=3,code=1)",
    "ICMP(type=3,code=3)",
    "ICMP(type=3,code=4,nexthopmtu=1300)",
    "ICMP(type=3,code=13)",
    "ICMP(type=11,code=0)",
    "ICMP(type=11,code=1)",
    "ICMP(type=12,code=0,ptr=8)",
  ],
  6: [
    "ICMPv6DestUnreach(code=0)",
    "ICMPv6DestUnreach(code=1)",
    "ICMPv6DestUnreach(code=4)",
    "ICMPv6PacketTooBig(mtu=1300)",
    "ICMPv6TimeExceeded(code=0)",
    "ICMPv6ParamProblem(code=1,ptr=6)",
  ],
} as const;

/** The same error about a packet as one side knows it, and as the other does. */
interface Report {
  hook: Step["hook"];
  device?: "pod-a1";
  verdict: Step["verdict"];
  from: { head: string; about: string };
  to: { head: string; about: string };
}

function report({ from, to, ...rest }: Report, error: string): Step {
  return {
    ...rest,
    packet: `${from.head}/${error}/${from.about}`,
    becomes: `${to.head}/${error}/${to.about}`,
  };
}

/** As much of a packet as every router quotes: its IP header and 8 bytes. */
function quote(packet: string, headerBytes: number): string {
  return `Raw(bytes(${packet})[:${headerBytes + 8}])`;
}

/** Of a request that was sent on to another node. */
function aboutRequest({ at, ip, family }: Words, transport: Transport, reporter: string): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const seems = reporter === at.remote ? at.vip : reporter;
  const sent = `${ip(at.node, at.remote, { ttl: 60 })}/${write(KEPT, ENDPOINT_PORT)}`;
  const own = `${ip(at.client, at.vip, { ttl: 60 })}/${write(KEPT, PORT)}`;
  return {
    hook: "ingress",
    verdict: "sent",
    from: { head: ip(reporter, at.node), about: quote(sent, bytes) },
    to: { head: ip(seems, at.client, { ttl: 63 }), about: quote(own, bytes) },
  };
}

/** Of a reply that was sent on to the client. */
function aboutReply({ at, ip, family }: Words, transport: Transport, reporter: string): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const sent = `${ip(at.vip, at.client, { ttl: 60 })}/${write(PORT, KEPT)}`;
  const own = `${ip(at.remote, at.node, { ttl: 60 })}/${write(ENDPOINT_PORT, KEPT)}`;
  return {
    hook: "ingress",
    verdict: "sent",
    from: { head: ip(reporter, at.vip), about: quote(sent, bytes) },
    to: { head: ip(at.node, at.remote, { ttl: 63 }), about: quote(own, bytes) },
  };
}

/** Of a reply of this node's pod, on its way up the stack. */
function aboutLocalReply({ at, ip, family }: Words, transport: Transport): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const sent = `${ip(at.vip, at.client, { ttl: 60 })}/${write(LOCAL_PORT, TAKEN)}`;
  const own = `${ip(at.local, at.client, { ttl: 60 })}/${write(ENDPOINT_PORT, TAKEN)}`;
  return {
    hook: "ingress",
    verdict: "next",
    from: { head: ip(at.router, at.vip), about: quote(sent, bytes) },
    to: { head: ip(at.router, at.local), about: quote(own, bytes) },
  };
}

/** Of a request to this node's pod: as the pod says it, on the way out. */
function aboutLocalRequest({ at, ip, family }: Words, transport: Transport): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const sent = `${ip(at.client, at.local, { ttl: 60 })}/${write(TAKEN, ENDPOINT_PORT)}`;
  const own = `${ip(at.client, at.vip, { ttl: 60 })}/${write(TAKEN, LOCAL_PORT)}`;
  return {
    hook: "egress",
    verdict: "next",
    from: { head: ip(at.local, at.client), about: quote(sent, bytes) },
    to: { head: ip(at.vip, at.client), about: quote(own, bytes) },
  };
}

/** Of a pod's own request, to the pod: or it would not learn how large its packets may be. */
function aboutPodRequest({ at, ip, family }: Words, transport: Transport): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const sent = `${ip(at.local, at.remote, { ttl: 60 })}/${write(TAKEN, ENDPOINT_PORT)}`;
  const own = `${ip(at.local, at.clusterIP, { ttl: 60 })}/${write(TAKEN, PORT)}`;
  return {
    hook: "egress",
    device: "pod-a1",
    verdict: "next",
    from: { head: ip(at.node, at.local), about: quote(sent, bytes) },
    to: { head: ip(at.node, at.local), about: quote(own, bytes) },
  };
}

/** Of what the node itself sent. */
function aboutNodeRequest({ at, ip, family }: Words, transport: Transport): Report {
  const write = TRANSPORTS[transport];
  const bytes = family === 4 ? 20 : 40;
  const sent = `${ip(at.node, at.remote, { ttl: 60 })}/${write(TAKEN, ENDPOINT_PORT)}`;
  const own = `${ip(at.node, at.clusterIP, { ttl: 60 })}/${write(TAKEN, PORT)}`;
  return {
    hook: "ingress",
    verdict: "next",
    from: { head: ip(at.router, at.node), about: quote(sent, bytes) },
    to: { head: ip(at.router, at.node), about: quote(own, bytes) },
  };
}

const errors: Case[] = everyTransport.flatMap((transport) => [
  {
    title: `every ICMP error about ${transport} that was sent on reaches the client`,
    steps: (words: Words) => [
      throughNode(words, transport)[0]!,
      ...ERRORS[words.family].flatMap((error) =>
        [words.at.remote, words.at.router].map((reporter) =>
          report(aboutRequest(words, transport, reporter), error),
        ),
      ),
    ],
  },
  {
    title: `every ICMP error about a reply of ${transport} reaches the endpoint`,
    steps: (words: Words) => [
      ...throughNode(words, transport),
      ...throughStack(words, transport),
      ...ERRORS[words.family].flatMap((error) => [
        report(aboutReply(words, transport, words.at.router), error),
        report(aboutReply(words, transport, words.at.client), error),
        report(aboutLocalReply(words, transport), error),
      ]),
    ],
  },
  {
    title: `every ICMP error about ${transport} of a pod or of the node reaches it`,
    steps: (words: Words): Step[] => {
      const { at, ip } = words;
      const write = TRANSPORTS[transport];
      return [
        throughStack(words, transport)[0]!,
        {
          hook: "ingress",
          device: "pod-a1",
          packet: `${ip(at.local, at.clusterIP)}/${write(TAKEN, PORT)}`,
          verdict: "next",
          becomes: `${ip(at.local, at.remote)}/${write(TAKEN, ENDPOINT_PORT)}`,
        },
        {
          hook: "egress",
          packet: `${ip(at.node, at.clusterIP)}/${write(TAKEN, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote)}/${write(TAKEN, ENDPOINT_PORT)}`,
        },
        ...ERRORS[words.family].flatMap((error) => [
          report(aboutLocalRequest(words, transport), error),
          report(aboutPodRequest(words, transport), error),
          report(aboutNodeRequest(words, transport), error),
        ]),
      ];
    },
  },
]);

const quoted: Case[] = [
  {
    title: "a quoted UDP checksum follows, none stays none",
    steps: ({ at, ip, error, family }) => {
      const steps: Step[] = [];
      for (const checksum of family === 4 ? ["", ",chksum=0"] : [""]) {
        const write = (head: string, sport: number, dport: number) =>
          `${head}/UDP(sport=${sport},dport=${dport}${checksum})/${PAYLOAD}`;
        const own = (ttl: number) => write(ip(at.client, at.vip, { ttl }), KEPT, PORT);
        const sent = (ttl: number) => write(ip(at.node, at.remote, { ttl }), KEPT, ENDPOINT_PORT);
        steps.push(
          { hook: "ingress", packet: own(64), verdict: "sent", becomes: sent(63) },
          {
            hook: "ingress",
            packet: `${ip(at.remote, at.node)}/${error("unreachable")}/${sent(60)}`,
            verdict: "sent",
            becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${error("unreachable")}/${own(60)}`,
          },
        );
      }
      return steps;
    },
  },
  {
    title: "options may stand before an error and in the packet that it quotes",
    steps: ({ at, optional, error, family }) => {
      const bytes = family === 4 ? 24 : 48;
      const own = (ttl: number) => `${optional(at.client, at.vip, { ttl })}/${udp(KEPT, PORT)}`;
      const sent = (ttl: number) =>
        `${optional(at.node, at.remote, { ttl })}/${udp(KEPT, ENDPOINT_PORT)}`;
      return [
        { hook: "ingress", packet: own(64), verdict: "sent", becomes: sent(63) },
        {
          hook: "ingress",
          packet: `${optional(at.router, at.node)}/${error("time")}/${quote(sent(1), bytes)}`,
          verdict: "sent",
          becomes: [
            optional(at.router, at.client, { ttl: 63 }),
            `${error("time")}/${quote(own(1), bytes)}`,
          ].join("/"),
        },
      ];
    },
  },
  {
    title:
      "an error about a packet of no connection passes, and so does one that quotes too little",
    steps: (words) => {
      const { at, ip, error, family } = words;
      const bytes = family === 4 ? 20 : 40;
      const sent = `${ip(at.node, at.remote)}/${udp(KEPT, ENDPOINT_PORT)}`;
      const unknown = `${ip(at.node, at.remote)}/${udp(KEPT + 1, ENDPOINT_PORT)}`;
      return [
        throughNode(words, "UDP")[0]!,
        ...[quote(unknown, bytes), quote(sent, bytes - 6), quote(sent, 4)].flatMap(
          (about): Step[] => [
            {
              hook: "ingress",
              packet: `${ip(at.router, at.node)}/${error("time")}/${about}`,
              verdict: "next",
            },
          ],
        ),
      ];
    },
  },
  {
    title: "an error for somebody else than it is about passes, be it about a known connection",
    steps: (words) => {
      const { at, ip, error } = words;
      const request = `${ip(at.node, at.remote)}/${udp(KEPT, ENDPOINT_PORT)}`;
      const reply = `${ip(at.vip, at.client)}/${udp(PORT, KEPT)}`;
      return [
        throughNode(words, "UDP")[0]!,
        ...[
          { to: at.stranger, about: request },
          { to: at.vip, about: request },
          { to: at.node, about: reply },
        ].map(({ to, about }): Step => {
          const packet = `${ip(at.router, to)}/${error("time")}/${about}`;
          return { hook: "ingress", packet, verdict: "next" };
        }),
      ];
    },
  },
  {
    title:
      "an error about a datagram's first fragment reaches the client, of a later one none does",
    steps: (words) => {
      const { at, ip, error, fragment } = words;
      const sent = { id: 9, head: ip(at.node, at.remote, { ttl: 60 }) };
      const own = { id: 9, head: ip(at.client, at.vip, { ttl: 60 }) };
      const write = (dport: number) => TRANSPORTS.UDP(KEPT, dport, LONG_PAYLOAD);
      const about = (index: number) =>
        fragment(index, { ...sent, transport: write(ENDPOINT_PORT) });
      const report = `${ip(at.router, at.node)}/${error("tooBig", 1300)}`;
      const told = `${ip(at.router, at.client, { ttl: 63 })}/${error("tooBig", 1300)}`;
      return [
        throughNode(words, "UDP")[0]!,
        {
          hook: "ingress",
          packet: `${report}/${about(0)}`,
          verdict: "sent",
          becomes: `${told}/${fragment(0, { ...own, transport: write(PORT) })}`,
        },
        { hook: "ingress", packet: `${report}/${about(1)}`, verdict: "next" },
      ];
    },
  },
  {
    title: "an error that has passed too many routers ends here",
    steps: (words) => {
      const { at, ip, error } = words;
      const about = aboutRequest(words, "UDP", at.router);
      return [
        throughNode(words, "UDP")[0]!,
        {
          hook: "ingress",
          packet: `${ip(at.router, at.node, { ttl: 1 })}/${error("time")}/${about.from.about}`,
          verdict: "dropped",
          reason: "ttl_exceeded",
        },
      ];
    },
  },
];

const pings: Case[] = [
  {
    title: "a ping to a Service's address is answered, one to a stranger is not",
    steps: ({ at, ip, answer, icmp }) => [
      ...[at.vip, at.clusterIP].map((address) => ({
        hook: "ingress" as const,
        packet: `${ip(at.client, address, { ttl: 9 })}/${icmp.echo}/${PAYLOAD}`,
        verdict: "sent" as const,
        becomes: `${answer(address, at.client)}/${icmp.reply}/${PAYLOAD}`,
      })),
      ...[at.stranger, at.node].map((address) => ({
        hook: "ingress" as const,
        packet: `${ip(at.client, address)}/${icmp.echo}/${PAYLOAD}`,
        verdict: "next" as const,
      })),
      { hook: "xdp", packet: `${ip(at.client, at.vip)}/${icmp.echo}/${PAYLOAD}`, verdict: "next" },
      { hook: "ingress", packet: `${ip(at.client, at.vip)}/${icmp.reply}`, verdict: "next" },
      { hook: "ingress", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, 999)}`, verdict: "next" },
    ],
  },
  {
    title: "a ping to an external IP is answered where it would turn back, not where a host may be",
    steps: ({ at, ip, answer, icmp }) => [
      {
        hook: "ingress",
        packet: `${ip(at.client, at.externalIP)}/${icmp.echo}/${PAYLOAD}`,
        verdict: "sent",
        becomes: `${answer(at.externalIP, at.client)}/${icmp.reply}/${PAYLOAD}`,
      },
      {
        hook: "ingress",
        device: "pod-a1",
        packet: `${ip(at.local, at.externalIP)}/${icmp.echo}/${PAYLOAD}`,
        verdict: "next",
      },
    ],
  },
];

export const ICMP: readonly Case[] = [...errors, ...quoted, ...pings];
