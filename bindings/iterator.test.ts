// Iterators, and network namespaces that are entered and left: what a program counts there.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { closeSync, openSync, readlinkSync } from "node:fs";
import test, { type ExecutionContext } from "ava";
import { BpfError } from "./errors.ts";
import { BpfIterator } from "./iterator.ts";
import { BpfObject } from "./object.ts";
import { insideNetns, netnsCookie } from "./system.ts";
import { hasRoot, testdata } from "./testing.ts";

/** Opens as many UDP sockets as it is told, and says when it has. */
const HOLDER = `
const dgram = require("node:dgram");
const count = Number(process.argv[1]);
let bound = 0;
const done = () => { if (++bound > count) console.log("ready"); };
for (let index = 0; index < count; index++) dgram.createSocket("udp4").bind(0, done);
done();
process.stdin.resume().on("end", () => process.exit());
`;

test("an iterator sees the sockets of the namespace that it is run in", async (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("iterate"));
  t.teardown(() => object.close());
  object.load();
  const iterator = BpfIterator.attach(object.program("count"));
  t.teardown(() => iterator.close());
  for (const count of [0, 7, 300]) {
    const { fd } = await holdSockets(t, count);
    t.is(
      insideNetns(fd, () => iterator.run()),
      count,
    );
  }
  iterator.close();
  t.throws(() => iterator.run(), { message: 'Iterator "count" is closed' });
});

test("a namespace is seen from inside alone, and the way back is always found", async (t) => {
  if (!hasRoot(t)) return;
  const own = readlinkSync("/proc/thread-self/ns/net");
  const cookie = netnsCookie();
  const [one, other] = [await holdSockets(t, 0), await holdSockets(t, 0)];
  const there = insideNetns(one.fd, () => {
    const nested = insideNetns(other.fd, netnsCookie);
    return { cookie: netnsCookie(), nested, link: readlinkSync("/proc/thread-self/ns/net") };
  });
  t.is(there.link, readlinkSync(`/proc/${one.pid}/ns/net`));
  t.is(new Set([cookie, there.cookie, there.nested]).size, 3);
  t.throws(
    () =>
      insideNetns(one.fd, () => {
        throw new Error("halfway");
      }),
    { message: "halfway" },
  );
  t.is(readlinkSync("/proc/thread-self/ns/net"), own);
  t.is(netnsCookie(), cookie);
});

test("what is no network namespace cannot be entered", (t) => {
  if (!hasRoot(t)) return;
  const fd = openSync("/proc/self/ns/uts", "r");
  t.teardown(() => closeSync(fd));
  const error = t.throws(() => insideNetns(fd, () => t.fail("inside")), { instanceOf: BpfError });
  t.is(error.message.split(",")[0], 'Cannot enter "the network namespace": EINVAL');
});

/** A process with so many sockets in a network namespace of its own, and that namespace opened. */
async function holdSockets(t: ExecutionContext, count: number) {
  const command = ["--net", process.execPath, "-e", HOLDER, String(count)];
  const child: ChildProcess = spawn("unshare", command, { stdio: ["pipe", "pipe", "inherit"] });
  const ended = once(child, "exit");
  t.teardown(async () => {
    child.kill("SIGKILL");
    await ended;
  });
  await once(child.stdout!, "data", { signal: AbortSignal.timeout(20_000) });
  const fd = openSync(`/proc/${child.pid}/ns/net`, "r");
  t.teardown(() => closeSync(fd));
  return { fd, pid: child.pid };
}
