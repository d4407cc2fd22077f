// session-affinity of the vectors as real connections from pods. All cases play at once, each on
// addresses of its own, with time running SCALE times as fast as they say. The agent tells no
// pods from others (§6.4), so that they stand for clients from outside as well.
import { setTimeout as delay } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import type { Address } from "../../lab/sockets.ts";
import {
  type AffinityCase,
  type AffinityEvent,
  type AffinityExpectation,
  type ClusterObject,
  type Conditions,
  parseAuthority,
  readVectors,
} from "./vectors.ts";
import { type Held, World } from "./world.ts";

const labTest = needsLab(test);
const SCALE = 10;
const READY: Conditions = { ready: true, serving: true, terminating: false };

const cases = readVectors<AffinityCase>("session-affinity.json");
let world: World | undefined;
/** Objects of each case as last applied; the agent sees them all. */
const objectsByCase = new Map<string, ClusterObject[]>();
let lastApplied: Promise<void> = Promise.resolve();

test.before(async () => {
  if (whyNoLab() !== undefined || cases.length === 0) return;
  const events = cases.flatMap((stickyCase) => stickyCase.events);
  world = await World.open({
    pods: [...new Set(events.flatMap(clientsOf))],
    nodeAddresses: [],
    servers: [...new Set(cases.flatMap(({ endpoints }) => endpoints))].map(parseAuthority),
  });
  await world.apply([NODE]);
  await world.startAgent(["--nodeport-addresses", "primary"]);
});

test.after.always(() => world?.close());

function clientsOf({ client, clients }: AffinityEvent): string[] {
  return clients ?? (client === undefined ? [] : [client]);
}

const NODE: ClusterObject = {
  apiVersion: "v1",
  kind: "Node",
  metadata: { name: "node-a" },
  status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
};

/** One case under way: its objects, and who got what at which label. */
class Play {
  readonly #case: AffinityCase;
  readonly #place: number;
  readonly #conditions = new Map<string, Conditions>();
  readonly #ports = [
    { name: "http", port: 80, protocol: "TCP", nodePort: 0 },
    { name: "dns", port: 80, protocol: "UDP" },
    { name: "other", port: 81, protocol: "TCP" },
  ];
  #timeoutSeconds: number | undefined;
  readonly #answers = new Map<string, Map<string, string>>();
  readonly #held: { until: number; connection: Held }[] = [];
  #lost = "";
  /** When the event before this one ended, here and in the case's own time. */
  #ended = { at: 0, t: 0 };

  constructor(stickyCase: AffinityCase, place: number) {
    this.#case = stickyCase;
    this.#place = place;
    this.#timeoutSeconds = stickyCase.service.timeoutSeconds;
    this.#ports[0]!.nodePort = 31000 + place;
    this.restore();
  }

  restore(): void {
    for (const endpoint of this.#case.endpoints) this.#conditions.set(endpoint, READY);
  }

  /** Another address than the case says, since all cases play at once. */
  #target(frontend: string): Address {
    const { address, port } = parseAuthority(this.#case.service.frontends[frontend]!);
    if (frontend === "nodePort") return { address, port: 31000 + this.#place };
    if (frontend === "externalIP") return { address: `192.0.2.${this.#place + 1}`, port };
    return { address: `10.96.7.${this.#place + 1}`, port };
  }

  async begin(): Promise<void> {
    await this.apply();
    this.#ended.at = performance.now();
  }

  async apply(): Promise<void> {
    objectsByCase.set(this.#case.id, this.#objects());
    // One after the other: each waits until the agent serves what it wrote.
    lastApplied = lastApplied.then(() =>
      world!.apply([NODE, ...[...objectsByCase.values()].flat()]),
    );
    await lastApplied;
  }

  #objects(): ClusterObject[] {
    const { id, title, service } = this.#case;
    const clusterIP = this.#target("clusterIP").address;
    const timeoutSeconds = this.#timeoutSeconds && Math.round(this.#timeoutSeconds / SCALE);
    const spec = {
      type: "NodePort",
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: ["IPv4"],
      externalIPs: [this.#target("externalIP").address],
      externalTrafficPolicy: /external policy Local/.test(title) ? "Local" : "Cluster",
      sessionAffinity: service.sessionAffinity,
      ...(timeoutSeconds ? { sessionAffinityConfig: { clientIP: { timeoutSeconds } } } : {}),
      ports: this.#ports,
    };
    const ports = this.#ports.map(({ name, protocol }) => ({ name, protocol, port: 8080 }));
    const metadata = { namespace: "sticky", name: id };
    const labels = { "kubernetes.io/service-name": id };
    return [
      { apiVersion: "v1", kind: "Service", metadata, spec },
      {
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: { ...metadata, labels },
        addressType: "IPv4",
        ports,
        endpoints: [...this.#conditions].map(([endpoint, conditions]) => ({
          addresses: [parseAuthority(endpoint).address],
          // As the vectors say: 10.244.1.x are on this node.
          nodeName: endpoint.startsWith("10.244.1.") ? "node-a" : "node-b",
          conditions,
        })),
      },
    ];
  }

  /** Waits as long after the event before as the case says, with traffic on what is held open. */
  async waitFor({ t }: AffinityEvent): Promise<void> {
    const until = this.#ended.at + ((t - this.#ended.t) / SCALE) * 1000;
    while (performance.now() < until) {
      for (const { connection } of this.#held) await connection.exchange();
      await delay(Math.min(200, until - performance.now()));
    }
    for (const entry of this.#held.filter(({ until }) => until <= t)) {
      await entry.connection.close();
      this.#held.splice(this.#held.indexOf(entry), 1);
    }
  }

  async run(t: ExecutionContext, event: AffinityEvent): Promise<void> {
    await this.#do(t, event);
    this.#ended = { at: performance.now(), t: event.t };
  }

  async #do(t: ExecutionContext, event: AffinityEvent): Promise<void> {
    if (event.do.startsWith("connect")) return this.#connect(t, event);
    if (event.do === "restoreEndpoints") this.restore();
    else if (event.do === "removeEndpoint") this.#conditions.delete(this.#lose(event.endpoint!));
    else if (event.do === "setConditions")
      this.#conditions.set(this.#lose(event.endpoint!), event.conditions!);
    else if (event.do === "setConditionsAll")
      for (const endpoint of this.#conditions.keys())
        this.#conditions.set(endpoint, event.conditions!);
    else if (event.do === "addServicePort") this.#ports.push({ ...event.port!, nodePort: 0 });
    else if (event.do === "setTimeout") this.#timeoutSeconds = event.timeoutSeconds;
    else throw new Error(`No such event: "${event.do}"`);
    await this.apply();
  }

  #lose(name: NonNullable<AffinityEvent["endpoint"]>): string {
    this.#lost =
      typeof name === "string" ? name : this.#answers.get(name.chosenBy)!.get(name.client)!;
    return this.#lost;
  }

  async #connect(t: ExecutionContext, event: AffinityEvent): Promise<void> {
    const { expect = {}, label = "", times = 1 } = event;
    const wanted = expect.pinTo;
    if (wanted !== undefined) await this.#offerOnly(wanted);
    const answers = new Map<string, string>();
    for (const client of clientsOf(event))
      for (let time = 0; time < times; time++)
        answers.set(times === 1 ? client : `${client} ${time}`, await this.#ask(client, event));
    this.#answers.set(label, answers);
    if (wanted !== undefined) {
      t.deepEqual([...answers.values()], [wanted]);
      this.restore();
      await this.apply();
    }
    this.#check(t, answers, expect);
  }

  async #offerOnly(endpoint: string): Promise<void> {
    this.#conditions.clear();
    this.#conditions.set(endpoint, READY);
    await this.apply();
  }

  async #ask(source: string, event: AffinityEvent): Promise<string> {
    const client = { from: "pod", source } as const;
    const target = this.#target(event.frontend!);
    if (event.holdOpenUntil !== undefined) {
      const connection = await world!.hold(client, target);
      this.#held.push({ until: event.holdOpenUntil, connection });
      return connection.server;
    }
    const reply = await world!.ask(client, { protocol: event.protocol ?? "TCP", ...target });
    return "error" in reply ? reply.error : reply.server;
  }

  #check(t: ExecutionContext, answers: Map<string, string>, expect: AffinityExpectation): void {
    const before = (label: string) => this.#answers.get(label)!;
    for (const endpoint of answers.values())
      t.true(this.#case.endpoints.includes(endpoint), `${endpoint} is no endpoint`);
    if (expect.sameAs) {
      // A single client may have been asked under a label of many.
      for (const [client, endpoint] of answers) t.is(before(expect.sameAs).get(client), endpoint);
    }
    if (expect.notAllSameAs) t.notDeepEqual(answers, before(expect.notAllSameAs));
    if (expect.anyOf) t.true([...answers.values()].every((got) => expect.anyOf!.includes(got)));
    if (expect.distinctAtLeast) t.true(new Set(answers.values()).size >= expect.distinctAtLeast);
    if (!expect.sameAsExceptLost) return;
    for (const [client, endpoint] of before(expect.sameAsExceptLost)) {
      if (endpoint === this.#lost) t.not(answers.get(client), endpoint);
      else t.is(endpoint, answers.get(client)!);
    }
  }
}

for (const [place, stickyCase] of cases.entries()) {
  labTest(`${stickyCase.id}: ${stickyCase.title}`, async (t) => {
    const play = new Play(stickyCase, place);
    await play.begin();
    for (const event of stickyCase.events) {
      await play.waitFor(event);
      await play.run(t, event);
    }
  });
}
