// Which API server is asked next, what is learned of others, and what a file keeps of that.
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { Outage } from "./outage.ts";
import { Servers, serversOf } from "./servers.ts";
import { Backoff } from "./time.ts";

const CONFIGURED = new URL("https://api.example:6443");
const VERIFIED = { isVerified: true };

function makeFile(t: ExecutionContext): string {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-servers-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  return path.join(folder, "deep", "servers.json");
}

test("the configured server is asked until it fails, then the others in turn", (t) => {
  const servers = new Servers(undefined);
  servers.configure(CONFIGURED, VERIFIED);
  servers.learn(["https://192.0.2.1:6443", "https://192.0.2.2:6443"]);
  t.is(servers.count, 3);
  const asked = [];
  for (let turn = 0; turn < 4; turn++) {
    asked.push(servers.current.host);
    servers.fail(servers.current);
  }
  t.deepEqual(asked, ["api.example:6443", "192.0.2.1:6443", "192.0.2.2:6443", "api.example:6443"]);
  // A second request that failed at the same server does not skip one.
  const { current } = servers;
  servers.fail(current);
  const next = servers.current.host;
  servers.fail(current);
  t.is(servers.current.host, next);
});

test("what is learned is kept for the next start, for the same cluster alone", (t) => {
  const file = makeFile(t);
  const first = new Servers(file);
  first.configure(CONFIGURED, VERIFIED);
  first.learn(["https://192.0.2.1:6443"]);
  // No endpoints at all: the last known ones stay.
  first.learn([]);
  const second = new Servers(file);
  second.configure(CONFIGURED, VERIFIED);
  t.is(second.count, 2);
  const other = new Servers(file);
  other.configure(new URL("https://other.example"), VERIFIED);
  t.is(other.count, 1);
  writeFileSync(file, "{ not JSON");
  const third = new Servers(file);
  third.configure(CONFIGURED, VERIFIED);
  t.is(third.count, 1);
});

test("a server that does not prove who it is stays the only one", (t) => {
  const file = makeFile(t);
  const servers = new Servers(file);
  servers.configure(CONFIGURED, { isVerified: false });
  servers.learn(["https://192.0.2.1:6443"]);
  t.is(servers.count, 1);
  t.throws(() => readFileSync(file), { code: "ENOENT" });
});

test("endpoints of the API server's Service are servers: ready ones, with the port https", (t) => {
  const base = { kind: "EndpointSlice", namespace: "default", serviceName: "kubernetes" } as const;
  const common = {
    port: 6443,
    nodeName: "",
    serving: true,
    terminating: false,
    zoneHints: [],
    nodeHints: [],
  };
  const ports = [{ name: "https", protocol: "TCP", port: 6443 }] as const;
  const slice = { ...base, name: "kubernetes", headless: false, family: 4, ports } as const;
  const endpoints = [
    { address: "192.0.2.2", ready: true, ...common },
    { address: "192.0.2.1", ready: true, ...common },
    { address: "192.0.2.3", ready: false, ...common },
  ];
  const six = [{ address: "2001:db8::1", ready: true, ...common }];
  const slices = [
    { ...slice, endpoints },
    { ...slice, family: 6 as const, endpoints: six },
    { ...slice, ports: [], endpoints },
  ];
  t.deepEqual(serversOf(slices), [
    "https://192.0.2.1:6443",
    "https://192.0.2.2:6443",
    "https://[2001:db8::1]:6443",
  ]);
});

test("waits double up to the last, each between its half and its whole, and start again", (t) => {
  let chance = 0;
  const backoff = new Backoff({ firstMs: 100, lastMs: 500 }, () => chance);
  t.deepEqual(
    [1, 2, 3, 4, 5].map(() => backoff.next()),
    [50, 100, 200, 250, 250],
  );
  backoff.reset();
  chance = 1;
  t.deepEqual(
    [1, 2, 3, 4, 5].map(() => backoff.next()),
    [100, 200, 400, 500, 500],
  );
});

test("an outage is told once, another one after a minute, and the end of what was told", (t) => {
  let now = 0;
  const said: string[] = [];
  const say = (message: string) => said.push(message);
  const outage = new Outage({ now: () => now }, { problem: say, resolved: say });
  outage.end();
  outage.fail("A");
  outage.fail("A");
  outage.fail("B");
  now = 61_000;
  outage.fail("A");
  outage.fail("B");
  outage.end();
  outage.end();
  // It comes and goes: quiet until a minute is over.
  for (let again = 0; again < 100; again++) {
    outage.fail("C");
    outage.end();
  }
  now = 122_000;
  outage.fail("C");
  t.deepEqual(said, ["A", "B", "No longer: B", "C"]);
});
