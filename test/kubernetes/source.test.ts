// The Kubernetes API as a source, on the lab's API server: what is delivered and when, and what
// becomes of it while the server, the network, rights or credentials fail.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import type { Effect } from "../../lab/apiserver/faults.ts";
import { startApiServer } from "../../lab/apiserver/server.ts";
import { waitFor } from "../../lab/wait.ts";
import {
  IMPATIENT,
  makeNode,
  makeObjects,
  makeService,
  makeSlice,
  Scene,
  withLabels,
} from "./cluster.ts";

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

for (const resource of ["nodes", "servicecidrs"])
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
