// What the kernel tells unasked: how it is batched, what becomes of a storm, and the end.
import { spawnSync } from "node:child_process";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { pathToFileURL } from "node:url";
import test, { type ExecutionContext } from "ava";
import { NetlinkListener, netlinkProtocol } from "./netlink.ts";
import { decodeLink, decodeNeighbour, rtm } from "./rtnetlink.ts";
import { hasRoot, type TestNetwork, testNetwork } from "./testing.ts";

const GROUPS = { link: 1, neighbour: 3 };

interface Heard {
  names: string[];
  calls: number;
  neighbours: number;
  missed: number;
}

/** Listens to devices and neighbours, until the test ends. */
function listen(
  t: ExecutionContext,
  network: TestNetwork,
  { bufferBytes = 1 << 20, pauseMs = 5 } = {},
): { heard: Heard; until: (isDone: () => boolean) => Promise<void> } {
  const heard: Heard = { names: [], calls: 0, neighbours: 0, missed: 0 };
  const listener = network.run(
    () =>
      new NetlinkListener({
        protocol: netlinkProtocol.ROUTE,
        groups: Object.values(GROUPS),
        bufferBytes,
        pauseMs,
        onMessages: (messages, state) => {
          heard.calls++;
          for (const message of messages)
            if (message.type === rtm.NEWLINK) heard.names.push(decodeLink(message)?.name ?? "");
            else if (message.type === rtm.NEWNEIGH && decodeNeighbour(message)) heard.neighbours++;
          if (state.missed) heard.missed++;
        },
      }),
  );
  t.teardown(() => listener.close());
  return { heard, until };

  async function until(isDone: () => boolean): Promise<void> {
    for (const end = Date.now() + 10_000; !isDone(); await delay(2))
      if (Date.now() > end) throw new Error(`Waited in vain: ${JSON.stringify(heard)}`);
  }
}

test("changes are told as they come, and nothing of other namespaces", async (t) => {
  if (!hasRoot(t)) return;
  const [network, other] = [await testNetwork(t), await testNetwork(t)];
  const { heard, until } = listen(t, network);
  other.ip("link add name stranger type veth peer name strange");
  network.ip("link add name left type veth peer name right");
  await until(() => heard.names.includes("left"));
  network.ip("link set left name port");
  await until(() => heard.names.includes("port"));
  t.false(heard.names.includes("stranger"));
  t.is(heard.missed, 0);
});

function neighbours(count: number): string[] {
  return Array.from(
    { length: count },
    (_, index) =>
      `neighbour replace 10.9.${index >> 8}.${index & 255} lladdr 02:00:00:00:00:01 dev left`,
  );
}

test("a storm is told in few calls", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip("link add name left type veth peer name right", "link set left up");
  const { heard, until } = listen(t, network, { bufferBytes: 1 << 23, pauseMs: 50 });
  const count = 900;
  network.ip(...neighbours(count));
  await until(() => heard.neighbours >= count);
  t.is(heard.missed, 0);
  t.true(heard.calls <= 10, `${heard.calls} calls`);
});

test("what had no room is told as missed, and listening goes on", async (t) => {
  if (!hasRoot(t)) return;
  const network = await testNetwork(t);
  network.ip("link add name left type veth peer name right", "link set left up");
  const { heard, until } = listen(t, network, { bufferBytes: 4096 });
  // Runs while this process reads nothing.
  network.ip(...neighbours(200));
  await until(() => heard.missed > 0);
  t.true(heard.neighbours < 200);
  network.ip("link set right name port");
  await until(() => heard.names.includes("port"));
});

for (const { title, end } of [
  { title: "a process ends by itself once its listener is closed", end: "listener.close()" },
  { title: "an open listener does not keep process.exit() waiting", end: "process.exit(0)" },
  { title: "nor an exception that nobody catches", end: "throw new Error('lost')" },
])
  test(title, async (t) => {
    if (!hasRoot(t)) return;
    const network = await testNetwork(t);
    const module = pathToFileURL(path.join(import.meta.dirname, "netlink.js")).href;
    const script = `
      const { NetlinkListener } = await import(${JSON.stringify(module)});
      const listener = new NetlinkListener({
        protocol: 0, groups: [1], bufferBytes: 65536, pauseMs: 1, onMessages: () => {},
      });
      setTimeout(() => { ${end} }, 50);`;
    const node = [process.execPath, "--input-type=module", "-e", script];
    const outcome = spawnSync("nsenter", [`--net=${network.file}`, "--", ...node], {
      timeout: 20_000,
      encoding: "utf8",
    });
    t.is(outcome.signal, null, outcome.stderr);
  });
