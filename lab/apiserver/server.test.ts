// The API server as clients see it: lists, pages, watches, errors and rights, over real TLS.
import { once } from "node:events";
import http2 from "node:http2";
import { gunzipSync } from "node:zlib";
import test, { type ExecutionContext } from "ava";
import { waitFor } from "../wait.ts";
import { Authority } from "./certificates.ts";
import { type AskOptions, ask, openEnvelope, readFrames } from "./client.ts";
import { generateObjects } from "./generate.ts";
import type { ApiServer } from "./server.ts";
import { makeService, serve, serviceNamed } from "./testobjects.ts";

const SERVICES = "/api/v1/services";
const WATCH = `${SERVICES}?watch=1&allowWatchBookmarks=true`;
const WATCH_LIST = `${WATCH}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan`;
const PROTOBUF = "application/vnd.kubernetes.protobuf";

interface ListAnswer {
  status: number;
  metadata: { resourceVersion?: string; continue?: string; remainingItemCount?: number };
  items: { metadata: { name: string } }[];
  message: string;
  reason: string;
  code: number;
}

async function list(
  server: ApiServer,
  path: string,
  options?: AskOptions,
): Promise<ListAnswer & { names: string }> {
  const answer = await ask(server, path, options);
  const parsed: ListAnswer = JSON.parse((await answer.whole()).toString());
  const names = (parsed.items ?? []).map(({ metadata }) => metadata.name).join(" ");
  return { ...parsed, status: answer.status, names };
}

function serveNamed(t: ExecutionContext, names: string): Promise<ApiServer> {
  return serve(t, { objects: names.split(" ").map((name) => makeService(name)) });
}

test("a list is ordered by namespace and name, and can be of one namespace", async (t) => {
  const server = await serveNamed(t, "b a-1 a");
  server.apply(makeService("z", { namespace: "other" }));
  t.is((await list(server, SERVICES)).names, "z a a-1 b");
  t.is((await list(server, "/api/v1/namespaces/shop/services")).names, "a a-1 b");
  t.is((await list(server, "/api/v1/namespaces/none/services")).names, "");
});

test("a single object is answered with its kind, and a missing one with 404", async (t) => {
  const server = await serveNamed(t, "web");
  const path = "/api/v1/namespaces/shop/services/web";
  const object = JSON.parse((await (await ask(server, path)).whole()).toString());
  t.like(object, { kind: "Service", apiVersion: "v1", metadata: { name: "web" } });
  const bytes = await (await ask(server, path, { accept: PROTOBUF })).whole();
  t.like(openEnvelope(bytes), { apiVersion: "v1", kind: "Service" });
  const missing = await list(server, "/api/v1/namespaces/shop/services/none");
  t.like(missing, { status: 404, message: 'services "none" not found', reason: "NotFound" });
});

test("pages together are the list as it was at the first page", async (t) => {
  const server = await serveNamed(t, "a b c d e");
  const first = await list(server, `${SERVICES}?limit=2`);
  t.is(first.names, "a b");
  t.is(first.metadata.remainingItemCount, 3);
  server.delete(serviceNamed("c"));
  server.apply(makeService("cc"));
  server.apply(makeService("d", { labels: { changed: "yes" } }));
  const second = await list(server, `${SERVICES}?limit=2&continue=${first.metadata.continue}`);
  t.is(second.names, "c d");
  t.is(second.metadata.resourceVersion, first.metadata.resourceVersion);
  t.false("labels" in second.items[1]!.metadata);
  const third = await list(server, `${SERVICES}?limit=2&continue=${second.metadata.continue}`);
  t.is(third.names, "e");
  t.is(third.metadata.continue, undefined);
});

test("pages of a selection do not tell how much is left", async (t) => {
  const server = await serveNamed(t, "a b c");
  const { names, metadata } = await list(server, `${SERVICES}?limit=1&labelSelector=!none`);
  t.is(names, "a");
  t.false("remainingItemCount" in metadata);
});

test("after a compaction the next page is 410, and its token leads on through today", async (t) => {
  const server = await serveNamed(t, "a b c");
  const first = await list(server, `${SERVICES}?limit=2`);
  server.delete(serviceNamed("c"));
  server.apply(makeService("d"));
  server.compact();
  const gone = await list(server, `${SERVICES}?limit=2&continue=${first.metadata.continue}`);
  t.like(gone, { status: 410, code: 410, reason: "Expired" });
  t.regex(gone.message, /^The provided continue parameter is too old/);
  const on = await list(server, `${SERVICES}?limit=2&continue=${gone.metadata.continue}`);
  t.is(on.names, "d");
});

test("resourceVersion and its match choose the state that is listed", async (t) => {
  const server = await serveNamed(t, "a");
  const before = server.store.resourceVersion;
  const after = server.apply(makeService("b"));
  const at = (query: string) => list(server, `${SERVICES}?${query}`);
  const exact = await at(`resourceVersion=${before}&resourceVersionMatch=Exact`);
  t.is(exact.names, "a");
  t.is(exact.metadata.resourceVersion, String(before));
  t.is((await at(`resourceVersion=${before}&limit=5`)).names, "a");
  t.is((await at(`resourceVersion=${before}`)).names, "a b");
  t.is((await at(`resourceVersion=${before}&resourceVersionMatch=NotOlderThan`)).names, "a b");
  t.is((await at("resourceVersion=0&limit=1")).names, "a b");
  const future = await at(`resourceVersion=${after + 1}`);
  t.like(future, { status: 504, reason: "Timeout" });
  t.is(future.message, `Timeout: Too large resource version: ${after + 1}, current: ${after}`);
  server.compact();
  const gone = await at(`resourceVersion=${before}&resourceVersionMatch=Exact`);
  t.like(gone, { status: 410, message: "The resourceVersion for the provided list is too old." });
});

test("a body over 128 KiB is compressed for who asks for it", async (t) => {
  const server = await serve(t, { objects: generateObjects({ services: 300, endpoints: 1 }) });
  const headers = { "accept-encoding": "gzip" };
  const small = await ask(server, `${SERVICES}?limit=10`, { headers });
  t.is(small.header("content-encoding"), undefined);
  await small.whole();
  const plain = await (await ask(server, SERVICES)).whole();
  const packed = await ask(server, SERVICES, { headers });
  t.is(packed.header("content-encoding"), "gzip");
  t.true(gunzipSync(await packed.whole()).equals(plain));
});

test("a watch goes on from a version: what happened since, then what happens", async (t) => {
  const server = await serveNamed(t, "a");
  const since = server.store.resourceVersion;
  server.apply(makeService("b"));
  server.delete(serviceNamed("a"));
  const watch = await ask(server, `${WATCH}&resourceVersion=${since}`);
  await watch.events(2);
  server.apply(makeService("b", { labels: { x: "y" } }));
  const events = await watch.events(3);
  const told = events.map(({ type, object }) => {
    return `${type} ${object.metadata.name} ${Number(object.metadata.resourceVersion) - since}`;
  });
  t.deepEqual(told, ["ADDED b 1", "DELETED a 2", "MODIFIED b 3"]);
  watch.close();
});

test("a watch without a version begins with all there is", async (t) => {
  const server = await serveNamed(t, "a b");
  for (const query of ["", "&resourceVersion=0"]) {
    const watch = await ask(server, `${WATCH}${query}`);
    await watch.events(2);
    server.bookmark();
    const events = await watch.events(3);
    t.deepEqual(
      events.map(({ type }) => type),
      ["ADDED", "ADDED", "BOOKMARK"],
    );
    t.false("annotations" in events[2]!.object.metadata);
    watch.close();
  }
});

test("a streamed list ends with the marked bookmark, before any later change", async (t) => {
  const objects = [...generateObjects({ services: 2000, endpoints: 0 })];
  const server = await serve(t, { objects });
  const version = server.store.resourceVersion;
  const watch = await ask(server, WATCH_LIST);
  server.apply(makeService("later"));
  const events = await watch.events(2002);
  const { type, object } = events[2000]!;
  t.is(type, "BOOKMARK");
  t.is(object.metadata.resourceVersion, String(version));
  t.is(object.metadata.annotations["k8s.io/initial-events-end"], "true");
  t.is(events[2001]!.object.metadata.name, "later");
  watch.close();
});

test("sendInitialEvents false begins with what comes", async (t) => {
  const server = await serveNamed(t, "a");
  const watch = await ask(
    server,
    WATCH_LIST.replace("sendInitialEvents=true", "sendInitialEvents=false"),
  );
  server.apply(makeService("b"));
  const [event] = await watch.events(1);
  t.is(event!.object.metadata.name, "b");
  watch.close();
});

test("a server without streamed lists refuses them with 422", async (t) => {
  const server = await serve(t, { watchList: false });
  const { status, message } = await list(server, WATCH_LIST);
  t.is(status, 422);
  t.regex(message, /^ListOptions\.meta\.k8s\.io "" is invalid: sendInitialEvents: Forbidden/);
});

test("objects leave the selectors of a watch in their last matching state", async (t) => {
  const server = await serveNamed(t, "a");
  const selector = "labelSelector=!hidden&fieldSelector=spec.clusterIP!%3DNone";
  const watch = await ask(server, `${WATCH}&${selector}`);
  await watch.events(1);
  server.apply(makeService("a", { labels: { hidden: "" } }));
  server.apply(makeService("a", { labels: { hidden: "", more: "" } }));
  server.apply(makeService("a"));
  server.apply(makeService("a", { spec: { clusterIP: "None" } }));
  server.delete(serviceNamed("a"));
  server.bookmark();
  const events = await watch.events(5);
  t.deepEqual(
    events.map(({ type }) => type),
    ["ADDED", "DELETED", "ADDED", "DELETED", "BOOKMARK"],
  );
  t.false("labels" in events[1]!.object.metadata);
  t.is(events[3]!.object.spec.clusterIP, "10.96.0.1");
  const versions = events.map(({ object }) => Number(object.metadata.resourceVersion));
  t.deepEqual(
    versions,
    versions.toSorted((a, b) => a - b),
  );
  watch.close();
});

test("a watch hears of its own resource and namespace alone", async (t) => {
  const server = await serve(t);
  const path = WATCH.replace("/v1/", "/v1/namespaces/shop/");
  const watch = await ask(server, path);
  server.apply({ apiVersion: "v1", kind: "Node", metadata: { name: "node-a" } });
  server.apply(makeService("a", { namespace: "other" }));
  server.apply(makeService("b"));
  const [event] = await watch.events(1);
  t.is(event!.object.metadata.name, "b");
  watch.close();
});

test("a watch of an expired version is 200 and then an ERROR event of 410", async (t) => {
  const server = await serveNamed(t, "a");
  const since = server.store.resourceVersion;
  server.apply(makeService("b"));
  server.compact();
  const watch = await ask(server, `${WATCH}&resourceVersion=${since}`);
  t.is(watch.status, 200);
  const [event] = await watch.events(1);
  t.like(event, { type: "ERROR", object: { kind: "Status", code: 410, reason: "Expired" } });
  await watch.whole();
});

test("a watch ends after its time, with a bookmark shortly before", async (t) => {
  const server = await serveNamed(t, "a");
  const version = server.store.resourceVersion;
  const watch = await ask(server, `${WATCH}&timeoutSeconds=1&resourceVersion=${version}`);
  await watch.whole();
  const [event, ...others] = await watch.events(1);
  t.like(event, { type: "BOOKMARK", object: { metadata: { resourceVersion: String(version) } } });
  t.deepEqual(others, []);
});

test("bookmarks come regularly, and only where they are allowed", async (t) => {
  const server = await serve(t, { bookmarkSeconds: 0.02 });
  const allowed = await ask(server, WATCH);
  const plain = await ask(server, `${SERVICES}?watch=1`);
  const [event] = await allowed.events(3);
  t.is(event!.type, "BOOKMARK");
  t.is(plain.text, "");
  allowed.close();
  plain.close();
});

test("a protobuf watch frames each event", async (t) => {
  const server = await serveNamed(t, "a");
  const watch = await ask(server, WATCH_LIST, { accept: `${PROTOBUF};stream=watch` });
  t.is(watch.type, `${PROTOBUF};stream=watch`);
  server.apply(makeService("b"));
  const frames = () => readFrames(watch.bytes).map(({ type }) => type);
  await waitFor(() => frames().length === 3, { what: "three frames" });
  t.deepEqual(frames(), ["ADDED", "BOOKMARK", "ADDED"]);
  watch.close();
});

test("a server without protobuf says so, and gives JSON where that is accepted", async (t) => {
  const server = await serve(t, { protobuf: false });
  const refused = await list(server, SERVICES, { accept: PROTOBUF });
  const message = "only the following media types are accepted: application/json";
  t.like(refused, { status: 406, message, reason: "NotAcceptable" });
  const answer = await ask(server, SERVICES, { accept: `${PROTOBUF},application/json` });
  t.is(answer.type, "application/json");
  await answer.whole();
});

test("what is denied is answered with kube-apiserver's 403 until it is allowed", async (t) => {
  const server = await serve(t);
  const slices = "/apis/discovery.k8s.io/v1/endpointslices";
  const allow = server.access.deny({ verb: "watch", resource: "endpointslices" });
  t.like(await list(server, `${slices}?watch=1`), {
    status: 403,
    reason: "Forbidden",
    message:
      'endpointslices.discovery.k8s.io is forbidden: User "system:kube-proxy" cannot watch ' +
      'resource "endpointslices" in API group "discovery.k8s.io" at the cluster scope',
    details: { group: "discovery.k8s.io", kind: "endpointslices" },
  });
  t.is((await list(server, slices)).status, 200);
  allow();
  const watch = await ask(server, `${slices}?watch=1`);
  t.is(watch.status, 200);
  watch.close();
  server.access.deny({ namespace: "shop", user: "system:kube-proxy" });
  const named = await list(server, "/api/v1/namespaces/shop/services/web");
  t.is(
    named.message,
    'services "web" is forbidden: User "system:kube-proxy" cannot get resource "services" ' +
      'in API group "" in the namespace "shop"',
  );
});

test("tokens are good until they expire, each for its user", async (t) => {
  const server = await serve(t);
  const token = server.access.issueToken("jane");
  const old = server.access.issueToken("jane", 0);
  t.is((await list(server, SERVICES, { token })).status, 200);
  t.is(server.requests.at(-1)!.user, "jane");
  for (const bad of ["", "nonsense", old]) {
    const refused = await list(server, SERVICES, { token: bad });
    t.like(refused, { status: 401, message: "Unauthorized", reason: "Unauthorized" });
  }
  server.access.expireToken(token);
  t.is((await list(server, SERVICES, { token })).status, 401);
});

test("a client certificate of the authority proves a user, another does not", async (t) => {
  const authority = new Authority();
  const server = await serve(t, { authority });
  const own = authority.client("system:node:node-a", ["system:nodes"]);
  t.is((await list(server, SERVICES, { ...own, token: "" })).status, 200);
  t.is(server.requests.at(-1)!.user, "system:node:node-a");
  const other = new Authority().client("system:node:node-a");
  t.is((await list(server, SERVICES, { ...other, token: "" })).status, 401);
});

test("a kubeconfig names the server, its authority and the client's credentials", async (t) => {
  const server = await serve(t);
  const decode = (text: string) => Buffer.from(text, "base64").toString();
  const config = JSON.parse(server.kubeconfig);
  t.is(config.clusters[0].cluster.server, server.url);
  t.is(decode(config.clusters[0].cluster["certificate-authority-data"]), server.ca);
  t.is(config.users[0].user.token, server.token);
  const { user } = JSON.parse(server.kubeconfigFor({ user: "jane" })).users[0];
  const certificate = decode(user["client-certificate-data"]);
  const key = decode(user["client-key-data"]);
  t.is((await list(server, SERVICES, { certificate, key, token: "" })).status, 200);
  t.is(server.requests.at(-1)!.user, "jane");
});

test("with a new authority new connections no longer trust the old one", async (t) => {
  const server = await serve(t);
  const { url, ca, token } = server;
  server.renewAuthority();
  await t.throwsAsync(ask({ url, ca, token }, SERVICES), { message: /signature|certificate/ });
  t.is((await list(server, SERVICES)).status, 200);
});

test("after an outage it is at the same address with the same objects", async (t) => {
  const server = await serveNamed(t, "a");
  const { url } = server;
  const watch = await ask(server, WATCH);
  await server.close();
  await t.throwsAsync(watch.whole(), { message: "aborted" });
  await t.throwsAsync(ask(server, SERVICES), { code: "ECONNREFUSED" });
  server.apply(makeService("b"));
  await server.listen();
  t.is(server.url, url);
  t.is((await list(server, SERVICES)).names, "a b");
});

test("two servers of one cluster share objects, versions, tokens and authority", async (t) => {
  const server = await serveNamed(t, "a");
  const other = await serve(t, { peer: server });
  t.not(other.url, server.url);
  const watch = await ask({ url: other.url, ca: server.ca, token: server.token }, WATCH);
  server.apply(makeService("b"));
  const events = await watch.events(2);
  t.is(events[1]!.object.metadata.resourceVersion, String(other.store.resourceVersion));
  watch.close();
});

test("HTTP/2 serves many requests on one connection", async (t) => {
  const server = await serveNamed(t, "a b");
  const session = http2.connect(server.url, { ca: server.ca });
  t.teardown(() => session.close());
  const authorization = `Bearer ${server.token}`;
  const open = (path: string) => session.request({ ":path": path, authorization });
  const watch = open(WATCH);
  const [head] = await once(watch, "response");
  t.is(head[":status"], 200);
  const lists = await Promise.all(
    [1, 2, 3].map(async () => {
      let text = "";
      for await (const chunk of open(SERVICES)) text += chunk;
      return JSON.parse(text).items.length;
    }),
  );
  t.deepEqual(lists, [2, 2, 2]);
  t.is(server.requests.at(-1)!.httpVersion, "2.0");
  t.is(server.countOpen({ verb: "watch" }), 1);
  watch.close();
  await waitFor(() => server.countOpen() === 0, { what: "the watch to be gone" });
});

test("HTTP/2 can be left out", async (t) => {
  const server = await serve(t, { http2: false });
  const session = http2.connect(server.url, { ca: server.ca });
  await t.throwsAsync(once(session, "connect"));
  t.is((await list(server, SERVICES)).status, 200);
});

test("health and discovery are answered, other paths are 404, other methods 405", async (t) => {
  const server = await serve(t);
  for (const path of ["/healthz", "/livez", "/readyz"])
    t.is((await ask(server, path)).status, 200, path);
  const groups = await list(server, "/apis");
  t.like(groups, { kind: "APIGroupList" });
  const { resources } = (await list(server, "/api/v1")) as unknown as {
    resources: { name: string }[];
  };
  t.deepEqual(
    resources.map(({ name }) => name),
    ["services", "nodes"],
  );
  t.like(await list(server, "/api/v1/pods"), { status: 404, reason: "NotFound" });
  t.like(await list(server, SERVICES, { method: "POST" }), { status: 405 });
});

test("the log of requests says who asked what and what was answered", async (t) => {
  const server = await serve(t);
  await list(server, `${SERVICES}?limit=5&labelSelector=!x`, { accept: "application/json" });
  t.like(server.requests.at(-1), {
    method: "GET",
    path: SERVICES,
    query: { limit: "5", labelSelector: "!x" },
    accept: "application/json",
    httpVersion: "1.1",
    user: "system:kube-proxy",
    status: 200,
    target: { verb: "list", namespace: "", name: "" },
  });
});

test("an object with an unknown field is refused, and the server goes on", async (t) => {
  const server = await serve(t);
  const misspelt = makeService("a", { spec: { sesionAffinity: "None" } });
  t.throws(() => server.apply(misspelt), { message: /^Service 'shop\/a' .*'spec.sesionAffinity'/ });
  t.throws(() => server.delete(serviceNamed("a")), { message: /^Service 'shop\/a' is not there/ });
  t.is((await list(server, SERVICES)).names, "");
});
