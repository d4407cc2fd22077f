// UDP through the socket path: replies come from the address that was asked, and a socket stays
// with the endpoint it got.
import test from "ava";
import type { Answer } from "../../lab/helper.ts";
import type { Helper } from "../../lab/host.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import type { Address } from "../../lab/sockets.ts";
import { makeService, makeSlices } from "./objects.ts";
import { POD_PORT, Stage, whoUdp } from "./stage.ts";

const labTest = needsLab(test);
let stage: Stage;

const DNS = [{ name: "dns", protocol: "UDP", port: 53 }] as const;
const POD_PORTS = [{ name: "dns", protocol: "UDP", port: POD_PORT }] as const;
const LATE_PORT = 9999;
/** Services "many-0" and on, for one socket that asks them all. */
const MANY = 300;

/** The pods that serve. */
const SERVERS = ["pod-b", "pod-c", "pod-d"] as const;

function addressesOf(...pods: string[]): string[] {
  return pods.flatMap((pod) => Object.values(stage.pod(pod).addresses));
}

/** A UDP Service with the given pods as endpoints. */
async function serve(
  name: string,
  options: { number: number; pods: readonly string[]; port?: number },
) {
  const { number, pods, port = POD_PORT } = options;
  await stage.apply(name, [
    makeService({
      name,
      addresses: [`10.96.1.${number}`, `fd00:10:96::1:${number}`],
      ports: [...DNS],
      spec: { externalIPs: [`192.0.2.${number}`] },
    }),
    ...makeSlices({ service: name, ports: [{ ...DNS[0], port }], endpoints: addressesOf(...pods) }),
  ]);
}

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open(["client", ...SERVERS]);
  await serve("dns", { number: 1, pods: SERVERS });
  await serve("sticky", { number: 2, pods: SERVERS });
  await serve("moving", { number: 3, pods: ["pod-b", "pod-c"] });
  await serve("late", { number: 4, pods: ["pod-b"], port: LATE_PORT });
  await serve("empty", { number: 5, pods: [] });
  await serve("left", { number: 6, pods: ["pod-b"] });
  await stage.apply(
    "many",
    Array.from({ length: MANY }, (_, index) => [
      makeService({ name: `many-${index}`, addresses: [manyAddress(index)], ports: [...DNS] }),
      ...makeSlices({
        service: `many-${index}`,
        ports: [...POD_PORTS],
        endpoints: [stage.pod(SERVERS[index % SERVERS.length]!).addresses.ipv4],
      }),
    ]).flat(),
  );
  await stage.startAgent();
});

test.after.always(async () => {
  await stage?.close();
});

function manyAddress(index: number): string {
  return `10.96.${2 + Math.floor(index / 200)}.${1 + (index % 200)}`;
}

async function open(client: Helper, family: 4 | 6 = 4): Promise<number> {
  return client.sockets.open({ protocol: "UDP", family, timeoutSeconds: 3 });
}

/** One datagram and its answer on an open socket: who answered, and from which address. */
async function exchange(
  client: Helper,
  options: Address & { fd: number },
): Promise<{ identity: string; from: Address | undefined }> {
  const { fd, address, port } = options;
  await client.sockets.sendTo(fd, { address, port, payload: "hello" });
  const { payload, from } = await client.sockets.receive(fd);
  return { identity: (JSON.parse(payload) as Answer).identity, from };
}

async function codeOf(action: Promise<unknown>): Promise<string> {
  return action.then(
    () => "no error",
    (error: { code?: string }) => error.code ?? "no code",
  );
}

for (const place of ["pod", "node"] as const)
  for (const address of ["10.96.1.1", "fd00:10:96::1:1", "192.0.2.1", "::ffff:10.96.1.1"])
    labTest(`from the ${place}, a reply comes from ${address}, which was asked`, async (t) => {
      const client = await stage.client(place === "pod" ? stage.pod("client") : stage.node);
      const answer = await whoUdp(client, { address, port: 53 });
      t.like(answer, { from: `${address}|53` });
    });

labTest("an unconnected socket stays with the endpoint it got", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const { identity } = await exchange(client, { fd, address: "10.96.1.2", port: 53 });
  for (let index = 0; index < 25; index++) {
    const again = await exchange(client, { fd, address: "10.96.1.2", port: 53 });
    t.is(again.identity, identity);
  }
  await client.close();
});

labTest("a mapped address and its IPv4 form are the same Service to one socket", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client, 6);
  const { identity } = await exchange(client, { fd, address: "::ffff:10.96.1.2", port: 53 });
  for (let index = 0; index < 10; index++) {
    const again = await exchange(client, { fd, address: "::ffff:10.96.1.2", port: 53 });
    t.deepEqual(again, { identity, from: { address: "::ffff:10.96.1.2", port: 53 } });
  }
  await client.close();
});

labTest("other sockets get other endpoints", async (t) => {
  const client = await stage.pod("client").helper();
  const seen = new Set<string>();
  for (let index = 0; index < 40; index++) {
    const answer = await whoUdp(client, { address: "10.96.1.2", port: 53 });
    if ("identity" in answer) seen.add(answer.identity);
  }
  t.is(seen.size, SERVERS.length);
  await client.close();
});

labTest("a socket whose endpoint left gets another, and stays there", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const first = await exchange(client, { fd, address: "10.96.1.3", port: 53 });
  const other = first.identity === "pod-b" ? "pod-c" : "pod-b";
  await serve("moving", { number: 3, pods: [other] });
  await stage.withEndpoints("moving", 1);
  const second = await exchange(client, { fd, address: "10.96.1.3", port: 53 });
  t.deepEqual(second, { identity: other, from: { address: "10.96.1.3", port: 53 } });
  await serve("moving", { number: 3, pods: ["pod-b", "pod-c"] });
  await stage.withEndpoints("moving", 2);
  for (let index = 0; index < 15; index++) {
    const again = await exchange(client, { fd, address: "10.96.1.3", port: 53 });
    t.is(again.identity, other);
  }
  await client.close();
});

labTest("a late reply of an endpoint that left still comes from the Service", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const target = { address: "10.96.1.4", port: 53 };
  const [b, c] = await Promise.all(["pod-b", "pod-c"].map((pod) => listen(pod, LATE_PORT)));
  await client.sockets.sendTo(fd, { ...target, payload: "first" });
  const { from } = await b!.helper.sockets.receive(b!.fd);
  await serve("late", { number: 4, pods: ["pod-c"], port: LATE_PORT });
  await stage.programmed("late", ([row]) => row!.endpoints[0]?.address === c!.address);
  await client.sockets.sendTo(fd, { ...target, payload: "second" });
  t.is((await c!.helper.sockets.receive(c!.fd)).payload, "second");
  for (const { helper, fd: server } of [c!, b!]) {
    await helper.sockets.sendTo(server, { ...from!, payload: "reply" });
    t.deepEqual(await client.sockets.receive(fd), { payload: "reply", from: target });
  }
  for (const { helper } of [b!, c!, { helper: client }]) await helper.close();
});

/** A bound UDP socket in a pod, to answer from when the test says so. */
async function listen(pod: string, port: number) {
  const helper = await stage.pod(pod).helper();
  const fd = await helper.sockets.open({ protocol: "UDP", family: 4, timeoutSeconds: 3 });
  const address = stage.pod(pod).addresses.ipv4;
  await helper.sockets.bind(fd, { address, port });
  return { helper, fd, address };
}

labTest("a connected socket shows the Service as its peer and as the sender", async (t) => {
  const client = await stage.pod("client").helper();
  for (const [family, address] of [
    [4, "10.96.1.1"],
    [6, "fd00:10:96::1:1"],
    [6, "::ffff:10.96.1.1"],
  ] as const) {
    const fd = await open(client, family);
    await client.sockets.connect(fd, { address, port: 53 });
    t.deepEqual(await client.sockets.peerAddress(fd), { address, port: 53 });
    await client.sockets.send(fd, "hello");
    t.deepEqual((await client.sockets.receive(fd)).from, { address, port: 53 });
    await client.sockets.close(fd);
  }
  await client.close();
});

labTest("a socket that connects anew shows its new peer, Service or not", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const direct = { address: stage.pod("pod-b").addresses.ipv4, port: 9 };
  for (const peer of [
    { address: "10.96.1.1", port: 53 },
    { address: "192.0.2.1", port: 53 },
    direct,
    { address: "10.96.1.2", port: 53 },
  ]) {
    await client.sockets.connect(fd, peer);
    t.deepEqual(await client.sockets.peerAddress(fd), peer);
  }
  await client.close();
});

labTest("a socket may talk to a Service and straight to its endpoint", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const service = { address: "10.96.1.1", port: 53 };
  const { identity } = await exchange(client, { fd, ...service });
  const endpoint = { address: stage.pod(identity).addresses.ipv4, port: POD_PORT };
  for (const target of [endpoint, service, endpoint, endpoint, service])
    t.deepEqual(await exchange(client, { fd, ...target }), { identity, from: target });
  for (const target of [endpoint, service, endpoint]) {
    await client.sockets.connect(fd, target);
    t.deepEqual(await client.sockets.peerAddress(fd), target);
  }
  await client.close();
});

labTest("a Service without endpoints refuses connect and sendto alike", async (t) => {
  const client = await stage.pod("client").helper();
  for (const [family, address] of [
    [4, "10.96.1.5"],
    [6, "fd00:10:96::1:5"],
    [6, "::ffff:10.96.1.5"],
  ] as const) {
    const fd = await open(client, family);
    const target = { address, port: 53 };
    const sent = await codeOf(client.sockets.sendTo(fd, { ...target, payload: "hello" }));
    t.is(sent, "ECONNREFUSED");
    t.is(await codeOf(client.sockets.connect(fd, target)), "ECONNREFUSED");
  }
  await client.close();
});

labTest("a socket that had an endpoint is refused once none is left", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const target = { address: "10.96.1.6", port: 53 };
  await exchange(client, { fd, ...target });
  await serve("left", { number: 6, pods: [] });
  await stage.withEndpoints("left", 0);
  const sent = await codeOf(client.sockets.sendTo(fd, { ...target, payload: "hello" }));
  t.is(sent, "ECONNREFUSED");
  await client.close();
});

labTest("one socket talks to hundreds of Services, each reply from the right one", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  // More than are remembered; what is asked is answered before the next.
  for (let index = 0; index < MANY; index++) {
    const target = { address: manyAddress(index), port: 53 };
    const { identity, from } = await exchange(client, { fd, ...target });
    t.deepEqual({ identity, from }, { identity: SERVERS[index % SERVERS.length]!, from: target });
  }
  await client.close();
});

labTest("replies that wait are each from their own Service", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  const asked = SERVERS.map((_, index) => ({ address: manyAddress(index), port: 53 }));
  for (const target of asked) await client.sockets.sendTo(fd, { ...target, payload: "hello" });
  const senders: string[] = [];
  for (const _ of asked) senders.push((await client.sockets.receive(fd)).from!.address);
  t.deepEqual(senders.sort(), asked.map(({ address }) => address).sort());
  await client.close();
});

labTest("traffic straight to an endpoint and to strangers is untouched", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await open(client);
  await exchange(client, { fd, address: "10.96.1.1", port: 53 });
  const stranger = { address: stage.pod("client").addresses.ipv4, port: POD_PORT };
  const { from } = await exchange(client, { fd, ...stranger });
  t.deepEqual(from, stranger);
  await client.close();
});

labTest("a process outside the cgroup is not touched", async (t) => {
  const client = await stage.node.bystander.helper();
  t.deepEqual(await whoUdp(client, { address: "10.96.1.1", port: 53 }), { error: "EACCES" });
  await client.close();
});
