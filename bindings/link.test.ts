// Links on cgroups of their own, proved by connections over loopback: served, replaced without a
// gap, pinned, detached.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { createServer } from "node:net";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { BpfError } from "./errors.ts";
import { BpfLink, cgroupId } from "./link.ts";
import { BpfMap } from "./map.ts";
import { BpfObject } from "./object.ts";
import { bpffsFolder, childCgroup, hasRoot, testdata } from "./testing.ts";

const DEADLINE_MS = 20_000;

/** Connects again and again until standard input ends; then prints who answered how often. */
const CLIENT = `
const net = require("node:net");
const answers = {};
let done = false;
process.stdin.on("end", () => { done = true; }).resume();
const count = (name) => { answers[name] = (answers[name] ?? 0) + 1; };
function connect() {
  if (done) return console.log(JSON.stringify(answers));
  const socket = net.connect(Number(process.argv[1]), "127.0.0.1");
  let text = "";
  socket.on("data", (data) => { text += data; });
  socket.on("error", (error) => { text = error.code; });
  socket.on("close", () => { count(text); connect(); });
}
connect();
`;

test("connections are served without a gap while a link changes its program", async (t) => {
  if (!hasRoot(t)) return;
  const [asked, first, second] = await Promise.all(
    ["asked", "first", "second"].map((name) => serve(t, name)),
  );
  const cgroup = childCgroup(t);
  const before = loadRedirect(t, { asked: asked!.port, served: first!.port });
  const after = loadRedirect(t, { asked: asked!.port, served: second!.port });
  const link = BpfLink.attachCgroup(before.program("redirect"), cgroup);
  t.teardown(() => link.close());

  const client = connectOften(t, { cgroup, port: asked!.port });
  await first!.answered(20);
  link.update(after.program("redirect"));
  t.is(link.info.programId, after.program("redirect").info().id);
  await second!.answered(20);
  const answers = await stop(client);
  t.deepEqual(Object.keys(answers).toSorted(), ["first", "second"]);
  t.is(asked!.count(), 0);

  const hits = after.map("svc_hits").toMap();
  t.is(Buffer.from(hits.get(new Uint8Array(4))!).readBigUInt64LE(), BigInt(second!.count()));
  hits.close();
});

test("a process outside the cgroup is not touched", async (t) => {
  if (!hasRoot(t)) return;
  const [asked, other] = await Promise.all(["asked", "other"].map((name) => serve(t, name)));
  const object = loadRedirect(t, { asked: asked!.port, served: other!.port });
  const link = BpfLink.attachCgroup(object.program("redirect"), childCgroup(t));
  t.teardown(() => link.close());
  const client = connectOften(t, { cgroup: undefined, port: asked!.port });
  await asked!.answered(3);
  await stop(client);
  t.is(other!.count(), 0);
});

test("a pinned link serves after its descriptor is closed, until it is detached", async (t) => {
  if (!hasRoot(t)) return;
  const [asked, served] = await Promise.all(["asked", "served"].map((name) => serve(t, name)));
  const pin = path.join(bpffsFolder(t), "connect4");
  const cgroup = childCgroup(t);
  const object = loadRedirect(t, { asked: asked!.port, served: served!.port });
  const link = BpfLink.attachCgroup(object.program("redirect"), cgroup);
  link.pin(pin);
  link.close();
  const client = connectOften(t, { cgroup, port: asked!.port });
  await served!.answered(3);

  const again = BpfLink.openPinned(pin);
  t.is(again.info.cgroupId, cgroupId(cgroup));
  t.is(again.info.attachType, object.program("redirect").expectedAttachType);
  t.is(again.info.programId, object.program("redirect").info().id);
  again.detach();
  t.is(again.info.cgroupId, 0n);
  await asked!.answered(3);
  await stop(client);
  again.close();
});

test("a link and a map are not taken for each other", (t) => {
  if (!hasRoot(t)) return;
  const folder = bpffsFolder(t);
  const object = loadRedirect(t, { asked: 1, served: 2 });
  const link = BpfLink.attachCgroup(object.program("redirect"), childCgroup(t));
  link.pin(path.join(folder, "link"));
  link.detach();
  link.close();
  const map = object.map("svc_hits").toMap();
  map.pin(path.join(folder, "map"));
  map.close();
  t.throws(() => BpfLink.openPinned(path.join(folder, "map")), {
    instanceOf: BpfError,
    message: /Cannot open pinned link ".*\/map": EINVAL, a map is pinned there/,
  });
  t.throws(() => BpfMap.openPinned(path.join(folder, "link")), {
    instanceOf: BpfError,
    message: /Cannot open pinned map ".*\/link": EINVAL, a link is pinned there/,
  });
});

test("what is no cgroup v2 folder, or no such program, is refused by name", (t) => {
  if (!hasRoot(t)) return;
  const object = loadRedirect(t, { asked: 1, served: 2 });
  for (const folder of ["/tmp", "/absent", "/etc/passwd"]) {
    t.throws(() => BpfLink.attachCgroup(object.program("redirect"), folder), {
      instanceOf: BpfError,
      message: new RegExp(`Cannot attach "redirect to ${folder}": .* cgroup v2`),
    });
  }
  t.throws(() => BpfLink.attachCgroup(object.program("add"), childCgroup(t)), {
    instanceOf: BpfError,
    message: /Cannot attach "add to .*": EINVAL/,
  });
});

test("a closed link refuses every use", (t) => {
  if (!hasRoot(t)) return;
  const object = loadRedirect(t, { asked: 1, served: 2 });
  const link = BpfLink.attachCgroup(object.program("redirect"), childCgroup(t));
  link.close();
  link.close();
  const calls = [
    () => link.info,
    () => link.pin("/nowhere"),
    () => link.update(object.program("redirect")),
    () => link.detach(),
  ];
  for (const call of calls) t.throws(call, { message: 'Link "redirect" is closed' });
});

function loadRedirect(t: ExecutionContext, { asked, served }: { asked: number; served: number }) {
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.setRodata("asked_port", asked);
  object.setRodata("served_port", served);
  object.load();
  return object;
}

/** A server on loopback that answers with its name. */
async function serve(t: ExecutionContext, name: string) {
  let connections = 0;
  const server = createServer((socket) => {
    connections++;
    server.emit("answered");
    socket.on("error", () => socket.destroy()).end(name);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  t.teardown(() => server.close());
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("The server has no port");

  return { port: address.port, count: () => connections, answered };

  /** Resolves after `more` connections from now on. */
  async function answered(more: number): Promise<void> {
    const signal = AbortSignal.timeout(DEADLINE_MS);
    for (const end = connections + more; connections < end; ) {
      await once(server, "answered", { signal });
    }
  }
}

/** A process that connects until stop(); in a cgroup from its first instruction on. */
function connectOften(
  t: ExecutionContext,
  { cgroup, port }: { cgroup: string | undefined; port: number },
): ChildProcess {
  const enter = cgroup === undefined ? "" : 'echo 0 > "$1/cgroup.procs" && ';
  const command = `${enter}exec "$2" -e "$3" "$4"`;
  const args = ["-ec", command, "sh", cgroup ?? "", process.execPath, CLIENT, String(port)];
  const client = spawn("sh", args, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(client, "close");
  t.teardown(async () => {
    client.kill("SIGKILL");
    await ended;
  });
  return client;
}

/** Who answered how often. */
async function stop(client: ChildProcess): Promise<Record<string, number>> {
  const closed = once(client, "close", { signal: AbortSignal.timeout(DEADLINE_MS) });
  let output = "";
  client.stdout?.on("data", (data: Buffer) => {
    output += data.toString();
  });
  client.stdin?.end();
  await closed;
  return JSON.parse(output) as Record<string, number>;
}
