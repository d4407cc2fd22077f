// A build with other struct layouts takes over from this one and gives back, and so do maps of
// other sizes, under load, by kill and by SIGTERM, and killed at every step: no connect fails, no
// reply comes from a stranger, no count goes back.
import { existsSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { reason } from "../../bindings/layout.ts";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Running } from "../../lab/host.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import type { Address } from "../../lab/sockets.ts";
import { waitFor } from "../../lab/wait.ts";
import { Load } from "../fire/loader.ts";
import { makeService, makeSlices } from "./objects.ts";
import { COMMAND, POD_PORT, Stage, whoTcp } from "./stage.ts";
import { buildVariant, type Change, type Variant } from "./variant.ts";

const labTest = needsLab(test.serial);

const MAPS = "bpf/maps.h";
const { REASON_COUNT } = reason;
const SERVICES = { web: "10.96.0.1", sticky: "10.96.0.2", dns: "10.96.0.3" } as const;
/** For its external address a Service has a table that is too large for its row. */
const SPECS = {
  web: { externalIPs: ["192.0.2.1"] },
  sticky: { sessionAffinity: "ClientIP" },
  dns: {},
};
const SERVERS = ["pod-b", "pod-c"] as const;
const CONNECTS_PER_SECOND = 600;
const DATAGRAM_PAUSE_MS = 5;

/** Rows, slots, buckets and hashes are others; what programs alone write is the same. */
const LAYOUT_CHANGES: readonly Change[] = [
  [
    MAPS,
    "\t__u64 connections;\n\t__u16 hop_used;",
    "\t__u64 novelty[7];\n\t__u64 connections;\n\t__u16 hop_used;",
  ],
  [
    MAPS,
    "struct service {\n\t__u64 table[TABLE_COUNT];",
    "struct service {\n\t__u64 novelty[3];\n\t__u64 departed;\n\t__u64 table[TABLE_COUNT];",
  ],
  [MAPS, "\t__u64 departed; /* connections", "\t__u64 another_novelty; /* connections"],
  [MAPS, "SLOT_BACKEND_BITS = 22", "SLOT_BACKEND_BITS = 21"],
  [MAPS, "SLOT_GENERATION_BITS = 10", "SLOT_GENERATION_BITS = 11"],
  [MAPS, "FRONTEND_BUCKETS = 65536", "FRONTEND_BUCKETS = 32768"],
  ["bpf/address.h", "0x2c1b3c6d", "0x3c6ef35f"],
  ["control/dataplane/maps.ts", "0x2c1b3c6d", "0x3c6ef35f"],
];

/** What sockets remember is another too, and affinity, and the reasons. */
const RECORD_CHANGES: readonly Change[] = [
  [MAPS, "struct record {\n", "struct record {\n\t__u64 novelty;\n"],
  [
    MAPS,
    "\t__u64 reference; /* backend id | generation << 32 */\n\t__u64 last_seen_ns;",
    "\t__u64 last_seen_ns;\n\t__u64 novelty;\n\t__u64 reference;",
  ],
  [MAPS, "\tREASON_REFUSED = 0,", `\tREASON_NOVEL = ${REASON_COUNT},\n\tREASON_REFUSED = 0,`],
  [MAPS, `REASON_COUNT = ${REASON_COUNT},`, `REASON_COUNT = ${REASON_COUNT + 1},`],
];

/** Steps of a take-over, at each of which the agent kills itself if BPFSVC_DIE names it. */
const STEPS = [
  "created",
  "copied",
  "claimed",
  "at recvmsg4",
  "at connect4",
  "at sendmsg6",
  "attached",
  "counted",
  "settled",
] as const;
/** The steps that are others where sockets' records are. */
const RECORD_STEPS = [
  "claimed",
  "kept recvmsg4",
  "kept getpeername6",
  "at connect4",
  "settled",
] as const;

/** The steps to maps of other sizes. */
const SIZE_STEPS = ["aside", "aside served", ...STEPS] as const;
/** The steps at which the earlier maps are in force still. */
const BEFORE_CLAIM: ReadonlySet<string> = new Set(SIZE_STEPS.slice(0, 4));
const SIZES = [
  ["--max-services", "1000", "--max-backends", "4000", "--max-slots", "5000000"],
  ["--max-services", "70000", "--max-frontends", "1000", "--max-flows", "1000"],
];

const PINS = "control/dataplane/pins.ts";
const TAKEOVER = "control/dataplane/takeover.ts";
const ATTACH = "control/dataplane/attach.ts";
const STEP_CHANGES: readonly Change[] = [
  [PINS, "    this.serve(name);\n", `${die("aside")}$&${die("aside served")}`],
  [TAKEOVER, "    copyContent(former, kernel.storage);", `${die("created")}$&`],
  [TAKEOVER, "  const others = isOwnLayout(serving)\n", `${die("copied")}$&`],
  [TAKEOVER, "pins.serve();\n", `$&${die("claimed")}`],
  [ATTACH, "      existing.update(program);", `${die("kept", " + hook")}$&`],
  [ATTACH, "    const program = loaded.object", `${die("at", " + hook")}$&`],
  [ATTACH, "  meta.programs = programsHash(loaded.rodata);\n", `$&${die("attached")}`],
  [TAKEOVER, "  meta.mark(false);\n", `${die("counted")}$&`],
  [TAKEOVER, "    pins.removeMaps(leftover.layout);", `${die("settled")}$&`],
];

function die(step: string, rest = ""): string {
  const name = rest === "" ? `"${step}"` : `"${step} "${rest}`;
  return `if (process.env.BPFSVC_DIE === ${name}) process.kill(process.pid, "SIGKILL");\n`;
}

/** Changes that keep what they replace where they say $&. */
function inserted(changes: readonly Change[]): Change[] {
  return changes.map(([file, from, to]) => [file, from, to.replace("$&", () => from)]);
}

const variants: Variant[] = [];
let sameRecords: string;
let otherRecords: string;
let sameLayouts: string;

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  const steps = inserted(STEP_CHANGES);
  for (const changes of [LAYOUT_CHANGES, [...LAYOUT_CHANGES, ...RECORD_CHANGES], []])
    variants.push(await buildVariant([...changes, ...steps]));
  const commands = variants.map(({ command }) => command);
  [sameRecords, otherRecords, sameLayouts] = commands as [string, string, string];
});

test.after.always(async () => {
  for (const variant of variants) await variant.remove();
});

/** A stage with Services of each kind, served by an agent of this build. */
async function openStage(t: ExecutionContext): Promise<Stage> {
  const stage = await Stage.open(["client", ...SERVERS]);
  t.teardown(() => stage.close());
  const endpoints = SERVERS.map((pod) => stage.pod(pod).addresses.ipv4);
  for (const [name, address] of Object.entries(SERVICES)) {
    const protocol = name === "dns" ? ("UDP" as const) : ("TCP" as const);
    const port = { name: "main", protocol, port: 80 };
    await stage.apply(name, [
      makeService({
        name,
        addresses: [address],
        ports: [port],
        spec: SPECS[name as keyof typeof SERVICES],
      }),
      ...makeSlices({ service: name, ports: [{ ...port, port: POD_PORT }], endpoints }),
    ]);
  }
  await stage.startAgent();
  return stage;
}

/** Starts an agent of some build and waits until it serves. */
function startAgent(stage: Stage, command: string, flags: readonly string[] = []) {
  return stage.node.start([process.execPath, command, "run", ...stage.agentFlags, ...flags], {
    ready: /serving \d/,
    timeoutSeconds: 60,
  });
}

/** Starts an agent that kills itself at a step, and waits for that. */
async function dieAt(
  stage: Stage,
  { command, step, flags = [] }: { command: string; step: string; flags?: readonly string[] },
): Promise<void> {
  const run = [process.execPath, command, "run", ...stage.agentFlags, ...flags];
  const agent = await stage.node.start(run, { env: { BPFSVC_DIE: step } });
  await waitFor(() => agent.ended(), { what: `death at "${step}"`, timeoutSeconds: 60 });
}

/** One UDP socket that asks and is answered all the time, for as long as the stage is open. */
class Talker {
  readonly senders = new Set<string>();
  /** Who answered, whenever it was another than before. */
  readonly identities: string[] = [];
  readonly errors: string[] = [];
  exchanges = 0;
  #goesOn = true;
  #ended: Promise<void>;

  private constructor(helper: Helper, fd: number, isConnected: boolean) {
    this.#ended = this.#talk(helper, { fd, isConnected });
  }

  static async open(stage: Stage, options: { isConnected: boolean }): Promise<Talker> {
    const helper = await stage.pod("client").helper();
    const fd = await helper.sockets.open({ protocol: "UDP", family: 4, timeoutSeconds: 3 });
    if (options.isConnected) await helper.sockets.connect(fd, target);
    return new Talker(helper, fd, options.isConnected);
  }

  async stop(): Promise<this> {
    this.#goesOn = false;
    await this.#ended;
    return this;
  }

  async #talk(helper: Helper, options: { fd: number; isConnected: boolean }): Promise<void> {
    const { fd, isConnected } = options;
    while (this.#goesOn) {
      try {
        if (isConnected) await helper.sockets.send(fd, "hello");
        else await helper.sockets.sendTo(fd, { ...target, payload: "hello" });
        const { payload, from } = await helper.sockets.receive(fd);
        const { identity } = JSON.parse(payload) as Answer;
        if (this.identities.at(-1) !== identity) this.identities.push(identity);
        this.senders.add(`${from?.address}|${from?.port}`);
        if (isConnected) this.senders.add(show(await helper.sockets.peerAddress(fd)));
      } catch (error) {
        this.errors.push(String((error as { code?: string }).code ?? error));
      }
      this.exchanges++;
      await delay(DATAGRAM_PAUSE_MS);
    }
    await helper.close();
  }
}

const target: Address = { address: SERVICES.dns, port: 80 };

function show({ address, port }: Address): string {
  return `${address}|${port}`;
}

/** Endpoints as a load wants them. */
function endpointsOf(stage: Stage, pods: readonly string[] = SERVERS): string[] {
  return pods.map((pod) => `${stage.pod(pod).addresses.ipv4}|${POD_PORT}`);
}

/** Everything that must not notice. */
class Bystanders {
  readonly stage: Stage;
  readonly load: Load;
  readonly unconnected: Talker;
  readonly connected: Talker;

  private constructor(stage: Stage, place: Pick<Bystanders, "load" | "unconnected" | "connected">) {
    this.stage = stage;
    this.load = place.load;
    this.unconnected = place.unconnected;
    this.connected = place.connected;
  }

  /** Affinity has chosen before: from now on only that endpoint will do. */
  static async start(t: ExecutionContext, stage: Stage): Promise<Bystanders> {
    const client = await stage.client(stage.pod("client"));
    const pinned = await whoTcp(client, { address: SERVICES.sticky, port: 80 });
    const questions = [
      { address: SERVICES.web, port: 80, endpoints: endpointsOf(stage) },
      { address: SERVICES.sticky, port: 80, endpoints: endpointsOf(stage, [pinned]) },
    ];
    const perSecond = CONNECTS_PER_SECOND;
    const bystanders = new Bystanders(stage, {
      load: new Load(stage.pod("client"), { questions, perSecond }),
      unconnected: await Talker.open(stage, { isConnected: false }),
      connected: await Talker.open(stage, { isConnected: true }),
    });
    t.teardown(async () => {
      await bystanders.unconnected.stop();
      await bystanders.connected.stop();
    });
    return bystanders;
  }

  /** Stops all. Fails the test if anyone noticed; gives the number of connections it made. */
  async end(t: ExecutionContext): Promise<number> {
    const report = await this.load.stop();
    t.deepEqual(report.failures, []);
    t.true(report.connects > 1000);
    for (const talker of [await this.unconnected.stop(), await this.connected.stop()]) {
      t.deepEqual(talker.errors, []);
      t.deepEqual([...talker.senders], [show(target)]);
      t.true(talker.exchanges > 50);
    }
    t.is(this.connected.identities.length, 1);
    const perSecond = Math.round(report.connects / report.seconds);
    t.log(`${report.connects} connects, ${perSecond} a second`);
    return report.connects;
  }
}

/** Connections of TCP Services, as some build's dump tells; undefined if it is not its turn. */
async function countConnections(stage: Stage, command: string): Promise<number | undefined> {
  const flags = ["--pins", stage.node.pins, "-o", "json"];
  const { code, stdout } = await stage.node.run([process.execPath, command, "dump", ...flags], {
    timeoutSeconds: 30,
  });
  if (code !== 0) return undefined;
  const { services } = JSON.parse(stdout) as {
    services: { protocol: string; connections: number }[];
  };
  return services
    .filter(({ protocol }) => protocol === "TCP")
    .reduce((sum, { connections }) => sum + connections, 0);
}

/** Asks the dumps of several builds in turn; their counts must only grow. */
async function watchCounts(
  t: ExecutionContext,
  stage: Stage,
  options: { commands: readonly string[]; until: Promise<unknown> },
): Promise<void> {
  let isOver = false;
  void options.until.finally(() => {
    isOver = true;
  });
  let last = 0;
  while (!isOver)
    for (const command of options.commands) {
      const count = await countConnections(stage, command);
      if (count === undefined) continue;
      t.true(count >= last, `${count} connections after ${last}`);
      last = count;
    }
}

/** The folders and links of the pin folder, without what is in them. */
async function pinned(stage: Stage): Promise<string[]> {
  const { stdout } = await stage.node.run(["ls", stage.node.pins]);
  return stdout.trim().split("\n");
}

async function hasSettled(stage: Stage): Promise<void> {
  const pins = new Pins(stage.node.pins);
  await waitFor(() => pins.layouts.length === 1, { what: "the other maps to be removed" });
}

for (const end of ["kill", "stop"] as const)
  labTest(`after ${end} a build with other layouts takes over, and gives back`, async (t) => {
    if (whyNoLab() !== undefined) return;
    const stage = await openStage(t);
    const bystanders = await Bystanders.start(t, stage);
    const agents: Running[] = [stage.agent];
    const takeOvers = (async () => {
      for (const command of [sameRecords, COMMAND, sameRecords, COMMAND]) {
        await agents.at(-1)?.[end]();
        agents.push(await startAgent(stage, command));
        await hasSettled(stage);
      }
    })();
    const commands = [COMMAND, sameRecords];
    await watchCounts(t, stage, { commands, until: takeOvers });
    await takeOvers;
    const connects = await bystanders.end(t);
    t.is(bystanders.unconnected.identities.length, 1, "the unconnected socket kept its endpoint");
    t.is(await countConnections(stage, COMMAND), connects + 1);
    t.deepEqual(
      (await pinned(stage)).filter((name) => /^readers/.test(name)),
      [],
    );
  });

labTest("a build whose records are others takes over, and gives back", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const bystanders = await Bystanders.start(t, stage);
  let { agent } = stage;
  for (const command of [otherRecords, COMMAND, otherRecords, COMMAND]) {
    await agent.kill();
    agent = await startAgent(stage, command);
    await hasSettled(stage);
    // Half of those with another form of records, all of them in the end.
    t.is((await pinned(stage)).filter((name) => /^readers_/.test(name)).length, 1);
  }
  const connects = await bystanders.end(t);
  const picks = bystanders.unconnected.identities.length - 1;
  t.true(picks <= 4, `a socket that sends picks at most once at each change, not ${picks} times`);
  t.is(await countConnections(stage, COMMAND), connects + 1);
  const late = await Talker.open(stage, { isConnected: true });
  t.deepEqual([...(await late.stop()).errors], []);
  await agent.stop();
  const cleaned = await stage.command("cleanup", "--pins", stage.node.pins);
  t.is(cleaned.code, 0, cleaned.stderr);
  t.deepEqual(await pinned(stage).catch(() => []), [""]);
});

for (const isSame of [true, false])
  labTest(
    `killed at any step, either build goes on: ${isSame ? "same" : "other"} records`,
    async (t) => {
      const commandOf = () => (isSame ? sameRecords : otherRecords);
      if (whyNoLab() !== undefined) return;
      const stage = await openStage(t);
      const bystanders = await Bystanders.start(t, stage);
      await stage.agent.kill();
      const client = await stage.client(stage.pod("client"));
      const steps = isSame ? STEPS : RECORD_STEPS;
      for (const [index, step] of steps.entries()) {
        await dieAt(stage, { command: commandOf(), step });
        t.regex(await whoTcp(client, { address: SERVICES.web, port: 80 }), /^pod-/, step);
        // Which build comes next alternates; in the end this one serves again.
        for (const command of index % 2 === 0 ? [COMMAND] : [commandOf(), COMMAND]) {
          const agent = await startAgent(stage, command);
          await hasSettled(stage);
          await agent.kill();
        }
      }
      const connects = await bystanders.end(t);
      t.is(await countConnections(stage, COMMAND), connects + 1 + steps.length);
      if (isSame) t.is(bystanders.unconnected.identities.length, 1);
    },
  );

labTest("killed at any step to maps of other sizes, the next agent goes on", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const bystanders = await Bystanders.start(t, stage);
  await stage.agent.kill();
  const client = await stage.client(stage.pod("client"));
  for (const [index, step] of SIZE_STEPS.entries()) {
    const [wanted, others] = index % 2 === 0 ? SIZES : SIZES.toReversed();
    await dieAt(stage, { command: sameLayouts, step, flags: wanted! });
    t.regex(await whoTcp(client, { address: SERVICES.web, port: 80 }), /^pod-/, step);
    if (BEFORE_CLAIM.has(step)) t.true((await countConnections(stage, COMMAND))! > 0, step);
    for (const flags of index % 3 === 0 ? [[], wanted] : [others, wanted]) {
      const agent = await startAgent(stage, COMMAND, flags);
      await hasSettled(stage);
      await agent.kill();
    }
  }
  const connects = await bystanders.end(t);
  t.is(await countConnections(stage, COMMAND), connects + 1 + SIZE_STEPS.length);
  t.is(bystanders.unconnected.identities.length, 1);
  t.deepEqual(
    (await pinned(stage)).filter((name) => /^(readers|maps_.*_\d)/.test(name)),
    [],
  );
});

labTest("killed at random moments by random builds, nobody notices", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const bystanders = await Bystanders.start(t, stage);
  await stage.agent.kill();
  const builds = [COMMAND, sameRecords, otherRecords];
  const duration = await timeOf(() => startAgent(stage, sameRecords).then((agent) => agent.kill()));
  for (let round = 0; round < 10; round++) {
    const command = builds[Math.floor(Math.random() * builds.length)]!;
    const flags = [process.execPath, command, "run", ...stage.agentFlags];
    const agent = await stage.node.start(flags);
    await delay(Math.random() * duration * 1.2);
    await agent.kill();
  }
  for (const command of [sameRecords, COMMAND]) {
    const agent = await startAgent(stage, command);
    await hasSettled(stage);
    await agent.kill();
  }
  await bystanders.end(t);
});

async function timeOf(action: () => Promise<unknown>): Promise<number> {
  const start = performance.now();
  await action();
  return performance.now() - start;
}

labTest("without CAP_SYS_ADMIN all is programmed anew, and connects go on", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const load = new Load(stage.pod("client"), {
    questions: [{ address: SERVICES.web, port: 80, endpoints: endpointsOf(stage) }],
    perSecond: CONNECTS_PER_SECOND,
  });
  const unconnected = await Talker.open(stage, { isConnected: false });
  await stage.agent.kill();
  const flags = [process.execPath, sameRecords, "run", ...stage.agentFlags];
  const agent = await stage.node.start(["setpriv", "--bounding-set=-sys_admin", ...flags], {
    ready: /serving \d/,
    timeoutSeconds: 60,
  });
  t.regex(agent.output(), /Cannot read what another build .* EPERM.*programmed anew/);
  await hasSettled(stage);
  const { failures } = await load.stop();
  t.deepEqual(failures, []);
  // A reply on its way in that moment may show the endpoint: the record of it cannot be read.
  t.true((await unconnected.stop()).senders.has(show(target)));
});

labTest("a dump of a build that does not serve says so", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const flags = ["dump", "--pins", stage.node.pins];
  const outcome = await stage.node.run([process.execPath, sameRecords, ...flags]);
  t.is(outcome.code, 1);
  t.regex(outcome.stderr, /served by a build of bpfsvc with other map layouts: use the command of/);
});

labTest("the name of the maps in force is put back, and a dump is not kept waiting", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const pins = new Pins(stage.node.pins);
  const { serving } = pins;
  await stage.node.run(["rm", path.join(pins.folder, "serving"), pins.linkPath("connect4")]);
  await waitFor(() => pins.serving === serving, { what: "the name to be back" });
  await waitFor(() => existsSync(pins.linkPath("connect4")), { what: "the link to be back" });
  t.is(DumpReader.open(pins)!.sequence % 2n, 0n, "nothing is being written");
});

labTest("maps that are too small for what is in use are refused, naming the flag", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await openStage(t);
  const client = await stage.client(stage.pod("client"));
  await stage.agent.kill();
  for (const flag of ["max-backends", "max-services", "max-slots"]) {
    const command = [process.execPath, sameRecords, "run", ...stage.agentFlags, `--${flag}`, "1"];
    const outcome = await stage.node.run(command, { timeoutSeconds: 30 });
    t.is(outcome.code, 1, flag);
    t.regex(outcome.stderr, new RegExp(`give "--${flag}" at least \\d+, or leave it out`));
    t.regex(await whoTcp(client, { address: SERVICES.web, port: 80 }), /^pod-/);
  }
  t.is(new Pins(stage.node.pins).layouts.length, 1, "nothing is left behind");
});
