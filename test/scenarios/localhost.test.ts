// Node ports of localhost, where that is asked for: real connections of the node's own processes
// get there, whatever the policies say; a pod's loopback stays its own, and so does what is bound
// to loopback.
import test from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { makeService, makeSlices } from "./objects.ts";
import { askTcp, POD_PORT, Stage, whoTcp, whoUdp } from "./stage.ts";

const labTest = needsLab(test);
const NODE_PORT = 30080;
const LOCALHOST = ["127.0.0.1", "::1", "::ffff:127.0.0.1"] as const;
let stage: Stage;

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open(["client", "pod-b"]);
  const { ipv4, ipv6 } = stage.pod("pod-b").addresses;
  const both = (["TCP", "UDP"] as const).map((protocol) => ({
    name: protocol.toLowerCase(),
    protocol,
  }));
  await stage.apply("web", [
    makeService({
      name: "web",
      addresses: ["10.96.0.10", "fd00:10:96::10"],
      ports: both.map((port) => ({ ...port, port: 80, nodePort: NODE_PORT })),
      spec: { type: "NodePort", externalTrafficPolicy: "Local" },
    }),
    ...makeSlices({
      service: "web",
      ports: both.map((port) => ({ ...port, port: POD_PORT })),
      endpoints: [ipv4, ipv6].map((address) => ({ address, nodeName: "elsewhere" })),
    }),
  ]);
  const helper = await stage.pod("client").helper();
  for (const address of ["127.0.0.1", "::1"]) {
    const server = { identity: "the pod's own", address, port: NODE_PORT };
    await Promise.all([helper.serveTcp(server), helper.serveUdp(server)]);
  }
  await stage.startAgent({ arguments: ["--iptables-localhost-nodeports"] });
});

test.after.always(async () => {
  await stage?.close();
});

for (const address of LOCALHOST)
  labTest(`a process of the node gets to a node port at ${address}, TCP and UDP`, async (t) => {
    const client = await stage.client(stage.node);
    const question = { address, port: NODE_PORT };
    t.is(await whoTcp(client, question), "pod-b");
    t.deepEqual(await whoUdp(client, question), {
      identity: "pod-b",
      from: `${address}|${NODE_PORT}`,
    });
  });

for (const address of LOCALHOST)
  labTest(`a pod's ${address} is its own`, async (t) => {
    const client = await stage.client(stage.pod("client"));
    const question = { address, port: NODE_PORT };
    t.is(await whoTcp(client, question), "the pod's own");
    t.like(await whoUdp(client, question), { identity: "the pod's own" });
  });

labTest("who is bound to loopback asks what listens there", async (t) => {
  const client = await stage.client(stage.node);
  for (const address of ["127.0.0.1", "::1"]) {
    const question = { address, port: NODE_PORT, local: { address } };
    t.like(await askTcp(client, question), { error: "ECONNREFUSED" });
  }
});
