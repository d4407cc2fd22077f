// Datagrams in fragments: later ones have no ports, and follow the first; those that overtake it
// are lost, never sent somewhere else.
import { filterTwin } from "../places.ts";
import { ENDPOINT_PORT, LOCAL_PORT, PORT } from "../services.ts";
import { KEPT, LONG_PAYLOAD, TAKEN, TRANSPORTS, type Transport, type Words } from "../words.ts";
import type { Case, Step } from "./cases.ts";

/** What all fragments of a datagram become alike. */
interface Datagram {
  hook: Step["hook"];
  device?: "pod-a1";
  verdict: Step["verdict"];
  transport: Transport;
  from: { head: string; sport: number; dport: number };
  to: { head: string; sport: number; dport: number };
}

/** Fragments of a datagram, in this order. */
function fragments(
  { fragment }: Words,
  { hook, device, verdict, transport, from, to }: Datagram,
  { id = 77, order = [0, 1, 2] } = {},
): Step[] {
  const write = (index: number, { head, sport, dport }: Datagram["from"]) =>
    fragment(index, { id, head, transport: TRANSPORTS[transport](sport, dport, LONG_PAYLOAD) });
  return order.map((index) => ({
    hook,
    ...(device ? { device } : {}),
    packet: write(index, from),
    verdict,
    becomes: write(index, to),
  }));
}

function requestThroughNode({ at, ip }: Words, transport: Transport): Datagram {
  return {
    hook: "ingress",
    verdict: "sent",
    transport,
    from: { head: ip(at.client, at.vip), sport: KEPT, dport: PORT },
    to: { head: ip(at.node, at.remote, { ttl: 63 }), sport: KEPT, dport: ENDPOINT_PORT },
  };
}

function replyThroughNode({ at, ip }: Words, transport: Transport): Datagram {
  return {
    hook: "ingress",
    verdict: "sent",
    transport,
    from: { head: ip(at.remote, at.node), sport: ENDPOINT_PORT, dport: KEPT },
    to: { head: ip(at.vip, at.client, { ttl: 63 }), sport: PORT, dport: KEPT },
  };
}

function requestThroughStack({ at, ip }: Words, transport: Transport): Datagram {
  return {
    hook: "ingress",
    verdict: "next",
    transport,
    from: { head: ip(at.client, at.vip), sport: TAKEN, dport: LOCAL_PORT },
    to: { head: ip(at.client, at.local), sport: TAKEN, dport: ENDPOINT_PORT },
  };
}

function replyThroughStack({ at, ip }: Words, transport: Transport): Datagram {
  return {
    hook: "egress",
    verdict: "next",
    transport,
    from: { head: ip(at.local, at.client), sport: ENDPOINT_PORT, dport: TAKEN },
    to: { head: ip(at.vip, at.client), sport: LOCAL_PORT, dport: TAKEN },
  };
}

/** The same packets, which come to nothing. */
function lost(steps: readonly Step[]): Step[] {
  return steps.map(({ hook, packet }) => ({
    hook,
    packet,
    verdict: "dropped",
    reason: "fragment_lost",
  }));
}

function untouched(steps: readonly Step[], hook: Step["hook"]): Step[] {
  return steps.map(({ packet }) => ({ hook, packet, verdict: "next" }));
}

export const FRAGMENTS: readonly Case[] = [
  ...(["UDP", "TCP"] as const).flatMap((transport) => [
    {
      title: `fragments of ${transport} follow the first one to an endpoint elsewhere, and back`,
      steps: (words: Words) => [
        ...untouched(fragments(words, requestThroughNode(words, transport)), "xdp"),
        ...fragments(words, requestThroughNode(words, transport)),
        ...fragments(words, replyThroughNode(words, transport), { id: 78 }),
      ],
    },
    {
      title: `fragments of ${transport} follow the first one to a pod of this node, and back`,
      steps: (words: Words) => [
        ...fragments(words, requestThroughStack(words, transport)),
        ...fragments(words, replyThroughStack(words, transport), { id: 78 }),
      ],
    },
  ]),
  {
    title: "fragments that overtake the first of a request are lost, those after it are not",
    steps: (words) => {
      const datagram = requestThroughNode(words, "UDP");
      return [
        ...lost(fragments(words, datagram, { order: [2, 1] })),
        ...fragments(words, datagram, { order: [0, 2, 1, 1] }),
        ...lost(fragments(words, datagram, { id: 78, order: [1] })),
      ];
    },
  },
  {
    title: "fragments that overtake the first of a reply are nobody else's",
    steps: (words) => [
      ...fragments(words, requestThroughNode(words, "UDP")),
      ...untouched(
        fragments(words, replyThroughNode(words, "UDP"), { id: 78, order: [1] }),
        "ingress",
      ),
      ...fragments(words, requestThroughStack(words, "UDP")),
      ...untouched(
        fragments(words, replyThroughStack(words, "UDP"), { id: 78, order: [1] }),
        "egress",
      ),
    ],
  },
  {
    title: "datagrams of one number and others' addresses or protocol are told apart",
    steps: (words) => {
      const { at, ip } = words;
      const own = requestThroughNode(words, "UDP");
      const from = { ...own.from, head: ip(at.other, at.vip) };
      return [
        ...fragments(words, own, { order: [0] }),
        ...lost(fragments(words, { ...own, from }, { order: [1] })),
        ...lost(fragments(words, requestThroughNode(words, "TCP"), { order: [1] })),
        ...fragments(words, own, { order: [1] }),
      ];
    },
  },
  {
    title: "fragments of SCTP whose ports would change are lost: its checksum cannot follow",
    steps: (words) => lost(fragments(words, requestThroughNode(words, "SCTP"), { order: [0, 1] })),
  },
  {
    title: "fragments to others are left alone in any order, also where the filter errs",
    steps: (words) => {
      const { at, ip } = words;
      const datagram = requestThroughNode(words, "UDP");
      return [at.stranger, filterTwin(at.vip)].flatMap((stranger) => {
        const from = { ...datagram.from, head: ip(at.client, stranger) };
        return untouched(fragments(words, { ...datagram, from }, { order: [2, 0, 1] }), "ingress");
      });
    },
  },
  {
    title: "a datagram of one fragment is an ordinary one",
    families: [6],
    steps: ({ at, ip }) => {
      const one = (head: string, sport: number, dport: number) =>
        `${head}/IPv6ExtHdrFragment(id=9)/${TRANSPORTS.SCTP(sport, dport)}`;
      return [
        {
          hook: "ingress",
          packet: one(ip(at.client, at.vip), KEPT, PORT),
          verdict: "sent",
          becomes: one(ip(at.node, at.remote, { ttl: 63 }), KEPT, ENDPOINT_PORT),
        },
      ];
    },
  },
  {
    title: "later fragments of a datagram with further headers are lost, never sent elsewhere",
    families: [6],
    steps: ({ at, ip, fragment }) => {
      const options = "IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])";
      const write = (head: string, [sport, dport]: [number, number], index: number) =>
        fragment(index, {
          id: 9,
          head,
          transport: `${options}/${TRANSPORTS.UDP(sport, dport, LONG_PAYLOAD)}`,
        });
      return [
        {
          hook: "ingress",
          packet: write(ip(at.client, at.vip), [KEPT, PORT], 0),
          verdict: "sent",
          becomes: write(ip(at.node, at.remote, { ttl: 63 }), [KEPT, ENDPOINT_PORT], 0),
        },
        {
          hook: "ingress",
          packet: write(ip(at.client, at.vip), [KEPT, PORT], 1),
          verdict: "dropped",
          reason: "fragment_lost",
        },
      ];
    },
  },
];
