// What a whole agent answers over HTTP along its life: on maps in memory, with time that passes
// when told to. Life on a real node: test/scenarios/health.
import http from "node:http";
import { setImmediate as nextTurn } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { parseRange } from "../../control/model/address.ts";
import { Metrics, type MetricsState } from "../../control/serve/metrics/metrics.ts";
import { waitFor } from "../../lab/wait.ts";
import { ask, HEALTHZ, METRICS, NODE, WholeAgent, type WholeAgentOptions } from "./agent.ts";

const node = {
  kind: "Node",
  metadata: { name: NODE },
  status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
};

/** A node that has nothing. */
const STATE: MetricsState = {
  changes: {
    endpoints: { pending: 0, total: 0 },
    services: { pending: 0, total: 0 },
    lastQueuedMs: new Map(),
  },
  writtenMs: new Map(),
  rows: [],
  build: { version: "0.0.0", kernel: "6.1.0" },
  isAttached: false,
  servicePorts: 0,
  maps: [],
  flows: [],
  pending: [],
  reasons: [],
  connected: [],
  refused: [],
  watches: [{ resource: "services", restarts: 2, lastEventMs: undefined }],
  brokenSockets: 0,
  servers: [],
};

interface WebOptions {
  name?: string;
  port?: number;
  families?: readonly ("IPv4" | "IPv6")[];
  policy?: "Local" | "Cluster";
}

/** A Service that load balancers ask for. */
function web({
  name = "web",
  port = 32000,
  families = ["IPv4"],
  policy = "Local",
}: WebOptions = {}) {
  const addresses = { IPv4: "10.96.0.80", IPv6: "fd00:10:96::80" };
  const clusterIPs = families.map((family) => addresses[family]);
  return {
    kind: "Service",
    metadata: { namespace: "shop", name },
    spec: {
      type: "LoadBalancer",
      externalTrafficPolicy: policy,
      healthCheckNodePort: port,
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: families,
      ports: [{ name: "http", port: 80, nodePort: 30080 }],
    },
  };
}

function slice(nodeName: string) {
  return {
    kind: "EndpointSlice",
    metadata: {
      namespace: "shop",
      name: "web-1",
      labels: { "kubernetes.io/service-name": "web" },
    },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080 }],
    endpoints: [{ addresses: ["10.244.1.1"], nodeName }],
  };
}

/** An agent that has synced and listens. */
async function startAgent(
  t: ExecutionContext,
  options: WholeAgentOptions = {},
): Promise<WholeAgent> {
  const agent = new WholeAgent(t, options);
  agent.monitor.start();
  agent.apply(node);
  agent.sink.synced();
  await settle(agent, [HEALTHZ, METRICS]);
  return agent;
}

/** Waits until just these places are listened on. */
async function settle(agent: WholeAgent, places: readonly string[]): Promise<void> {
  const wanted = [...places].sort().join(" ");
  await waitFor(() => agent.places.join(" ") === wanted, { what: `servers at ${wanted}` });
}

async function statusOf(agent: WholeAgent, name: string, path: string): Promise<number> {
  return (await agent.ask(name, path)).status;
}

async function scrape(agent: WholeAgent): Promise<Map<string, number>> {
  const { body } = await agent.ask(METRICS, "/metrics");
  const lines = body.split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ");
      return [line.slice(0, at), Number(line.slice(at + 1))];
    }),
  );
}

test("before its first sync a new node is not eligible, but alive", async (t) => {
  const agent = new WholeAgent(t);
  agent.monitor.start();
  await settle(agent, [HEALTHZ, METRICS]);
  agent.apply(node, web());
  agent.clock.pass(600_000);
  const { status, body } = await agent.ask(HEALTHZ, "/healthz");
  t.is(status, 503);
  t.like(JSON.parse(body), { nodeEligible: false, healthy: true, status: undefined });
  t.is(await statusOf(agent, HEALTHZ, "/livez"), 200);
  agent.sink.synced();
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
});

test("a restart is eligible as the agent before it was, until it knows better", async (t) => {
  const agent = new WholeAgent(t, { isServing: true });
  agent.monitor.start();
  await settle(agent, [HEALTHZ, METRICS]);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
  agent.sink.synced();
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 503, "there is no such Node");
});

test("a full map makes a node unhealthy after two sync periods, until there is room", async (t) => {
  const agent = await startAgent(t, { sizes: { services: 1 } });
  agent.apply(web({ policy: "Cluster" }), {
    ...web({ name: "other", policy: "Cluster" }),
    spec: { clusterIP: "10.96.0.81", ports: [{ port: 80 }] },
  });
  agent.clock.pass(59_000);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
  agent.clock.pass(1000);
  const { status, body } = await agent.ask(HEALTHZ, "/livez");
  t.is(status, 503);
  t.like(JSON.parse(body), { healthy: false, status: { IPv4: { healthy: false } } });
  t.like(JSON.parse(body), { status: { IPv6: { healthy: true } } });
  const metrics = await scrape(agent);
  t.is(metrics.get('bpfsvc_rows_pending{ip_family="IPv4"}'), 1);
  t.is(metrics.get('bpfsvc_pending_seconds{ip_family="IPv4"}'), 60);
  t.is(metrics.get('bpfsvc_map_entries{map="svc_services"}'), 1);
  t.is(metrics.get('bpfsvc_map_capacity{map="svc_services"}'), 1);
  agent.remove("Service", "web");
  await waitFor(
    async () => {
      // The id is free after a grace period, and the row is tried again.
      await nextTurn();
      agent.clock.pass(1000);
      return (await statusOf(agent, HEALTHZ, "/healthz")) === 200;
    },
    { what: "the node to be healthy again" },
  );
});

test("programs that cannot be attached make the node unhealthy while that lasts", async (t) => {
  const agent = await startAgent(t);
  agent.monitor.attached(false);
  agent.clock.pass(60_000);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 503);
  agent.monitor.attached(true);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
});

test("health-check ports follow Services, families, policies, ports and addresses", async (t) => {
  const agent = await startAgent(t);
  const always = [HEALTHZ, METRICS];
  agent.apply(web({ families: ["IPv4", "IPv6"] }), slice(NODE));
  await settle(agent, [...always, "192.168.50.2:32000", "[::]:32000"]);
  t.is(await statusOf(agent, "192.168.50.2:32000", "/"), 200);
  t.is(await statusOf(agent, "[::]:32000", "/"), 503, "no endpoint of that family");
  agent.apply(web({ port: 32001 }));
  await settle(agent, [...always, "192.168.50.2:32001"]);
  agent.apply({
    ...node,
    status: { addresses: [{ type: "InternalIP", address: "192.168.50.9" }] },
  });
  await settle(agent, [...always, "192.168.50.9:32001"]);
  t.is(await statusOf(agent, "192.168.50.9:32001", "/"), 200);
  agent.apply(slice("node-b"));
  t.is(await statusOf(agent, "192.168.50.9:32001", "/"), 503);
  agent.apply(web({ port: 32001, policy: "Cluster" }));
  await settle(agent, always);
  agent.apply(web());
  await settle(agent, [...always, "192.168.50.9:32000"]);
  agent.remove("Service", "web");
  await settle(agent, always);
});

test("with ranges of node ports every address in them is listened on", async (t) => {
  const config = { nodePortAddresses: [parseRange("192.168.0.0/16")!] };
  const agent = await startAgent(t, { config });
  agent.cluster.setLocalAddresses(["127.0.0.1", "192.168.50.2", "192.168.60.2", "10.0.0.2"]);
  agent.apply(web());
  await settle(agent, [HEALTHZ, METRICS, "192.168.50.2:32000", "192.168.60.2:32000"]);
  t.is(await statusOf(agent, "192.168.60.2:32000", "/"), 503);
});

test("a connection that outlives its Service gets no answer", async (t) => {
  const agent = await startAgent(t);
  agent.apply(web(), slice(NODE));
  await settle(agent, [HEALTHZ, METRICS, "192.168.50.2:32000"]);
  const place = agent.place("192.168.50.2:32000");
  const keeper = new http.Agent({ keepAlive: true, maxSockets: 1 });
  t.teardown(() => keeper.destroy());
  t.is((await ask(place, "/", { agent: keeper })).status, 200);
  agent.remove("Service", "web");
  await t.throwsAsync(ask(place, "/", { agent: keeper }));
});

test("a port that cannot be had is told of with the Service, and had when it can", async (t) => {
  const agent = await startAgent(t);
  agent.refused.set("192.168.50.2:32000", "EADDRINUSE");
  agent.apply(web(), slice(NODE));
  await waitFor(() => agent.notices.length > 1, { what: "a notice" });
  const [starting, failed] = agent.notices;
  t.like(starting, { type: "Normal", reason: "Starting", about: { kind: "Node", name: NODE } });
  t.like(failed, {
    type: "Warning",
    reason: "FailedToStartServiceHealthcheck",
    about: { kind: "Service", namespace: "shop", name: "web" },
  });
  t.regex(
    failed!.note,
    /Service "shop\/web" at 192\.168\.50\.2:32000: another program has the port/,
  );
  t.is((await scrape(agent)).get('bpfsvc_servers{server="service_health",state="refused"}'), 1);
  agent.refused.clear();
  agent.clock.pass(5000);
  await settle(agent, [HEALTHZ, METRICS, "192.168.50.2:32000"]);
  t.is(agent.notices.length, 2);
  t.true(agent.lines.some((line) => /^info Answers health checks of Service/.test(line)));
});

test("a family that the machine lacks is nobody's problem", async (t) => {
  const agent = await startAgent(t);
  agent.refused.set("[::]:32000", "EAFNOSUPPORT");
  agent.apply(web({ families: ["IPv4", "IPv6"] }));
  await settle(agent, [HEALTHZ, METRICS, "192.168.50.2:32000"]);
  await nextTurn();
  const refused = (await scrape(agent)).get(
    'bpfsvc_servers{server="service_health",state="refused"}',
  );
  t.is(refused, 0);
  t.deepEqual(
    agent.lines.filter((line) => /^(warn|error)/.test(line)),
    [],
  );
});

test("a load balancer without a port is told of once, until it has one", async (t) => {
  const agent = await startAgent(t);
  const told = () => agent.lines.filter((line) => line.startsWith("error Service")).length;
  agent.apply(web({ port: 0 }));
  agent.apply(slice(NODE));
  t.is(told(), 1);
  agent.apply(web());
  agent.apply(web({ port: 0 }));
  t.is(told(), 2);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
  t.deepEqual(agent.places, [HEALTHZ, METRICS].sort(), "and asked nowhere");
});

test("servers that cannot listen leave all else as it is, and hard failure is fatal", async (t) => {
  const agent = new WholeAgent(t);
  agent.refused.set(HEALTHZ, "EADDRINUSE").set(METRICS, "EADDRNOTAVAIL");
  agent.monitor.start();
  agent.sink.synced();
  agent.apply(web());
  await settle(agent, ["0.0.0.0:32000"]);
  t.deepEqual(agent.fatal, []);
  const reasons = agent.notices.map(({ reason }) => reason).sort();
  t.deepEqual(reasons, [
    "FailedToStartMetricServer",
    "FailedToStartProxierHealthcheck",
    "Starting",
  ]);
  const hard = new WholeAgent(t, { monitor: { bindAddressHardFail: true } });
  hard.refused.set(METRICS, "EADDRNOTAVAIL");
  hard.monitor.start();
  await waitFor(() => hard.fatal.length > 0, { what: "the end" });
  t.regex(
    hard.fatal[0]!.message,
    /\/metrics at 127\.0\.0\.1:10249: no device .*metricsBindAddress/,
  );
});

test("nothing listens where nothing is to be served", async (t) => {
  const agent = new WholeAgent(t, { monitor: { healthz: undefined, metrics: undefined } });
  agent.monitor.start();
  agent.sink.synced();
  await nextTurn();
  t.deepEqual(agent.places, []);
});

test("the pages of kube-proxy are there, and others are said not to be", async (t) => {
  const agent = await startAgent(t);
  t.like(await agent.ask(METRICS, "/healthz"), { status: 200, body: "ok" });
  t.like(await agent.ask(METRICS, "/proxyMode?verbose"), { status: 200, body: "bpfsvc" });
  t.like(await agent.ask(METRICS, "/configz"), { status: 200, body: "{}" });
  for (const [place, path] of [
    [METRICS, "/debug/pprof"],
    [METRICS, "/livez"],
    [HEALTHZ, "/metrics"],
    [HEALTHZ, "/"],
  ] as const) {
    const { status, body } = await agent.ask(place, path);
    t.is(status, 404);
    t.regex(body, /^Not found: here are \//);
  }
});

test("metrics count changes, updates, answers and Services without local endpoints", async (t) => {
  const startMs = Date.parse("2026-01-02T03:04:05Z");
  const agent = await startAgent(t, { startMs });
  agent.clock.pass(10_000);
  agent.apply(web());
  agent.sink.apply(agent.read(slice("node-b")), startMs + 8000);
  t.is((await scrape(agent)).get("kubeproxy_sync_proxy_rules_endpoint_changes_pending"), 1);
  agent.act();
  await agent.ask(HEALTHZ, "/healthz");
  const metrics = await scrape(agent);
  const noLocal = "kubeproxy_sync_proxy_rules_no_local_endpoints_total";
  for (const [series, value] of [
    ["kubeproxy_sync_proxy_rules_service_changes_total", 1],
    ["kubeproxy_sync_proxy_rules_endpoint_changes_total", 1],
    ["kubeproxy_sync_proxy_rules_endpoint_changes_pending", 0],
    ['kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"}', 3],
    ['kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"}', 1],
    ['kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"}', 2],
    ['kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv6"}', 1],
    ['kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}', startMs / 1000 + 10],
    ['kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv6"}', startMs / 1000],
    [
      'kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds{ip_family="IPv4"}',
      startMs / 1000 + 10,
    ],
    ['kubeproxy_network_programming_duration_seconds_sum{ip_family="IPv4"}', 2],
    ['kubeproxy_network_programming_duration_seconds_count{ip_family="IPv4"}', 1],
    [`${noLocal}{ip_family="IPv4",traffic_policy="external"}`, 1],
    [`${noLocal}{ip_family="IPv4",traffic_policy="internal"}`, 0],
    ['kubeproxy_proxy_healthz_total{code="200"}', 1],
    ['bpfsvc_reasons_total{reason="refused"}', 7],
    ['bpfsvc_flows{ip_family="IPv6",protocol="UDP",state="unreplied"}', 3],
    ["bpfsvc_service_ports", 1],
  ] as const)
    t.is(metrics.get(series), value, series);
});

test("metrics that cannot be read are an error to who asks, and nothing else", async (t) => {
  const measures = {
    isAttached: () => true,
    servicePorts: () => 0,
    maps: () => [],
    flows: () => [],
    reasons: () => {
      throw new Error("it broke");
    },
    services: () => [],
    watches: () => [],
    brokenSockets: () => 0,
  };
  const agent = await startAgent(t, { monitor: { measures } });
  t.is(await statusOf(agent, METRICS, "/metrics"), 500);
  t.true(agent.lines.includes("warn Cannot answer a request for /metrics: it broke"));
  t.is(await statusOf(agent, METRICS, "/healthz"), 200);
  t.is(await statusOf(agent, HEALTHZ, "/healthz"), 200);
});

test("who asks for metrics while they are made gets the same", async (t) => {
  const metrics = new Metrics();
  let reads = 0;
  const read = () => {
    reads++;
    return STATE;
  };
  const [one, other] = await Promise.all([metrics.scrape(read), metrics.scrape(read)]);
  t.is(one, other);
  t.is(reads, 1);
  await metrics.scrape(read);
  t.is(reads, 2);
});
