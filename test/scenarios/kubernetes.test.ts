// The agent as it runs in a cluster: fed by an API server that comes, changes and goes, with real
// connections through what it programs. What the source does under every fault is tested in
// test/kubernetes.
import { mkdir, readFile, writeFile } from "node:fs/promises";
import path from "node:path";
import test from "ava";
import { parse } from "yaml";
import type { ApiObject } from "../../lab/apiserver/objects.ts";
import { type RemoteApiServer, startRemoteApiServer } from "../../lab/apiserver/remote.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { type Manifest, makeNode, makeService, makeSlices } from "./objects.ts";
import { fingerprint, POD_PORT, Stage, whoTcp } from "./stage.ts";

const labTest = needsLab(test.serial);
const SERVICE = { address: "10.96.0.1", port: 80 };
let stage: Stage;
let server: RemoteApiServer;

/** Service "web" with these pods as endpoints. */
function webOf(...pods: readonly string[]): Manifest[] {
  const endpoints = pods.map((pod) => stage.pod(pod).addresses.ipv4);
  const ports = [{ name: "http", port: POD_PORT }];
  return [
    makeService({
      name: "web",
      addresses: [SERVICE.address],
      ports: [{ name: "http", port: SERVICE.port }],
    }),
    ...makeSlices({ service: "web", ports, endpoints }),
  ];
}

async function apply(...objects: readonly Manifest[]): Promise<void> {
  for (const object of objects) await server.call({ do: "apply", object: object as ApiObject });
}

async function remove(kind: string, name: string): Promise<void> {
  await server.call({ do: "delete", identity: { kind, namespace: "test", name } });
}

async function answerer(): Promise<string> {
  return whoTcp(await stage.client(stage.pod("client")), SERVICE);
}

async function untilAnswered(wanted: string): Promise<void> {
  await waitFor(async () => (await answerer()) === wanted, { what: `${wanted} to answer` });
}

/** Ends the stage's agent, if it runs, for another one in its place. */
async function killAgent(): Promise<void> {
  if (!stage.agent.ended()) await stage.agent.kill();
}

async function startAgent(): Promise<void> {
  const source = ["--kubeconfig", path.join(stage.folder, "kubeconfig")];
  await stage.startAgent({ source, arguments: ["--nftables-min-sync-period", "0s"] });
}

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open(["client", "pod-b", "pod-c"]);
  const host = stage.node.bystander;
  const address = stage.node.addresses.ipv4;
  server = await startRemoteApiServer(["--address", address], { host });
  await writeFile(path.join(stage.folder, "kubeconfig"), server.description.kubeconfig);
  await apply(makeNode("node-a", Object.values(stage.node.addresses)), ...webOf("pod-b"));
  await startAgent();
});

test.after.always(async () => {
  await server?.close();
  await stage?.close();
});

labTest("Services of the API server are served, and follow every change", async (t) => {
  t.is(await answerer(), "pod-b");
  await apply(...webOf("pod-c"));
  await untilAnswered("pod-c");
  await remove("EndpointSlice", "web-ipv4");
  await untilAnswered("ECONNREFUSED");
  await remove("Service", "web");
  await untilAnswered("EACCES");
  await apply(...webOf("pod-b"));
  await untilAnswered("pod-b");
});

labTest("while the API server fails nothing is withdrawn, and then what changed is", async (t) => {
  await server.call({ do: "fault", fault: { effect: { kind: "status", code: 503 } } });
  await server.call({ do: "strike", aim: { verb: "watch" }, effect: { kind: "reset" } });
  await waitFor(() => /503/.test(stage.agentOutput()), { what: "the agent to tell of it" });
  await apply(...webOf("pod-c"));
  t.is(await answerer(), "pod-b");
  await server.call({ do: "clearFaults" });
  await untilAnswered("pod-c");
});

labTest("an agent that is killed and started again writes nothing", async (t) => {
  // A later change is through: what an earlier one gave up is given up in the maps too.
  await apply(makeService({ name: "later", addresses: ["10.96.0.2"], ports: [{ port: 80 }] }));
  await stage.programmed("later");
  await stage.agent.kill();
  t.is(await answerer(), "pod-c");
  const before = fingerprint(stage);
  await startAgent();
  t.is(fingerprint(stage), before);
  t.is(await answerer(), "pod-c");
});

/** The kubelet's view of a pod: the files of its service account, and where the API server is. */
async function commandInPod(): Promise<{ command: string[]; env: Record<string, string> }> {
  const text = await readFile(path.join(stage.folder, "kubeconfig"), "utf8");
  const { clusters, users } = parse(text);
  const { "certificate-authority-data": ca, server: url } = clusters[0].cluster;
  const account = path.join(stage.folder, "account");
  await mkdir(account);
  await writeFile(path.join(account, "ca.crt"), Buffer.from(ca, "base64"));
  await writeFile(path.join(account, "token"), users[0].user.token);
  await writeFile(path.join(account, "namespace"), "kube-system");
  const flags = ["--nftables-min-sync-period", "0s"];
  // A mount namespace of its own, as a pod has: nobody else sees this /run.
  const copy = `mkdir -p $1 && cp ${account}/* $1`;
  const enter = `mount -t tmpfs pod /run && ${copy} && shift && exec "$@"`;
  const { hostname, port } = new URL(url);
  return {
    command: [
      ...["unshare", "--mount", "sh", "-ec", enter, "sh"],
      "/run/secrets/kubernetes.io/serviceaccount",
      ...stage.agentCommand({ source: flags }),
    ],
    env: { KUBERNETES_SERVICE_HOST: hostname, KUBERNETES_SERVICE_PORT: port },
  };
}

labTest(
  "in a pod the agent is who its service account says, at the server it is told",
  async (t) => {
    await stage.agent.kill();
    const { command, env } = await commandInPod();
    const agent = await stage.node.start(command, { ready: /serving/, env });
    await apply(...webOf("pod-b"));
    await untilAnswered("pod-b");
    t.notRegex(agent.output(), /warn|error/);
    await agent.stop();
    await startAgent();
    await apply(...webOf("pod-c"));
    await untilAnswered("pod-c");
  },
);

/** The stage's kubeconfig with other lines in place of these. */
async function otherKubeconfig(change: (config: Kubeconfig) => void): Promise<string> {
  const config = parse(await readFile(path.join(stage.folder, "kubeconfig"), "utf8"));
  change(config);
  const file = path.join(stage.folder, "other-kubeconfig");
  await writeFile(file, JSON.stringify(config));
  return file;
}

interface Kubeconfig {
  clusters: { cluster: Record<string, unknown> }[];
  users: { user: Record<string, unknown> }[];
}

labTest("a plugin of the kubeconfig may say who the agent is", async (t) => {
  await killAgent();
  const kubeconfig = await otherKubeconfig(({ users: [one] }) => {
    const credential = {
      apiVersion: "client.authentication.k8s.io/v1",
      kind: "ExecCredential",
      status: { token: one!.user.token },
    };
    const apiVersion = credential.apiVersion;
    one!.user = { exec: { apiVersion, command: "echo", args: [JSON.stringify(credential)] } };
  });
  const source = ["--kubeconfig", kubeconfig];
  const agent = await stage.node.start(stage.agentCommand({ source }), { ready: /serving/ });
  t.notRegex(agent.output(), /warn|error/);
  await agent.stop();
});

for (const scheme of ["socks5", "http"])
  labTest(`a ${scheme} proxy that refuses is told of`, async (t) => {
    await killAgent();
    const kubeconfig = await otherKubeconfig(({ clusters: [one] }) => {
      one!.cluster["proxy-url"] = `${scheme}://127.0.0.1:9`;
    });
    const source = ["--kubeconfig", kubeconfig];
    const agent = await stage.node.start(stage.agentCommand({ source }), {
      ready: /Cannot (list|watch)/,
    });
    t.regex(agent.output(), /ECONNREFUSED 127\.0\.0\.1:9/);
    await agent.stop();
  });

labTest(
  "without a server a start waits, serves what is programmed, and ends when told",
  async (t) => {
    await killAgent();
    await server.close();
    const source = ["--kubeconfig", path.join(stage.folder, "kubeconfig")];
    const agent = await stage.node.start(stage.agentCommand({ source }), {
      ready: /Cannot (list|watch)/,
    });
    t.is(await answerer(), "pod-c");
    await agent.stop();
    t.regex(agent.output(), /Stopped; what is programmed/);
  },
);
