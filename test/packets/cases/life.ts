// How long a connection keeps its endpoint: while it lives, whatever becomes of its Service; and
// when a packet begins another one.
import { ENDPOINT_PORT, MOVING_PORT, makeServices } from "../services.ts";
import { KEPT, tcp, udp, type Words } from "../words.ts";
import { type Case, type Event, pass, type Step } from "./cases.ts";

const moves: Event = {
  what: "the Service has another endpoint",
  happens: (bed) => bed.program(makeServices({ moved: true })),
};
const movesBack: Event = {
  what: "the Service has its first endpoint again",
  happens: (bed) => bed.program(makeServices()),
};

/** For so long from now on; a past moment ends it. */
function hold(seconds: number): Event {
  const what = `connections are held for ${seconds} s`;
  return { what, happens: (bed) => bed.holdFlows(seconds) };
}

const changesTable: Event = {
  what: "connections are in another table",
  happens: (bed) => bed.moveFlows(),
};

type Endpoint = "remote" | "second";

function request(
  { at, ip }: Words,
  endpoint: Endpoint,
  { flags = "A", hook = "ingress" as Step["hook"] } = {},
): Step {
  return {
    hook,
    packet: `${ip(at.client, at.vip)}/${tcp(KEPT, MOVING_PORT, flags)}`,
    verdict: "sent",
    becomes: `${ip(at.node, at[endpoint], { ttl: 63 })}/${tcp(KEPT, ENDPOINT_PORT, flags)}`,
  };
}

/** The first packet of another connection. */
function newcomer({ at, ip }: Words, hook: Step["hook"], endpoint: Endpoint): Step {
  return {
    hook,
    packet: `${ip(at.client, at.vip)}/${tcp(KEPT + 1, MOVING_PORT)}`,
    verdict: "sent",
    becomes: `${ip(at.node, at[endpoint], { ttl: 63 })}/${tcp(KEPT + 1, ENDPOINT_PORT)}`,
  };
}

function reply(
  { at, ip }: Words,
  endpoint: Endpoint,
  { flags = "A", hook = "ingress" as Step["hook"] } = {},
): Step {
  return {
    hook,
    packet: `${ip(at[endpoint], at.node)}/${tcp(ENDPOINT_PORT, KEPT, flags)}`,
    verdict: "sent",
    becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${tcp(MOVING_PORT, KEPT, flags)}`,
  };
}

function established(words: Words): Step[] {
  return [
    request(words, "remote", { flags: "S" }),
    reply(words, "remote", { flags: "SA" }),
    request(words, "remote"),
  ];
}

/** A life of one connection, and which endpoint its packets then get. */
interface Life {
  title: string;
  steps(words: Words, hook: "xdp" | "ingress"): (Step | Event)[];
}

const lives: Life[] = [
  {
    title: "an established connection stays with its endpoint, a new one gets the Service's",
    steps: (words, hook) => [
      ...established(words),
      moves,
      request(words, "remote", { hook }),
      reply(words, "remote", { hook }),
      newcomer(words, hook, "second"),
      movesBack,
    ],
  },
  {
    title: "while connections move to another table those that are there go on, and none begins",
    steps: (words, hook) => [
      request(words, "remote", { flags: "S" }),
      hold(60),
      changesTable,
      reply(words, "remote", { flags: "SA", hook }),
      request(words, "remote", { hook }),
      { ...newcomer(words, hook, "remote"), verdict: "dropped", reason: "flow_held" },
      hold(-1),
      newcomer(words, hook, "remote"),
    ],
  },
  {
    title: "a SYN sent again stays with the endpoint of the first",
    steps: (words, hook) => [
      request(words, "remote", { flags: "S", hook }),
      moves,
      request(words, "remote", { flags: "S", hook }),
      movesBack,
    ],
  },
  {
    title: "a SYN after both sides have closed chooses anew",
    steps: (words, hook) => [
      ...established(words),
      request(words, "remote", { flags: "FA" }),
      moves,
      request(words, "remote", { flags: "S", hook }),
      reply(words, "remote", { flags: "FA" }),
      request(words, "remote", { hook }),
      request(words, "second", { flags: "S", hook }),
      reply(words, "second", { flags: "SA", hook }),
      { hook: "ingress", packet: reply(words, "remote").packet, verdict: "next" },
      movesBack,
    ],
  },
  ...[
    { by: "the client", reset: (words: Words) => request(words, "remote", { flags: "R" }) },
    { by: "the endpoint", reset: (words: Words) => reply(words, "remote", { flags: "RA" }) },
  ].map(
    ({ by, reset }): Life => ({
      title: `a SYN after a reset by ${by} chooses anew`,
      steps: (words, hook) => [
        ...established(words),
        reset(words),
        moves,
        request(words, "remote", { hook }),
        request(words, "second", { flags: "S", hook }),
        reply(words, "second", { flags: "SA", hook }),
        movesBack,
      ],
    }),
  ),
  {
    title: "a SYN after a pause chooses anew, other packets after any pause do not",
    steps: (words, hook) => [
      ...established(words),
      moves,
      pass(10 * 3600),
      request(words, "remote", { hook }),
      pass(5),
      request(words, "second", { flags: "S", hook }),
      reply(words, "second", { flags: "SA", hook }),
      movesBack,
    ],
  },
];

/** The chunk that begins, closes or aborts an association. */
const CHUNKS = {
  init: "SCTPChunkInit()",
  shutdown: "SCTPChunkShutdown()",
  complete: "SCTPChunkShutdownComplete()",
  abort: "SCTPChunkAbort()",
  data: 'SCTPChunkData(data=b"1")',
} as const;

function association(
  { at, ip }: Words,
  endpoint: Endpoint,
  chunk: keyof typeof CHUNKS,
  isReply = false,
): Step {
  const write = (sport: number, dport: number) =>
    `SCTP(sport=${sport},dport=${dport},tag=7)/${CHUNKS[chunk]}`;
  const own = isReply
    ? `${ip(at[endpoint], at.node)}/${write(ENDPOINT_PORT, KEPT)}`
    : `${ip(at.client, at.vip)}/${write(KEPT, MOVING_PORT)}`;
  const becomes = isReply
    ? `${ip(at.vip, at.client, { ttl: 63 })}/${write(MOVING_PORT, KEPT)}`
    : `${ip(at.node, at[endpoint], { ttl: 63 })}/${write(KEPT, ENDPOINT_PORT)}`;
  return { hook: "xdp", packet: own, verdict: "sent", becomes };
}

const others: Case[] = [
  {
    title: "an INIT after a shutdown or an abort chooses anew, other chunks stay",
    steps: (words) => [
      association(words, "remote", "init"),
      association(words, "remote", "data", true),
      moves,
      association(words, "remote", "data"),
      association(words, "remote", "shutdown"),
      association(words, "remote", "shutdown", true),
      association(words, "second", "init"),
      association(words, "second", "data", true),
      movesBack,
      association(words, "second", "abort"),
      association(words, "second", "data"),
      association(words, "remote", "init"),
      association(words, "remote", "complete"),
      moves,
      association(words, "second", "init"),
      movesBack,
    ],
  },
  {
    title: "UDP stays while its endpoint does, however long it was silent",
    steps: ({ at, ip }) => {
      const asked: Step = {
        hook: "xdp",
        packet: `${ip(at.client, at.vip)}/${udp(KEPT, MOVING_PORT)}`,
        verdict: "sent",
        becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${udp(KEPT, ENDPOINT_PORT)}`,
      };
      return [asked, moves, pass(100), asked, pass(3000), asked, movesBack];
    },
  },
];

export const LIFE: readonly Case[] = [
  ...lives.flatMap(({ title, steps }) =>
    (["xdp", "ingress"] as const).map((hook) => ({
      title: `${hook}: ${title}`,
      steps: (words: Words) => steps(words, hook),
    })),
  ),
  ...others,
];
