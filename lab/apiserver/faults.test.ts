// Each fault as a client feels it, over real connections; and that the next request is served.
import { once } from "node:events";
import http2 from "node:http2";
import test from "ava";
import { waitFor } from "../wait.ts";
import { type Answer, ask } from "./client.ts";
import type { Effect } from "./faults.ts";
import type { ApiServer } from "./server.ts";
import { makeService, serve, serviceNamed } from "./testobjects.ts";

const SERVICES = "/api/v1/services";
const WATCH = `${SERVICES}?watch=1`;
const objects = () => ["a", "b", "c"].map((name) => makeService(name));

async function text(answer: Answer): Promise<string> {
  return (await answer.whole()).toString();
}

function hit(server: ApiServer, effect: Effect): void {
  server.faults.add({ verb: "list", resource: "services", count: 1, effect });
}

async function checkServed(t: { is: (a: unknown, b: unknown) => void }, server: ApiServer) {
  t.is(JSON.parse(await text(await ask(server, SERVICES))).items.length, 3);
}

test("a connection is cut before the head, in the body, or after the head alone", async (t) => {
  const server = await serve(t, { objects: objects() });
  const whole = await text(await ask(server, SERVICES));
  hit(server, { kind: "cut" });
  await t.throwsAsync(ask(server, SERVICES), { code: "ECONNRESET" });
  for (const afterBytes of [0, 100]) {
    hit(server, { kind: "cut", afterBytes });
    const answer = await ask(server, SERVICES);
    await t.throwsAsync(answer.whole(), { message: "aborted" });
    t.is(answer.text, whole.slice(0, afterBytes));
  }
  t.is(server.faults.hits, 3);
  await checkServed(t, server);
});

test("a connection is reset", async (t) => {
  const server = await serve(t, { objects: objects() });
  hit(server, { kind: "reset" });
  await t.throwsAsync(ask(server, SERVICES), { code: "ECONNRESET" });
  hit(server, { kind: "reset", afterBytes: 50 });
  const answer = await ask(server, SERVICES).catch((error: Error) => error);
  // The reset may overtake the head.
  if (!(answer instanceof Error)) await t.throwsAsync(answer.whole());
  await checkServed(t, server);
});

test("an answer stalls: nothing more comes, and the connection stays", async (t) => {
  const server = await serve(t, { objects: objects() });
  hit(server, { kind: "stall" });
  const never = ask(server, SERVICES).catch((error: Error) => error);
  hit(server, { kind: "stall", afterBytes: 10 });
  await waitFor(() => server.faults.hits === 1, { what: "the first fault" });
  const answer = await ask(server, SERVICES);
  await answer.atLeast(10);
  await checkServed(t, server);
  t.is(answer.bytes.length, 10);
  t.false(answer.isOver);
  t.is(server.countOpen({ verb: "list" }), 2);
  answer.close();
  await server.close();
  t.true((await never) instanceof Error);
});

test("nonsense comes in the middle of a body that is otherwise whole", async (t) => {
  const server = await serve(t, { objects: objects() });
  const whole = await (await ask(server, SERVICES)).whole();
  hit(server, { kind: "garbage", afterBytes: 20, bytes: 33 });
  const bytes = await (await ask(server, SERVICES)).whole();
  t.is(bytes.length, whole.length + 33);
  t.true(bytes.subarray(0, 20).equals(whole.subarray(0, 20)));
  t.true(bytes.subarray(53).equals(whole.subarray(20)));
  await checkServed(t, server);
});

test("a slow body is whole in the end", async (t) => {
  const server = await serve(t, { objects: objects() });
  const whole = await text(await ask(server, SERVICES));
  hit(server, { kind: "slow", bytesPerSecond: whole.length * 5 });
  const start = performance.now();
  t.is(await text(await ask(server, SERVICES)), whole);
  t.true(performance.now() - start > 100);
});

test("statuses are answered as kube-apiserver answers them", async (t) => {
  const server = await serve(t);
  const answerTo = async (effect: Effect) => {
    hit(server, effect);
    return ask(server, SERVICES);
  };
  const busy = await answerTo({ kind: "status", code: 429, retryAfterSeconds: 7 });
  t.is(busy.status, 429);
  t.is(busy.header("retry-after"), "7");
  t.is(await text(busy), "Too many requests, please try again later.\n");
  const reasons = { 401: "Unauthorized", 403: "Forbidden", 500: "InternalError" } as const;
  for (const [code, reason] of Object.entries(reasons)) {
    const answer = await answerTo({ kind: "status", code: Number(code) as 401 });
    t.like(JSON.parse(await text(answer)), { kind: "Status", code: Number(code), reason });
    t.is(answer.status, Number(code));
  }
  const away = await answerTo({ kind: "status", code: 503, retryAfterSeconds: 3 });
  t.is(away.header("retry-after"), "3");
  t.like(JSON.parse(await text(away)), { code: 503, reason: "ServiceUnavailable" });
});

test("some proxy answers with a page of its own", async (t) => {
  const server = await serve(t);
  for (const code of [200, 502]) {
    hit(server, { kind: "html", code });
    const answer = await ask(server, SERVICES);
    t.is(answer.status, code);
    t.is(answer.type, "text/html");
    t.regex(await text(answer), /^<!DOCTYPE html>/);
  }
});

test("a list has its objects twice, in another order, or is an older one", async (t) => {
  const server = await serve(t, { objects: objects() });
  const before = server.store.resourceVersion;
  server.apply(makeService("d"));
  server.delete(serviceNamed("a"));
  const namesAfter = async (effect: Effect) => {
    hit(server, effect);
    const { metadata, items } = JSON.parse(await text(await ask(server, SERVICES)));
    const names = items.map((item: { metadata: { name: string } }) => item.metadata.name);
    return { names: names.join(" "), resourceVersion: metadata.resourceVersion };
  };
  const now = String(server.store.resourceVersion);
  t.deepEqual(await namesAfter({ kind: "duplicate" }), {
    names: "b b c c d d",
    resourceVersion: now,
  });
  t.deepEqual(await namesAfter({ kind: "reorder" }), { names: "d c b", resourceVersion: now });
  const stale = { names: "a b c", resourceVersion: String(before) };
  t.deepEqual(await namesAfter({ kind: "stale", versions: 2 }), stale);
  t.deepEqual(await namesAfter({ kind: "stale", versions: 1000 }), stale);
});

test("the initial events of a watch come twice or in another order as well", async (t) => {
  const server = await serve(t, { objects: objects() });
  const namesOf = async (kind: "duplicate" | "reorder", count: number) => {
    server.faults.add({ verb: "watch", count: 1, effect: { kind } });
    const watch = await ask(server, WATCH);
    const events = await watch.events(count);
    watch.close();
    return events.map(({ object }) => object.metadata.name).join(" ");
  };
  t.is(await namesOf("duplicate", 6), "a a b b c c");
  t.is(await namesOf("reorder", 3), "c b a");
});

test("a watch under way is cut in the middle of its next event", async (t) => {
  const server = await serve(t, { objects: objects() });
  const watch = await ask(server, WATCH);
  await watch.events(3);
  const before = watch.bytes.length;
  const effect = { kind: "cut", afterBytes: 25 } as const;
  t.is(server.strike({ verb: "watch", resource: "nodes" }, effect), 0);
  t.is(server.strike({ verb: "watch", resource: "services" }, effect), 1);
  server.apply(makeService("d"));
  await t.throwsAsync(watch.whole(), { message: "aborted" });
  t.is(watch.bytes.length, before + 25);
  await waitFor(() => server.countOpen() === 0, { what: "the watch to be gone" });
});

test("a watch under way falls silent, and a new one hears what it missed", async (t) => {
  const server = await serve(t, { objects: objects() });
  const version = server.store.resourceVersion;
  const silent = await ask(server, WATCH);
  await silent.events(3);
  server.strike({ verb: "watch" }, { kind: "stall", afterBytes: 0 });
  server.apply(makeService("d"));
  const next = await ask(server, `${WATCH}&resourceVersion=${version}`);
  const [event] = await next.events(1);
  t.is(event!.object.metadata.name, "d");
  t.is((await silent.events(3)).length, 3);
  silent.close();
  next.close();
});

test("a fault hits what it is aimed at, as often as it says, and can be removed", async (t) => {
  const server = await serve(t, { objects: objects() });
  const statusOf = async (path: string) => {
    const answer = await ask(server, path);
    await answer.whole();
    return answer.status;
  };
  const effect: Effect = { kind: "status", code: 503 };
  server.faults.add({ resource: "services", count: 2, effect });
  t.is(await statusOf("/api/v1/nodes"), 200);
  t.is(await statusOf(SERVICES), 503);
  t.is(await statusOf("/api/v1/namespaces/shop/services/a"), 503);
  t.is(await statusOf(SERVICES), 200);
  const remove = server.faults.add({ verb: "list", effect });
  t.is(await statusOf(SERVICES), 503);
  t.is(await statusOf("/api/v1/namespaces/shop/services/a"), 200);
  remove();
  t.is(await statusOf(SERVICES), 200);
  server.faults.add({ effect });
  server.faults.clear();
  t.is(await statusOf(SERVICES), 200);
});

test("over HTTP/2 a cut ends every request of the connection", async (t) => {
  const server = await serve(t, { objects: objects() });
  const session = http2.connect(server.url, { ca: server.ca });
  session.on("error", () => {});
  const authorization = `Bearer ${server.token}`;
  const streams = [WATCH, WATCH].map((path) => session.request({ ":path": path, authorization }));
  const ends = streams.map((stream) =>
    once(
      stream.on("error", () => {}),
      "close",
    ),
  );
  await waitFor(() => server.countOpen() === 2, { what: "two watches" });
  server.strike({ verb: "watch" }, { kind: "cut", afterBytes: 0 });
  await Promise.all(ends);
  await waitFor(() => server.countOpen() === 0, { what: "both to be gone" });
  await checkServed(t, server);
});
