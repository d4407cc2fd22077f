// Connections from outside while an agent starts with a table of another size for them, with XDP
// and with TC: those that were there go on, and those that come just then get on.
import test, { type ExecutionContext } from "ava";
import type { Flow } from "../../control/dataplane/flows.ts";
import type { Helper } from "../../lab/host.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import {
  agentOptions,
  askFrom,
  type Bed,
  dumpFlows,
  ECHO_PORT,
  endpointsOf,
  FAMILIES,
  frontendOf,
  makeOutside,
  openOutside,
  PORT,
} from "./outside.ts";
import type { Stage } from "./stage.ts";

const labTest = needsLab(test.serial);

const BEDS: readonly (Bed & { title: string })[] = [
  { title: "routed, XDP", network: "routed", mode: "xdp", rpFilter: 1 },
  { title: "bridge, TC", network: "bridge", mode: "tc", rpFilter: 1 },
];
const NUMBER = 11;
/** More than is usual, less, and the usual again. */
const SIZES = ["400000", "4096", "131072"];
const TALKS = 5;

/** What a connection is, but for how far it has come and when. */
function nameOf({ state: _, idleSeconds: __, ...rest }: Flow): string {
  return JSON.stringify(rest);
}

async function namesOf(stage: Stage): Promise<string[]> {
  const { flows } = JSON.parse(await dumpFlows(stage, "-o", "json")) as { flows: Flow[] };
  return flows.map(nameOf);
}

/** Asks anew all the time. */
class Newcomers {
  count = 0;
  readonly failures: unknown[] = [];
  #goesOn = true;
  readonly #ended: Promise<unknown>;

  constructor(stage: Stage, client: Helper) {
    const ask = async (family: (typeof FAMILIES)[number]) => {
      const vip = frontendOf(NUMBER, { frontend: "vip", family, node: stage.node });
      while (this.#goesOn) {
        const seen = await askFrom(client, vip, { protocol: "TCP", timeoutSeconds: 3 });
        if ("identity" in seen) this.count++;
        else this.failures.push(seen);
      }
    };
    this.#ended = Promise.all(FAMILIES.map(ask));
  }

  async stop(): Promise<this> {
    this.#goesOn = false;
    await this.#ended;
    return this;
  }
}

/** Connections that go on all the time, some to each endpoint. */
async function startTalks(stage: Stage, client: Helper): Promise<number[]> {
  const talks: number[] = [];
  for (const family of FAMILIES)
    for (const protocol of ["TCP", "UDP"] as const)
      for (let talk = 0; talk < TALKS; talk++) {
        const { address } = frontendOf(NUMBER, { frontend: "vip", family, node: stage.node });
        const port = protocol === "TCP" ? ECHO_PORT : PORT;
        talks.push(await client.startFlow({ protocol, address, port, bytes: 100 }));
      }
  for (const id of talks)
    await waitFor(async () => (await client.reportFlow(id)).rounds > 2, { what: `talk ${id}` });
  return talks;
}

async function checkSizes(t: ExecutionContext, bed: Bed): Promise<void> {
  const stage = await openOutside(bed);
  t.teardown(() => stage.close());
  const endpoints = endpointsOf(stage, [stage.pod("pod-a1"), stage.pod("pod-b1")]);
  await stage.apply("web", makeOutside("web", { number: NUMBER, endpoints }));
  await stage.startAgent(agentOptions(bed));
  const client = await stage.lab.outside.helper();
  const talks = await startTalks(stage, client);
  const known = (await namesOf(stage)).sort();
  t.is(known.length, talks.length);
  const newcomers = new Newcomers(stage, await stage.lab.outside.helper());
  const start = async (size: string) => {
    await stage.agent.kill();
    return stage.startAgent(agentOptions({ ...bed, arguments: ["--max-flows", size] }));
  };
  for (const size of SIZES) {
    t.regex((await start(size)).output(), /Taking over from maps of other sizes/);
    t.notRegex((await start(size)).output(), /Taking over/);
    const before = newcomers.count;
    await waitFor(() => newcomers.count > before + 10, { what: "newcomers to get on" });
  }
  const { failures, count } = await newcomers.stop();
  t.deepEqual(failures, [], stage.agentOutput());
  t.log(`${count} newcomers`);
  const present = new Set(await namesOf(stage));
  t.deepEqual(
    known.filter((name) => !present.has(name)),
    [],
  );
  for (const id of talks) {
    const report = await client.stopFlow(id);
    t.like(report, { lost: 0, wrong: 0, broken: undefined });
    t.is(report.identities.length, 1);
  }
}

for (const bed of BEDS)
  labTest(`${bed.title}: connections go on in a table of another size`, (t) => checkSizes(t, bed));
