// The image as deploy/ runs it, on a node of the lab: what it is given there is enough for all that
// it does, and nothing of that can be left out. test:image runs this, since it takes an image.
import { rm } from "node:fs/promises";
import test, { type ExecutionContext } from "ava";
import type { ApiObject } from "../../lab/apiserver/objects.ts";
import { type RemoteApiServer, startRemoteApiServer } from "../../lab/apiserver/remote.ts";
import type { Running } from "../../lab/host.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { kernelNamed } from "../kernels/kernels.ts";
import { makeNode, makeService, makeSlices } from "../scenarios/objects.ts";
import { POD_PORT, Stage, whoTcp } from "../scenarios/stage.ts";
import { type ContainerOptions, makeContainer } from "./container.ts";

const labTest = needsLab(test);
const WEB = { address: "10.96.0.1", port: 80 };
const DNS = { address: "10.96.0.2", port: 53 };
/** A VIP that only the pod "client" may ask: its address has to be known. */
const VIP = { address: "198.51.100.3", port: 80 };

/** Of the kernel of test:kernels that this runs on; others have all of it. */
const { socketDestroy } = kernelNamed(process.env.kernel ?? "newest").features;

interface World {
  stage: Stage;
  server: RemoteApiServer;
  token: string;
}
let world: World;

/** Service "dns" with these pods behind it. */
function dnsOf(stage: Stage, ...pods: string[]): ApiObject[] {
  const endpoints = pods.map((pod) => stage.pod(pod).addresses.ipv4);
  const port = { name: "dns", protocol: "UDP", port: DNS.port } as const;
  return [
    makeService({ name: "dns", addresses: [DNS.address], ports: [port] }),
    ...makeSlices({ service: "dns", ports: [{ ...port, port: POD_PORT }], endpoints }),
  ] as ApiObject[];
}

function webObjects(stage: Stage): ApiObject[] {
  const ports = [{ name: "http", port: POD_PORT }];
  const endpoints = [stage.pod("pod-b").addresses.ipv4];
  return [
    makeNode("node-a", Object.values(stage.node.addresses)),
    makeService({ name: "web", addresses: [WEB.address], ports: [{ name: "http", port: 80 }] }),
    ...makeSlices({ service: "web", ports, endpoints }),
    makeService({
      name: "guarded",
      addresses: ["10.96.0.3"],
      ports: [{ name: "http", port: 80 }],
      spec: {
        type: "LoadBalancer",
        loadBalancerSourceRanges: [`${stage.pod("client").addresses.ipv4}/32`],
      },
      status: { loadBalancer: { ingress: [{ ip: VIP.address }] } },
    }),
    ...makeSlices({ service: "guarded", ports, endpoints }),
  ] as ApiObject[];
}

test.before(async () => {
  const stage = await Stage.open(["client", "pod-b", "pod-c"]);
  const address = stage.node.addresses.ipv4;
  const server = await startRemoteApiServer(["--address", address], {
    host: stage.node.bystander,
  });
  // What system:node-proxier may not do with what it may list and watch (§1.7).
  for (const resource of ["services", "endpointslices", "servicecidrs"])
    await server.call({ do: "deny", denial: { verb: "get", resource } });
  const user = "system:serviceaccount:kube-system:bpfsvc";
  const { value } = await server.call({ do: "issueToken", user });
  world = { stage, server, token: value as string };
  for (const object of [...webObjects(stage), ...dnsOf(stage, "pod-b")])
    await server.call({ do: "apply", object });
});

test.after.always(async () => {
  await world?.server.close();
  await world?.stage.close();
});

type Changes = Pick<ContainerOptions, "capabilities" | "without">;

/** The agent in its container. */
interface Agent extends Pick<Running, "output" | "ended"> {
  kill(): Promise<void>;
}

/** Starts the container and waits for what it says when it serves, or otherwise. */
async function start(
  t: ExecutionContext,
  changes: Changes = {},
  ready = /serving/,
): Promise<Agent> {
  const { stage, server, token } = world;
  const { url, ca } = server.description;
  const container = makeContainer({ node: stage.node, server: { url, ca, token }, ...changes });
  t.teardown(() => rm(container.folder, { recursive: true, force: true }));
  const running = await stage.node.start(container.command, { ready, timeoutSeconds: 60 });
  const kill = async () => {
    if (running.ended()) return;
    container.kill();
    await waitFor(() => running.ended(), { what: "the container to end" });
  };
  t.teardown(kill);
  return { output: () => running.output(), ended: () => running.ended(), kill };
}

/** Connects a UDP socket of a pod to the Service and lets its endpoint go: what the socket gets. */
async function loseEndpoint(): Promise<string> {
  const { stage, server } = world;
  const client = await stage.pod("client").helper();
  const fd = await client.sockets.open({ protocol: "UDP", family: 4, timeoutSeconds: 5 });
  await client.sockets.connect(fd, DNS);
  for (const object of dnsOf(stage, "pod-c")) await server.call({ do: "apply", object });
  const outcome = await client.sockets.receive(fd).then(
    () => "an answer",
    (error: { code: string }) => error.code,
  );
  await client.close();
  for (const object of dnsOf(stage, "pod-b")) await server.call({ do: "apply", object });
  return outcome;
}

/** The lines in which the agent complains. */
function complaints(agent: Agent): string[] {
  return agent
    .output()
    .split("\n")
    .filter((line) => / (warn|error) /.test(line));
}

labTest("with what the DaemonSet gives, all is served and nothing is complained of", async (t) => {
  const { stage } = world;
  const agent = await start(t);
  const client = await stage.client(stage.pod("client"));
  t.is(await whoTcp(client, WEB), "pod-b");
  t.is(await whoTcp(client, VIP), "pod-b");
  t.is(await whoTcp(await stage.client(stage.pod("pod-c")), VIP), "EHOSTUNREACH");
  t.is(await whoTcp(await stage.client(stage.node), WEB), "pod-b");
  t.is(await loseEndpoint(), socketDestroy ? "ECONNABORTED" : "EAGAIN");
  const others = complaints(agent).filter((line) => !/that takes Linux 6\.5/.test(line));
  t.deepEqual(others, [], agent.output());
  t.is(complaints(agent).length, socketDestroy ? 0 : 1);
  await agent.kill();
  t.is(await whoTcp(client, WEB), "pod-b", "served on without the container");
  const next = await start(t);
  t.regex(next.output(), /are up to date/);
});

/** What is left out, and what the agent then says and does not serve. */
const LESS: readonly (Changes & { title: string; says: RegExp; serves: boolean })[] = [
  {
    title: "NET_ADMIN",
    capabilities: ["SYS_ADMIN", "SYS_PTRACE"],
    says: /run it as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON/,
    serves: false,
  },
  {
    title: "SYS_PTRACE",
    capabilities: ["NET_ADMIN", "SYS_ADMIN"],
    says: /CAP_SYS_PTRACE/,
    serves: true,
  },
  {
    title: "SYS_ADMIN, but with what kernels have had for BPF alone since 5.8",
    capabilities: ["BPF", "NET_ADMIN", "PERFMON", "SYS_PTRACE"],
    says: /CAP_SYS_ADMIN/,
    serves: true,
  },
  {
    title: "the node's cgroup tree",
    without: ["cgroup"],
    says: /Only this container's own cgroup is to be seen/,
    serves: false,
  },
  {
    title: "the node's BPF file system",
    without: ["bpf"],
    says: /"\/sys\/fs\/bpf.*BPF file system/,
    serves: false,
  },
];

for (const { title, says, serves, ...changes } of LESS)
  labTest(`without ${title} the agent says so`, async (t) => {
    const { stage } = world;
    await stage.command("cleanup", "--pins", `${stage.node.pins}/bpfsvc`);
    const agent = await start(t, changes, serves ? /serving/ : says);
    await waitFor(() => says.test(agent.output()), { what: `"${title}" to be missed` });
    if (!serves) await waitFor(() => agent.ended(), { what: "the container to end" });
    const client = await stage.client(stage.pod("client"));
    t.is(await whoTcp(client, WEB), serves ? "pod-b" : "EACCES");
    t.regex(agent.output(), says);
  });
