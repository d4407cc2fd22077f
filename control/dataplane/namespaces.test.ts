// Processes in cgroups and network namespaces of their own, and what is found of them.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, readlinkSync } from "node:fs";
import path from "node:path";
import { pathToFileURL } from "node:url";
import test, { type ExecutionContext } from "ava";
import { netnsCookie } from "../../bindings/system.ts";
import { childCgroup, hasRoot, removeCgroup } from "../../bindings/testing.ts";
import { eachNamespace, findClients } from "./namespaces.ts";

const isInside = (address: string) => address.startsWith("10.9.") || address.startsWith("fd00:9:");

test("each network namespace below the cgroup is found once, however many processes", async (t) => {
  if (!hasRoot(t)) return;
  const { cgroup, below } = folders(t);
  const one = await start(t, { cgroup, processes: 3 });
  const two = await start(t, { cgroup: below, processes: 2 });
  await start(t, { cgroup: below, isOwn: true });
  const others = folders(t);
  await start(t, { cgroup: others.below });
  const own = netnsOf("self");
  t.deepEqual(walk(cgroup), [netnsOf(one), netnsOf(two), own].sort());
  t.is(netnsOf("self"), own);
  t.deepEqual(walk(path.join(cgroup, "absent")), []);
});

test("a namespace has its cookie and the addresses that others see", async (t) => {
  if (!hasRoot(t)) return;
  const { cgroup, below } = folders(t);
  const addresses = ["10.9.0.2/32", "169.254.3.3/16", "fd00:9::2/128", "fe80::2/64"];
  await start(t, { cgroup: below, addresses });
  await start(t, { cgroup, isOwn: true });
  const { own, clients } = find(cgroup);
  t.is(own, netnsCookie());
  t.is(clients.length, 1);
  t.like(clients[0], { ipv4: "10.9.0.2", ipv6: "fd00:9::2", inside: [4, 6] });
  t.not(clients[0]!.cookie, own);
});

for (const { title, addresses, expected } of [
  {
    title: "one without addresses is still a client",
    addresses: [],
    expected: { ipv4: undefined, ipv6: undefined, inside: [] },
  },
  {
    title: "one that is no pod's has its address, and is not inside",
    addresses: ["172.30.0.2/32"],
    expected: { ipv4: "172.30.0.2", ipv6: undefined, inside: [] },
  },
  {
    title: "of several addresses the only one of a pod counts",
    addresses: ["172.30.0.2/32", "10.9.0.2/32"],
    expected: { ipv4: "10.9.0.2", ipv6: undefined, inside: [4] },
  },
  {
    title: "of several addresses of pods none is taken for the source",
    addresses: ["10.9.0.3/32", "10.9.0.2/32", "fd00:9::2/128"],
    expected: { ipv4: undefined, ipv6: "fd00:9::2", inside: [4, 6] },
  },
])
  test(`of network namespaces, ${title}`, async (t) => {
    if (!hasRoot(t)) return;
    const { cgroup, below } = folders(t);
    await start(t, { cgroup: below, addresses });
    const { clients } = find(cgroup);
    const { cookie: _, ...seen } = clients[0]!;
    t.deepEqual(seen, expected);
  });

for (const { title, shell, expected } of [
  {
    title: "a process of another PID namespace is told as missing hostPID",
    shell: ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount-proc"],
    expected: "hostPID",
  },
  {
    title: "a process that may not be looked at is told with the errno",
    shell: ["setpriv", "--bounding-set", "-sys_ptrace"],
    expected: "EACCES",
  },
])
  test(title, async (t) => {
    if (!hasRoot(t)) return;
    const { cgroup, below } = folders(t);
    await start(t, { cgroup: below });
    const module = pathToFileURL(path.join(import.meta.dirname, "namespaces.js")).href;
    const script = `
      const { eachNamespace } = await import(process.argv[1]);
      const onHidden = (why) => console.log(why);
      for (const _ of eachNamespace({ cgroup: process.argv[2], onHidden })) console.log("found");`;
    const node = [process.execPath, "--input-type=module", "-e", script, module, cgroup];
    const [program, ...values] = [...shell, ...node] as [string, ...string[]];
    t.is(execFileSync(program, values, { encoding: "utf8" }), `${expected}\n`);
  });

/** A cgroup and one in it, removed at the end. */
function folders(t: ExecutionContext): { cgroup: string; below: string } {
  const cgroup = childCgroup(t);
  const below = path.join(cgroup, "pod");
  mkdirSync(below);
  t.teardown(() => removeCgroup(below));
  return { cgroup, below };
}

interface Place {
  cgroup: string;
  /** In a network namespace of its own; else in the test's. */
  isOwn?: boolean;
  addresses?: readonly string[];
  processes?: number;
}

/** Addresses of a device are listed only once its carrier is told. */
const UNTIL_UP = "until ip link show eth0 | grep -q 'state UP'; do sleep 0.01; done";

/** Starts processes that wait, in a cgroup and a network namespace; gives the id of the first. */
async function start(t: ExecutionContext, place: Place): Promise<number> {
  const { cgroup, isOwn = false, addresses = [], processes = 1 } = place;
  const lines = [
    'echo 0 > "$0/cgroup.procs"',
    ...(addresses.length > 0 ? ["ip link add eth0 type veth peer name eth1"] : []),
    ...(addresses.length > 0 ? ["ip link set eth0 up", "ip link set eth1 up"] : []),
    ...(addresses.length > 0 ? [UNTIL_UP] : []),
    ...addresses.map((address) => {
      const flag = address.includes(":") ? "nodad" : "";
      return `ip address add ${address} dev eth0 ${flag}`;
    }),
    ...Array.from({ length: processes - 1 }, () => "sleep 600 &"),
    "echo ready",
    "exec sleep 600",
  ];
  const command = ["sh", "-ec", lines.join("\n"), cgroup];
  const [program, ...values] = isOwn ? command : ["unshare", "--net", ...command];
  const child = spawn(program!, values, { stdio: ["ignore", "pipe", "inherit"], detached: true });
  const ended = once(child, "close");
  t.teardown(async () => {
    process.kill(-child.pid!, "SIGKILL");
    await ended;
  });
  await once(child.stdout!, "data", { signal: AbortSignal.timeout(20_000) });
  return child.pid!;
}

function netnsOf(pid: number | "self"): string {
  return readlinkSync(`/proc/${pid}/ns/net`);
}

/** The namespaces found, as links in /proc name them. */
function walk(cgroup: string): string[] {
  const found: string[] = [];
  for (const namespace of eachNamespace({ cgroup, onHidden: () => {} }))
    found.push(namespace.run(() => readlinkSync("/proc/thread-self/ns/net")));
  return found.sort();
}

function find(cgroup: string) {
  return findClients({ cgroup, onHidden: () => {} }, { isInside });
}
