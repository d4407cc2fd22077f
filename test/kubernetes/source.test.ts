// The Kubernetes API as a source, on the lab's API server: what is delivered and when, and what
// becomes of it while the server, the network, rights or credentials fail.
import dns from "node:dns";
import { once } from "node:events";
import { readFileSync, writeFileSync } from "node:fs";
import { createServer, type ServerResponse } from "node:http";
import { type AddressInfo, connect, type Socket } from "node:net";
import path from "node:path";
import { setImmediate as nextTurn } from "node:timers/promises";
import test, { type ExecutionContext } from "ava";
import { machineClock } from "../../control/source/kubernetes/time.ts";
import { Authority } from "../../lab/apiserver/certificates.ts";
import type { Effect } from "../../lab/apiserver/faults.ts";
import { startApiServer } from "../../lab/apiserver/server.ts";
import { waitFor } from "../../lab/wait.ts";
import {
  IMPATIENT,
  makeNode,
  makeObjects,
  makeService,
  makeSlice,
  NODE,
  Scene,
  withLabels,
} from "./cluster.ts";
import { startOldServer } from "./oldserver.ts";

const PROXY_NAME = "service.kubernetes.io/service-proxy-name";
const HEADLESS = "service.kubernetes.io/headless";

for (const [title, options] of [
  ["streamed lists in protobuf", {}],
  ["pages in protobuf", { watchList: false }],
  ["streamed lists in JSON", { protobuf: false }],
  ["pages in JSON", { protobuf: false, watchList: false }],
] as const)
  test.serial(`${title}: all is delivered before it is synced, and changes follow`, async (t) => {
    const scene = await Scene.create(t, { ...options, objects: makeObjects(700) });
    const { recorder, server } = scene;
    server.apply(makeService("headless", { clusterIP: "None", clusterIPs: ["None"] }));
    server.apply(withLabels(makeService("theirs"), { [PROXY_NAME]: "other" }));
    server.apply(withLabels(makeSlice("headless", ["10.244.3.1"]), { [HEADLESS]: "" }));
    await scene.start();
    t.is(recorder.syncs, 1);
    t.is(recorder.syncedWith, 700 * 2 + 1 + 1);
    await scene.settle("all objects");
    server.apply(makeService("new"));
    server.apply(makeSlice("web-1", ["10.244.9.9"]));
    server.delete({ kind: "Service", namespace: "shop", name: "web-2" });
    server.apply({ ...makeNode("node-a"), spec: { podCIDRs: ["10.244.7.0/24"] } });
    await scene.settle("changes");
    t.deepEqual(recorder.removed, ["Service shop/web-2"]);
    t.deepEqual(recorder.problems, []);
    t.is(recorder.syncs, 1);
  });

test.serial(
  "requests carry the selectors of kube-proxy, protobuf first, and bookmarks",
  async (t) => {
    const scene = await Scene.create(t);
    await scene.start();
    const asked = scene.server.requests.map(({ path: at, query }) =>
      [at, query.labelSelector, query.fieldSelector].join(" "),
    );
    t.deepEqual([...new Set(asked)].sort(), [
      `/api/v1/nodes  metadata.name=node-a`,
      `/api/v1/services !${PROXY_NAME} spec.clusterIP!=None`,
      `/api/v1/services ${PROXY_NAME} spec.clusterIP!=None`,
      `/apis/discovery.k8s.io/v1/endpointslices !${HEADLESS} `,
      `/apis/networking.k8s.io/v1/servicecidrs  `,
    ]);
    for (const { accept, query } of scene.server.requests) {
      t.true(accept.startsWith("application/vnd.kubernetes.protobuf, application/json"));
      t.is(query.allowWatchBookmarks, "true");
      const seconds = Number(query.timeoutSeconds);
      t.true(seconds >= 300 && seconds <= 600);
    }
  },
);

test.serial(
  "what changes sides by its labels is never with both and never with none",
  async (t) => {
    const scene = await Scene.create(t);
    const { recorder, server } = scene;
    await scene.start();
    for (let round = 0; round < 10; round++) {
      server.apply(withLabels(makeService("web-1"), { [PROXY_NAME]: "other" }));
      await scene.settle("the label");
      server.apply(makeService("web-1"));
      await scene.settle("no label");
      server.apply(withLabels(makeSlice("web-1", ["10.244.1.2"]), { [HEADLESS]: "" }));
      await scene.settle("a headless slice");
      server.apply(makeSlice("web-1", ["10.244.1.2"]));
      await scene.settle("a slice again");
    }
    t.deepEqual(recorder.problems, []);
  },
);

test.serial("a change of a slice comes with the time at which it came about", async (t) => {
  const scene = await Scene.create(t);
  const { recorder, server } = scene;
  await scene.start();
  const annotated = (time: string, address: string) => {
    const slice = makeSlice("web-1", [address]);
    const annotations = { "endpoints.kubernetes.io/last-change-trigger-time": time };
    return { ...slice, metadata: { ...slice.metadata, annotations } };
  };
  const [first, second, third] = [1, 2, 3].map((count) => {
    return new Date(Date.now() + count * 1000).toISOString();
  }) as [string, string, string];
  server.apply(annotated(first, "10.244.1.7"));
  server.apply(annotated(second, "10.244.1.8"));
  await scene.settle("both changes");
  server.apply(annotated(third, "10.244.1.8"));
  server.apply(makeService("later"));
  await scene.settle("one that changes nothing else");
  const times = recorder.triggers.map((ms) => new Date(ms).toISOString());
  t.deepEqual(times, [first, second]);
});

test.serial("watches that end are counted, and when anything came last", async (t) => {
  const scene = await Scene.create(t);
  const source = await scene.start();
  const of = (resource: string) =>
    source.statistics().find((statistics) => statistics.resource === resource)!;
  await waitFor(() => of("services").lastEventMs !== undefined, { what: "a first event" });
  t.is(of("services").restarts, 0);
  t.deepEqual(
    source.statistics().map(({ resource }) => resource),
    ["services", "endpointslices", "nodes", "services_of_other_proxies", "servicecidrs"],
  );
  scene.server.strike({ resource: "services", verb: "watch" }, { kind: "reset" });
  await waitFor(() => of("services").restarts === 1, { what: "another watch" });
  t.is(of("endpointslices").restarts, 0);
});

test.serial(
  "notices become events with their objects, and where that fails nothing does",
  async (t) => {
    const scene = await Scene.create(t);
    const { server } = scene;
    const source = scene.makeSource();
    const about = { kind: "Node", namespace: "", name: NODE } as const;
    const rest = { type: "Normal", action: "Start", note: "it starts" } as const;
    source.tell({ ...rest, reason: "Starting", about });
    await source.start(scene.recorder);
    await waitFor(() => server.events.length === 1, { what: "the first event" });
    t.like(server.events[0], {
      reason: "Starting",
      reportingController: "bpfsvc",
      reportingInstance: "bpfsvc-node-a",
      note: "it starts",
    });
    t.like(server.events[0]!.metadata, { namespace: "default" });
    t.like(server.events[0]!.regarding, { kind: "Node", name: NODE, uid: NODE });
    const allow = server.access.deny({ resource: "events" });
    source.tell({ ...rest, reason: "Denied", about });
    await waitFor(() => server.requests.some(({ status }) => status === 403), { what: "a 403" });
    allow();
    const service = { kind: "Service", namespace: "shop", name: "web-1" } as const;
    source.tell({ ...rest, reason: "Told", note: "x".repeat(5000), about: service });
    await waitFor(() => server.events.length === 2, { what: "the second event" });
    t.like(server.events[1]!.regarding, { kind: "Service", namespace: "shop", name: "web-1" });
    t.is((server.events[1]!.note as string).length, 1024);
    t.deepEqual(scene.recorder.problems, []);
    await scene.settle("all");
  },
);

test.serial("nothing is synced before every list is in", async (t) => {
  const scene = await Scene.create(t);
  const { recorder, server } = scene;
  const release = server.faults.add({
    resource: "endpointslices",
    effect: { kind: "status", code: 503 },
  });
  const source = scene.makeSource();
  const started = source.start(recorder);
  await waitFor(() => recorder.problems.length > 0, { what: "the outage" });
  await waitFor(() => recorder.objects.has("Service shop/web-1"), { what: "services" });
  t.is(recorder.syncs, 0);
  release();
  await started;
  t.is(recorder.syncs, 1);
  await scene.settle("all");
  await waitFor(() => recorder.resolutions.length > 0, { what: "the end of the outage" });
});

const EFFECTS: readonly (readonly [string, Effect])[] = [
  ["cut before the head", { kind: "cut" }],
  ["cut in a frame", { kind: "cut", afterBytes: 333 }],
  ["reset in a frame", { kind: "reset", afterBytes: 200 }],
  ["stall before the head", { kind: "stall" }],
  ["stall in a frame", { kind: "stall", afterBytes: 100 }],
  ["nonsense at the start", { kind: "garbage", afterBytes: 0 }],
  ["nonsense in a frame", { kind: "garbage", afterBytes: 250 }],
  ["a slow body", { kind: "slow", bytesPerSecond: 4000 }],
  ["401", { kind: "status", code: 401 }],
  ["403", { kind: "status", code: 403 }],
  ["429", { kind: "status", code: 429, retryAfterSeconds: 0 }],
  ["500", { kind: "status", code: 500 }],
  ["503", { kind: "status", code: 503 }],
  ["a login page", { kind: "html" }],
  ["a proxy's error", { kind: "html", code: 502 }],
  ["every object twice", { kind: "duplicate" }],
  ["the last object first", { kind: "reorder" }],
  ["an older state", { kind: "stale", versions: 2 }],
];

/** Changes of every kind while connections break under a fault; then the fault ends. */
async function survive(t: ExecutionContext, effect: Effect, watchList: boolean): Promise<void> {
  const scene = await Scene.create(t, { watchList, objects: makeObjects(20) });
  const { recorder, server } = scene;
  await scene.start({ timeouts: IMPATIENT });
  await scene.settle("the first list");
  const hits = server.faults.hits;
  const release = server.faults.add({ effect });
  server.compact();
  server.strike({ verb: "watch" }, { kind: "cut" });
  await waitFor(() => server.faults.hits >= hits + 12, { what: "a dozen requests" });
  server.apply(makeService("new"));
  server.delete({ kind: "Service", namespace: "shop", name: "web-3" });
  server.apply(makeSlice("web-4", ["10.244.7.7"]));
  server.compact();
  server.strike({ verb: "watch" }, { kind: "reset" });
  await waitFor(() => server.faults.hits >= hits + 24, { what: "two dozen requests" });
  release();
  server.strike({ verb: "watch" }, { kind: "cut" });
  await scene.settle("the server's state");
  t.deepEqual(
    recorder.removed.filter((key) => key !== "Service shop/web-3"),
    [],
    "nothing else was withdrawn",
  );
  t.is(recorder.syncs, 1);
}

for (const [title, effect] of EFFECTS)
  for (const watchList of [true, false])
    test.serial(`${title}, with ${watchList ? "streamed lists" : "pages"}: nothing is lost`, (t) =>
      survive(t, effect, watchList),
    );

for (const [title, effect] of EFFECTS)
  test.serial(`${title} at the start: it is synced with all as soon as it ends`, async (t) => {
    const scene = await Scene.create(t, { objects: makeObjects(20) });
    const { recorder, server } = scene;
    server.faults.add({ effect, count: 15 });
    await scene.start({ timeouts: IMPATIENT });
    await scene.settle("the server's state");
    // Who may not see a Node can do without; Services and slices are all there.
    t.true(recorder.syncedWith >= 40);
  });

test.serial("events that the server forgot are listed again, and what vanished goes", async (t) => {
  const scene = await Scene.create(t);
  const { recorder, server } = scene;
  await scene.start();
  const release = server.faults.add({ verb: "watch", effect: { kind: "status", code: 503 } });
  server.strike({}, { kind: "cut" });
  await waitFor(() => recorder.problems.length > 0, { what: "the outage" });
  server.delete({ kind: "Service", namespace: "shop", name: "web-1" });
  server.delete({ kind: "EndpointSlice", namespace: "shop", name: "web-1-x" });
  server.delete({ kind: "Node", name: "node-a" });
  server.apply(makeService("later"));
  server.compact();
  t.deepEqual(recorder.removed, []);
  release();
  await scene.settle("the server's state");
  t.deepEqual(recorder.removed.sort(), [
    "EndpointSlice shop/web-1-x",
    "Node node-a",
    "Service shop/web-1",
  ]);
});

test.serial("a list goes on when its pages are forgotten half-way", async (t) => {
  const scene = await Scene.create(t, { watchList: false, objects: makeObjects(1200) });
  const { server, recorder } = scene;
  const started = scene.start();
  await waitFor(() => server.requests.some(({ query }) => query.limit !== undefined), {
    what: "a page",
  });
  const expireAll = setInterval(() => {
    server.apply(makeService("moving", { sessionAffinity: "ClientIP" }));
    server.apply(makeService("moving"));
    server.compact();
  }, 1);
  await waitFor(
    () => server.requests.some(({ query, status }) => query.continue && status === 410),
    { what: "a forgotten page" },
  );
  clearInterval(expireAll);
  await started;
  await scene.settle("all");
  t.is(recorder.syncs, 1);
});

test.serial("a silent watch is begun again where it was", async (t) => {
  const scene = await Scene.create(t);
  const { server } = scene;
  await scene.start({ timeouts: IMPATIENT });
  server.strike({ verb: "watch" }, { kind: "stall", afterBytes: 10 });
  server.apply(makeService("unheard"));
  await scene.settle("the unheard Service");
  const later = server.requests.filter(({ query }) => query.resourceVersion !== undefined);
  t.true(later.length > 0);
  t.true(later.every(({ query }) => query.sendInitialEvents === undefined));
});

for (const resource of ["nodes", "servicecidrs"]) {
  test.serial(
    `without the right to ${resource} the rest goes on, and the right is named`,
    async (t) => {
      const scene = await Scene.create(t);
      const { server, recorder } = scene;
      const allow = server.access.deny({ resource });
      await scene.start();
      const about = recorder.problems.filter((message) => message.includes(resource));
      t.is(about.length, 1);
      t.regex(about[0]!, new RegExp(`Cannot watch ${resource} at "127.0.0.1:\\d+": .*forbidden`));
      t.regex(about[0]!, new RegExp(`allow the verb "watch" on resource "${resource}"`));
      allow();
      await scene.settle("all");
      await waitFor(() => recorder.resolutions.some((text) => text.includes(resource)), {
        what: "the end of the problem",
      });
    },
  );

  test.serial(
    `the rest does not wait for ever for ${resource} that are answered 500`,
    async (t) => {
      const scene = await Scene.create(t);
      const { server, recorder } = scene;
      const release = server.faults.add({ resource, effect: { kind: "status", code: 500 } });
      await scene.start();
      t.true(server.faults.hits >= 5, "it is given some time");
      t.true(recorder.problems.some((message) => /Cannot watch .*500.*asked again/.test(message)));
      release();
      await scene.settle("all");
      await waitFor(() => recorder.resolutions.length > 0, { what: "the end of the problem" });
    },
  );

  test.serial(`the rest waits for ${resource} while their connections break`, async (t) => {
    const scene = await Scene.create(t);
    const { server, recorder } = scene;
    const release = server.faults.add({ resource, effect: { kind: "reset" } });
    const started = scene.start();
    await waitFor(() => server.faults.hits > 20, { what: "attempts" });
    t.is(recorder.syncs, 0);
    release();
    await started;
    await scene.settle("all");
    t.is(recorder.syncs, 1);
  });
}

test.serial("without the right to services nothing is synced until it is given", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder } = scene;
  const allow = server.access.deny({ resource: "services" });
  const started = scene.start();
  await waitFor(() => recorder.problems.length > 0, { what: "the problem" });
  await waitFor(() => server.requests.length > 30, { what: "attempts" });
  t.is(recorder.syncs, 0);
  // The Services of this proxy and those of others: one message each, however many attempts.
  t.is(recorder.problems.length, 2);
  allow();
  await started;
  await scene.settle("all");
});

test.serial("a token in a file is read again when it is refused", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder, folder } = scene;
  const file = path.join(folder, "token");
  const token = server.access.issueToken("system:kube-proxy");
  writeFileSync(file, `${token}\n`);
  const config = JSON.parse(server.kubeconfig);
  config.users[0].user = { tokenFile: "token" };
  scene.writeKubeconfig(JSON.stringify(config));
  await scene.start();
  server.access.expireToken(token);
  server.strike({}, { kind: "cut" });
  await waitFor(() => recorder.problems.length > 0, { what: "the refusal" });
  t.regex(recorder.problems[0]!, /401.*renew the token/);
  writeFileSync(file, `${server.access.issueToken("system:kube-proxy")}\n`);
  server.apply(makeService("after"));
  await scene.settle("the state after the new token");
  t.deepEqual(recorder.removed, []);
});

test.serial("a new authority and a new kubeconfig are taken while it runs", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder } = scene;
  await scene.start();
  server.renewAuthority();
  server.strike({}, { kind: "cut" });
  await waitFor(() => recorder.problems.length > 0, { what: "the distrust" });
  t.regex(recorder.problems[0]!, /certificate is not trusted/);
  scene.writeKubeconfig();
  server.apply(makeService("after"));
  await scene.settle("the state after the new authority");
});

test.serial("a client certificate that is none is an error, also while it runs", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder } = scene;
  const good = server.kubeconfigFor({ user: "node" });
  const config = JSON.parse(good);
  const damaged = Buffer.from("-----BEGIN CERTIFICATE-----\nAAAA\n").toString("base64");
  config.users[0].user["client-certificate-data"] = damaged;
  scene.writeKubeconfig(JSON.stringify(config));
  const message = /Cannot use kubeconfig ".*": error:.*PEM.*; correct it/;
  await t.throwsAsync(scene.makeSource().start(recorder), { message });
  scene.writeKubeconfig(good);
  await scene.start();
  scene.writeKubeconfig(JSON.stringify(config));
  server.strike({ verb: "watch" }, { kind: "cut" });
  await waitFor(() => recorder.problems.length > 0, { what: "the problem" });
  t.regex(recorder.problems[0]!, message);
  scene.writeKubeconfig(good);
  server.apply(makeService("after"));
  await scene.settle("the state after the good certificate");
  t.is(recorder.problems.length, 1);
});

test.serial("a client certificate is used", async (t) => {
  const scene = await Scene.create(t);
  const { server } = scene;
  scene.writeKubeconfig(server.kubeconfigFor({ user: "system:node:node-a", groups: [] }));
  await scene.start();
  t.true(server.requests.every(({ user }) => user === "system:node:node-a"));
});

test.serial("the API server's other addresses are kept, and found when one is gone", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder, folder } = scene;
  const statePath = path.join(folder, "state", "servers.json");
  server.apply(makeSlice("kubernetes", ["192.0.2.7", "192.0.2.8"], { namespace: "default" }));
  const first = await scene.start({ statePath });
  const state = JSON.parse(readFileSync(statePath, "utf8"));
  t.deepEqual(state.servers, ["https://192.0.2.7:8080/", "https://192.0.2.8:8080/"]);
  await first.close();
  // The endpoints of this test's Service are no servers: another takes their place in the file.
  const objects = [...makeObjects(3), makeService("second")];
  const second = await startApiServer({ objects });
  t.teardown(() => second.close());
  writeFileSync(statePath, JSON.stringify({ ...state, servers: [second.url] }));
  const config = JSON.parse(second.kubeconfig);
  config.clusters[0].cluster.server = server.url;
  scene.writeKubeconfig(JSON.stringify(config));
  await server.close();
  await scene.start({ statePath });
  t.true(recorder.objects.has("Service shop/second"));
});

test.serial("a slice that is given to another Service names no API server any more", async (t) => {
  const scene = await Scene.create(t);
  const { server, folder } = scene;
  const statePath = path.join(folder, "servers.json");
  const kept = () => JSON.parse(readFileSync(statePath, "utf8")).servers;
  const second = makeSlice("kubernetes", ["192.0.2.8"], { namespace: "default" });
  const { metadata } = second;
  server.apply(makeSlice("kubernetes", ["192.0.2.7"], { namespace: "default" }));
  server.apply({ ...second, metadata: { ...metadata, name: "moving" } });
  await scene.start({ statePath });
  t.deepEqual(kept(), ["https://192.0.2.7:8080/", "https://192.0.2.8:8080/"]);
  const labels = { "kubernetes.io/service-name": "other" };
  server.apply({ ...second, metadata: { ...metadata, name: "moving", labels } });
  await waitFor(() => kept().length === 1, { what: "one address less" });
  t.deepEqual(kept(), ["https://192.0.2.7:8080/"]);
});

test.serial("what is odd in an object is told once, and that it is no more", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder } = scene;
  server.apply(makeSlice("web-1", ["10.244.1.1", "169.254.1.1"]));
  await scene.start();
  t.is(recorder.problems.length, 1);
  t.regex(recorder.problems[0]!, /EndpointSlice "shop\/web-1-x": endpoints\[1\] is skipped/);
  server.apply(withLabels(makeSlice("web-1", ["10.244.1.3", "169.254.1.1"]), { a: "b" }));
  server.strike({}, { kind: "cut" });
  server.apply(makeSlice("web-1", ["10.244.1.4"]));
  await scene.settle("the good slice");
  t.is(recorder.problems.length, 1);
  await waitFor(() => recorder.resolutions.length === 1, { what: "the end of the problem" });
});

test.serial(
  "a server that goes is told of once, whatever is asked of it, and so is its return",
  async (t) => {
    const scene = await Scene.create(t);
    const { server, recorder } = scene;
    await scene.start();
    await scene.settle("all");
    const release = server.faults.add({ effect: { kind: "status", code: 503 } });
    const before = server.requests.length;
    server.strike({ verb: "watch" }, { kind: "reset" });
    await waitFor(() => server.requests.length > before + 30, { what: "attempts" });
    t.is(recorder.problems.length, 1);
    release();
    await waitFor(() => recorder.resolutions.length > 0, { what: "the end of the outage" });
    await scene.settle("all");
    t.is(recorder.problems.length, 1);
    t.is(recorder.resolutions.length, 1);
  },
);

test.serial("an outage ends where one resource is forbidden before and after it", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder } = scene;
  server.access.deny({ resource: "servicecidrs" });
  await scene.start();
  const told = recorder.problems.length;
  const release = server.faults.add({ effect: { kind: "status", code: 503 } });
  server.strike({ verb: "watch" }, { kind: "reset" });
  await waitFor(() => recorder.problems.length > told, { what: "the outage" });
  const hits = server.faults.hits;
  await waitFor(() => server.faults.hits > hits + 30, { what: "that all have heard of it" });
  release();
  await waitFor(() => recorder.resolutions.length > 0, { what: "the end of the outage" });
  t.deepEqual(recorder.resolutions, [`No longer: ${recorder.problems.at(-1)}`]);
});

test.serial("it ends while it waits for a server that is not there", async (t) => {
  const scene = await Scene.create(t);
  await scene.server.close();
  const source = scene.makeSource();
  const started = source.start(scene.recorder);
  await waitFor(() => scene.recorder.problems.length > 0, { what: "the outage" });
  t.regex(scene.recorder.problems[0]!, /ECONNREFUSED/);
  await source.close();
  await started;
  t.is(scene.recorder.syncs, 0);
});

test.serial("that none of a name's addresses answers is told with each reason", async (t) => {
  const scene = await Scene.create(t);
  await scene.server.close();
  const { port } = new URL(scene.server.url);
  const { lookup } = dns;
  t.teardown(() => Object.assign(dns, { lookup }));
  const found = ["127.0.0.1", "127.0.0.2"].map((address) => ({ address, family: 4 }));
  const lookupTwo = (_name: string, _options: object, done: (...answer: unknown[]) => void) =>
    done(null, found);
  Object.assign(dns, { lookup: lookupTwo });
  const source = scene.makeSource({ master: `https://api.example:${port}` });
  const started = source.start(scene.recorder);
  await waitFor(() => scene.recorder.problems.length > 0, { what: "the outage" });
  const [first, second] = found.map(({ address }) => `connect ECONNREFUSED ${address}:${port}`);
  t.true(scene.recorder.problems[0]!.includes(`at "api.example:${port}": ${first}, ${second};`));
  await source.close();
  await started;
});

test.serial(
  "credentials that cannot be read are an error that names where they are from",
  async (t) => {
    const scene = await Scene.create(t);
    const missing = path.join(scene.folder, "missing");
    const source = scene.makeSource({ kubeconfig: missing });
    const error = await t.throwsAsync(source.start(scene.recorder));
    t.regex(error.message, /Cannot use kubeconfig ".*missing": ENOENT/);
    scene.writeKubeconfig("{}");
    const empty = await t.throwsAsync(scene.makeSource().start(scene.recorder));
    t.regex(empty.message, /leads to no cluster; correct it/);
  },
);

for (const watchList of [true, false]) {
  const how = watchList ? "streamed lists" : "pages";
  test.serial(`an older state is refused for minutes, then taken, with ${how}`, async (t) => {
    const authority = new Authority();
    const scene = await Scene.create(t, { authority, watchList, resourceVersion: 500 });
    const { server, recorder } = scene;
    scene.writeKubeconfig(server.kubeconfigFor({ user: "node" }));
    let lateMs = 0;
    const clock = { ...machineClock, now: () => performance.now() + lateMs };
    await scene.start({ clock });
    await server.close();
    // The same address, but the state of some days ago: a backup was restored.
    const port = Number(new URL(server.url).port);
    const restored = await startApiServer({ authority, watchList, port, objects: makeObjects(2) });
    t.teardown(() => restored.close());
    await waitFor(() => restored.countOpen({ verb: "watch" }) === 5, { what: "watches" });
    for (let bookmark = 0; bookmark < 3; bookmark++) restored.bookmark();
    const refusal = /is at resourceVersion "\d+" after "\d+"|Too large/;
    await waitFor(() => recorder.problems.some((text) => refusal.test(text)), { what: "doubt" });
    const before = restored.requests.length;
    await waitFor(() => restored.requests.length > before + 60, { what: "many attempts" });
    t.deepEqual(recorder.removed, []);
    lateMs = 301_000;
    await waitFor(() => recorder.removed.length > 0, { what: "the older state" });
    await waitFor(() => recorder.objects.size === 5, { what: "just the older state" });
    t.deepEqual(recorder.removed.sort(), ["EndpointSlice shop/web-2-x", "Service shop/web-2"]);
  });
}

test.serial("credentials of a plugin are used, and asked for again when refused", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder, folder } = scene;
  const file = path.join(folder, "credential.json");
  const token = server.access.issueToken("plugin");
  const write = (value: string) => {
    const apiVersion = "client.authentication.k8s.io/v1";
    const credential = { apiVersion, kind: "ExecCredential", status: { token: value } };
    writeFileSync(file, JSON.stringify(credential));
  };
  write(token);
  const config = JSON.parse(server.kubeconfig);
  const exec = { apiVersion: "client.authentication.k8s.io/v1", command: "cat", args: [file] };
  config.users[0].user = { exec };
  scene.writeKubeconfig(JSON.stringify(config));
  await scene.start();
  t.true(server.requests.every(({ user }) => user === "plugin"));
  server.access.expireToken(token);
  write(server.access.issueToken("plugin"));
  server.strike({}, { kind: "cut" });
  server.apply(makeService("after"));
  await scene.settle("the state after the new credential");
  t.deepEqual(recorder.removed, []);
});

test.serial("a proxy of the kubeconfig is used", async (t) => {
  const scene = await Scene.create(t);
  let connections = 0;
  const proxy = createServer();
  proxy.on("connect", (request, client: Socket) => {
    connections++;
    const [host, port] = request.url!.split(":");
    const upstream = connect(Number(port), host, () => {
      client.write("HTTP/1.1 200 Connection established\r\n\r\n");
      upstream.pipe(client).pipe(upstream);
    });
    for (const socket of [client, upstream]) socket.on("error", () => {});
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  t.teardown(() => proxy.close());
  const config = JSON.parse(scene.server.kubeconfig);
  const { port } = proxy.address() as AddressInfo;
  config.clusters[0].cluster["proxy-url"] = `http://127.0.0.1:${port}`;
  scene.writeKubeconfig(JSON.stringify(config));
  const source = await scene.start();
  await scene.settle("all");
  t.true(connections >= 5);
  await source.close();
});

test.serial(
  "a server without protobuf and streamed lists is asked for JSON in pages",
  async (t) => {
    const scene = await Scene.create(t);
    const server = await startOldServer(t, { services: () => [makeService("old")] });
    scene.writeKubeconfig(server.kubeconfig);
    await scene.start();
    t.deepEqual([...scene.recorder.objects.keys()], ["Service shop/old"]);
    t.deepEqual(scene.recorder.problems, []);
    t.is(server.accepts.filter((accept) => accept.includes("protobuf")).length, 5);
  },
);

test.serial("initial events that break off again and again are told of", async (t) => {
  const scene = await Scene.create(t, { objects: makeObjects(20) });
  const { server, recorder } = scene;
  server.faults.add({ verb: "watch", effect: { kind: "cut", afterBytes: 333 } });
  // Each takes longer than a watch that counts as one that worked.
  let now = 0;
  const clock = { ...machineClock, now: () => (now += 2000) };
  const source = scene.makeSource({ clock });
  const started = source.start(recorder);
  await waitFor(() => recorder.problems.length > 0, { what: "the problem" });
  t.regex(recorder.problems[0]!, /Cannot watch .* at "127.0.0.1:\d+"/);
  await source.close();
  await started;
});

for (const [title, line, message] of [
  ["ends at once", "", /Cannot watch services at ".*": it ended at once/],
  [
    "fails each time where it goes on",
    JSON.stringify({ type: "ERROR", object: { kind: "Status", code: 500, message: "no value" } }),
    /Cannot watch services at ".*": no value \(500\)/,
  ],
  [
    "cannot be read where it goes on",
    JSON.stringify({ type: "STRANGE", object: { kind: "Service" } }),
    /Cannot decode a watch event of Service: its type is "STRANGE"/,
  ],
] as const)
  test.serial(`a watch that ${title} is told of, and all is listed again`, async (t) => {
    const scene = await Scene.create(t);
    const { recorder } = scene;
    let name = "old";
    const server = await startOldServer(t, {
      services: () => [makeService(name)],
      onWatch: (response) => response.end(line === "" ? "" : `${line}\n`),
    });
    scene.writeKubeconfig(server.kubeconfig);
    await scene.start();
    name = "new";
    await waitFor(() => recorder.objects.has("Service shop/new"), { what: "another list" });
    t.deepEqual([...recorder.objects.keys()], ["Service shop/new"]);
    t.regex(recorder.problems[0]!, message);
    t.is(recorder.problems.length, 1);
  });

test.serial("what came before a failure of its watch is acted on at once", async (t) => {
  const scene = await Scene.create(t);
  const { recorder } = scene;
  const watches: ServerResponse[] = [];
  const onWatch = (response: ServerResponse) => watches.push(response);
  const server = await startOldServer(t, { services: () => [], onWatch });
  scene.writeKubeconfig(server.kubeconfig);
  await scene.start();
  await waitFor(() => watches.length > 0, { what: "a watch" });
  const { metadata, ...rest } = makeService("new");
  const object = { ...rest, metadata: { ...metadata, resourceVersion: "90" } };
  const error = { kind: "Status", code: 500 };
  const { changes } = recorder;
  const events = [
    { type: "ADDED", object },
    { type: "ERROR", object: error },
  ];
  watches[0]!.write(events.map((event) => `${JSON.stringify(event)}\n`).join(""));
  await waitFor(() => watches.length > 1, { what: "another watch" });
  t.true(recorder.objects.has("Service shop/new"));
  t.is(recorder.changes, changes + 1);
});

test.serial("lists follow failing watches ever more slowly", async (t) => {
  const scene = await Scene.create(t);
  const server = await startOldServer(t, { services: () => [], onWatch: (answer) => answer.end() });
  scene.writeKubeconfig(server.kubeconfig);
  const waits: number[] = [];
  const sleep = (milliseconds: number) => {
    waits.push(milliseconds);
    return nextTurn();
  };
  const clock = { ...machineClock, sleep, now: () => 0, random: () => 0 };
  await scene.start({ clock, backoff: { firstMs: 1000, lastMs: 30_000 } });
  await waitFor(() => server.watches > 10, { what: "attempts" });
  t.deepEqual(waits.slice(0, 7), [500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
});

test.serial("a server whose answers stop half-way is left for another", async (t) => {
  const scene = await Scene.create(t);
  const { server, recorder, folder } = scene;
  const other = await startApiServer({ peer: server });
  t.teardown(() => other.close());
  const statePath = path.join(folder, "servers.json");
  const state = { configured: `${server.url}/`, servers: [`${other.url}/`] };
  writeFileSync(statePath, JSON.stringify(state));
  server.faults.add({ effect: { kind: "stall", afterBytes: 100 } });
  await scene.start({ statePath, timeouts: IMPATIENT });
  await scene.settle("all");
  t.true(other.requests.length > 0);
  t.deepEqual(recorder.removed, []);
});

test.serial("a server is asked without TLS where its URL says so", async (t) => {
  const scene = await Scene.create(t);
  const services = () => [makeService("plain")];
  const { url: master } = await startOldServer(t, { services, isPlain: true });
  await scene.start({ master });
  t.true(scene.recorder.objects.has("Service shop/plain"));
  t.deepEqual(scene.recorder.problems, []);
});

test.serial("a server that is no URL is an error that shows it", async (t) => {
  const scene = await Scene.create(t);
  for (const master of ["10.0.0.1:6443", "localhost:6443"]) {
    const error = await t.throwsAsync(scene.makeSource({ master }).start(scene.recorder));
    t.true(error.message.includes(`the server is "${master}", not a URL such as "https://`));
  }
});
