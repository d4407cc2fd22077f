// The API server as a process of its own: what it begins with, and what it can be told.
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { ask } from "./client.ts";
import type { Command } from "./control.ts";
import { readFolder } from "./folder.ts";
import { startRemoteApiServer } from "./remote.ts";
import { makeService, serviceNamed } from "./testobjects.ts";

const root = path.resolve(import.meta.dirname, "../../..");

async function startRemote(t: ExecutionContext, ...options: string[]) {
  const remote = await startRemoteApiServer(options);
  t.teardown(() => remote.close());
  return remote;
}

async function count(server: Parameters<typeof ask>[0], what: string): Promise<number> {
  return JSON.parse((await (await ask(server, what)).whole()).toString()).items.length;
}

test("it begins with generated Services and with those of folders", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-test-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(path.join(folder, "a.json"), JSON.stringify(makeService("a")));
  const kubeconfig = path.join(folder, "kubeconfig");
  const remote = await startRemote(
    t,
    ...["--objects", folder, "--services", "3", "--endpoints", "250", "--kubeconfig", kubeconfig],
  );
  t.is(await count(remote.description, "/api/v1/services"), 4);
  t.is(await count(remote.description, "/apis/discovery.k8s.io/v1/endpointslices"), 9);
  t.is(readFileSync(kubeconfig, "utf8"), remote.description.kubeconfig);
});

test("it obeys commands one by one and says when each began", async (t) => {
  const remote = await startRemote(t);
  const { description } = remote;
  const before = process.hrtime.bigint();
  const applied = await remote.call({ do: "apply", object: makeService("a") });
  t.true(
    BigInt(applied.nanoseconds) > before && BigInt(applied.nanoseconds) < process.hrtime.bigint(),
  );
  const watch = await ask(description, "/api/v1/services?watch=1");
  const deleted = await remote.call({ do: "delete", identity: serviceNamed("a") });
  t.is(deleted.value, Number(applied.value) + 1);
  const events = await watch.events(2);
  const received = process.hrtime.bigint();
  const { value: sent } = await remote.call({ do: "lastWrite" });
  t.true(BigInt(deleted.nanoseconds) < BigInt(sent as string));
  t.true(BigInt(sent as string) < received);
  t.deepEqual(
    events.map(({ type }) => type),
    ["ADDED", "DELETED"],
  );
  t.is((await remote.call({ do: "countOpen", aim: { verb: "watch" } })).value, 1);
  await remote.call({ do: "fault", fault: { effect: { kind: "status", code: 503 } } });
  t.is((await ask(description, "/api/v1/services")).status, 503);
  await remote.call({ do: "clearFaults" });
  t.is((await ask(description, "/api/v1/services")).status, 200);
  await t.throwsAsync(remote.call({ do: "delete", identity: serviceNamed("a") }), {
    message: /^The API server cannot 'delete': Service 'shop\/a' is not there/,
  });
  await t.throwsAsync(remote.call({ do: "dance" } as unknown as Command), {
    message: /There is no command 'dance'/,
  });
  watch.close();
});

test("the examples are served, and what has no resource is named", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-test-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  cpSync(path.join(root, "examples"), folder, { recursive: true });
  writeFileSync(
    path.join(folder, "z.yaml"),
    "kind: Pod\napiVersion: v1\nmetadata: {name: a}\n---\n",
  );
  const { objects, leftOut } = readFolder(folder);
  t.deepEqual(leftOut, ["Pod"]);
  const remote = await startRemote(t, "--objects", folder);
  const services = objects.filter(({ kind }) => kind === "Service");
  t.true(services.length > 0);
  t.is(await count(remote.description, "/api/v1/services"), services.length);
});

test("a file that cannot be read is named", (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-test-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  writeFileSync(path.join(folder, "bad.yaml"), "a: [");
  t.throws(() => readFolder(folder), { message: /bad\.yaml' cannot be read/ });
});
