// Nodes, pods and an outside client on one machine, for the demo, the tests and the bench. Each is
// a network namespace and a cgroup; each node has a folder in bpffs. Knows nothing of Services.
// Works inside `sh lab/shell.sh` alone, where nothing can reach the machine's own network.
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import fs from "node:fs";
import path from "node:path";
import { Host } from "./host.ts";
import { type LabOptions, type Plan, planLab, type Space, twoNodes } from "./topology.ts";
import { waitFor } from "./wait.ts";

const cgroupTree = "/sys/fs/cgroup";
const bpffs = "/sys/fs/bpf";
const netnsFolder = "/run/netns";

/** A node: commands run as the node's own processes, in its cgroup but in no pod. */
export class LabNode extends Host {
  /** The node's own folder in bpffs. */
  readonly pins: string;
  readonly pods: Readonly<Record<string, Host>>;
  /** The node's network, but a cgroup beside the node's: what runs here is not translated. */
  readonly bystander: Host;

  constructor(
    place: Pick<LabNode, "name" | "netns" | "cgroup" | "addresses" | "pins" | "pods">,
    options: { beside: string },
  ) {
    super(place, { processes: path.join(place.cgroup, "system") });
    this.pins = place.pins;
    this.pods = place.pods;
    const name = `bystander of ${place.name}`;
    this.bystander = new Host({ ...place, name, cgroup: options.beside });
  }
}

/** Why no lab can be made here, as a sentence with the fix; undefined if one can. */
export function whyNoLab(): string | undefined {
  const fix = "run it as root inside 'sh lab/shell.sh COMMAND'";
  if (process.getuid?.() !== 0) return `The lab needs root: ${fix}`;
  if (process.env.BPFSVC_LAB === undefined) return `This is not the lab's shell: ${fix}`;
  // The machine's root cgroup has no type. Nothing may ever be attached to it.
  if (!fs.existsSync(path.join(cgroupTree, "cgroup.type"))) {
    return `'${cgroupTree}' is the root of the machine's cgroups: ${fix}`;
  }
  if (isOutside("/proc/self/ns/net")) return `These are the machine's own devices: ${fix}`;
  return undefined;
}

/** Whether a network namespace is the one that the lab's shell was started in. */
function isOutside(file: string): boolean {
  const [, inode] = /^net:\[(\d+)\]$/.exec(process.env.BPFSVC_OUTSIDE ?? "") ?? [];
  return inode === undefined || fs.statSync(file).ino === Number(inode);
}

async function execute(command: readonly string[], input = ""): Promise<string> {
  const [program = "", ...values] = command;
  const child = spawn(program, values, { stdio: "pipe" });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  child.stdin.on("error", () => {}).end(input);
  const [code] = await once(child, "close");
  if (code === 0) return stdout;
  throw new Error(`'${command.join(" ")}' failed on this input:\n${input}${stderr}`);
}

/** Runs a command inside a namespace. `ip` has -n for that, but it fails in a bare chroot. */
function inside(netns: string, command: readonly string[], input?: string): Promise<string> {
  return execute(["nsenter", `--net=${path.join(netnsFolder, netns)}`, ...command], input);
}

function batch(lines: readonly string[]): string {
  return lines.map((line) => `${line}\n`).join("");
}

/** Kernel settings of a namespace. They come before its devices, which inherit them. */
async function configure(netns: string, { settings }: Space): Promise<void> {
  const lines = settings.map((setting) => {
    const [file = "", value] = setting.split("=");
    // Those of br_netfilter are there only with that module, and without it they need no setting.
    return `for file in /proc/sys/net/${file}; do [ ! -e $file ] || echo ${value} > $file; done`;
  });
  await inside(netns, ["sh", "-e"], batch([...lines, "ip link set lo up"]));
}

/** Gives a namespace its devices, addresses, routes and rules. */
async function furnish(netns: string, space: Space): Promise<void> {
  const { devices, setup, fdb, rules, nftables } = space;
  await inside(netns, ["ip", "-batch", "-"], batch([...devices, ...setup]));
  if (fdb.length > 0) await inside(netns, ["bridge", "-batch", "-"], batch(fdb));
  if (rules !== undefined) {
    await inside(netns, ["iptables-nft-restore"], rules.ipv4);
    await inside(netns, ["ip6tables-nft-restore"], rules.ipv6);
  }
  if (nftables !== undefined) await inside(netns, ["nft", "-f", "-"], nftables);
}

/** Waits until all devices carry traffic; a bridge forwards on a port only from then on. */
async function waitForDevices(netns: string): Promise<void> {
  const down = /state (DOWN|LOWERLAYERDOWN)/;
  const what = `the devices of '${netns}' to be up`;
  await waitFor(async () => !down.test(await inside(netns, ["ip", "link"])), { what });
}

/** Removes a folder of cgroups, the innermost first: the files in them are not ours to remove. */
function removeCgroups(folder: string): void {
  for (const entry of fs.readdirSync(folder, { withFileTypes: true })) {
    if (entry.isDirectory()) removeCgroups(path.join(folder, entry.name));
  }
  fs.rmdirSync(folder);
}

/** Kills every process below the cgroup and waits until they are gone, for at most 5 seconds. */
function killProcesses(cgroup: string): void {
  fs.writeFileSync(path.join(cgroup, "cgroup.kill"), "1");
  const clock = new Int32Array(new SharedArrayBuffer(4));
  const empty = () => fs.readFileSync(path.join(cgroup, "cgroup.events"), "utf8");
  for (let tries = 0; tries < 1000 && !empty().includes("populated 0"); tries++) {
    Atomics.wait(clock, 0, 0, 5);
  }
}

const open = new Set<Lab>();
let made = 0;

function closeAll(): void {
  for (const lab of open) lab.closeNow();
}

function closeOnExit(): void {
  process.once("exit", closeAll);
  for (const [signal, number] of Object.entries({ SIGHUP: 1, SIGINT: 2, SIGTERM: 15 })) {
    process.once(signal, () => process.exit(128 + number));
  }
}

export class Lab {
  /** Unique in this shell; part of every name below. */
  readonly name: string;
  readonly nodes: Record<string, LabNode> = {};
  /** All pods by name. */
  readonly pods: Record<string, Host> = {};
  /** A client on a network of its own, behind the router. */
  readonly outside: Host;
  readonly router: Host;
  readonly #plan: Plan;

  private constructor(name: string, options: LabOptions) {
    this.name = name;
    this.#plan = planLab(options, (space) => this.#netns(space));
    const { topology = twoNodes, sandboxed = [] } = options;
    const { spaces } = this.#plan;
    const place = (space: string, ...folders: string[]) => ({
      name: space,
      netns: path.join(netnsFolder, this.#netns(space)),
      cgroup: path.join(this.#cgroup, ...folders),
      addresses: spaces.get(space)?.addresses ?? { ipv4: "", ipv6: "" },
    });
    for (const [node, pods] of Object.entries(topology)) {
      const folders = (pod: string) => (sandboxed.includes(pod) ? ["beside"] : [node, "pods"]);
      const hosts = pods.map((pod) => new Host(place(pod, ...folders(pod), pod)));
      const own = Object.fromEntries(hosts.map((pod) => [pod.name, pod]));
      Object.assign(this.pods, own);
      const pins = path.join(this.#pins, node);
      const beside = path.join(this.#cgroup, "beside", node);
      this.nodes[node] = new LabNode({ ...place(node, node), pins, pods: own }, { beside });
    }
    this.outside = new Host(place("outside", "beside", "outside"));
    this.router = new Host(place("router", "beside", "router"));
  }

  /**
   * Makes a lab (0.1 to 0.3 s), by default with two routed pods on each of node-a and node-b. Its
   * processes are killed and everything is removed by close(), and when this process ends in any
   * way. Throws outside the lab's shell; after a failure nothing stays behind.
   */
  static async create(options: LabOptions & { name?: string } = {}): Promise<Lab> {
    const reason = whyNoLab();
    if (reason !== undefined) throw new Error(reason);
    made += 1;
    const name = `${options.name ?? "lab"}-${process.pid}-${made}`;
    const lab = new Lab(name, options);
    if (open.size === 0 && made === 1) closeOnExit();
    open.add(lab);
    try {
      await lab.#build();
    } catch (error) {
      lab.closeNow();
      throw error;
    }
    return lab;
  }

  /** Kills every process in the lab and removes all of it. A second call does nothing. */
  async close(): Promise<void> {
    this.closeNow();
  }

  /** The same at once, for the last moments of a process. Blocks it for some 50 ms. */
  closeNow(): void {
    if (!open.delete(this)) return;
    if (fs.existsSync(this.#cgroup)) {
      killProcesses(this.#cgroup);
      removeCgroups(this.#cgroup);
    }
    fs.rmSync(this.#pins, { recursive: true, force: true });
    const names = fs.readdirSync(netnsFolder).filter((name) => name.startsWith(this.#netns("")));
    const input = names.map((name) => `netns delete ${name}\n`).join("");
    const { status, stderr } = spawnSync("ip", ["-batch", "-"], { input, encoding: "utf8" });
    if (status !== 0) throw new Error(`Cannot remove the network of lab '${this.name}': ${stderr}`);
  }

  /**
   * Gives a host's devices their addresses and routes again, those that they lost by going down, as
   * the host's network manager would.
   */
  async restore({ name }: Host): Promise<void> {
    const { setup = [] } = this.#plan.spaces.get(name) ?? {};
    await inside(this.#netns(name), ["ip", "-batch", "-"], batch(setup));
  }

  get #cgroup(): string {
    return path.join(cgroupTree, this.name);
  }

  get #pins(): string {
    return path.join(bpffs, this.name);
  }

  #netns(space: string): string {
    return `${this.name}.${space}`;
  }

  async #build(): Promise<void> {
    for (const host of [this.outside, this.router, ...Object.values(this.pods)]) {
      fs.mkdirSync(host.cgroup, { recursive: true });
    }
    for (const node of Object.values(this.nodes)) {
      fs.mkdirSync(path.join(node.cgroup, "system"), { recursive: true });
      fs.mkdirSync(node.bystander.cgroup, { recursive: true });
      fs.mkdirSync(node.pins, { recursive: true });
    }
    const { spaces, cables, modules } = this.#plan;
    const inAll = (work: (netns: string, space: Space) => Promise<unknown>) =>
      Promise.all([...spaces].map(([name, space]) => work(this.#netns(name), space)));
    const names = [...spaces.keys()].map((name) => `netns add ${this.#netns(name)}`);
    await execute(["ip", "-batch", "-"], batch(names));
    for (const { netns } of [this.outside, this.router, ...Object.values(this.nodes)])
      if (isOutside(netns)) throw new Error(`'${netns}' has the machine's own devices`);
    for (const module of modules) await execute(["sh", "-c", `modprobe -q ${module} || :`]);
    await inAll(configure);
    await execute(["ip", "-batch", "-"], batch(cables));
    await inAll(furnish);
    await inAll(waitForDevices);
  }
}
