// Which port a rewritten source gets: the client's own where nobody else on this node can have it,
// else one of the range for that; never one that is in use.
import type { Bed } from "../bed.ts";
import {
  AGAIN_PORT,
  ENDPOINT_PORT,
  LOCAL_AGAIN_PORT,
  LOCAL_PORT,
  NODE_PORT,
  PORT,
} from "../services.ts";
import { KEPT, TAKEN, TRANSPORTS, tcp, udp, type Words } from "../words.ts";
import type { Case, Event, Step } from "./cases.ts";

/** A connection whose port stays, and its reply. */
function kept({ at, ip }: Words, hook: Step["hook"], port: number): Step[] {
  return [
    {
      hook,
      packet: `${ip(at.client, at.vip)}/${tcp(port, PORT)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(port, ENDPOINT_PORT)}`,
    },
    {
      hook,
      packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, port, "SA")}`,
      verdict: "sent",
      becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${tcp(PORT, port, "SA")}`,
    },
  ];
}

/** One whose port becomes another one, here and in its reply. */
function changed({ at, ip }: Words, hook: Step["hook"], port: number, name: string): Step[] {
  return [
    {
      hook,
      packet: `${ip(at.client, at.vip)}/${tcp(port, PORT)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(`<${name}>`, ENDPOINT_PORT)}`,
    },
    {
      hook,
      packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, `<${name}>`, "SA")}`,
      verdict: "sent",
      becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${tcp(PORT, port, "SA")}`,
    },
  ];
}

const chosen: Case[] = (["xdp", "ingress"] as const).flatMap((hook) => [
  {
    title: `${hook} keeps a client's port that the host never takes`,
    steps: (words: Words) =>
      [1024, KEPT, 29999, 61000, 65535].flatMap((port) => kept(words, hook, port)),
  },
  {
    title: `${hook} changes one that the host may take, or that is a node port, or privileged`,
    steps: (words: Words) =>
      [1, 1023, 30000, 32767, 32768, TAKEN, 60999].flatMap((port, index) =>
        changed(words, hook, port, String.fromCharCode(65 + index)),
      ),
  },
]);

/** Sockets of the node, each on a port of its own; they end with `close`. */
const SOCKETS = {
  listening: KEPT,
  connected: KEPT + 1,
  udp: KEPT + 2,
  elsewhere: KEPT + 3,
} as const;

function openSockets({ at, family }: Words): Event {
  const own = (port: number) => ({ address: at.node, port });
  return {
    what: "the node has sockets",
    happens: async (bed) => {
      const helper = await bed.helper();
      await helper.serveTcp({ identity: "node", ...own(SOCKETS.listening) });
      await helper.serveUdp({ identity: "node", ...own(SOCKETS.udp) });
      for (const [port, address] of [
        [SOCKETS.connected, at.remote],
        [SOCKETS.elsewhere, at.stranger],
      ] as const) {
        const fd = await helper.sockets.open({ protocol: "TCP", family, timeoutSeconds: 0.05 });
        await helper.sockets.bind(fd, own(port));
        const peer = { address, port: ENDPOINT_PORT };
        await helper.sockets.connect(fd, peer).catch(() => "its peer never answers");
      }
    },
  };
}

const closeSockets: Event = {
  what: "they are closed",
  happens: (bed: Bed) => bed.closeHelpers(),
};

const inUse: Case[] = (["xdp", "ingress"] as const).map((hook) => ({
  title: `${hook} changes a port that a socket of the node has, listening or connected to there`,
  steps: (words: Words): (Step | Event)[] => {
    const { at, ip } = words;
    return [
      openSockets(words),
      ...changed(words, hook, SOCKETS.listening, "A"),
      ...changed(words, hook, SOCKETS.connected, "B"),
      ...kept(words, hook, SOCKETS.elsewhere),
      {
        hook,
        packet: `${ip(at.client, at.vip)}/${udp(SOCKETS.udp, PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${udp("<C>", ENDPOINT_PORT)}`,
      },
      ...kept(words, hook, SOCKETS.udp),
      closeSockets,
    ];
  },
}));

/** Two frontends of one endpoint, asked from one port: their replies are told apart. */
function twoFrontends({ at, ip }: Words, hook: Step["hook"]): Step[] {
  const frontends = [
    { to: at.vip, port: PORT, source: String(KEPT) },
    { to: at.vip, port: AGAIN_PORT, source: "<A>" },
    { to: at.node, port: NODE_PORT, source: "<B>" },
    { to: at.clusterIP, port: PORT, source: "<C>" },
  ];
  return [
    ...frontends.map(
      ({ to, port, source }): Step => ({
        hook,
        packet: `${ip(at.client, to)}/${tcp(KEPT, port)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(source, ENDPOINT_PORT)}`,
      }),
    ),
    ...frontends.map(
      ({ to, port, source }): Step => ({
        hook,
        packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, source, "SA")}`,
        verdict: "sent",
        becomes: `${ip(to, at.client, { ttl: 63 })}/${tcp(port, KEPT, "SA")}`,
      }),
    ),
  ];
}

const collisions: Case[] = [
  ...(["xdp", "ingress"] as const).flatMap((hook) => [
    {
      title: `${hook}: frontends that lead one client port to one endpoint do not collide`,
      steps: (words: Words) => twoFrontends(words, hook),
    },
    {
      title: `${hook}: clients that have the same port do not collide`,
      steps: ({ at, ip }: Words): Step[] => [
        {
          hook,
          packet: `${ip(at.client, at.vip)}/${tcp(KEPT, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT)}`,
        },
        {
          hook,
          packet: `${ip(at.other, at.vip)}/${tcp(KEPT, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${tcp("<A>", ENDPOINT_PORT)}`,
        },
        ...[
          { port: String(KEPT), client: at.client },
          { port: "<A>", client: at.other },
        ].map(
          ({ port, client }): Step => ({
            hook,
            packet: `${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, port, "SA")}`,
            verdict: "sent",
            becomes: `${ip(at.vip, client, { ttl: 63 })}/${tcp(PORT, KEPT, "SA")}`,
          }),
        ),
      ],
    },
  ]),
  {
    title: "two frontends that lead one client port to a pod of this node do not collide",
    steps: ({ at, ip }) => [
      ...[
        { port: LOCAL_PORT, source: String(TAKEN) },
        { port: LOCAL_AGAIN_PORT, source: "<A>" },
      ].flatMap(({ port, source }): Step[] => [
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${udp(TAKEN, port)}`,
          verdict: "next",
          becomes: `${ip(at.client, at.local)}/${udp(source, ENDPOINT_PORT)}`,
        },
        {
          hook: "egress",
          packet: `${ip(at.local, at.client)}/${udp(ENDPOINT_PORT, source)}`,
          verdict: "next",
          becomes: `${ip(at.vip, at.client)}/${udp(port, TAKEN)}`,
        },
      ]),
    ],
  },
];

const exhausted: Case[] = [
  {
    title: "when no port is left a connection is refused, and others go on",
    node: { numbers: { natFirst: 5000, natCount: 2 } },
    steps: (words) => {
      const { at, ip, answer } = words;
      const first = [
        ...changed(words, "xdp", TAKEN, "A"),
        ...changed(words, "ingress", TAKEN + 1, "B"),
      ];
      return [
        ...first,
        {
          hook: "xdp",
          packet: `${ip(at.client, at.vip)}/${tcp(TAKEN + 2, PORT)}`,
          verdict: "next",
        },
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${tcp(TAKEN + 2, PORT)}`,
          verdict: "sent",
          becomes: [
            answer(at.vip, at.client),
            `TCP(sport=${PORT},dport=${TAKEN + 2},flags="RA",seq=0,ack=1001,window=0)`,
          ].join("/"),
          reason: "ports_exhausted",
        },
        ...first,
        ...kept(words, "ingress", KEPT),
        {
          hook: "ingress",
          packet: `${ip(at.client, at.vip)}/${TRANSPORTS.UDP(TAKEN + 2, PORT)}`,
          verdict: "sent",
          becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${TRANSPORTS.UDP("<C>", ENDPOINT_PORT)}`,
        },
      ];
    },
  },
  {
    title: "a connection that is over gives its port to another one",
    node: { numbers: { natFirst: 5000, natCount: 1 } },
    steps: (words) => {
      const [request, reply] = changed(words, "ingress", TAKEN, "A");
      return [
        request!,
        reply!,
        { what: "20 hours pass", happens: (bed) => bed.age(17 * 3600) },
        ...changed(words, "ingress", TAKEN + 1, "B"),
      ];
    },
  },
];

export const PORTS: readonly Case[] = [...chosen, ...inUse, ...collisions, ...exhausted];
