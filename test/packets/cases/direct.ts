// Direct server return: requests go to endpoints of other nodes in a tunnel, and are taken out of
// it where the endpoint is; replies go to the client from there.
import { filterTwin } from "../places.ts";
import { ENDPOINT_PORT, LOCAL_PORT, NODE_PORT, PORT } from "../services.ts";
import {
  everyTransport,
  KEPT,
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
];
