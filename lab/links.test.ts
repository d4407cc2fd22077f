// What can be done to a lab's network while traffic goes on.
import path from "node:path";
import test from "ava";
import type { Answer, TcpReply } from "./helper.ts";
import type { Helper } from "./host.ts";
import { Lab, type LabNode } from "./lab.ts";
import { addUplink, changeMac, plug, prepareXdp, routeVips, unplug } from "./links.ts";
import { needsLab } from "./needs.ts";
import { layerOf, Packets } from "./packets.ts";
import { waitFor } from "./wait.ts";

const labTest = needsLab(test.serial);

interface Place {
  lab: Lab;
  node: LabNode;
  other: LabNode;
  client: Helper;
}

let opened: Promise<Place> | undefined;
function open(): Promise<Place> {
  opened ??= (async () => {
    const lab = await Lab.create({ name: "links" });
    const [node, other] = Object.values(lab.nodes) as [LabNode, LabNode];
    return { lab, node, other, client: await lab.outside.helper() };
  })();
  return opened;
}
test.after.always(async () => (await opened)?.lab.close());

/** Who answers one connection, or the errno. */
async function whoAnswers(client: Helper, address: string, port: number): Promise<string> {
  const outcome = await client.tcp({ address, port, timeoutSeconds: 2 });
  return "error" in outcome ? outcome.error : (JSON.parse(outcome.reply) as Answer).identity;
}

labTest(
  "a connection goes on while its server's MAC address changes, told of or not",
  async (t) => {
    const { node, client } = await open();
    const server = await node.helper();
    for (const address of Object.values(node.addresses)) {
      await server.serveEcho({ identity: "node", address, port: 80 });
      const flow = await client.startFlow({ protocol: "TCP", address, port: 80, pauseMs: 1 });
      // The announced one last: it mends the other family's way too, which is not used here.
      for (const announce of [false, true]) {
        const mac = await changeMac(node, { announce });
        const { stdout } = await node.run(["ip", "-brief", "link", "show", "eth0"]);
        t.true(stdout.includes(mac));
        const { rounds } = await client.reportFlow(flow);
        await waitFor(async () => (await client.reportFlow(flow)).rounds > rounds, {
          what: `an answer after the change, ${address}, announce: ${announce}`,
          timeoutSeconds: 60,
        });
      }
      t.like(await client.stopFlow(flow), { wrong: 0, broken: undefined });
    }
  },
);

labTest("a node whose cable was pulled, or whose device was down, is reached again", async (t) => {
  const { lab, node, client } = await open();
  const server = await node.helper();
  for (const address of Object.values(node.addresses))
    await server.serveTcp({ identity: "node", address, port: 81 });
  const isThere = () =>
    Promise.all(
      Object.values(node.addresses).map(async (address) => {
        const what = `${address} to answer`;
        await waitFor(async () => (await whoAnswers(client, address, 81)) === "node", { what });
      }),
    );
  await isThere();
  await unplug(lab, node);
  const { stdout } = await node.run(["ip", "-brief", "link", "show", "eth0"]);
  t.regex(stdout, /NO-CARRIER|DOWN/);
  await plug(lab, node);
  await isThere();
  await node.ip("link set eth0 down");
  t.like(await client.tcp({ address: node.addresses.ipv4, port: 81, timeoutSeconds: 0.2 }), {
    error: "ETIMEDOUT",
  });
  await lab.restore(node);
  await isThere();
});

labTest("a second uplink is reached like the first, and goes", async (t) => {
  const { lab, node, client } = await open();
  const own = await addUplink(lab, node);
  t.deepEqual(own, { ipv4: "192.168.51.2", ipv6: "2001:db8:51::2" });
  const server = await node.helper();
  for (const address of Object.values(own)) {
    await server.serveTcp({ identity: "second", address, port: 80 });
    t.is(await whoAnswers(client, address, 80), "second", address);
  }
  await node.ip("link del eth1");
  const { stdout } = await node.run(["ip", "-brief", "link"]);
  t.false(stdout.includes("eth1"));
});

labTest(
  "Service addresses lead from outside to the nodes that were named, by the flow",
  async (t) => {
    const { lab, node, other, client } = await open();
    const addresses = ["198.51.100.10", "10.96.0.10", "2001:db8:1b::51", "fd00:10:96::10"];
    for (const each of [node, other]) {
      const server = await each.helper();
      for (const address of addresses) {
        await each.ip(`address add ${address} dev lo ${address.includes(":") ? "nodad" : ""}`);
        await server.serveTcp({ identity: each.name, address, port: 80 });
      }
    }
    const local = (index: number) => ({ port: 30_000 + index });
    for (const address of addresses) {
      await routeVips(lab, [other]);
      t.is(await whoAnswers(client, address, 80), other.name, address);
      await routeVips(lab, [node, other]);
      const questions = Array.from({ length: 32 }, (_, index) => ({
        address,
        port: 80,
        local: local(index),
        reset: true,
      }));
      const replies = (await client.tcpMany(questions)) as TcpReply[];
      const nodes = replies.map(({ reply }) => (JSON.parse(reply) as Answer).identity);
      t.deepEqual([...new Set(nodes)].sort(), [node.name, other.name], address);
    }
  },
);

labTest("XDP sends from a node's uplink once the lab is prepared for it", async (t) => {
  const { lab, node } = await open();
  const object = path.join(import.meta.dirname, "testdata/reflect.bpf.o");
  await node.run(["ip", "link", "set", "eth0", "xdpdrv", "object", object, "section", "xdp"]);
  const packets = await Packets.start(lab.outside);
  const { ipv4: from } = lab.outside.addresses;
  const { ipv4: to } = node.addresses;
  const capture = await packets.capture({ match: "UDP in p" });
  const ask = async () => {
    await packets.send(`IP(src="${from}", dst="${to}")/UDP(sport=9000, dport=7)/b"hello"`);
    return (await capture.take({ timeoutSeconds: 0.3 }))[0];
  };
  // Why there is such a function: see its description.
  t.is(await ask(), undefined);
  await prepareXdp(lab);
  const seen = await waitFor(ask, { what: "a packet from XDP" });
  t.like(layerOf(seen, "UDP"), { sport: 7, dport: 9000 });
  t.deepEqual(seen.problems, []);
  await packets.close();
});
