// The agent killed with -9 at random moments, many times, under load and while manifests change: no
// connection fails, and each agent that comes after makes the kernel say what the manifests say.
import path from "node:path";
import { setTimeout as delay, setImmediate as nextTurn } from "node:timers/promises";
import test from "ava";
import { BpfMap } from "../../bindings/map.ts";
import { Meta } from "../../control/dataplane/kernel.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Host, Running } from "../../lab/host.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { COMMAND, Stage } from "../scenarios/stage.ts";
import { KernelContents, wantedContents } from "./contents.ts";
import { Edits } from "./edits.ts";
import { Load } from "./loader.ts";

const labTest = needsLab(test.serial as typeof test);
/** How often the agent is killed; BPFSVC_KILLS makes it less. */
const KILLS = Math.min(200, Number(process.env.BPFSVC_KILLS ?? 200));
const FIRST_KILLS = 12;
const PER_SECOND = 1200;
/** Fewer would not show that connections are made while the agent is dead. */
const LEAST_PER_KILL = 10;
/** An agent that starts is killed within this time; ready it is after about 400 ms. */
const START_MILLISECONDS = 600;
const SERVING_MILLISECONDS = 200;
/** When an agent is killed: within so many milliseconds, or as soon as it writes. */
const MOMENTS = [SERVING_MILLISECONDS, START_MILLISECONDS, "writing"] as const;
const SIZES = ["--max-frontends", "128", "--max-services", "64", "--max-backends", "256"];
const SLOTS = ["--max-slots", "8192"];

async function serve(pod: Host): Promise<void> {
  const helper = await pod.helper();
  for (const address of [pod.addresses.ipv4, pod.addresses.ipv6])
    for (const port of Edits.ports) await helper.serveTcp({ identity: pod.name, address, port });
}

function spawnAgent(stage: Stage): Promise<Running> {
  const command = [process.execPath, COMMAND, "run", ...stage.agentFlags, ...SIZES, ...SLOTS];
  return stage.node.start(command);
}

async function untilServing(agent: Running): Promise<void> {
  await waitFor(() => agent.ended() || /serving/.test(agent.output()), {
    what: "the agent to serve",
    timeoutSeconds: 30,
  });
  if (!/serving/.test(agent.output())) throw new Error(`The agent ended:\n${agent.output()}`);
}

/** Returns at the beginning of a write, or after a second without one. */
async function untilWriting(kernel: KernelContents): Promise<void> {
  const end = performance.now() + 1000;
  while (!kernel.isChanging && performance.now() < end) await nextTurn();
}

labTest("an agent killed again and again loses no connection and no change", async (t) => {
  t.timeout(600_000);
  const stage = await Stage.open(["client", "pod-b", "pod-c"]);
  t.teardown(() => stage.close());
  const pods = ["pod-b", "pod-c"].map((name) => stage.pod(name));
  await Promise.all(pods.map(serve));
  const edits = new Edits(
    stage,
    pods.map(({ addresses }) => addresses),
  );
  t.teardown(() => edits.pause());
  await edits.begin();
  let agent = await spawnAgent(stage);
  await untilServing(agent);
  const kernel = new KernelContents(new Pins(stage.node.pins));
  const { questions } = edits;
  const load = new Load(stage.pod("client"), { questions, perSecond: PER_SECOND });
  const done = { compared: 0, cutShort: 0 };
  for (let kills = 0; kills < KILLS; kills++) {
    edits.resume();
    const moment = MOMENTS[kills % MOMENTS.length]!;
    if (moment === "writing") await untilWriting(kernel);
    else await delay(Math.random() * moment);
    await agent.kill();
    await edits.pause();
    if (kernel.isChanging) done.cutShort++;
    agent = await spawnAgent(stage);
    // The next is killed while it starts, and the one after it is compared.
    if (MOMENTS[(kills + 1) % MOMENTS.length] === START_MILLISECONDS) continue;
    await untilServing(agent);
    t.deepEqual(await kernel.read(), await wantedContents(stage.folder, "node-a"));
    done.compared++;
  }
  const report = await load.stop();
  await agent.kill();
  t.log(`${edits.count} edits`, JSON.stringify(done), JSON.stringify(report));
  t.is(report.failed, 0);
  t.true(report.connects >= KILLS * LEAST_PER_KILL);
});

labTest("maps that an agent left in the middle of writing are whole after a start", async (t) => {
  const stage = await Stage.open(["client"]);
  t.teardown(() => stage.close());
  const first = await spawnAgent(stage);
  await untilServing(first);
  await first.kill();
  const pins = new Pins(stage.node.pins);
  const map = BpfMap.openPinned(pins.mapPath("svc_meta"));
  new Meta(map, { readOnly: false }).mark(true);
  map.close();
  const kernel = new KernelContents(pins);
  t.true(kernel.isChanging);
  const second = await spawnAgent(stage);
  await untilServing(second);
  t.false(kernel.isChanging);
  await second.kill();
});

labTest("an agent killed in its first moments leaves nothing that stops the next", async (t) => {
  const stage = await Stage.open(["client"]);
  t.teardown(() => stage.close());
  for (let kills = 0; kills < FIRST_KILLS; kills++) {
    const pins = path.join(stage.node.pins, `first-${kills}`);
    const flags = [...stage.agentFlags, "--pins", pins];
    const command = [process.execPath, COMMAND, "run", ...flags];
    const first = await stage.node.start(command);
    await delay(((kills + 1) / FIRST_KILLS) * START_MILLISECONDS);
    await first.kill();
    const second = await stage.node.start(command);
    await untilServing(second);
    await second.kill();
  }
  t.pass();
});
