// The devices of a node as they come, go and change under an agent: what is attached to them, what
// programs are told of them, and what others have there.
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { Pins } from "../../control/dataplane/pins.ts";
import { Lab, type LabNode, whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import {
  attachments,
  detachLink,
  deviceRow,
  dumpDevices,
  ip,
  knownAddresses,
  openHops,
  Stranger,
  served,
  TC,
  unserved,
  wearOutAddresses,
} from "./devices.ts";
import { COMMAND, Stage } from "./stage.ts";
import { buildVariant } from "./variant.ts";

const labTest = needsLab(test.serial);

/** A title for a test that gets a stage with an agent, on a node with two pods. */
function stageTest(
  title: string,
  play: (t: ExecutionContext, stage: Stage) => Promise<void>,
  options: { arguments?: readonly string[]; prepare?: (node: LabNode) => Promise<void> } = {},
): void {
  labTest(title, async (t) => {
    if (whyNoLab() !== undefined) return;
    const stage = await Stage.open(["client", "pod-b"]);
    try {
      await options.prepare?.(stage.node);
      await stage.startAgent(options);
      await play(t, stage);
    } catch (error) {
      t.log(stage.agentOutput());
      throw error;
    } finally {
      await stage.close();
    }
  });
}

async function ifindexOf(node: LabNode, name: string): Promise<number> {
  const { stdout } = await node.run(["ip", "-j", "link", "show", name]);
  return (JSON.parse(stdout) as [{ ifindex: number }])[0].ifindex;
}

stageTest(
  "once the agent serves, the uplink and the pods' devices are attached",
  async (t, stage) => {
    const { node } = stage;
    const devices = await dumpDevices(node);
    t.deepEqual(
      devices.map(({ name, role, mode, tc, note }) => [name, role, mode, tc, note]).sort(),
      [
        ["client", "pod-facing", "tc", TC, "none"],
        ["eth0", "uplink", "tc", TC, "veth"],
        ["pod-b", "pod-facing", "tc", TC, "none"],
      ],
    );
    const { ipv4, ipv6 } = node.addresses;
    for (const { sources } of devices) t.deepEqual(sources, [ipv4, ipv6]);
    const ifindexes = devices.map(({ ifindex }) => ifindex);
    const wanted = ifindexes.flatMap((each) => [`egress_${each}`, `ingress_${each}`]);
    t.deepEqual(Object.keys(attachments(node)), wanted.sort());
    const eth0 = devices.find(({ name }) => name === "eth0")!;
    t.like(deviceRow(node, eth0.ifindex), { isUplink: 1, isInside: 0, isPod: 0, sendsFrames: 0 });
    const pod = devices.find(({ name }) => name === "pod-b")!;
    t.like(deviceRow(node, pod.ifindex), { isUplink: 0, isInside: 1, isPod: 0 });
  },
);

stageTest(
  "a device is served as soon as it has a route, and left when it goes",
  async (t, stage) => {
    const { node } = stage;
    await ip(node, "link add name pod-n type veth peer name far", "link set pod-n up");
    await ip(node, "route add 10.244.1.99/32 dev pod-n");
    const first = await served(node, "pod-n");
    t.like(first, { role: "pod-facing", mode: "tc" });
    const before = attachments(node);
    await ip(node, "link set pod-n down", "link set pod-n name pod-m", "link set pod-m up");
    await served(node, "pod-m", ({ ifindex }) => ifindex === first.ifindex);
    t.deepEqual(attachments(node), before, "another name is another name, and no more");
    await ip(node, "link delete pod-m");
    await unserved(node, "pod-m");
    await waitFor(() => attachments(node)[`ingress_${first.ifindex}`] === undefined, {
      what: "the pins to go",
    });
    t.is(deviceRow(node, first.ifindex), undefined);
    t.notRegex(stage.agentOutput(), / warn | error/);
  },
);

stageTest("a device that is made anew with the same number gets new links", async (t, stage) => {
  const { node } = stage;
  const make = [
    "link add name pod-n index 777 type veth peer name far",
    "link set pod-n up",
    "route add 10.244.1.99/32 dev pod-n",
  ];
  await ip(node, ...make);
  await served(node, "pod-n");
  const before = attachments(node).ingress_777!;
  await ip(node, "link delete pod-n", ...make);
  const link = await waitFor(
    () => {
      const now = attachments(node).ingress_777;
      return now !== undefined && now.holder !== before.holder ? now : undefined;
    },
    { what: "a link on the new device" },
  );
  t.is(link.programId, before.programId);
});

stageTest(
  "devices that go while they are being attached leave no trace and no complaint",
  async (t, stage) => {
    const { node } = stage;
    const before = attachments(node);
    // Each pair lives for some milliseconds, as long as a look and its work take.
    for (let round = 0; round < 100; round++)
      await ip(
        node,
        `link add name quick${round} type veth peer name far`,
        `link set quick${round} up`,
        `route add 10.97.0.${round}/32 dev quick${round}`,
        `link delete quick${round}`,
      );
    await ip(node, "link add name last type veth peer name far", "link set last up");
    await ip(node, "route add 10.244.1.200/32 dev last");
    const { ifindex } = await served(node, "last");
    await ip(node, "link set last netns 1");
    await unserved(node, "last");
    await waitFor(() => attachments(node)[`egress_${ifindex}`] === undefined, {
      what: "the programs to come off a device that went elsewhere",
    });
    t.deepEqual(attachments(node), before);
    t.notRegex(stage.agentOutput(), / warn | error/);
    execFileSync("ip", ["link", "delete", "last"]);
  },
);

stageTest(
  "a build with other map layouts takes the devices over by update, and gives them back",
  async (t, stage) => {
    const { node } = stage;
    const other = await buildVariant([
      ["bpf/maps.h", "\t__u16 reserved_2[11]; /* one", "\t__u16 novelty[11]; /* one"],
    ]);
    t.teardown(() => other.remove());
    let before = attachments(node);
    await stage.agent.kill();
    for (const command of [other.command, COMMAND]) {
      const flags = [process.execPath, command, "run", ...stage.agentFlags];
      const agent = await node.start(flags, { ready: /serving \d/, timeoutSeconds: 60 });
      const after = attachments(node);
      t.deepEqual(Object.keys(after), Object.keys(before));
      for (const [name, { holder, programId }] of Object.entries(after)) {
        t.is(holder, before[name]!.holder, name);
        t.not(programId, before[name]!.programId, name);
      }
      t.is(new Pins(node.pins).programBuilds.length, 1);
      before = after;
      await agent.kill();
    }
  },
);

stageTest("a new MAC and a new master are told to programs", async (t, stage) => {
  const { node } = stage;
  const ifindex = await ifindexOf(node, "pod-b");
  await ip(node, "link set pod-b address 02:00:00:00:0b:0b");
  const mac = () => Buffer.from(deviceRow(node, ifindex)?.mac ?? []).toString("hex");
  await waitFor(() => mac() === "020000000b0b", { what: "the new MAC" });
  await ip(
    node,
    "link add name cni9 type bridge",
    "address add 10.99.0.1/24 dev cni9",
    "link set cni9 up",
    "link add name port9 type veth peer name far",
    "link set port9 master cni9",
  );
  t.like(await served(node, "cni9"), {
    role: "pod-facing",
    sources: ["10.99.0.1", node.addresses.ipv6],
  });
  t.like(await served(node, "port9"), { role: "pod-facing", tc: TC });
  await waitFor(async () => (await served(node, "port9")).sources[0] === "10.99.0.1", {
    what: "the bridge's address behind its port",
  });
  await ip(node, "link set port9 nomaster");
  await unserved(node, "port9");
});

stageTest(
  "pods are told by their devices where the configuration says so",
  async (t, stage) => {
    const { node } = stage;
    const isPod = async (name: string) => deviceRow(node, await ifindexOf(node, name))?.isPod;
    t.is(await isPod("pod-b"), 1);
    t.is(await isPod("client"), 0);
    t.is(await isPod("eth0"), 0);
  },
  {
    arguments: ["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=pod-"],
  },
);

stageTest("after kill -9 a restart leaves every link and program as it is", async (t, stage) => {
  const { agent, node } = stage;
  const before = attachments(node);
  await agent.kill();
  t.deepEqual(attachments(node), before);
  const dump = await stage.command("dump", "devices", "--pins", node.pins);
  t.regex(dump.stdout, /^DEVICE +ROLE +MODE +REASON +SOURCES +MAC +MTU\n/);
  t.regex(dump.stdout, /^eth0 +uplink +tc \(\w+\) +veth: frames that XDP sends may vanish/m);
  await ip(node, "link add name pod-n type veth peer name far", "link set pod-n up");
  await ip(node, "route add 10.244.1.99/32 dev pod-n", "link delete client");
  await stage.startAgent();
  const added = await ifindexOf(node, "pod-n");
  const after = attachments(node);
  t.truthy(after[`ingress_${added}`]);
  for (const [name, what] of Object.entries(after))
    if (!name.endsWith(`_${added}`)) t.deepEqual(what, before[name]);
  t.is(
    Object.keys(after).length,
    Object.keys(before).length,
    "of the one that went, nothing is left",
  );
});

stageTest(
  "other settings replace programs by update, and none takes them off",
  async (t, stage) => {
    const { node } = stage;
    const ids = (field: "holder" | "programId") =>
      Object.values(attachments(node)).map((info) => info[field]);
    const before = { links: ids("holder"), builds: new Pins(node.pins).programBuilds };
    await stage.agent.stop();
    await stage.startAgent({ arguments: ["--masquerade=always"] });
    t.deepEqual(ids("holder"), before.links);
    const { programBuilds } = new Pins(node.pins);
    t.is(programBuilds.length, 1);
    t.notDeepEqual(programBuilds, before.builds);
    await stage.agent.stop();
    await stage.startAgent({ arguments: ["--device=none"] });
    t.deepEqual(attachments(node), {});
    t.deepEqual(await dumpDevices(node), []);
    await stage.agent.stop();
    await stage.startAgent();
    t.is(ids("holder").length, before.links.length);
  },
);

stageTest(
  "a node that has had many addresses takes on new ones, and breaks no connection for it",
  async (t, stage) => {
    const { node } = stage;
    await stage.agent.stop();
    const before = knownAddresses(node);
    const busy = wearOutAddresses(node, await ifindexOf(node, "eth0"));
    await stage.startAgent();
    await ip(node, "link add br9 type bridge", "link set br9 up", "addr add 10.97.9.1/24 dev br9");
    await served(node, "br9", ({ sources }) => sources.includes("10.97.9.1"));
    const after = knownAddresses(node).filter((address) => address !== undefined);
    t.deepEqual(after.sort(), [...before, ...busy, "10.97.9.1"].filter(Boolean).sort());
    t.notRegex(stage.agentOutput(), / warn | error/);
  },
);

stageTest("links and pins that somebody removes are put back", async (t, stage) => {
  const { node } = stage;
  const { ifindex } = await served(node, "eth0");
  const before = attachments(node);
  const pins = new Pins(node.pins);
  const file = pins.deviceLinkPath("tcx_ingress", ifindex);
  await node.run(["rm", file]);
  await waitFor(() => existsSync(file), { what: "the pin to be back" });
  t.deepEqual(attachments(node), before, "the link itself was never gone");
  detachLink(node, "tcx_egress", ifindex);
  const name = `egress_${ifindex}`;
  const link = await waitFor(
    () => {
      const now = attachments(node)[name];
      return now && now.holder !== before[name]!.holder ? now : undefined;
    },
    { what: "the program to be back" },
  );
  t.is(link.programId, before[name]!.programId);
  t.regex(stage.agentOutput(), /1 pins of devices were gone/);
  t.regex(stage.agentOutput(), /taken off devices: attaching them again/);
});

stageTest(
  "XDP that is asked for by name runs on a veth, and is sent to once its peer can take it",
  async (t, stage) => {
    const { node } = stage;
    const before = await served(node, "eth0");
    t.like(before, { mode: "xdp native", note: "asked", tc: TC, sendsFrames: false });
    const { stdout } = await node.run(["ip", "-d", "link", "show", "eth0"]);
    t.regex(stdout, /prog\/xdp id \d+ name svc_xdp/);
    await stage.lab.router.run(["ethtool", "-K", "to-node-a", "gro", "on"]);
    await served(node, "eth0", ({ sendsFrames }) => sendsFrames);
    const links = attachments(node);
    await stage.agent.kill();
    await stage.startAgent({ arguments: ["--device=eth0=xdp"] });
    t.deepEqual(attachments(node), links);
    await stage.agent.stop();
    await stage.startAgent({ arguments: ["--device=eth0=generic"] });
    t.like(await served(node, "eth0"), { mode: "xdp generic", sendsFrames: true });
    await stage.agent.stop();
    await stage.startAgent({ arguments: ["--device=eth0=tc"] });
    t.like(await served(node, "eth0"), { mode: "tc", note: "asked", reason: "asked for" });
  },
  { arguments: ["--device=eth0=xdp"] },
);

stageTest(
  "where a driver refuses XDP, TC serves, and one line says so",
  async (t, stage) => {
    const { node, agent } = stage;
    t.like(await served(node, "br9"), {
      role: "uplink",
      mode: "tc",
      note: "refused",
      error: "EOPNOTSUPP",
      reason: "driver refuses XDP: EOPNOTSUPP",
    });
    t.like(await served(node, "eth0"), { role: "pod-facing", mode: "tc" });
    const lines = agent
      .output()
      .split("\n")
      .filter((line) => line.includes("svc_xdp"));
    t.is(lines.length, 1, lines.join("\n"));
    t.regex(
      lines[0]!,
      /Device "br9": Cannot attach "svc_xdp to br9": EOPNOTSUPP, .*\. TC serves it instead$/,
    );
    t.regex(agent.output(), /There is no device "later9" yet/);
    t.regex(agent.output(), /Device "lo", which was named, is not served: it leads to this host/);
    await ip(node, "link add name later9 type veth peer name far");
    t.like(await served(node, "later9"), { role: "uplink", note: "veth" });
  },
  {
    arguments: ["--device=br9=xdp", "--device=later9", "--device=lo"],
    prepare: (node) => ip(node, "link add name br9 type bridge", "link set br9 up"),
  },
);

stageTest("programs of others go on beside ours", async (t, stage) => {
  const { node, agent } = stage;
  const { ifindex } = await served(node, "eth0");
  await agent.stop();
  await stage.command("cleanup", "--pins", node.pins);
  const stranger = new Stranger(t, node);
  const first = stranger.attach("foreign_first", ifindex);
  const xdp = stranger.attach("foreign_xdp", ifindex);
  await stage.startAgent({ arguments: ["--device=eth0=xdp"] });
  const last = stranger.attach("foreign_last", ifindex);
  const device = await served(node, "eth0");
  t.like(device, { mode: "tc", note: "foreign" });
  t.regex(device.reason, /^another XDP program \(id \d+, foreign_xdp\) is attached$/);
  const before = stranger.seen();
  const ping = ["ping", "-c", "3", "-i", "0.01", node.addresses.ipv4];
  t.is((await stage.lab.router.run(ping)).code, 0);
  const after = stranger.seen();
  for (const index of [0, 1, 2]) t.true(after[index]! - before[index]! >= 3, String(index));
  xdp.close();
  await served(node, "eth0", ({ mode }) => mode === "xdp native");
  await stage.agent.stop();
  const cleaned = await stage.command("cleanup", "--pins", node.pins);
  t.is(cleaned.code, 0, cleaned.stderr);
  for (const link of [first, last]) {
    t.is(link.info.ifindex, ifindex);
    link.close();
  }
});

stageTest("cleanup leaves nothing of ours on any device", async (t, stage) => {
  const { node, agent } = stage;
  t.not(Object.keys(attachments(node)).length, 0);
  await agent.stop();
  const cleaned = await stage.command("cleanup", "--pins", node.pins);
  t.is(cleaned.code, 0, cleaned.stderr);
  t.false(existsSync(node.pins));
  t.deepEqual(attachments(node), {});
  const dump = await stage.command("dump", "devices", "--pins", node.pins);
  t.is(dump.code, 3);
  t.regex(dump.stderr, /Nothing is pinned/);
});

labTest("agents of two nodes have each its own devices, at the same time", async (t) => {
  if (whyNoLab() !== undefined) return;
  const lab = await Lab.create({ name: "test" });
  const manifests = await mkdtemp(path.join(tmpdir(), "bpfsvc-test-"));
  try {
    const nodes = Object.values(lab.nodes);
    const flags = ({ name, cgroup, pins }: LabNode) => [
      ...["--node", name, "--cgroup", cgroup, "--pins", pins],
      ...["--manifests", manifests],
    ];
    const agents = await Promise.all(
      nodes.map((node) =>
        node.start([process.execPath, COMMAND, "run", ...flags(node)], {
          ready: /serving \d/,
          timeoutSeconds: 60,
        }),
      ),
    );
    for (const node of nodes) {
      const names = (await dumpDevices(node)).map(({ name }) => name).sort();
      t.deepEqual(names, ["eth0", ...Object.keys(node.pods)].sort());
    }
    const [one, other] = nodes as [LabNode, LabNode];
    const before = attachments(other);
    await Promise.all(agents.map((agent) => agent.stop()));
    await one.run([process.execPath, COMMAND, "cleanup", "--pins", one.pins]);
    t.deepEqual(attachments(other), before);
  } finally {
    await rm(manifests, { recursive: true });
    await lab.close();
  }
});

stageTest(
  "next hops are looked up again when the network changes, and only they",
  async (t, stage) => {
    const { node } = stage;
    const { ifindex } = await served(node, "eth0");
    const router = stage.lab.router.addresses.ipv4;
    await ip(node, `neighbour replace ${router} lladdr 02:00:00:00:00:aa dev eth0 nud stale`);
    const hops = openHops(t, node);
    const header = Uint8Array.from([2, 0, 0, 0, 0, 0xaa, 2, 0, 0, 0, 0, 1, 8, 0]);
    const next = Uint8Array.from([
      ...Array(10).fill(0),
      255,
      255,
      ...router.split(".").map(Number),
    ]);
    const row = {
      ifindex,
      generation: 4,
      sendsFrames: 0,
      source: 0,
      next,
      header,
      mtu: 1500,
      checked: 1,
    };
    const [used, other, free] = [1000, 1001, 1002] as const;
    hops.write(used, row);
    hops.write(other, { ...row, ifindex: 99_999, generation: 65_534 });
    const generations = () => [used, other, free].map((index) => hops.read(index).generation);
    const changes = async (what: string, line: string, expected: readonly number[]) => {
      await ip(node, line);
      await waitFor(() => generations().join() === expected.join(), { what });
      t.pass(what);
    };
    await changes(
      "a new MAC to concern its rows",
      `neighbour replace ${router} lladdr 02:00:00:00:00:bb dev eth0 nud stale`,
      [6, 65_534, 0],
    );
    await changes("a route to concern all rows", "route add 10.77.0.0/16 dev eth0", [8, 0, 0]);
    await ip(node, "neighbour replace 192.168.50.77 lladdr 02:00:00:00:00:cc dev eth0 nud stale");
    await ip(node, `neighbour replace ${router} lladdr 02:00:00:00:00:aa dev eth0 nud stale`);
    await changes("a rule to concern all rows", "rule add from 10.78.0.0/16 table 78", [10, 2, 0]);
  },
);

stageTest("the kernel keeps the neighbours of next hops that are in use", async (t, stage) => {
  const { node } = stage;
  const { ifindex } = await served(node, "eth0");
  const router = stage.lab.router.addresses.ipv4;
  const neighbours = async () => (await node.run(["ip", "neighbour", "show"])).stdout;
  await ip(node, "neighbour replace 192.168.50.8 lladdr 02:00:00:00:00:08 dev eth0 nud permanent");
  const hops = openHops(t, node);
  const mapped = (address: string) =>
    Uint8Array.from([...Array(10).fill(0), 255, 255, ...address.split(".").map(Number)]);
  const row = { ifindex, generation: 4, sendsFrames: 1, source: 0, mtu: 1500, checked: 1 };
  for (const [index, address] of [router, "192.168.50.8"].entries())
    hops.write(1000 + index, { ...row, next: mapped(address), header: new Uint8Array(14) });
  await waitFor(async () => /192\.168\.50\.1 .* managed/.test(await neighbours()), {
    what: "the router to be managed",
  });
  t.regex(await neighbours(), /192\.168\.50\.8 .* PERMANENT/);
  await ip(node, `neighbour delete ${router} dev eth0`);
  await waitFor(async () => /192\.168\.50\.1 .* managed/.test(await neighbours()), {
    what: "the router to be managed again",
  });
  await stage.agent.stop();
  await stage.command("cleanup", "--pins", node.pins);
  t.notRegex(await neighbours(), /managed/);
});

stageTest(
  "a device without Ethernet has programs that expect none",
  async (t, stage) => {
    const { node } = stage;
    const device = await served(node, "tun9");
    t.like(device, { role: "uplink", mode: "tc", note: "no_ethernet", mac: "" });
    const programs = attachments(node);
    const eth0 = await ifindexOf(node, "eth0");
    t.not(programs[`ingress_${device.ifindex}`]!.programId, programs[`ingress_${eth0}`]!.programId);
  },
  {
    prepare: (node) =>
      ip(
        node,
        "tuntap add tun9 mode tun",
        "link set tun9 up",
        "route add default dev tun9 metric 9999",
      ),
  },
);
