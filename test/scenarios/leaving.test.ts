// Connections from outside whose endpoint leaves, with XDP and with TC: they stay while it is
// terminating; once it is gone UDP goes on at another one, from the same socket, and TCP is not
// moved (semantics §14). What `bpfsvc dump flows` says of them, with the agent alive and dead. And
// UDP that this node sends on from an address that leaves.
import test, { type ExecutionContext } from "ava";
import type { Flow } from "../../control/dataplane/flows.ts";
import { formatEndpoint } from "../../control/print.ts";
import { memberOf, nodePrefixes } from "../../lab/addresses.ts";
import type { FlowReport } from "../../lab/flows.ts";
import type { Helper } from "../../lab/host.ts";
import type { LabNode } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { ip } from "./devices.ts";
import {
  agentOptions,
  askFrom,
  type Bed,
  dumpFlows,
  ECHO_PORT,
  endpointsOf,
  FAMILIES,
  type Family,
  frontendOf,
  makeOutside,
  openOutside,
  type Placed,
  PORT,
  type Protocol,
} from "./outside.ts";
import { POD_PORT, type Stage } from "./stage.ts";

const labTest = needsLab(test.serial);

const BEDS: readonly (Bed & { title: string })[] = [
  { title: "routed, XDP", network: "routed", mode: "xdp", rpFilter: 1 },
  { title: "bridge, TC", network: "bridge", mode: "tc", rpFilter: 1 },
];

/** Services of one endpoint that leaves, and which one comes for it. */
const MOVES = [
  { number: 11, name: "far-leaves", leaves: "pod-b1", comes: "pod-a1" },
  { number: 12, name: "near-leaves", leaves: "pod-a1", comes: "pod-b1" },
] as const;
type Move = (typeof MOVES)[number];
const PATHS = { "pod-a1": "stack", "pod-b1": "redirect" } as const;
/** Two flows for each connection. */
const USED = 'bpfsvc_map_entries{map="svc_flows"}';
const TERMINATING = { ready: false, serving: true, terminating: true };

/** A connection that goes on all the time. */
interface Talk {
  move: Move;
  family: Family;
  protocol: Protocol;
  id: number;
}

class Play {
  readonly stage: Stage;
  readonly client: Helper;
  readonly talks: readonly Talk[];

  private constructor(stage: Stage, client: Helper, talks: readonly Talk[]) {
    this.stage = stage;
    this.client = client;
    this.talks = talks;
  }

  /** Everybody talks to the endpoint that will leave. */
  static async open(t: ExecutionContext, bed: Bed): Promise<Play> {
    const stage = await openOutside(bed);
    t.teardown(() => stage.close());
    for (const move of MOVES) await applyEndpoints(stage, move, [{ host: stage.pod(move.leaves) }]);
    await stage.startAgent(agentOptions(bed));
    const client = await stage.lab.outside.helper();
    const talks: Talk[] = [];
    for (const move of MOVES)
      for (const family of FAMILIES)
        for (const protocol of ["TCP", "UDP"] as const) {
          const { address } = vipOf(stage, { move, family });
          const port = protocol === "TCP" ? ECHO_PORT : PORT;
          const id = await client.startFlow({ protocol, address, port, bytes: 100 });
          talks.push({ move, family, protocol, id });
        }
    return new Play(stage, client, talks);
  }

  async report({ id }: Talk): Promise<FlowReport> {
    return this.client.reportFlow(id);
  }

  /** Waits until every talk has had more answers than now. */
  async goesOn(): Promise<void> {
    const before = await Promise.all(this.talks.map((talk) => this.report(talk)));
    for (const [index, talk] of this.talks.entries())
      await waitFor(async () => (await this.report(talk)).rounds > before[index]!.rounds + 2, {
        what: `${titleOf(talk)} to go on`,
      });
  }

  /** What `dump flows` prints. */
  async dump(...flags: string[]): Promise<string> {
    return dumpFlows(this.stage, ...flags);
  }

  /** What `dump flows` should say of a talk while this endpoint has it, but for idleSeconds. */
  async expected(talk: Talk, endpoint: "pod-a1" | "pod-b1"): Promise<Omit<Flow, "idleSeconds">> {
    const { family, protocol, move } = talk;
    const { stage } = this;
    const { local } = await this.report(talk);
    const client = { address: stage.lab.outside.addresses[family], port: local.port };
    const isTcp = protocol === "TCP";
    const path = PATHS[endpoint];
    return {
      protocol,
      client,
      frontend: { ...vipOf(stage, { move, family }), port: isTcp ? ECHO_PORT : PORT },
      backend: {
        address: stage.pod(endpoint).addresses[family],
        port: isTcp ? ECHO_PORT : POD_PORT,
      },
      source: path === "stack" ? client : { ...client, address: stage.node.addresses[family] },
      path,
      state: "established",
    };
  }

  /** The clients of those connections to a Service alone that are like this one. */
  async asked(name: string, flow: Omit<Flow, "idleSeconds">): Promise<Flow["client"][]> {
    const { protocol, client, frontend, backend } = flow;
    const filter = ["--client", formatEndpoint(client), "--frontend", formatEndpoint(frontend)];
    filter.push("--endpoint", backend.address, "--protocol", protocol.toLowerCase());
    const { flows } = JSON.parse(await this.dump(name, "-o", "json", ...filter)) as {
      flows: Flow[];
    };
    return flows.map((each) => each.client);
  }

  /** Waits until the agent's metrics have each kind of talk as often as there are such talks. */
  async isCounted(): Promise<void> {
    const { node } = this.stage;
    const series = FAMILIES.flatMap((family) =>
      ["TCP", "UDP"].map((protocol) => {
        const labels = [`ip_family="IPv${family.slice(-1)}"`, `protocol="${protocol}"`];
        const of = this.talks.filter(
          (talk) => talk.family === family && talk.protocol === protocol,
        );
        return `bpfsvc_flows{${labels},state="established"} ${of.length}`;
      }),
    );
    const isIn = async () => {
      const url = "http://127.0.0.1:10249/metrics";
      const { stdout } = await node.run(["curl", "-s", "-m", "5", url]);
      const lines = new Set(stdout.split("\n"));
      return (
        series.every((line) => lines.has(line)) && lines.has(`${USED} ${2 * this.talks.length}`)
      );
    };
    await waitFor(isIn, { what: `${series.join(", ")} in /metrics` });
  }

  /** Compares the dump with all talks, each at the endpoint given for it. */
  async check(t: ExecutionContext, at: (talk: Talk) => "pod-a1" | "pod-b1"): Promise<void> {
    const { flows } = JSON.parse(await this.dump("-o", "json")) as { flows: Flow[] };
    for (const talk of this.talks) {
      const expected = await this.expected(talk, at(talk));
      const found = flows.filter(
        ({ protocol, client }) =>
          protocol === talk.protocol &&
          client.port === expected.client.port &&
          client.address === expected.client.address,
      );
      t.is(found.length, 1, titleOf(talk));
      const { idleSeconds, source, ...rest } = found[0]!;
      const { name } = talk.move;
      t.deepEqual(await this.asked(name, expected), [expected.client], titleOf(talk));
      const other = MOVES.find((move) => move.name !== name)!.name;
      t.deepEqual(await this.asked(other, expected), [], titleOf(talk));
      const { source: wantedSource, ...wanted } = expected;
      t.deepEqual(rest, wanted, titleOf(talk));
      // The source's port is the client's own only where the host never takes that itself.
      t.is(source.address, wantedSource.address, titleOf(talk));
      if (rest.path === "stack") t.is(source.port, wantedSource.port, titleOf(talk));
      t.true(idleSeconds <= 3, `${titleOf(talk)}: ${idleSeconds} s`);
    }
  }
}

function titleOf({ move, family, protocol }: Talk): string {
  return `${move.name} ${protocol} ${family}`;
}

function vipOf({ node }: Stage, { move, family }: { move: Move; family: Family }) {
  return frontendOf(move.number, { frontend: "vip", family, node });
}

async function applyEndpoints(stage: Stage, move: Move, placed: readonly Placed[]): Promise<void> {
  const { number, name } = move;
  const endpoints = endpointsOf(stage, placed);
  await stage.apply(name, makeOutside(name, { number, endpoints }));
}

/** Waits until somebody who comes anew is answered by the endpoint that came. */
async function comesIn({ stage, client }: Play, move: Move): Promise<void> {
  for (const family of FAMILIES)
    await waitFor(
      async () => {
        const seen = await askFrom(client, vipOf(stage, { move, family }), { protocol: "UDP" });
        return "identity" in seen && seen.identity === move.comes;
      },
      { what: `${move.comes} to be chosen over ${family}` },
    );
}

/** The endpoint that leaves is terminating: whoever talks to it stays, others get the new one. */
async function terminate(t: ExecutionContext, play: Play): Promise<void> {
  const { stage } = play;
  for (const move of MOVES) {
    const leaving = { host: stage.pod(move.leaves), conditions: TERMINATING };
    await applyEndpoints(stage, move, [leaving, { host: stage.pod(move.comes) }]);
  }
  for (const move of MOVES) await comesIn(play, move);
  await play.goesOn();
  await play.check(t, ({ move }) => move.leaves);
}

/** It is gone: UDP goes on at the new one, by the same socket. */
async function leave(t: ExecutionContext, play: Play): Promise<void> {
  const { stage } = play;
  for (const move of MOVES) await applyEndpoints(stage, move, [{ host: stage.pod(move.comes) }]);
  for (const talk of play.talks.filter(({ protocol }) => protocol === "UDP"))
    await waitFor(async () => (await play.report(talk)).identities.includes(talk.move.comes), {
      what: `${titleOf(talk)} to get a living endpoint`,
    });
  await play.goesOn();
  await play.check(t, ({ move, protocol }) => (protocol === "UDP" ? move.comes : move.leaves));
}

/** The table says the same, and nothing of it needs an agent. */
async function dumpWithout(t: ExecutionContext, play: Play, bed: Bed): Promise<void> {
  const { stage } = play;
  await stage.agent.kill();
  await play.goesOn();
  await play.check(t, ({ move }) => move.leaves);
  const table = (await play.dump()).split("\n").map((line) => line.split(/ {2,}/));
  t.deepEqual(table[0], [
    "PROTOCOL",
    "CLIENT",
    "FRONTEND",
    "SEEN AS",
    "ENDPOINT",
    "PATH",
    "STATE",
    "IDLE",
  ]);
  const { ipv4 } = stage.lab.outside.addresses;
  const rows = table.filter(([protocol, client]) => protocol === "UDP" && client?.includes(ipv4));
  t.deepEqual(
    rows.map(([, , frontend, , endpoint, path, state]) => [frontend, endpoint, path, state]),
    MOVES.map((move) => [
      `${vipOf(stage, { move, family: "ipv4" }).address}:${PORT}`,
      `${stage.pod(move.leaves).addresses.ipv4}:${POD_PORT}`,
      PATHS[move.leaves],
      "established",
    ]),
  );
  const nowhere = await stage.command("dump", "flows", "--pins", stage.lab.nodes["node-b"]!.pins);
  t.is(nowhere.code, 3);
  t.regex(nowhere.stderr, /[Nn]othing/);
  await stage.startAgent(agentOptions(bed));
  // An agent sweeps when it starts, and counts what it leaves.
  await play.isCounted();
}

for (const bed of BEDS)
  labTest(
    `${bed.title}: UDP leaves an endpoint that is gone, TCP stays, and both are dumped`,
    async (t) => {
      const play = await Play.open(t, bed);
      await play.check(t, ({ move }) => move.leaves);
      await dumpWithout(t, play, bed);
      await terminate(t, play);
      await leave(t, play);
      for (const talk of play.talks) {
        const report = await play.client.stopFlow(talk.id);
        const { leaves, comes } = talk.move;
        const identities = talk.protocol === "UDP" ? [leaves, comes] : [leaves];
        t.like(report, { identities, wrong: 0, broken: undefined }, titleOf(talk));
        t.true(report.lost <= 1, `${titleOf(talk)} lost ${report.lost}`);
      }
      t.regex(play.stage.agentOutput(), /Forgot \d+ UDP flows whose endpoint or source has left/);
    },
  );

/** An address that a node gets beside its own, and the length of its prefix. */
const FURTHER = memberOf(nodePrefixes(), 77);
/** An address is waited for: it may come back. */
const SOON = { timeoutSeconds: 30 };
const LENGTHS = { ipv4: "/24", ipv6: "/64" };

/** Has a node reach an endpoint from a further address of its own. */
async function addSource(node: LabNode, family: Family, endpoint: string): Promise<void> {
  const { stdout } = await node.run(["ip", "-j", "route", "get", endpoint]);
  const [{ gateway }] = JSON.parse(stdout) as [{ gateway: string }];
  const source = FURTHER[family];
  const address = `${source}${LENGTHS[family]} dev eth0${family === "ipv6" ? " nodad" : ""}`;
  const route = `${endpoint} via ${gateway} dev eth0 src ${source}`;
  await ip(node, `address add ${address}`, `route add ${route}`);
}

labTest("UDP goes on from another address of the node when the one it had is gone", async (t) => {
  const bed = { network: "routed", mode: "xdp", rpFilter: 1 } as const;
  const stage = await openOutside(bed);
  t.teardown(() => stage.close());
  const { node, lab } = stage;
  const pod = stage.pod("pod-b1");
  for (const family of FAMILIES) await addSource(node, family, pod.addresses[family]);
  await stage.apply(
    "web",
    makeOutside("web", { number: 11, endpoints: endpointsOf(stage, [pod]) }),
  );
  await stage.startAgent(agentOptions(bed));
  const client = await lab.outside.helper();
  for (const family of FAMILIES) {
    // A client such as a resolver or a phone, which always asks from one port.
    const local = { address: lab.outside.addresses[family], port: 5060 };
    const vip = frontendOf(11, { frontend: "vip", family, node });
    const seenFrom = async () => {
      const seen = await askFrom(client, vip, { protocol: "UDP", local, timeoutSeconds: 1 });
      return "client" in seen ? seen.client.address : undefined;
    };
    t.is(await seenFrom(), FURTHER[family]);
    await ip(node, `address delete ${FURTHER[family]}${LENGTHS[family]} dev eth0`);
    const isElsewhere = async () => (await seenFrom()) === node.addresses[family];
    await waitFor(isElsewhere, { what: `${family} to go on from another address`, ...SOON });
  }
});
