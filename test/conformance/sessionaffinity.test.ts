// session-affinity of the vectors as decisions of the model: rows, with a memory as the kernel
// keeps it beside them, give every client what it must get. stickiness.test.ts asks real sockets.
import test, { type ExecutionContext } from "ava";
import { Cluster } from "../../control/model/cluster.ts";
import { decide } from "../../control/model/decision.ts";
import { readObject } from "../../control/model/read.ts";
import {
  type AffinityCase,
  type AffinityEvent,
  type AffinityExpectation,
  parseAuthority,
  readVectors,
} from "./vectors.ts";

/** Draws until an endpoint that is one of many comes up. */
const DRAWS = 1000;

/** Numbers from 0 to 1 that look random and are the same in every run. */
function* randomNumbers(): Generator<number, never> {
  for (let state = 12345; ; ) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    yield (state >>> 8) / 2 ** 24;
  }
}

/** One case under way: its objects, and who got what when. */
class Play {
  readonly #case: AffinityCase;
  readonly #cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
  readonly #random = randomNumbers();
  readonly #answers = new Map<string, Map<string, string>>();
  /** By service port and client, as svc_affinity has it. */
  readonly #memory = new Map<string, { endpoint: string; lastSeen: number }>();
  #ports: object[];
  #conditions = new Map<string, object>();
  #timeoutSeconds: number | undefined;
  #lost = "";

  constructor(given: AffinityCase) {
    this.#case = given;
    this.#timeoutSeconds = given.service.timeoutSeconds;
    const { clusterIP, nodePort, otherPort } = given.service.frontends;
    const { port } = parseAuthority(clusterIP!);
    this.#ports = [
      { name: "http", port, nodePort: nodePort === undefined ? 0 : parseAuthority(nodePort).port },
      { name: "dns", port, protocol: "UDP" },
      ...(otherPort === undefined ? [] : [{ name: "other", port: parseAuthority(otherPort).port }]),
    ];
    const address = nodePort === undefined ? "192.168.50.2" : parseAuthority(nodePort).address;
    this.#read({
      kind: "Node",
      metadata: { name: "node-a" },
      status: { addresses: [{ type: "InternalIP", address }] },
    });
    this.#restore();
  }

  #read(value: unknown): void {
    this.#cluster.apply(readObject(value).object!);
  }

  #restore(): void {
    this.#conditions = new Map(this.#case.endpoints.map((endpoint) => [endpoint, {}]));
    this.#apply();
  }

  #apply(): void {
    const { title, service } = this.#case;
    const { clusterIP, externalIP } = service.frontends;
    const timeoutSeconds = this.#timeoutSeconds;
    this.#read({
      kind: "Service",
      metadata: { namespace: "shop", name: "sticky" },
      spec: {
        type: "NodePort",
        clusterIP: parseAuthority(clusterIP!).address,
        externalIPs: externalIP === undefined ? [] : [parseAuthority(externalIP).address],
        externalTrafficPolicy: /external policy Local/.test(title) ? "Local" : "Cluster",
        sessionAffinity: service.sessionAffinity,
        sessionAffinityConfig: timeoutSeconds && { clientIP: { timeoutSeconds } },
        ports: this.#ports,
      },
    });
    for (const [index, endpoint] of this.#case.endpoints.entries()) {
      const { address, port } = parseAuthority(endpoint);
      const conditions = this.#conditions.get(endpoint);
      this.#read({
        kind: "EndpointSlice",
        metadata: {
          namespace: "shop",
          name: `sticky-${index}`,
          labels: { "kubernetes.io/service-name": "sticky" },
        },
        addressType: "IPv4",
        ports: this.#ports.map((each) => ({ ...each, port })),
        // As the vectors say: 10.244.1.x are on this node.
        endpoints: conditions && [
          {
            addresses: [address],
            conditions,
            nodeName: address.startsWith("10.244.1.") ? "node-a" : "node-b",
          },
        ],
      });
    }
    this.#cluster.takeDirty();
  }

  /** A new connection: the remembered endpoint while it is eligible, else any (§11.3–11.5). */
  #connect(source: string, { t, frontend, protocol = "TCP" }: AffinityEvent): string {
    const { address: destination, port } = parseAuthority(this.#case.service.frontends[frontend!]!);
    const decision = decide({ source, protocol, destination, port }, this.#cluster.serving());
    if (decision.outcome !== "endpoints") return decision.outcome;
    const eligible = decision.endpoints.map((each) => `${each.address}:${each.port}`);
    const { key, affinitySeconds } = decision.row;
    const known = this.#memory.get(`${key} ${source}`);
    const isFresh = known !== undefined && t - known.lastSeen < affinitySeconds;
    const drawn = eligible[Math.floor(this.#random.next().value * eligible.length)]!;
    const endpoint = isFresh && eligible.includes(known.endpoint) ? known.endpoint : drawn;
    if (affinitySeconds > 0) this.#memory.set(`${key} ${source}`, { endpoint, lastSeen: t });
    return endpoint;
  }

  run(t: ExecutionContext, event: AffinityEvent): void {
    if (event.do.startsWith("connect")) this.#ask(t, event);
    else if (event.do === "restoreEndpoints") this.#restore();
    else if (event.do === "removeEndpoint") this.#conditions.delete(this.#lose(event));
    else if (event.do === "setConditions")
      this.#conditions.set(this.#lose(event), event.conditions!);
    else if (event.do === "setConditionsAll")
      for (const endpoint of this.#conditions.keys())
        this.#conditions.set(endpoint, event.conditions!);
    else if (event.do === "addServicePort") this.#ports = [...this.#ports, event.port!];
    else if (event.do === "setTimeout") this.#timeoutSeconds = event.timeoutSeconds;
    else throw new Error(`No such event: "${event.do}"`);
    this.#apply();
  }

  #lose({ endpoint }: AffinityEvent): string {
    this.#lost =
      typeof endpoint === "object"
        ? this.#answers.get(endpoint.chosenBy)!.get(endpoint.client)!
        : endpoint!;
    return this.#lost;
  }

  #ask(t: ExecutionContext, event: AffinityEvent): void {
    const { client, clients = [client!], times = 1, label = "", expect = {} } = event;
    const answers = new Map<string, string>();
    for (const source of clients)
      for (let time = 0; time < times; time++) {
        const name = times === 1 ? source : `${source} ${time}`;
        let endpoint = this.#connect(source, event);
        // Drawn anew until it is the one that the case goes on with.
        for (let draw = 0; expect.pinTo && endpoint !== expect.pinTo && draw < DRAWS; draw++) {
          this.#memory.clear();
          endpoint = this.#connect(source, event);
        }
        if (expect.pinTo) t.is(endpoint, expect.pinTo);
        answers.set(name, endpoint);
      }
    this.#answers.set(label, answers);
    this.#check(t, { answers, expect });
  }

  #check(
    t: ExecutionContext,
    { answers, expect }: { answers: ReadonlyMap<string, string>; expect: AffinityExpectation },
  ): void {
    const { sameAs, notAllSameAs, sameAsExceptLost, anyOf, distinctAtLeast } = expect;
    for (const got of answers.values()) t.true(this.#case.endpoints.includes(got), got);
    for (const [client, got] of answers) {
      if (sameAs) t.is(got, this.#answers.get(sameAs)!.get(client)!);
      if (anyOf) t.true(anyOf.includes(got), got);
      if (!sameAsExceptLost) continue;
      const before = this.#answers.get(sameAsExceptLost)!.get(client)!;
      if (before === this.#lost) t.not(got, before);
      else t.is(got, before);
    }
    if (notAllSameAs) t.notDeepEqual(answers, this.#answers.get(notAllSameAs));
    if (distinctAtLeast) t.true(new Set(answers.values()).size >= distinctAtLeast);
  }
}

for (const given of readVectors<AffinityCase>("session-affinity.json")) {
  test(`${given.id}, decided: ${given.title}`, (t) => {
    const play = new Play(given);
    for (const event of given.events) play.run(t, event);
  });
}
