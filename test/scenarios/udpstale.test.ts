// Connected UDP sockets whose endpoint leaves: they are broken, so that the application connects
// again; all others stay as they are (semantics §14).
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { findClients } from "../../control/dataplane/namespaces.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Host } from "../../lab/host.ts";
import { Lab, type LabNode, whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { PATIENCE, waitFor } from "../../lab/wait.ts";
import { type Manifest, makeNode, makeService, makeSlices } from "./objects.ts";
import { COMMAND, POD_PORT, Stage } from "./stage.ts";
import { buildVariant } from "./variant.ts";

const labTest = needsLab(test);
let stage: Stage;

const DNS = [{ name: "dns", protocol: "UDP", port: 53 }] as const;
const POD_PORTS = [{ name: "dns", protocol: "UDP", port: POD_PORT }] as const;
/** Sockets in each of the pods that have many. */
const MANY = 1500;
/** A socket that is not broken within this time is not broken at all. */
const BOUND_SECONDS = 10;
const RECEIVE_SECONDS = BOUND_SECONDS * PATIENCE;

const SERVERS = ["pod-b", "pod-c"] as const;
const CLIENTS = ["client", "client-2", "client-3"] as const;

interface Target {
  address: string;
  port: number;
}

interface Connected {
  client: Helper;
  fd: number;
  /** The pod that answers. */
  identity: string;
}

/** Conditions of an endpoint by the words of the tests. */
const CONDITIONS = {
  ready: { ready: true },
  leaving: { ready: false, serving: true, terminating: true },
  gone: { ready: false, serving: false, terminating: true },
} as const;

type Endpoints = Readonly<Record<string, keyof typeof CONDITIONS>>;

const READY: Endpoints = { "pod-b": "ready", "pod-c": "ready" };

function vip(number: number): Target {
  return { address: `10.96.1.${number}`, port: 53 };
}

/** A UDP Service over both families and what is behind it; `hosts` knows where pods are. */
function makeUdp(number: number, endpoints: Endpoints, hosts = stage.lab.pods): Manifest[] {
  const name = `udp-${number}`;
  return [
    makeService({ name, addresses: [vip(number).address, `fd00:10:96::1:${number}`], ports: DNS }),
    ...makeSlices({
      service: name,
      ports: POD_PORTS,
      endpoints: Object.entries(endpoints).flatMap(([pod, state]) =>
        Object.values(hosts[pod]!.addresses).map((address: string) => ({
          address,
          conditions: CONDITIONS[state],
        })),
      ),
    }),
  ];
}

/** How dump shows an endpoint beside a ready one. */
const SHOWN = { ready: "ready", leaving: "serving" } as const;

/** Applies a Service and waits until the kernel holds these endpoints, in each family. */
async function serve(number: number, endpoints: Endpoints): Promise<void> {
  await stage.apply(`udp-${number}`, makeUdp(number, endpoints));
  const wanted = Object.values(endpoints).flatMap((state) =>
    state === "gone" ? [] : SHOWN[state],
  );
  await stage.programmed(`udp-${number}`, (rows) =>
    rows.every((row) => {
      const states = row.endpoints.map(({ state }) => state);
      return states.sort().join() === wanted.sort().join();
    }),
  );
}

/** A new UDP socket, connected, and who answers it. */
async function connect(client: Helper, target: Target): Promise<Connected> {
  const family = target.address.includes(":") ? 6 : 4;
  const timeoutSeconds = RECEIVE_SECONDS;
  const fd = await client.sockets.open({ protocol: "UDP", family, timeoutSeconds });
  return reconnect({ client, fd }, target);
}

/** Connects a socket that may have been connected before. */
async function reconnect(
  { client, fd }: Pick<Connected, "client" | "fd">,
  target: Target,
): Promise<Connected> {
  await client.sockets.connect(fd, target);
  return { client, fd, identity: await ask({ client, fd }) };
}

async function ask({ client, fd }: Pick<Connected, "client" | "fd">): Promise<string> {
  await client.sockets.send(fd, "hello");
  const { payload } = await client.sockets.receive(fd);
  return (JSON.parse(payload) as Answer).identity;
}

/** One that is connected to the given pod. */
async function connectTo(client: Helper, options: Target & { pod: string }): Promise<Connected> {
  const { pod, ...target } = options;
  for (;;) {
    const connected = await connect(client, target);
    if (connected.identity === pod) return connected;
    await client.sockets.close(connected.fd);
  }
}

/** What receiving on a socket that nobody sends to ends with: the errno, or EAGAIN at last. */
async function ending({ client, fd }: Connected): Promise<string> {
  return client.sockets.receive(fd).then(
    ({ payload }) => payload,
    (error: { code?: string }) => error.code ?? "no code",
  );
}

function other(pod: string): string {
  return SERVERS.find((server) => server !== pod)!;
}

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open([...CLIENTS, ...SERVERS]);
  for (let number = 1; number <= 12; number++)
    await stage.apply(`udp-${number}`, makeUdp(number, READY));
  await stage.startAgent();
});

test.after.always(async () => {
  await stage?.close();
});

for (const [number, address] of [
  [1, "10.96.1.1"],
  [2, "fd00:10:96::1:2"],
  [3, "::ffff:10.96.1.3"],
] as const)
  labTest(`a socket connected to ${address} is broken, and gets another endpoint`, async (t) => {
    const client = await stage.pod("client").helper();
    const target = { address, port: 53 };
    const socket = await connect(client, target);
    const ended = ending(socket);
    await serve(number, { [other(socket.identity)]: "ready" });
    t.is(await ended, "ECONNABORTED");
    t.is((await reconnect(socket, target)).identity, other(socket.identity));
    await client.close();
  });

labTest("a process of the node itself is told as well", async (t) => {
  const client = await stage.node.helper();
  const socket = await connect(client, vip(4));
  const ended = ending(socket);
  await serve(4, { [other(socket.identity)]: "ready" });
  t.is(await ended, "ECONNABORTED");
  await client.close();
});

labTest("sending without having received fails too, and receiving then tells why", async (t) => {
  const client = await stage.pod("client").helper();
  const socket = await connect(client, vip(5));
  await serve(5, { [other(socket.identity)]: "ready" });
  const sent = await waitFor(
    () =>
      client.sockets.send(socket.fd, "hello").then(
        () => false as const,
        ({ code }: { code: string }) => code,
      ),
    { what: "send to fail", timeoutSeconds: BOUND_SECONDS },
  );
  t.is(sent, "EDESTADDRREQ");
  await waitFor(async () => (await ending(socket)) === "ECONNABORTED", { what: "the error" });
  await client.close();
});

labTest("with no endpoint left, and with the Service deleted, sockets are broken", async (t) => {
  const clients = await Promise.all([1, 2].map(() => stage.pod("client").helper()));
  const sockets = await Promise.all(
    clients.map((client, index) => connect(client, vip(6 + index))),
  );
  const ended = Promise.all(sockets.map(ending));
  await serve(6, {});
  await stage.withdraw("udp-7");
  t.deepEqual(await ended, ["ECONNABORTED", "ECONNABORTED"]);
  const again = clients[0]!.sockets.connect(sockets[0]!.fd, vip(6));
  await t.throwsAsync(again, { message: /ECONNREFUSED/ });
  for (const client of clients) await client.close();
});

labTest("sockets of another Service, straight ones and new ones stay", async (t) => {
  const client = await stage.pod("client").helper();
  const victim = await connect(client, vip(8));
  const { identity } = victim;
  const direct = { address: stage.pod(identity).addresses.ipv4, port: POD_PORT };
  const straight = await connect(client, direct);
  const before = await connect(client, vip(8));
  const turned = await reconnect(before, direct);
  const stranger = await connectTo(client, { ...vip(9), pod: identity });
  const unaffected = await connectTo(client, { ...vip(8), pod: other(identity) });
  await serve(8, { [other(identity)]: "ready" });
  t.is(await ending(victim), "ECONNABORTED");
  await serve(8, READY);
  const fresh = await connectTo(client, { ...vip(8), pod: identity });
  // Another socket of another Service has to go, so that all sockets are looked at again.
  const second = await connect(client, vip(10));
  await serve(10, {});
  t.is(await ending(second), "ECONNABORTED");
  for (const socket of [straight, turned, stranger, unaffected, fresh])
    t.is(await ask(socket), socket.identity);
  await client.close();
});

labTest("an endpoint that is leaving keeps its sockets until it serves no more", async (t) => {
  const client = await stage.pod("client").helper();
  const socket = await connect(client, vip(11));
  const { identity } = socket;
  const victim = await connect(client, vip(12));
  await serve(11, { [identity]: "leaving", [other(identity)]: "ready" });
  await serve(12, {});
  t.is(await ending(victim), "ECONNABORTED");
  t.is(await ask(socket), identity);
  t.is((await connect(client, vip(11))).identity, other(identity));
  await serve(11, { [identity]: "gone", [other(identity)]: "ready" });
  t.is(await ending(socket), "ECONNABORTED");
  await client.close();
});

/** A stage of one test's own, with one Service of two endpoints. */
async function openOwn(t: ExecutionContext): Promise<Stage> {
  const own = await Stage.open([...CLIENTS, ...SERVERS]);
  t.teardown(() => own.close());
  await own.apply("udp", makeUdp(1, READY, own.lab.pods));
  return own;
}

labTest("an endpoint that left while no agent ran is noticed by the next", async (t) => {
  const own = await openOwn(t);
  const agent = await own.startAgent();
  const socket = await connect(await own.pod("client").helper(), vip(1));
  await agent.kill();
  await own.apply("udp", makeUdp(1, { [other(socket.identity)]: "ready" }, own.lab.pods));
  const ended = ending(socket);
  await own.startAgent();
  t.is(await ended, "ECONNABORTED");
});

/** A command whose programs ask this kernel for a function that it lacks, and that function. */
async function unbreakable(t: ExecutionContext): Promise<{ command: string; absent: string }> {
  const types = readFileSync("/sys/kernel/btf/vmlinux", "latin1");
  if (!types.includes("\0bpf_sock_destroy\0"))
    return { command: COMMAND, absent: "bpf_sock_destroy" };
  const { command, remove } = await buildVariant([
    ["bpf/iter.bpf.c", "extern int bpf_sock_destroy(struct", "extern int bpf_sock_no_more(struct"],
    ["bpf/iter.bpf.c", "if (!bpf_sock_destroy(sk))", "if (!bpf_sock_no_more(sk))"],
  ]);
  t.teardown(remove);
  return { command, absent: "bpf_sock_no_more" };
}

labTest("on a kernel that cannot break sockets the agent says so once, and serves", async (t) => {
  const own = await openOwn(t);
  const { command, absent } = await unbreakable(t);
  const agent = await own.node.start([process.execPath, command, "run", ...own.agentFlags], {
    ready: /serving/,
    timeoutSeconds: 60,
  });
  const socket = await connect(await own.pod("client").helper(), vip(1));
  await own.apply("udp", makeUdp(1, { [other(socket.identity)]: "ready" }, own.lab.pods));
  await own.withEndpoints("udp-1", 1);
  t.is((await reconnect(socket, vip(1))).identity, other(socket.identity));
  await agent.stop();
  t.is(agent.output().match(/takes Linux 6\.5/g)?.length, 1, agent.output());
  t.true(agent.output().includes(absent), agent.output());
});

labTest("thousands of sockets in several pods are broken at once, the others stay", async (t) => {
  const own = await openOwn(t);
  const agent = await own.startAgent();
  const clients = await Promise.all(CLIENTS.map((name) => own.pod(name).helper()));
  const opened = await Promise.all(clients.map(openMany));
  const count = opened.flatMap(({ stale }) => stale).length;
  t.true(count > MANY);
  await own.apply("udp", makeUdp(1, { "pod-c": "ready" }, own.lab.pods));
  await waitFor(() => agent.output().includes(`Broke ${count} UDP sockets`), {
    what: `${count} broken sockets`,
    timeoutSeconds: BOUND_SECONDS,
  });
  for (const { client, stale, kept } of opened) {
    for (const fd of stale)
      await t.throwsAsync(client.sockets.peerAddress(fd), { message: /ENOTCONN/ });
    for (const fd of kept) await t.notThrowsAsync(client.sockets.peerAddress(fd));
  }
});

/** Connects many sockets of one process; by the endpoint that each got. */
async function openMany(
  client: Helper,
): Promise<{ client: Helper; stale: number[]; kept: number[] }> {
  const stale: number[] = [];
  const kept: number[] = [];
  for (let count = 0; count < MANY; count++) {
    const { fd, identity } = await connect(client, vip(1));
    (identity === "pod-b" ? stale : kept).push(fd);
  }
  return { client, stale, kept };
}

labTest("a node's agent sees its own pods, and breaks no socket of another node's", async (t) => {
  const lab = await Lab.create({
    name: "test",
    topology: { "node-a": ["client-a", ...SERVERS], "node-b": ["client-b"] },
  });
  t.teardown(() => lab.close());
  const [a, b] = [lab.nodes["node-a"]!, lab.nodes["node-b"]!];
  for (const pod of SERVERS) await serveUdp(lab.pods[pod]!);
  const writeA = await startAgent(t, { node: a, hosts: lab.pods });
  await startAgent(t, { node: b, hosts: lab.pods });
  const clientA = await lab.pods["client-a"]!.helper();
  const clientB = await lab.pods["client-b"]!.helper();
  const target = { ...vip(1), pod: "pod-b" };
  const [ours, theirs] = [await connectTo(clientA, target), await connectTo(clientB, target)];
  await writeA({ "pod-c": "ready" });
  t.is(await ending(ours), "ECONNABORTED");
  t.is(await ask(theirs), "pod-b");
  t.deepEqual(
    podsSeen(a),
    ["client-a", ...SERVERS].map((pod) => lab.pods[pod]!.addresses),
  );
  t.deepEqual(podsSeen(b), [lab.pods["client-b"]!.addresses]);
});

async function serveUdp(pod: Host): Promise<void> {
  const helper = await pod.helper();
  await helper.serveUdp({ identity: pod.name, address: pod.addresses.ipv4, port: POD_PORT });
}

/** Starts the agent of a node with a folder of its own; the result changes what is in there. */
async function startAgent(
  t: ExecutionContext,
  { node, hosts }: { node: LabNode; hosts: Readonly<Record<string, Host>> },
): Promise<(endpoints: Endpoints) => Promise<void>> {
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-test-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const write = async (endpoints: Endpoints) => {
    const objects = [
      makeNode(node.name, Object.values(node.addresses)),
      ...makeUdp(1, endpoints, hosts),
    ];
    const text = objects.map((object) => JSON.stringify(object)).join("\n---\n");
    await writeFile(path.join(folder, "all.yaml"), text);
  };
  await write(READY);
  const place = ["--node", node.name, "--cgroup", node.cgroup, "--pins", node.pins];
  const command = [process.execPath, COMMAND, "run", "--manifests", folder, ...place];
  await node.start(command, { ready: /serving/, timeoutSeconds: 60 });
  return write;
}

/** The addresses of the pods that an agent of this node finds, in their order. */
function podsSeen({ cgroup }: LabNode) {
  const { clients } = findClients(
    { cgroup, onHidden: () => {} },
    { isInside: (address) => address.startsWith("10.244.") },
  );
  return clients
    .filter(({ inside }) => inside.length > 0)
    .map(({ ipv4 = "", ipv6 = "" }) => ({ ipv4, ipv6 }))
    .sort((one, other) => (one.ipv4 < other.ipv4 ? -1 : 1));
}
