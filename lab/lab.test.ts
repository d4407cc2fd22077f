// The lab itself: who reaches whom, from which address, in which cgroup; and that nothing stays.
import { spawn } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import test from "ava";
import type { Answer, TcpReply, UdpReplies } from "./helper.ts";
import type { Host } from "./host.ts";
import { Lab } from "./lab.ts";
import { needsLab } from "./needs.ts";
import { waitFor } from "./wait.ts";

const labTest = needsLab(test);
const families = ["ipv4", "ipv6"] as const;

/** Runs `body` on a lab of its own. */
async function withLab(body: (lab: Lab) => Promise<void>): Promise<void> {
  const lab = await Lab.create({ name: "test" });
  try {
    await body(lab);
  } finally {
    await lab.close();
  }
}

function pod(lab: Lab, name: string): Host {
  const found = lab.pods[name];
  if (found === undefined) throw new Error(`No pod '${name}' in lab '${lab.name}'`);
  return found;
}

/** What is left of a lab of this name in this shell. */
function remains(name: string): string[] {
  const folders = ["/run/netns", "/sys/fs/cgroup", "/sys/fs/bpf"];
  return folders.flatMap((folder) =>
    fs
      .readdirSync(folder)
      .flatMap((entry) => (entry.startsWith(name) ? [`${folder}/${entry}`] : [])),
  );
}

labTest("pods, nodes and the outside reach a pod over both families, as themselves", (t) =>
  withLab(async (lab) => {
    const target = pod(lab, "pod-b1");
    const server = await target.helper();
    const everyone = [lab.outside, ...Object.values(lab.nodes), ...Object.values(lab.pods)];
    for (const family of families) {
      const address = target.addresses[family];
      const identity = `pod-b1 over ${family}`;
      await server.serveTcp({ address, port: 80, identity });
      await server.serveUdp({ address, port: 53, identity });
      for (const host of everyone) {
        const client = await host.helper();
        const tcp = (await client.tcp({ address, port: 80 })) as TcpReply;
        const answer = JSON.parse(tcp.reply) as Answer;
        t.like(answer, { identity, client: { address: host.addresses[family] } }, host.name);
        t.is(answer.client.port, tcp.localPort);
        const datagrams = [{ address, port: 53, payload: "who is there?" }];
        const udp = await client.udp({ family: family === "ipv4" ? 4 : 6, datagrams });
        const { replies, errors } = udp as UdpReplies;
        t.deepEqual(errors, []);
        t.like(replies[0], { address, port: 53 });
        t.like(JSON.parse(replies[0]?.payload ?? ""), {
          client: { address: host.addresses[family] },
        });
        await client.close();
      }
    }
  }),
);

labTest("commands are the machine's, not those that npm puts before them", (t) =>
  withLab(async (lab) => {
    const { stdout } = await lab.outside.run(["sh", "-c", "command -v nft"]);
    t.regex(stdout, /sbin\/nft$/m);
  }),
);

labTest("a closed port is refused, and an untranslated Service address is prohibited", (t) =>
  withLab(async (lab) => {
    const target = pod(lab, "pod-a2");
    for (const host of [pod(lab, "pod-a1"), lab.nodes["node-b"] as Host]) {
      const client = await host.helper();
      for (const family of families) {
        const closed = await client.tcp({ address: target.addresses[family], port: 81 });
        t.deepEqual(closed, { error: "ECONNREFUSED" });
      }
      for (const address of ["10.96.0.10", "fd00:10:96::10", "::ffff:10.96.0.10"]) {
        t.deepEqual(await client.tcp({ address, port: 80 }), { error: "EACCES" });
        const family = address.includes(":") ? 6 : 4;
        const datagrams = [{ address, port: 53, payload: "anyone?" }];
        t.like(await client.udp({ family, datagrams }), { replies: [], errors: ["EACCES"] });
      }
    }
  }),
);

labTest("a process lands in the cgroup of its host, a bystander beside its node's", (t) =>
  withLab(async (lab) => {
    const node = lab.nodes["node-a"];
    if (node === undefined) throw new Error("No node 'node-a'");
    const expected: [Host, string][] = [
      [pod(lab, "pod-a1"), `/${lab.name}/node-a/pods/pod-a1`],
      [node, `/${lab.name}/node-a/system`],
      [node.bystander, `/${lab.name}/beside/node-a`],
      [lab.outside, `/${lab.name}/beside/outside`],
    ];
    for (const [host, cgroup] of expected) {
      const { stdout } = await host.run(["cat", "/proc/self/cgroup"]);
      t.is(/^0::(.*)$/m.exec(stdout)?.[1], cgroup, host.name);
    }
    t.is(node.cgroup, path.join("/sys/fs/cgroup", lab.name, "node-a"));
    t.true(fs.statSync(node.pins).isDirectory());
    const addresses = await node.bystander.run(["ip", "-brief", "address", "show", "eth0"]);
    t.true(addresses.stdout.includes(node.addresses.ipv4));
  }),
);

labTest(
  "a sandboxed pod is on its node's network, but its processes beside the node's",
  async (t) => {
    const lab = await Lab.create({ name: "sandbox", sandboxed: ["pod-a2"] });
    try {
      const [sandboxed, ordinary] = [pod(lab, "pod-a2"), pod(lab, "pod-a1")];
      const { stdout } = await sandboxed.run(["cat", "/proc/self/cgroup"]);
      t.is(/^0::(.*)$/m.exec(stdout)?.[1], `/${lab.name}/beside/pod-a2`);
      const server = await ordinary.helper();
      await server.serveTcp({ identity: "pod-a1", address: ordinary.addresses.ipv4, port: 80 });
      const client = await sandboxed.helper();
      const reached = await client.tcp({ address: ordinary.addresses.ipv4, port: 80 });
      t.like(JSON.parse((reached as TcpReply).reply), {
        client: { address: sandboxed.addresses.ipv4 },
      });
      // It is the node that prohibits them, which a proxy of the node comes before.
      const { code } = await sandboxed.run(["ip", "route", "get", "10.96.0.10"]);
      t.is(code, 0);
    } finally {
      await lab.close();
    }
  },
);

labTest("a socket can be connected twice, and getpeername shows the peer it has", (t) =>
  withLab(async (lab) => {
    const peers = ["pod-b1", "pod-a2"].map((name) => pod(lab, name).addresses.ipv4);
    for (const [index, name] of ["pod-b1", "pod-a2"].entries()) {
      const server = await pod(lab, name).helper();
      await server.serveUdp({ address: peers[index] ?? "", port: 53, identity: name });
    }
    const { sockets } = await pod(lab, "pod-a1").helper();
    for (const [family, prefix] of [
      [4, ""],
      [6, "::ffff:"],
    ] as const) {
      const fd = await sockets.open({ protocol: "UDP", family });
      await sockets.bindToDevice(fd, "eth0");
      for (const peer of peers.map((address) => ({ address: prefix + address, port: 53 }))) {
        await sockets.connect(fd, peer);
        t.deepEqual(await sockets.peerAddress(fd), peer);
        await sockets.send(fd, "hello");
        t.deepEqual((await sockets.receive(fd)).from, peer);
      }
      await sockets.close(fd);
      t.like(await t.throwsAsync(sockets.localAddress(fd)), { code: "EBADF" });
    }
  }),
);

labTest("a started command is ready when it says so, and a failed one tells its output", (t) =>
  withLab(async (lab) => {
    const host = pod(lab, "pod-a1");
    const running = await host.start(["sh", "-c", "echo ready; exec sleep 60"], { ready: /ready/ });
    t.is(running.output(), "ready\n");
    t.notThrows(() => process.kill(running.pid, 0));
    await running.stop();
    t.throws(() => process.kill(running.pid, 0), { code: "ESRCH" });
    const failing = host.start(["sh", "-c", "echo oh; exit 3"], { ready: /ready/ });
    await t.throwsAsync(failing, { message: /ended:\noh/ });
    t.deepEqual(await host.run(["sh", "-c", "cat; echo no >&2; exit 3"], { input: "in" }), {
      code: 3,
      stdout: "in",
      stderr: "no\n",
    });
    await t.throwsAsync(host.run(["sleep", "60"], { timeoutSeconds: 0.1 }), {
      message: /did not end within 0.1 s/,
    });
  }),
);

labTest("two labs live side by side, and closing one leaves the other alone", async (t) => {
  const [one, other] = await Promise.all([Lab.create(), Lab.create()]);
  t.not(one.name, other.name);
  await one.close();
  t.deepEqual(remains(one.name), []);
  const { code } = await pod(other, "pod-a1").run(["true"]);
  t.is(code, 0);
  await other.close();
});

labTest("close removes everything and kills what still runs", async (t) => {
  const lab = await Lab.create({ name: "test" });
  const running = await pod(lab, "pod-b2").start(
    ["sh", "-c", "setsid sleep 60 & echo ready; exec sleep 60"],
    { ready: /ready/ },
  );
  t.not(remains(lab.name).length, 0);
  await lab.close();
  t.deepEqual(remains(lab.name), []);
  await waitFor(() => running.ended(), { what: "the end of a command in a closed lab" });
  await t.notThrowsAsync(lab.close());
});

labTest("a lab that cannot be made leaves nothing behind", async (t) => {
  const topology = { "node-a": ["same"], "node-b": ["same"] };
  await t.throwsAsync(Lab.create({ name: "twice", topology }), { message: /'same' cannot name/ });
  const taken = "a-name-that-is-too-long-for-a-file".repeat(9);
  await t.throwsAsync(Lab.create({ name: taken }), { message: /ENAMETOOLONG/ });
  // Late: more pods than addresses, which only `ip` notices.
  const many = Array.from({ length: 260 }, (_, index) => `pod-${index}`);
  await t.throwsAsync(Lab.create({ name: "many", topology: { "node-a": many } }), {
    message: /failed on this input/,
  });
  t.deepEqual([...remains("twice"), ...remains("a-name"), ...remains("many")], []);
});

const labUrl = new URL("lab.js", import.meta.url).href;

labTest("a process that dies of an error or a signal leaves no lab behind", async (t) => {
  const start = `const { Lab } = await import("${labUrl}"); await Lab.create({ name: "dying" });`;
  const ends = ['throw new Error("on purpose")', 'process.kill(process.pid, "SIGTERM")'];
  for (const end of ends) {
    const script = `${start} setTimeout(() => {}, 60_000); ${end};`;
    const child = spawn(process.execPath, ["--input-type=module", "-e", script]);
    const [code] = await once(child, "exit");
    t.not(code, 0);
    t.deepEqual(remains("dying"), []);
  }
});

const shell = path.resolve(import.meta.dirname, "../../lab/shell.sh");

labTest(
  "kill -9 of the shell leaves no process, and the next start sweeps its folder",
  async (t) => {
    const script = `const { Lab } = await import("${labUrl}");
    const lab = await Lab.create({ name: "nested" });
    lab.pods["pod-a1"].spawn(["sleep", "60"], { stdio: "ignore" });
    console.log("ready"); setTimeout(() => {}, 60_000);`;
    const child = spawn("sh", [shell, process.execPath, "--input-type=module", "-e", script]);
    await once(child.stdout, "data");
    // A nested shell's folder lies in this one's tree, as this one's lies in the machine's.
    const folder = `/sys/fs/cgroup/${fs
      .readdirSync("/sys/fs/cgroup")
      .find((entry) => entry.startsWith(`bpfsvc-lab-${child.pid}-`))}`;
    const populated = () => fs.readFileSync(`${folder}/cgroup.events`, "utf8");
    t.regex(populated(), /populated 1/);
    child.kill("SIGKILL");
    // Another file's shell may sweep it at once, since it is empty by then.
    const isEmpty = () => !fs.existsSync(folder) || populated().includes("populated 0");
    await waitFor(isEmpty, { what: "the death of all inside" });
    t.deepEqual(remains("nested"), []);
    const isSwept = async () => {
      await once(spawn("sh", [shell, "true"]), "exit");
      return !fs.existsSync(folder);
    };
    await waitFor(isSwept, { what: "the folder to be swept", timeoutSeconds: 30 });
  },
);

labTest(
  "the shell hands on input and exit status, and turns SIGTERM into the end of all",
  async (t) => {
    const child = spawn("sh", [shell, "sh", "-c", "cat; exit 7"], { stdio: "pipe" });
    child.stdin.end("through");
    let output = "";
    child.stdout.on("data", (data) => {
      output += data;
    });
    const [code] = await once(child, "close");
    t.is(output, "through");
    t.is(code, 7);
    const sleeping = spawn("sh", [shell, "sh", "-c", "echo ready; sleep 60"]);
    await once(sleeping.stdout, "data");
    sleeping.kill("SIGTERM");
    const [status] = await once(sleeping, "close");
    t.is(status, 143);
    const own = fs
      .readdirSync("/sys/fs/cgroup")
      .filter((name) => name.includes(`-${sleeping.pid}-`));
    t.deepEqual(own, []);
  },
);

labTest("inside the shell the machine's network is out of reach", async (t) => {
  const child = spawn("ip", ["-brief", "link"]);
  const [data] = await once(child.stdout, "data");
  t.deepEqual(
    String(data)
      .trim()
      .split("\n")
      .map((line) => line.split(" ")[0]),
    ["lo"],
  );
});

labTest("inside the shell the only cgroup tree is its own", async (t) => {
  const mounts = fs.readFileSync("/proc/self/mountinfo", "utf8").split("\n");
  const trees = mounts.filter((line) => line.includes(" - cgroup2 "));
  t.deepEqual(
    trees.map((line) => line.split(" ").slice(3, 5)),
    [["/", "/sys/fs/cgroup"]],
  );
});

test("outside its shell a lab refuses to be made", async (t) => {
  const script = `const { Lab } = await import("${labUrl}"); await Lab.create();`;
  const { BPFSVC_LAB: _, ...env } = process.env;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], { env });
  let errors = "";
  child.stderr.on("data", (data) => {
    errors += data;
  });
  const [code] = await once(child, "close");
  t.is(code, 1);
  t.regex(errors, /lab\/shell.sh COMMAND/);
});
