// What is translated, and how: every way through the node, for every protocol and
// in both families.
import {
  ENDPOINT_PORT,
  HIGHEST_NODE_PORT,
  KEEPING_PORT,
  LOCAL_PORT,
  LOWEST_NODE_PORT,
  NODE_PORT,
  OWN_PORT,
  PORT,
} from "../services.ts";
import { everyTransport, KEPT, TAKEN, TRANSPORTS, tcp, type Words } from "../words.ts";
import type { Case, Step } from "./cases.ts";
import { throughNode, throughStack } from "./ways.ts";

const plain: Case[] = everyTransport.flatMap((transport) => [
  ...(["xdp", "ingress"] as const).map((hook) => ({
    title: `${transport} to an endpoint elsewhere goes on from ${hook}, and so do replies`,
    steps: (words: Words) => throughNode(words, transport, { hook }),
  })),
  {
    title: `${transport} to a pod of this node keeps its client, and the stack sees the endpoint`,
    steps: (words: Words): Step[] => {
      const { at, ip } = words;
      const write = TRANSPORTS[transport];
      const [request, reply] = throughStack(words, transport);
      return [
        {
          hook: "xdp",
          packet: `${ip(at.client, at.vip)}/${write(TAKEN, LOCAL_PORT)}`,
          verdict: "next",
        },
        request!,
        {
          hook: "egress",
          device: "pod-a1",
          packet: `${ip(at.client, at.local)}/${write(TAKEN, ENDPOINT_PORT)}`,
          verdict: "next",
        },
        {
          hook: "ingress",
          device: "pod-a1",
          packet: `${ip(at.local, at.client)}/${write(ENDPOINT_PORT, TAKEN)}`,
          verdict: "next",
        },
        reply!,
      ];
    },
  },
]);

const nodePorts: Case[] = [
  ...[NODE_PORT, LOWEST_NODE_PORT, HIGHEST_NODE_PORT].flatMap((port) =>
    (["xdp", "ingress"] as const).map((hook) => ({
      title: `node port ${port} leads on from ${hook}, and replies come from it`,
      steps: ({ at, ip }: Words): Step[] => [
        {
          hook,
          packet: `${ip(at.client, at.node)}/${tcp(KEPT, port)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
          to: "nodeB",
        },
        {
          hook,
          packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, KEPT, "SA")}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.client, { ttl: 63 })}/${tcp(port, KEPT, "SA")}`,
          to: "router",
        },
      ],
    })),
  ),
  {
    title: "beside the node ports the node is left alone",
    steps: ({ at, ip }) =>
      [LOWEST_NODE_PORT - 1, LOWEST_NODE_PORT + 1, HIGHEST_NODE_PORT + 1].flatMap((port) =>
        (["xdp", "ingress"] as const).map((hook) => ({
          hook,
          packet: `${ip(at.client, at.node)}/${tcp(KEPT, port)}`,
          verdict: "next" as const,
        })),
      ),
  },
];

const fromHere: Case[] = [
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
        hook: "egress",
        packet: `${ip(at.local, at.remote)}/${tcp(TAKEN, ENDPOINT_PORT)}`,
        verdict: "next",
      },
      {
        hook: "xdp",
        packet: `${ip(at.remote, at.local)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
      },
      {
        hook: "ingress",
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
  {
    title: "an endpoint on the node's own network sees the client",
    steps: ({ at, ip }) => [
      {
        hook: "ingress",
        packet: `${ip(at.client, at.vip)}/${tcp(TAKEN, OWN_PORT)}`,
        verdict: "next",
        becomes: `${ip(at.client, at.node)}/${tcp(TAKEN, ENDPOINT_PORT)}`,
      },
      {
        hook: "egress",
        packet: `${ip(at.node, at.client)}/${tcp(ENDPOINT_PORT, TAKEN, "SA")}`,
        verdict: "next",
        becomes: `${ip(at.vip, at.client)}/${tcp(OWN_PORT, TAKEN, "SA")}`,
      },
    ],
  },
];

/** How the kernel sees the source of a request, by who sends it to what. */
interface Masquerade {
  title: string;
  rodata: Readonly<Record<string, number>>;
  node?: Case["node"];
  device?: "pod-a1";
  from: "client" | "local";
  to: "clusterIP" | "vip";
  port: number;
  /** Whether the endpoint sees the node. */
  isRewritten: boolean;
}

const ALWAYS = { masquerade_always: 1 };
const ALL = { masquerade_all: 1 };
const masquerades: Masquerade[] = [
  {
    title: "§10.1, policy Cluster: an outside client is rewritten even to a pod of this node",
    rodata: ALWAYS,
    from: "client",
    to: "vip",
    port: LOCAL_PORT,
    isRewritten: true,
  },
  {
    title: "§10.1, policy Cluster: and so is a pod",
    rodata: ALWAYS,
    device: "pod-a1",
    from: "local",
    to: "vip",
    port: PORT,
    isRewritten: true,
  },
  {
    title: "§10.2, policy Local: an outside client is kept",
    rodata: ALWAYS,
    from: "client",
    to: "vip",
    port: KEEPING_PORT,
    isRewritten: false,
  },
  {
    title: "§10.3, a cluster IP: a pod is kept",
    rodata: ALWAYS,
    device: "pod-a1",
    from: "local",
    to: "clusterIP",
    port: PORT,
    isRewritten: false,
  },
  {
    title: "§10.3, a cluster IP: anybody else is rewritten",
    rodata: ALWAYS,
    from: "client",
    to: "clusterIP",
    port: LOCAL_PORT,
    isRewritten: true,
  },
  {
    title: "§10.3, a cluster IP: but nobody if pods cannot be told",
    rodata: ALWAYS,
    node: { pods: {} },
    from: "client",
    to: "clusterIP",
    port: LOCAL_PORT,
    isRewritten: false,
  },
  {
    title: "§10.4, masquerade all: a pod is rewritten to a cluster IP",
    rodata: ALL,
    device: "pod-a1",
    from: "local",
    to: "clusterIP",
    port: PORT,
    isRewritten: true,
  },
  {
    title: "§10.4, masquerade all: other frontends are as without",
    rodata: ALL,
    from: "client",
    to: "vip",
    port: LOCAL_PORT,
    isRewritten: false,
  },
  {
    title: "§10.6, an endpoint on the node's own network: nothing is rewritten",
    rodata: { ...ALWAYS, ...ALL },
    from: "client",
    to: "clusterIP",
    port: OWN_PORT,
    isRewritten: false,
  },
];

function masqueraded(
  { from, to, port, device, isRewritten }: Masquerade,
  { at, ip }: Words,
): Step[] {
  const endpoint = { [PORT]: at.remote, [OWN_PORT]: at.node }[port] ?? at.local;
  const source = isRewritten ? at.node : at[from];
  const ttl = isRewritten ? 63 : 64;
  const request: Step = {
    hook: "ingress",
    packet: `${ip(at[from], at[to])}/${tcp(KEPT, port)}`,
    verdict: isRewritten ? "sent" : "next",
    becomes: `${ip(source, endpoint, { ttl })}/${tcp(KEPT, ENDPOINT_PORT)}`,
    ...(device ? { device } : {}),
  };
  const reply = {
    packet: `${ip(endpoint, source)}/${tcp(ENDPOINT_PORT, KEPT, "SA")}`,
    becomes: `${ip(at[to], at[from], { ttl })}/${tcp(port, KEPT, "SA")}`,
  };
  if (!isRewritten)
    return [request, { hook: "egress", verdict: "next", ...reply, ...(device ? { device } : {}) }];
  const comesBy = endpoint === at.local ? ({ device: "pod-a1" } as const) : {};
  return [request, { hook: "ingress", verdict: "sent", ...reply, ...comesBy }];
}

export const TRANSLATED: readonly Case[] = [
  ...plain,
  ...nodePorts,
  ...fromHere,
  ...masquerades.map((each) => ({
    title: each.title,
    rodata: each.rodata,
    ...(each.node ? { node: each.node } : {}),
    steps: (words: Words) => masqueraded(each, words),
  })),
];
