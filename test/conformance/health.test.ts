// health of the vectors: what load balancers and supervisors are told, byte for byte, by a whole
// agent over HTTP, along a timeline whose events are told apart by their words.
import test, { type ExecutionContext } from "ava";
import { waitFor } from "../../lab/wait.ts";
import { type Answered, HEALTHZ, NODE, WholeAgent } from "../serve/agent.ts";
import { NEW_NODE_IS_NOT_ELIGIBLE } from "./exceptions.ts";
import { readVectorFile } from "./vectors.ts";

interface ExpectedAnswer {
  status: number;
  headers: Record<string, string>;
  bodyJson: unknown;
  bodyText?: string;
}

interface ServiceStep {
  id: string;
  service: { namespace: string; name: string; healthCheckNodePort: number };
  localReadyEndpoints: number;
  proxyHealthy: boolean;
  requests?: readonly string[];
  expect: ExpectedAnswer;
}

interface ProxyStep {
  after: string;
  secondsSinceStart: number;
  healthz: ExpectedAnswer;
  livez: ExpectedAnswer;
}

const START_MS = Date.parse("2026-01-02T03:04:05Z");
const TIMEOUT_MS = 60_000;

function compare(t: ExecutionContext, answer: Answered, expected: ExpectedAnswer): void {
  t.is(answer.status, expected.status);
  for (const [name, value] of Object.entries(expected.headers))
    t.is(answer.headers[name.toLowerCase()], value, name);
  t.deepEqual(JSON.parse(answer.body), expected.bodyJson);
  if (expected.bodyText !== undefined) t.is(answer.body, expected.bodyText);
}

function makeNode(metadata: object = {}, spec: object = {}): object {
  return { kind: "Node", metadata: { name: NODE, ...metadata }, spec };
}

function tainted(key: string): object {
  return makeNode({}, { taints: [{ key, effect: "NoSchedule" }] });
}

let services = 0;

/** A Service that no other has been like. */
function makeService(...families: readonly ("IPv4" | "IPv6")[]): object {
  const number = (++services).toString(16);
  const addresses = { IPv4: `10.96.0.${services}`, IPv6: `fd00:10:96::${number}` };
  const clusterIPs = families.map((family) => addresses[family]);
  const spec = {
    clusterIP: clusterIPs[0],
    clusterIPs,
    ipFamilies: families,
    ports: [{ port: 80 }],
  };
  return { kind: "Service", metadata: { namespace: "shop", name: `other-${services}` }, spec };
}

/** A change of a family comes, and cannot be written. */
function changeInVain(agent: WholeAgent, family: 4 | 6): void {
  agent.failFrontends(4, 6);
  agent.apply(makeService(`IPv${family}`));
}

type Event = (agent: WholeAgent) => void;

/** What happened, by the words that tell of it; the first that match count. */
const EVENTS: readonly (readonly [RegExp, Event])[] = [
  [/both families synced/, (agent) => agent.sink.synced()],
  [/IPv4 synced/, (agent) => syncOnly(agent, { failing: [6] })],
  [/IPv6 synced/, (agent) => syncOnly(agent, { failing: [4] })],
  [/change queued for IPv6/, (agent) => changeInVain(agent, 6)],
  [/change queued/, (agent) => changeInVain(agent, 4)],
  [
    /ToBeDeletedByClusterAutoscaler/,
    (agent) => agent.apply(tainted("ToBeDeletedByClusterAutoscaler")),
  ],
  [/unrelated taint/, (agent) => agent.apply(tainted("dedicated"))],
  [/deletion/, (agent) => agent.apply(makeNode({ deletionTimestamp: "2026-01-02T04:00:00Z" }))],
  [/unknown/, (agent) => agent.remove("Node", NODE)],
  [/plain node/, (agent) => agent.apply(makeNode())],
  [/process start/, (agent) => agent.apply(makeNode())],
  [/later|without any change/, () => {}],
];

/** A change of one family comes and is written, with all that waited; the other's are not. */
function syncOnly(agent: WholeAgent, { failing }: { failing: [4 | 6] }): void {
  agent.failFrontends(...failing);
  agent.apply(makeService(failing[0] === 4 ? "IPv6" : "IPv4"));
}

const vectors = readVectorFile<{ serviceHealth: ServiceStep[]; proxyHealth: ProxyStep[] }>(
  "health.json",
);

/** The Service of a step with its endpoints here, one that is not ready, and one elsewhere. */
function serviceObjects({ service, localReadyEndpoints }: ServiceStep): object[] {
  const { namespace, name, healthCheckNodePort } = service;
  const endpoint = (host: number, rest: object) => ({ addresses: [`10.244.1.${host}`], ...rest });
  const local = Array.from({ length: localReadyEndpoints }, (_, index) =>
    endpoint(index + 1, { nodeName: NODE, conditions: { ready: true } }),
  );
  return [
    {
      kind: "Service",
      metadata: { namespace, name },
      spec: {
        type: "LoadBalancer",
        externalTrafficPolicy: "Local",
        healthCheckNodePort,
        clusterIP: "10.96.0.99",
        ports: [{ name: "http", port: 80 }],
      },
    },
    {
      kind: "EndpointSlice",
      metadata: { namespace, name, labels: { "kubernetes.io/service-name": name } },
      addressType: "IPv4",
      ports: [{ name: "http", port: 8080 }],
      endpoints: [
        ...local,
        endpoint(100, { nodeName: NODE, conditions: { ready: false, serving: true } }),
        endpoint(101, { nodeName: "node-b", conditions: { ready: true } }),
      ],
    },
  ];
}

for (const step of vectors?.serviceHealth ?? []) {
  const { id, service, localReadyEndpoints: local, proxyHealthy, requests = ["GET /"] } = step;
  test(`${id}: ${local} local endpoints, proxy healthy ${proxyHealthy}`, async (t) => {
    const agent = new WholeAgent(t, { startMs: START_MS });
    agent.apply(makeNode());
    agent.sink.synced();
    agent.apply(...serviceObjects(step));
    if (!proxyHealthy) {
      changeInVain(agent, 4);
      agent.clock.pass(TIMEOUT_MS);
    }
    const place = `0.0.0.0:${service.healthCheckNodePort}`;
    await waitFor(() => agent.places.includes(place), { what: `a server at ${place}` });
    for (const request of requests) {
      const [method = "", path = ""] = request.split(" ");
      compare(t, await agent.ask(place, path, { method }), step.expect);
    }
  });
}

if (vectors !== undefined) {
  test("the answers of /healthz and /livez follow the timeline", async (t) => {
    t.log(NEW_NODE_IS_NOT_ELIGIBLE);
    const agent = new WholeAgent(t, { startMs: START_MS, isServing: true });
    agent.monitor.start();
    await waitFor(() => agent.places.includes(HEALTHZ), { what: "the health server" });
    for (const { after, secondsSinceStart, healthz, livez } of vectors.proxyHealth) {
      agent.clock.pass(secondsSinceStart * 1000 - agent.clock.now());
      const event = EVENTS.find(([words]) => words.test(after))?.[1];
      if (event === undefined) throw new Error(`No event is known by the words "${after}"`);
      event(agent);
      t.log(`after: ${after}`);
      compare(t, await agent.ask(HEALTHZ, "/healthz"), healthz);
      compare(t, await agent.ask(HEALTHZ, "/livez"), livez);
    }
  });
}
