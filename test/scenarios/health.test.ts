// What the agent answers over HTTP, from where it is asked in life: load balancers outside the
// node, supervisors and Prometheus on it. Byte for byte: test/conformance/health.
import { writeFile } from "node:fs/promises";
import path from "node:path";
import test from "ava";
import type { Host, Running } from "../../lab/host.ts";
import { Lab, type LabNode, whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { type Manifest, makeNode, makeService, makeSlices } from "./objects.ts";
import { COMMAND, POD_PORT, Stage, whoTcp } from "./stage.ts";

const labTest = needsLab(test.serial);
const SERVICE = { address: "10.96.0.80", port: 80 };
const HEALTH_PORT = 32000;
let stage: Stage;

interface Got {
  /** 0 if there was no answer. */
  status: number;
  body: string;
}

/** What curl gets. */
async function get(host: Host, url: string): Promise<Got> {
  const { stdout } = await host.run(["curl", "-s", "-m", "5", "-w", "\n%{http_code}", url]);
  const at = stdout.lastIndexOf("\n");
  return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
}

async function until(host: Host, url: string, wanted: (got: Got) => boolean): Promise<Got> {
  return waitFor(
    async () => {
      const got = await get(host, url);
      return wanted(got) && got;
    },
    { what: `the wanted answer of ${url}`, timeoutSeconds: 20 },
  );
}

const answers =
  (status: number) =>
  (got: Got): boolean =>
    got.status === status;

/** The value of a series in what /metrics says. */
function seriesOf(metrics: string, series: string): number {
  const line = metrics.split("\n").find((each) => each.startsWith(`${series} `));
  if (line === undefined) throw new Error(`There is no series ${series}`);
  return Number(line.slice(series.length + 1));
}

/** A Service that load balancers ask this node for, with one pod as endpoint on some node. */
function webOn(nodeName: string, { service = "web", pod = "pod-b" } = {}): Manifest[] {
  const slices = makeSlices({
    service,
    ports: [{ name: "http", port: POD_PORT }],
    endpoints: [stage.pod(pod).addresses.ipv4],
  });
  return [
    makeService({
      name: service,
      addresses: [SERVICE.address],
      ports: [{ name: "http", port: SERVICE.port, nodePort: 30080 }],
      spec: {
        type: "LoadBalancer",
        externalTrafficPolicy: "Local",
        healthCheckNodePort: HEALTH_PORT,
      },
    }),
    ...slices.map((slice) => ({
      ...slice,
      endpoints: (slice.endpoints as object[]).map((endpoint) => ({ ...endpoint, nodeName })),
    })),
  ];
}

async function answerer(): Promise<string> {
  return whoTcp(await stage.client(stage.pod("client")), SERVICE);
}

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open(["client", "pod-b"]);
});

test.after.always(async () => {
  await stage?.close();
});

labTest("a port that another program has is told of once, and taken when it is free", async (t) => {
  const { node } = stage;
  const other = await node.helper();
  await other.serveTcp({ identity: "kube-proxy", address: "0.0.0.0", port: 10256 });
  await stage.apply("web", webOn("node-a"));
  const agent = await stage.startAgent();
  t.is(await answerer(), "pod-b", "Services are served all the same");
  const refusals = () => agent.output().match(/Cannot answer \/healthz and \/livez.*/g) ?? [];
  t.is(refusals().length, 1);
  t.regex(refusals()[0]!, /0\.0\.0\.0:10256: another program has the port.*--healthz-bind-address/);
  await other.close();
  await until(node, "http://127.0.0.1:10256/healthz", answers(200));
  t.is(refusals().length, 1);
});

labTest("load balancers outside are told whether this node has endpoints", async (t) => {
  const url = `http://${stage.node.addresses.ipv4}:${HEALTH_PORT}/`;
  const { outside } = stage.lab;
  const { body } = await until(outside, url, answers(200));
  t.deepEqual(JSON.parse(body), {
    service: { namespace: "test", name: "web" },
    localEndpoints: 1,
    serviceProxyHealthy: true,
  });
  await stage.apply("web", webOn("node-b"));
  const without = await until(outside, url, answers(503));
  t.is(JSON.parse(without.body).localEndpoints, 0);
  t.is(await answerer(), "pod-b", "the cluster IP goes on");
  await stage.withdraw("web");
  await until(outside, url, answers(0));
  t.is((await get(outside, `http://${stage.node.addresses.ipv4}:10256/healthz`)).status, 200);
});

labTest("metrics are those of this node, on its loopback alone", async (t) => {
  await stage.apply("web", webOn("node-a"));
  await stage.programmed("web");
  for (let connection = 0; connection < 5; connection++) t.is(await answerer(), "pod-b");
  const { status, body } = await get(stage.node, "http://127.0.0.1:10249/metrics");
  t.is(status, 200);
  const labels = 'namespace="test",service="web",port="http",protocol="TCP",ip_family="IPv4"';
  t.is(seriesOf(body, `bpfsvc_service_connections_total{${labels}}`), 5);
  t.is(seriesOf(body, "bpfsvc_programs_attached"), 1);
  t.is(seriesOf(body, 'bpfsvc_rows_pending{ip_family="IPv4"}'), 0);
  t.true(seriesOf(body, "kubeproxy_sync_proxy_rules_service_changes_total") >= 1);
  const { ipv4 } = stage.node.addresses;
  t.is((await get(stage.lab.outside, `http://${ipv4}:10249/metrics`)).status, 0);
  t.like(await get(stage.node, "http://127.0.0.1:10249/proxyMode"), { body: "bpfsvc" });
  const configz = await get(stage.node, "http://127.0.0.1:10249/configz");
  const { kind } = JSON.parse(configz.body)["kubeproxy.config.k8s.io"];
  t.is(kind, "KubeProxyConfiguration");
});

labTest("a node whose agent cannot list anything yet is not ready, unless it serves", async (t) => {
  const { node } = stage;
  await stage.agent.stop();
  // A server that is not there: nothing is ever listed.
  const kubeconfig = path.join(stage.folder, "kubeconfig");
  const cluster = { name: "c", cluster: { server: "https://192.168.50.1:6443" } };
  const context = { name: "c", context: { cluster: "c", user: "c" } };
  const config = { clusters: [cluster], contexts: [context], users: [{ name: "c", user: {} }] };
  await writeFile(kubeconfig, JSON.stringify({ ...config, "current-context": "c" }));
  const startWaiting = (pins: string): Promise<Running> => {
    const place = ["--node", "node-a", "--cgroup", node.cgroup, "--pins", pins];
    const command = [process.execPath, COMMAND, "run", "--kubeconfig", kubeconfig, ...place];
    return node.start(command, { ready: /Cannot (list|watch)/, timeoutSeconds: 60 });
  };
  const ask = (where: string) => get(node, `http://127.0.0.1:10256/${where}`);
  const attached = async () => {
    const { body } = await get(node, "http://127.0.0.1:10249/metrics");
    return seriesOf(body, "bpfsvc_programs_attached");
  };
  const anew = await startWaiting(node.pins);
  t.is((await ask("healthz")).status, 200, "what an agent before it programmed is served");
  t.is(await answerer(), "pod-b");
  t.is(await attached(), 1, "nothing that an alert is for");
  await anew.stop();
  const first = await startWaiting(`${node.pins}/other`);
  const { status, body } = await ask("healthz");
  t.is(status, 503);
  t.like(JSON.parse(body), { nodeEligible: false, healthy: true });
  t.is((await ask("livez")).status, 200, "to restart it would help nobody");
  t.is(await attached(), 0);
  await first.stop();
  await stage.startAgent();
  await until(node, "http://127.0.0.1:10256/healthz", answers(200));
});

labTest("with --bind-address-hard-fail a port that is taken ends the agent", async (t) => {
  const other = await stage.node.helper();
  await stage.agent.stop();
  await other.serveTcp({ identity: "other", address: "127.0.0.1", port: 10249 });
  const flags = [...stage.agentFlags, "--bind-address-hard-fail"];
  const { code, stderr } = await stage.command("run", ...flags);
  t.is(code, 1);
  t.regex(stderr, /bpfsvc: Cannot answer \/metrics at 127\.0\.0\.1:10249: another program has/);
  t.is(await answerer(), "pod-b", "what is programmed is served on");
  await other.close();
});

labTest("agents of two nodes on one machine each have their own ports", async (t) => {
  const lab = await Lab.create({ name: "health", topology: { "node-a": [], "node-b": [] } });
  try {
    const start = async (node: LabNode) => {
      const file = path.join(stage.folder, `${node.name}.json`);
      await writeFile(file, JSON.stringify(makeNode(node.name, Object.values(node.addresses))));
      const place = ["--node", node.name, "--cgroup", node.cgroup, "--pins", node.pins];
      const command = [process.execPath, COMMAND, "run", "--manifests", file, ...place];
      return node.start(command, { ready: /serving/, timeoutSeconds: 60 });
    };
    const nodes = Object.values(lab.nodes);
    const agents = await Promise.all(nodes.map(start));
    for (const { addresses } of nodes)
      t.is((await get(lab.outside, `http://${addresses.ipv4}:10256/healthz`)).status, 200);
    for (const agent of agents) t.notRegex(agent.output(), /Cannot answer/);
  } finally {
    await lab.close();
  }
});
