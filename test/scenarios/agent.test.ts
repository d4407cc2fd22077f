// The agent's life on a real kernel: kills, restarts, edits, faults in manifests, and its end.
import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { BpfMap, mapType } from "../../bindings/map.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { makeService, makeSlices } from "./objects.ts";
import { askTcp, COMMAND, fingerprint, POD_PORT, Stage, whoTcp } from "./stage.ts";

const labTest = needsLab(test.serial);

const HTTP = [{ name: "http", port: 80 }];
const POD_PORTS = [{ name: "http", port: POD_PORT }];

/** A Service at 10.96.0.N, and its endpoints in these pods. */
function web(stage: Stage, options: { name: string; number: number; pods: readonly string[] }) {
  const { name, number, pods } = options;
  return [
    makeService({ name, addresses: [`10.96.0.${number}`], ports: HTTP }),
    ...makeSlices({
      service: name,
      ports: POD_PORTS,
      endpoints: pods.map((pod) => stage.pod(pod).addresses.ipv4),
    }),
  ];
}

/** A title for a test that gets a stage with one Service "web" on pod-b, and an agent. */
function stageTest(
  title: string,
  play: (t: ExecutionContext, stage: Stage) => Promise<void>,
  options: { arguments?: readonly string[] } = {},
): void {
  labTest(title, async (t) => {
    if (whyNoLab() !== undefined) return;
    const stage = await Stage.open();
    try {
      await stage.apply("web", web(stage, { name: "web", number: 1, pods: ["pod-b"] }));
      await stage.startAgent(options);
      await play(t, stage);
    } finally {
      await stage.close();
    }
  });
}

async function ask(stage: Stage, address = "10.96.0.1"): Promise<string> {
  return whoTcp(await stage.client(stage.pod("client")), { address, port: 80 });
}

stageTest(
  "after kill -9 traffic goes on, and a restart changes nothing at all",
  async (t, stage) => {
    const { agent } = stage;
    t.is(await ask(stage), "pod-b");
    const before = fingerprint(stage);
    await agent.kill();
    t.is(fingerprint(stage), before);
    const dump = await stage.command("dump", "--pins", stage.node.pins);
    t.regex(dump.stdout, /test\/web:http\/TCP +ClusterIP +10\.96\.0\.1:80/);
    await stage.startAgent();
    t.is(fingerprint(stage), before);
    t.is(await ask(stage), "pod-b");
  },
);

stageTest(
  "what changed while the agent was away is put right by the next one",
  async (t, stage) => {
    const { agent } = stage;
    await agent.kill();
    await stage.withdraw("web");
    await stage.apply("other", web(stage, { name: "other", number: 2, pods: ["pod-c"] }));
    await stage.startAgent();
    t.is(await ask(stage, "10.96.0.2"), "pod-c");
    t.is(await ask(stage), "EACCES");
    t.deepEqual(
      (await stage.dump()).services.map(({ name }) => name),
      ["other"],
    );
  },
);

stageTest("SIGTERM leaves the dataplane serving", async (t, stage) => {
  const { agent } = stage;
  await agent.stop();
  t.regex(agent.output(), /Stopped; what is programmed in ".*" keeps serving/);
  t.is(await ask(stage), "pod-b");
});

stageTest("a second agent on the pin folder ends and names the first", async (t, stage) => {
  const { agent } = stage;
  const second = await stage.command("run", ...stage.agentFlags);
  t.is(second.code, 1);
  t.regex(second.stderr, new RegExp(`in use by process ${agent.pid}\\b.*--pins`));
  t.is(await ask(stage), "pod-b");
});

stageTest("an edit takes effect, a deleted file withdraws its objects", async (t, stage) => {
  await stage.apply("web", web(stage, { name: "web", number: 1, pods: ["pod-c"] }));
  await waitFor(async () => (await ask(stage)) === "pod-c", { what: "the edit to be served" });
  await stage.withdraw("web");
  await waitFor(async () => (await ask(stage)) === "EACCES", { what: "the Service to go" });
  t.deepEqual((await stage.dump()).services, []);
});

stageTest(
  "a broken file is reported with its place, and its last good state is served",
  async (t, stage) => {
    await writeFile(path.join(stage.folder, "web.yaml"), "kind: Service\nspec: [\n  oops: }\n");
    await waitFor(() => /web\.yaml:3/.test(stage.agentOutput()), { what: "the fault to be told" });
    await stage.apply("other", web(stage, { name: "other", number: 2, pods: ["pod-c"] }));
    await stage.programmed("other");
    t.is(await ask(stage), "pod-b");
    t.is(await ask(stage, "10.96.0.2"), "pod-c");
  },
);

stageTest(
  "of two Services on one address the older one is served, then the other",
  async (t, stage) => {
    const make = (name: string, created: string, pod: string) => [
      makeService({
        name,
        addresses: ["10.96.0.9"],
        ports: HTTP,
        metadata: { creationTimestamp: created },
      }),
      ...makeSlices({
        service: name,
        ports: POD_PORTS,
        endpoints: [stage.pod(pod).addresses.ipv4],
      }),
    ];
    await stage.apply("a-younger", make("younger", "2026-01-02T00:00:00Z", "pod-c"));
    await waitFor(async () => (await ask(stage, "10.96.0.9")) === "pod-c", { what: "the first" });
    await stage.apply("b-older", make("older", "2026-01-01T00:00:00Z", "pod-b"));
    await waitFor(async () => (await ask(stage, "10.96.0.9")) === "pod-b", { what: "the older" });
    t.regex(stage.agentOutput(), /younger.*older|older.*younger/);
    await stage.withdraw("b-older");
    await waitFor(async () => (await ask(stage, "10.96.0.9")) === "pod-c", { what: "the other" });
  },
);

stageTest(
  "ClientIP affinity keeps each client's endpoint, for all addresses of the port",
  async (t, stage) => {
    const pods = ["pod-b", "pod-c"];
    const [service, ...slices] = web(stage, { name: "sticky", number: 3, pods });
    Object.assign(service!.spec as object, {
      sessionAffinity: "ClientIP",
      externalIPs: ["192.0.2.3"],
    });
    await stage.apply("sticky", [service!, ...slices]);
    await stage.withEndpoints("sticky", 2);
    const first = await ask(stage, "10.96.0.3");
    for (let index = 0; index < 12; index++) {
      t.is(await ask(stage, "10.96.0.3"), first);
      t.is(await ask(stage, "192.0.2.3"), first);
    }
    await stage.agent.kill();
    await stage.startAgent();
    for (let index = 0; index < 12; index++) t.is(await ask(stage, "10.96.0.3"), first);
    const other = pods.find((pod) => pod !== first)!;
    await stage.apply("sticky", [
      service!,
      ...web(stage, { name: "sticky", number: 3, pods: [other] }).slice(1),
    ]);
    await stage.withEndpoints("sticky", 1);
    t.is(await ask(stage, "10.96.0.3"), other);
    await stage.apply("sticky", [service!, ...slices]);
    await stage.withEndpoints("sticky", 2);
    for (let index = 0; index < 12; index++) t.is(await ask(stage, "10.96.0.3"), other);
  },
);

stageTest(
  "with --remember-tcp getpeername shows the Service",
  async (t, stage) => {
    const client = await stage.client(stage.pod("client"));
    const asked = await askTcp(client, { address: "10.96.0.1", port: 80 });
    t.like(asked, { identity: "pod-b", peerAddress: "10.96.0.1" });
  },
  { arguments: ["--remember-tcp"] },
);

stageTest("other flags on a restart replace the programs and keep the maps", async (t, stage) => {
  const { agent } = stage;
  const before = fingerprint(stage);
  await agent.stop();
  await stage.startAgent({ arguments: ["--remember-tcp"] });
  const after = fingerprint(stage);
  const idsOf = (what: string, text: string) => text.match(new RegExp(`${what} \\d+`, "g"));
  t.notDeepEqual(idsOf("program", after), idsOf("program", before));
  t.deepEqual(idsOf("link", after), idsOf("link", before), "links are updated, not replaced");
  t.deepEqual(idsOf("map", after), idsOf("map", before));
  const asked = await askTcp(await stage.client(stage.pod("client")), {
    address: "10.96.0.1",
    port: 80,
  });
  t.like(asked, { peerAddress: "10.96.0.1" });
});

stageTest(
  "a changed configuration ends the agent, and Services are served on",
  async (t, stage) => {
    await stage.agent.stop();
    const file = path.join(stage.folder, "kube-proxy.conf");
    const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
    await writeFile(file, `${head}clusterCIDR: 10.244.0.0/16\noomScoreAdj: -999\n`);
    const agent = await stage.startAgent({ arguments: ["--config", file, "--proxy-mode=ipvs"] });
    t.regex(agent.output(), /oomScoreAdj in ".*" has no effect: /);
    t.regex(agent.output(), /Flags without effect beside --config: --proxy-mode\n/);
    await writeFile(file, `${head}clusterCIDR: 10.0.0.0/8\n`);
    await waitFor(() => agent.ended(), { what: "the agent to end" });
    t.regex(agent.output(), /bpfsvc: The configuration ".*kube-proxy.conf" has changed: the agent/);
    t.is(await ask(stage), "pod-b");
    await stage.startAgent({ arguments: ["--config", file] });
  },
);

stageTest("maps get the sizes that flags give, if what is in use fits", async (t, stage) => {
  const pins = new Pins(stage.node.pins);
  const sizeOf = (name: string) => {
    const map = BpfMap.openPinned(pins.mapPath(name));
    map.close();
    return map.info.maxEntries;
  };
  const names = ["svc_services", "svc_slots", "svc_overflow", "svc_backends"] as const;
  const [, , , backends] = names.map(sizeOf);
  await stage.apply("second", web(stage, { name: "second", number: 9, pods: ["pod-c"] }));
  await waitFor(async () => (await ask(stage, "10.96.0.9")) === "pod-c", { what: "the second" });
  await stage.agent.stop();
  const flags = ["--max-services", "300", "--max-slots", "3000", "--max-frontends", "77"];
  const moved = await stage.startAgent({ arguments: flags });
  t.regex(moved.output(), /Taking over from maps of other sizes/);
  t.deepEqual(names.map(sizeOf), [300, 1500, 77, backends]);
  await moved.stop();
  const same = await stage.startAgent({ arguments: flags });
  t.notRegex(same.output(), /Taking over/);
  await same.stop();
  const refused = await stage.node.run(stage.agentCommand({ arguments: ["--max-services", "1"] }));
  t.is(refused.code, 1);
  t.regex(
    refused.stderr,
    /svc_services is too small .* give "--max-services" at least 2, or leave/,
  );
  t.is(await ask(stage), "pod-b");
  await stage.startAgent();
  t.deepEqual(names.map(sizeOf), [300, 1500, 77, backends]);
});

stageTest("a dump of a folder that lacks a map says which, and what helps", async (t, stage) => {
  const { pins } = stage.node;
  await stage.agent.stop();
  await rm(new Pins(pins).mapPath("svc_slots"));
  for (const part of [[], ["devices"], ["flows"]]) {
    const { code, stderr } = await stage.command("dump", ...part, "--pins", pins);
    t.is(code, 3);
    t.regex(stderr, /removed svc_slots from ".*": .* start it with "bpfsvc run"/);
  }
  await stage.startAgent();
  t.is((await stage.command("dump", "--pins", pins)).code, 0);
  t.is(await ask(stage), "pod-b");
});

stageTest("before the first list every dump says that nothing is programmed", async (t, stage) => {
  await stage.agent.stop();
  await stage.command("cleanup", "--pins", stage.node.pins);
  const kubeconfig = path.join(stage.folder, "kubeconfig");
  const cluster = { name: "a", cluster: { server: "https://127.0.0.1:1" } };
  const context = { name: "a", context: { cluster: "a", user: "a" } };
  const user = { name: "a", user: { token: "a" } };
  const config = { clusters: [cluster], contexts: [context], users: [user] };
  await writeFile(kubeconfig, JSON.stringify({ ...config, "current-context": "a" }));
  const command = stage.agentCommand({ source: ["--kubeconfig", kubeconfig] });
  const agent = await stage.node.start(command, { ready: /ECONNREFUSED/ });
  for (const part of [[], ["devices"], ["flows"]]) {
    const { code, stderr } = await stage.command("dump", ...part, "--pins", stage.node.pins);
    t.is(code, 3);
    t.regex(stderr, /Nothing is programmed in ".*" yet: /);
  }
  await agent.stop();
});

stageTest("cleanup removes every pin of ours and nothing else", async (t, stage) => {
  const { agent } = stage;
  const { pins } = stage.node;
  const locked = await stage.command("cleanup", "--pins", pins);
  t.is(locked.code, 1);
  t.regex(locked.stderr, new RegExp(`process ${agent.pid}\\b`));
  await agent.stop();
  const foreign = BpfMap.create({
    type: mapType.ARRAY,
    name: "stranger",
    keySize: 4,
    valueSize: 4,
    maxEntries: 1,
  });
  foreign.pin(path.join(pins, "stranger"));
  const cleaned = await stage.command("cleanup", "--pins", pins);
  t.is(cleaned.code, 0, cleaned.stderr);
  t.regex(cleaned.stdout, /Left alone: ".*stranger" is not ours/);
  t.is(await ask(stage), "EACCES");
  t.deepEqual((await stage.node.run(["ls", pins])).stdout.split("\n"), ["stranger", ""]);
  t.is((await stage.command("dump", "--pins", pins)).code, 3);
  t.is((await stage.command("cleanup", "--pins", pins)).code, 3);
  foreign.close();
});

stageTest(
  "without a Node object node ports are served on the default-route address",
  async (t, stage) => {
    await stage.withdraw("node");
    await stage.apply("ports", [
      makeService({
        name: "ports",
        addresses: ["10.96.0.4"],
        ports: [{ name: "http", port: 80, nodePort: 30004 }],
        spec: { type: "NodePort" },
      }),
      ...makeSlices({
        service: "ports",
        ports: POD_PORTS,
        endpoints: [stage.pod("pod-b").addresses.ipv4],
      }),
    ]);
    await stage.agent.stop();
    const next = await stage.startAgent();
    t.is(next.output().match(/No Node object "node-a"/g)?.length, 1);
    const client = await stage.client(stage.pod("client"));
    const address = stage.node.addresses.ipv4;
    t.is(await whoTcp(client, { address, port: 30004 }), "pod-b");
  },
);

labTest("a start that cannot work says what is wrong and how to put it right", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await Stage.open(["client"]);
  try {
    const { cgroup, pins } = stage.node;
    const run = async (...flags: string[]) => stage.command("run", ...flags);
    const manifests = ["--manifests", stage.folder];
    const place = ["--cgroup", cgroup, "--pins", pins];
    const cases: [string[], RegExp, number][] = [
      [
        [...manifests, "--cgroup", "/nowhere", "--pins", pins],
        /"\/nowhere" does not exist.*--cgroup/,
        1,
      ],
      [[...manifests, "--cgroup", stage.folder, "--pins", pins], /not in a cgroup v2 tree/, 1],
      [[...manifests, "--cgroup", cgroup, "--pins", stage.folder], /not in a BPF file system/, 1],
      [["--manifests", "/nowhere", ...place], /"\/nowhere".*does not exist/, 1],
      [place, /needs a place for objects: give --kubeconfig FILE or --manifests PATH/, 2],
      [[...manifests, ...place, "--cluster-cidr", "10.0.0.0"], /--cluster-cidr holds "10/, 2],
      [[...manifests, ...place, "--config", "/nowhere"], /"\/nowhere" of --config.*ENOENT/, 2],
      [[...manifests, ...place, "--max-slots", "0"], /whole number/, 2],
    ];
    for (const [flags, message, code] of cases) {
      const outcome = await run(...flags);
      t.regex(outcome.stderr, message);
      t.is(outcome.code, code, outcome.stderr);
      t.notRegex(outcome.stderr, /\n +at /, "no stack trace for the user");
    }
    const command = [process.execPath, COMMAND, "run", ...manifests, ...place];
    for (const less of [
      ["--reuid=65534", "--clear-groups", "--inh-caps=-all"],
      ["--bounding-set=-perfmon,-sys_admin", "--inh-caps=-all"],
      ["--bounding-set=-net_admin", "--inh-caps=-all"],
    ]) {
      const { stderr } = await stage.node.run(["setpriv", ...less, ...command]);
      t.regex(stderr, /as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON/, less[0]);
    }
  } finally {
    await stage.close();
  }
});

labTest("a pin folder of another program is left alone with a clear error", async (t) => {
  if (whyNoLab() !== undefined) return;
  const stage = await Stage.open(["client"]);
  try {
    const place = new Pins(stage.node.pins).mapPath("svc_frontends");
    await mkdir(path.dirname(place));
    const foreign = BpfMap.create({
      type: mapType.HASH,
      name: "svc_frontends",
      keySize: 4,
      valueSize: 4,
      maxEntries: 1,
    });
    foreign.pin(place);
    const outcome = await stage.command("run", ...stage.agentFlags);
    t.is(outcome.code, 1);
    t.regex(outcome.stderr, /svc_frontends" has keys of 4 and values of 4 bytes.*another.*program/);
    t.is(BpfMap.openPinned(place).info.id, foreign.info.id);
  } finally {
    await stage.close();
  }
});
