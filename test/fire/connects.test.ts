// Real connections through the attached programs while the dataplane changes under them as fast as
// it can: each must end at an endpoint of its own Service that is listed. The endpoints' addresses
// are the oracle's, and one pod answers for all of them.
import { setImmediate as nextTurn } from "node:timers/promises";
import test from "ava";
import { attachAll } from "../../control/dataplane/attach.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { kernelStorage, loadObject, Meta, openPinned } from "../../control/dataplane/kernel.ts";
import { Maps } from "../../control/dataplane/maps.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Host } from "../../lab/host.ts";
import { Lab, type LabNode } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Churn, CROWD, SCARCE } from "./churn.ts";
import { Load } from "./loader.ts";
import { Oracle } from "./oracle.ts";

const labTest = needsLab(test);
const SECONDS = 15;
const PORT = 8080;

/** Every address that begins with fd00 and is no pod's is the server's. */
async function serveAll(node: LabNode, server: Host): Promise<void> {
  const commands: [Host, string][] = [
    [server, "ip -6 route add fd00:10:244::/48 via fe80::1 dev eth0"],
    [server, "ip -6 route add local fd00::/16 dev lo table main"],
    [node, `ip -6 route add fd00::/16 dev ${server.name} via ${server.addresses.ipv6} onlink`],
  ];
  for (const [host, command] of commands) {
    const { code, stderr } = await host.run(command.split(" "));
    if (code !== 0) throw new Error(`"${command}" on "${host.name}" failed: ${stderr}`);
  }
  const helper = await server.helper();
  await helper.serveTcp({ identity: server.name, address: "::", port: PORT });
}

labTest("real connections end only where they may while everything changes", async (t) => {
  const lab = await Lab.create({ name: "fire", topology: { "node-a": ["client", "server"] } });
  t.teardown(() => lab.close());
  const node = lab.nodes["node-a"]!;
  await serveAll(node, lab.pods.server!);
  const pins = new Pins(node.pins);
  const lock = pins.open();
  t.teardown(() => lock.release());
  const loaded = loadObject(pins, { rodata: { remember_tcp: 0 }, capacities: SCARCE });
  const opened = openPinned(pins)!;
  const meta = new Meta(opened.svc_meta, { readOnly: false });
  const oracle = new Oracle(node.pins);
  const churn = new Churn({
    dataplane: new Dataplane(new Maps(kernelStorage(opened, meta))),
    oracle,
    population: CROWD,
    random: Math.random,
    port: PORT,
  });
  attachAll(loaded, { pins, cgroup: node.cgroup, meta });
  loaded.object.close();
  const questions = churn.frontends;
  const load = new Load(lab.pods.client!, { questions, perSecond: 3000, oracle: node.pins });
  for (const end = performance.now() + SECONDS * 1000; performance.now() < end; ) {
    churn.step();
    await nextTurn();
  }
  const report = await load.stop();
  await churn.settle();
  t.log(JSON.stringify(churn.done), JSON.stringify(report));
  t.is(report.failed, 0);
  t.true(report.connects - report.absent > 10_000);
});
