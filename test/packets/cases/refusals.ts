// What is refused or dropped, and how the sender learns of it: by resets, ICMP errors, or not
// at all.
import {
  DROP_PORT,
  EMPTY_PORT,
  ENDPOINT_PORT,
  GUARDED_PORT,
  LOWEST_NODE_PORT,
  NODE_PORT,
  PORT,
} from "../services.ts";
import { KEPT, PAYLOAD, TRANSPORTS, tcp, udp, type Words } from "../words.ts";
import type { Case, Step } from "./cases.ts";

const refused: Case[] = [
  {
    title: "no endpoint anywhere: a connection is reset",
    steps: ({ at, ip, answer }) => [
      { hook: "xdp", packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT)}`, verdict: "next" },
      ...[
        { flags: "S", becomes: `flags="RA",seq=0,ack=1001` },
        { flags: "SF", becomes: `flags="RA",seq=0,ack=1002` },
        { flags: "A", becomes: `flags="R",seq=2000,ack=0` },
        { flags: "SA", becomes: `flags="R",seq=2000,ack=0` },
      ].map(
        ({ flags, becomes }): Step => ({
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT, flags)}`,
          verdict: "sent",
          becomes: [
            answer(at.vip, at.client),
            `TCP(sport=${EMPTY_PORT},dport=${KEPT},${becomes},window=0)`,
          ].join("/"),
          reason: "refused",
        }),
      ),
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT)}/${PAYLOAD}`,
        verdict: "sent",
        becomes: [
          answer(at.vip, at.client),
          `TCP(sport=${EMPTY_PORT},dport=${KEPT},flags="RA",seq=0,ack=1016,window=0)`,
        ].join("/"),
        reason: "refused",
      },
    ],
  },
  {
    title: "no endpoint anywhere: a reset is answered by nothing",
    steps: ({ at, ip }) =>
      (["xdp", "ingress", "egress"] as const).flatMap((hook) =>
        ["R", "RA"].map((flags) => ({
          hook,
          packet: `${ip(at.client, at.vip)}/${tcp(KEPT, EMPTY_PORT, flags)}`,
          verdict: "dropped" as const,
          reason: "no_connection",
        })),
      ),
  },
  {
    title: "no endpoint anywhere: a TCP header that says more or less than there is gets no answer",
    steps: ({ at, ip }) =>
      [4, 6, 15].map((words) => ({
        hook: "ingress",
        packet: [
          ip(at.client, at.vip),
          `TCP(sport=${KEPT},dport=${EMPTY_PORT},flags="S",dataofs=${words})`,
        ].join("/"),
        verdict: "dropped",
        reason: "refused",
      })),
  },
  ...(["UDP", "SCTP"] as const).map((transport) => ({
    title: `no endpoint anywhere: a sender of ${transport} is told that the port is unreachable`,
    steps: ({ at, ip, answer, error }: Words): Step[] => {
      const request = `${ip(at.client, at.vip)}/${TRANSPORTS[transport](KEPT, EMPTY_PORT)}`;
      return [
        {
          hook: "ingress",
          packet: request,
          verdict: "sent",
          becomes: [
            answer(at.vip, at.client),
            `${error("unreachable")}/Raw(bytes(${request})[:QUOTE])`,
          ].join("/"),
          reason: "refused",
        },
      ];
    },
  })),
  {
    title: "no endpoint anywhere: IP options and extension headers are quoted with it",
    steps: ({ at, optional, answer, error, family }) => {
      const request = `${optional(at.client, at.vip)}/${udp(KEPT, EMPTY_PORT)}`;
      const quoted = family === 4 ? 24 + 8 : 48 + 8;
      return [
        {
          hook: "ingress",
          packet: request,
          verdict: "sent",
          becomes: [
            answer(at.vip, at.client),
            `${error("unreachable")}/Raw(bytes(${request})[:${quoted}])`,
          ].join("/"),
          reason: "refused",
        },
      ];
    },
  },
  {
    title: "an undefined port of a cluster IP is refused, to pods and to the node alike",
    steps: ({ at, ip, answer }) => {
      const refusal = (hook: "ingress" | "egress", source: string): Step => ({
        hook,
        packet: `${ip(source, at.clusterIP)}/${tcp(KEPT, 999)}`,
        verdict: "sent",
        becomes: [
          answer(at.clusterIP, source),
          `TCP(sport=999,dport=${KEPT},flags="RA",seq=0,ack=1001,window=0)`,
        ].join("/"),
        reason: "undefined_port",
      });
      return [
        refusal("ingress", at.client),
        { ...refusal("ingress", at.local), device: "pod-a1" },
        refusal("egress", at.node),
      ];
    },
  },
];

const dropped: Case[] = (["xdp", "ingress"] as const).map((hook) => ({
  title: `${hook} drops what may not be: no local endpoint, nobody's address, no connection`,
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
    ...["R", "RA"].map(
      (flags): Step => ({
        hook,
        packet: `${ip(at.client, at.vip)}/${tcp(KEPT + 1, PORT, flags)}`,
        verdict: "dropped",
        reason: "no_connection",
      }),
    ),
  ],
}));

const guarded: Case[] = (["xdp", "ingress"] as const).map((hook) => ({
  title: `${hook} holds source ranges against load balancer addresses alone (§8.1)`,
  steps: ({ at, ip }: Words): Step[] => [
    {
      hook,
      packet: `${ip(at.other, at.vip)}/${tcp(KEPT, GUARDED_PORT)}`,
      verdict: "dropped",
      reason: "source_range",
    },
    ...[
      { source: at.client, to: at.vip, port: KEPT },
      { source: at.other, to: at.clusterIP, port: KEPT + 1 },
    ].map(
      ({ source, to, port }): Step => ({
        hook,
        packet: `${ip(source, to)}/${tcp(port, GUARDED_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(port, ENDPOINT_PORT)}`,
      }),
    ),
    {
      hook,
      packet: `${ip(at.other, at.node)}/${tcp(KEPT + 2, NODE_PORT)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT + 2, ENDPOINT_PORT)}`,
    },
    {
      hook,
      packet: `${ip(at.other, at.node)}/${tcp(KEPT + 3, LOWEST_NODE_PORT)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT + 3, ENDPOINT_PORT)}`,
    },
  ],
}));

export const REFUSALS: readonly Case[] = [...refused, ...dropped, ...guarded];
