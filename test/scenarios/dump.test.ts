// `bpfsvc dump` and `plan` as people and programs see them. The golden text is what the README
// shows and what a bug report has.
import { readFile } from "node:fs/promises";
import path from "node:path";
import test from "ava";
import { parse } from "yaml";
import type { Dump } from "../../control/dataplane/dump.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { makeService, makeSlices } from "./objects.ts";
import { COMMAND, POD_PORT, Stage, whoTcp, whoUdp } from "./stage.ts";

const labTest = needsLab(test.serial);
let stage: Stage;

const HTTP = [{ name: "http", port: 80, nodePort: 30080 }];

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open();
  const b = stage.pod("pod-b").addresses;
  const c = stage.pod("pod-c").addresses;
  await stage.apply("web", [
    makeService({
      name: "web",
      addresses: ["10.96.0.10", "fd00:10:96::10"],
      ports: HTTP,
      spec: { type: "NodePort", externalIPs: ["192.0.2.10"] },
    }),
    ...makeSlices({
      service: "web",
      ports: [{ name: "http", port: POD_PORT }],
      endpoints: [b.ipv4, c.ipv4, b.ipv6],
    }),
  ]);
  await stage.apply("dns", [
    makeService({
      name: "dns",
      addresses: ["10.96.0.11"],
      ports: [{ protocol: "UDP", port: 53 }],
      spec: { sessionAffinity: "ClientIP" },
      metadata: { namespace: "system" },
    }),
    ...makeSlices({
      service: "dns",
      ports: [{ protocol: "UDP", port: POD_PORT }],
      endpoints: [
        { address: b.ipv4, conditions: { ready: false, serving: true, terminating: true } },
      ],
    }).map((slice) => ({
      ...slice,
      metadata: { ...(slice.metadata as object), namespace: "system" },
    })),
  ]);
  await stage.apply("empty", [
    makeService({ name: "empty", addresses: ["10.96.0.12"], ports: [{ port: 80 }] }),
  ]);
  await stage.startAgent();
  const client = await stage.client(stage.pod("client"));
  for (let index = 0; index < 3; index++) await whoUdp(client, { address: "10.96.0.11", port: 53 });
  await whoTcp(client, { address: "10.96.0.12", port: 80 });
  await whoTcp(client, { address: "fd00:10:96::10", port: 80 });
});

test.after.always(async () => {
  await stage?.close();
});

async function dump(...flags: string[]): Promise<string> {
  const { stdout, stderr, code } = await stage.command("dump", "--pins", stage.node.pins, ...flags);
  if (code !== 0) throw new Error(stderr);
  return stdout;
}

/** A file of the checkout. */
async function source(file: string): Promise<string> {
  return readFile(path.join(import.meta.dirname, "../../..", file), "utf8");
}

labTest("a dump shows a block for each service port", async (t) => {
  t.is(await dump(), await source("test/scenarios/dump.txt"));
});

labTest("wide adds tables and counters", async (t) => {
  const [header, , , web] = (await dump("-o", "wide")).split("\n");
  t.regex(header!, /TABLES +REFUSED +DROPPED +ID +ENDPOINT ID +SOURCES$/);
  t.regex(web!, /^test\/web:http\/TCP .* internal,inside,outside +0 +0 +\d+ +\d+$/);
});

labTest("JSON and YAML say the same, with numbers", async (t) => {
  const json = JSON.parse(await dump("-o", "json")) as Dump;
  t.deepEqual(parse(await dump("-o", "yaml")), json);
  t.is(json.node, "node-a");
  const [dns, empty] = json.services;
  t.like(dns, { namespace: "system", name: "dns", affinitySeconds: 10800, connections: 3 });
  t.like(dns!.endpoints[0], { port: POD_PORT, state: "terminating", connections: 3 });
  t.like(empty, { refused: 1, dropped: 0, endpoints: [] });
});

labTest("namespace and name choose Services", async (t) => {
  const names = async (...flags: string[]) =>
    (JSON.parse(await dump("-o", "json", ...flags)) as Dump).services.map(({ name }) => name);
  t.deepEqual(await names("-n", "system"), ["dns"]);
  t.deepEqual(await names("empty"), ["empty"]);
  t.deepEqual(await names("test/web"), ["web", "web"]);
  t.deepEqual(await names("-n", "test", "dns"), []);
  t.is(await dump("nothing"), "No such Services.\n");
});

labTest("a watched dump prints again when something changed, and ends with the pins", async (t) => {
  const watching = await stage.node.start(
    [process.execPath, COMMAND, "dump", "--watch", "--pins", stage.node.pins, "test/empty"],
    { ready: /1 refused/ },
  );
  const client = await stage.client(stage.pod("client"));
  await whoTcp(client, { address: "10.96.0.12", port: 80 });
  await waitFor(() => /2 refused/.test(watching.output()), { what: "the second state" });
  t.is(watching.output().match(/^SERVICE/gm)?.length, 2);
  await watching.kill();
});

labTest("a plan shows the same Services, without a kernel", async (t) => {
  const flags = ["--manifests", stage.folder, "--node", "node-a", "-o", "json"];
  const { stdout } = await stage.command("plan", ...flags);
  const frontends = (text: string) =>
    (JSON.parse(text) as Dump).services.map(({ namespace, name, port, family, frontends }) => {
      const pairs = frontends.map(({ address, port }) => `${address} ${port}`).sort();
      return [namespace, name, port, family, ...pairs];
    });
  t.deepEqual(frontends(stdout), frontends(await dump("-o", "json")));
});

labTest("a dump is right while the agent writes as fast as it can", async (t) => {
  const service = makeService({ name: "busy", addresses: ["10.96.0.20"], ports: [{ port: 80 }] });
  const pods = ["client", "pod-b", "pod-c"].map((pod) => stage.pod(pod).addresses.ipv4);
  let isOver = false;
  const churn = (async () => {
    for (let round = 0; !isOver; round++)
      await stage.apply("busy", [
        service,
        ...makeSlices({
          service: "busy",
          ports: [{ port: POD_PORT }],
          endpoints: pods.slice(0, 1 + (round % 3)),
        }),
      ]);
  })();
  await stage.programmed("busy");
  for (let round = 0; round < 200; round++) {
    const { services } = await stage.dump();
    const busy = services.find(({ name }) => name === "busy")!;
    t.deepEqual(
      busy.endpoints.map(({ address }) => address),
      pods.slice(0, busy.endpoints.length),
    );
    t.is(busy.tables.internal.slots, busy.endpoints.length);
    t.is(services.length, 5);
  }
  isOver = true;
  await churn;
});

labTest("the README shows a dump as it looks", async (t) => {
  t.regex(
    await source("README.md"),
    /SERVICE +TYPE +FRONTEND +ENDPOINT +STATE +CONNECTIONS +AFFINITY/,
  );
});
