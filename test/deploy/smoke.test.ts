// The two ends of the smoke test in deploy/vagrant, in pods of the lab: what it says of a cluster
// is what happened there.
import path from "node:path";
import test from "ava";
import { needsLab } from "../../lab/needs.ts";
import { makeService, makeSlices } from "../scenarios/objects.ts";
import { Stage } from "../scenarios/stage.ts";

const labTest = needsLab(test);
const SMOKE = path.resolve(import.meta.dirname, "../../../deploy/vagrant/smoke.mjs");
const PORT = 9080;
const PORTS = [
  { name: "tcp", protocol: "TCP", port: 80 },
  { name: "udp", protocol: "UDP", port: 80 },
] as const;
const WHO = "10.96.0.1";
const NOBODY = "10.96.0.2";

labTest("it tells who answered, how often, and errors", async (t) => {
  const stage = await Stage.open(["client", "pod-b", "pod-c"]);
  t.teardown(() => stage.close());
  const servers = ["pod-b", "pod-c"].map((name) => stage.pod(name));
  for (const pod of servers) {
    const env = { NODE: "node-a", POD: pod.name };
    await pod.start([process.execPath, SMOKE, "serve", String(PORT)], { ready: /serving/, env });
  }
  const endpoints = servers.map(({ addresses }) => addresses.ipv4);
  const ports = PORTS.map((port) => ({ ...port, port: PORT }));
  await stage.apply("who", [
    makeService({ name: "who", addresses: [WHO], ports: PORTS }),
    ...makeSlices({ service: "who", ports, endpoints }),
    makeService({ name: "nobody", addresses: [NOBODY], ports: PORTS }),
  ]);
  await stage.startAgent();
  const ask = async (...words: string[]) => {
    const command = [process.execPath, SMOKE, "ask", ...words];
    const { stdout, stderr } = await stage.pod("client").run(command, { timeoutSeconds: 60 });
    t.is(stderr, "");
    return stdout.trimEnd().split("\n");
  };
  for (const protocol of ["tcp", "udp"]) {
    const answers = await ask(protocol, WHO, "80", "40");
    const counts = answers.map((line) => Number(line.split(" ")[0]));
    t.deepEqual(
      answers.map((line) => line.replace(/^\d+ /, "")),
      ["node-a pod-b", "node-a pod-c"],
    );
    t.is(counts[0]! + counts[1]!, 40);
    t.deepEqual(await ask(protocol, NOBODY, "80", "3"), ["3 ECONNREFUSED"]);
  }
});
