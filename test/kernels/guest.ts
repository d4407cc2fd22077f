// One virtual machine that runs the bundled tests on a kernel and ends: its initial file system,
// the share of this machine's root (read only), QEMU, and the watch over it. Emulation, since many
// machines that build have no KVM. Knows nothing of what the tests are.
import { type ChildProcess, execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { chmod, copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { createInterface } from "node:readline";
import { waitFor } from "../../lab/wait.ts";
import type { Unpacked } from "./packages.ts";

const CHECKOUT = path.resolve(import.meta.dirname, "../../..");
const HERE = path.join(CHECKOUT, "test/kernels");
/** Modules for the root file system, where they are not built in. */
const MODULES = ["virtio_pci", "virtiofs", "overlay"];
/** Debian 12 has virtiofsd from QEMU, later ones the one in Rust. */
const VIRTIOFSD = ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd"];
const MEMORY = "2048M";
/** No line of results for so long means that the guest hangs. */
const SILENCE_SECONDS = 600;
const CONSOLE_LINES = 40;

export interface Guest {
  /** What tells this kernel from the others, for its tests: kernels.ts. */
  name: string;
  kernel: Unpacked;
  /** Features of a CPU that it does not get. */
  cpuLacks: readonly string[] | undefined;
  /** The bundled tests, below build/. */
  tests: string;
  /** A folder for its files, which may stay behind. */
  folder: string;
}

/**
 * Runs the tests to their end, giving each line of results; throws with the console's last lines
 * if the guest does not come to the end of them.
 */
export async function runGuest(guest: Guest, onLine: (line: string) => void): Promise<void> {
  await mkdir(guest.folder, { recursive: true });
  await buildInitramfs(guest);
  const console = path.join(guest.folder, "console");
  await rm(console, { force: true });
  const socket = path.join(guest.folder, "root.socket");
  const share = spawnBound([findShare(), `--socket-path=${socket}`, ...SHARE_OPTIONS], "ignore");
  try {
    await waitFor(() => existsSync(socket), { what: `"${socket}" of virtiofsd` });
    const machine = spawnBound(machineCommand(guest, { socket, console }), "pipe");
    const ending = await watch(machine, onLine);
    if (ending !== undefined) throw new Error(`${ending}\n${await lastLines(console)}`);
  } finally {
    await kill(share);
  }
}

/** Starts a command that ends with this process, however that ends. */
function spawnBound(command: readonly string[], output: "ignore" | "pipe"): ChildProcess {
  return spawn("setpriv", ["--pdeathsig", "KILL", ...command], {
    stdio: ["ignore", output, output],
  });
}

const SHARE_OPTIONS = [
  ...["-o", "source=/", "-o", "cache=always", "-o", "sandbox=chroot"],
  "--thread-pool-size=2",
];

function findShare(): string {
  const found = VIRTIOFSD.find((file) => existsSync(file));
  if (found === undefined) throw new Error("virtiofsd is missing: run sh scripts/setup.sh kernels");
  return found;
}

async function buildInitramfs({ kernel, folder }: Guest): Promise<void> {
  const root = path.join(folder, "initramfs");
  await rm(root, { recursive: true, force: true });
  for (const name of ["bin", "modules"]) await mkdir(path.join(root, name), { recursive: true });
  await copyFile("/bin/busybox", path.join(root, "bin/busybox"));
  await copyFile(path.join(HERE, "initramfs.sh"), path.join(root, "init"));
  await chmod(path.join(root, "init"), 0o755);
  const modules = MODULES.flatMap((name) => {
    const from = ["--dirname", kernel.folder, "--set-version", kernel.release];
    const text = execFileSync("modprobe", [...from, "--show-depends", name], { encoding: "utf8" });
    return [...text.matchAll(/^insmod (\S+)/gm)].map(([, file]) => file!);
  });
  for (const [index, file] of [...new Set(modules)].entries()) {
    const number = String(index).padStart(2, "0");
    const target = path.join(root, "modules", `${number}-${path.basename(file, ".xz")}`);
    const unpacked = file.endsWith(".xz")
      ? execFileSync("busybox", ["xzcat", file], { maxBuffer: 2 ** 26 })
      : await readFile(file);
    await writeFile(target, unpacked);
  }
  const pack = "find . | cpio --create --format=newc --quiet >../initramfs.cpio";
  execFileSync("sh", ["-c", pack], { cwd: root });
}

function machineCommand(
  { name, kernel, cpuLacks = [], tests, folder }: Guest,
  { socket, console }: { socket: string; console: string },
): string[] {
  const environment = {
    checkout: CHECKOUT,
    modules: path.join(kernel.folder, "lib/modules"),
    node: process.execPath,
    tests: `build/${tests}`,
    kernel: name,
    wanted: kernel.release,
  };
  const words = Object.entries(environment).map(([key, value]) => `${key}="${value}"`);
  const lacks = cpuLacks.map((feature) => `,-${feature}`).join("");
  // What costs much under emulation and changes no outcome is off, among it instructions that
  // work byte by byte there.
  const quick = "mitigations=off init_on_alloc=0 hardened_usercopy=off clearcpuid=rep_good";
  const kernelLine = `console=ttyS1 quiet panic=-1 oops=panic no_timer_check ${quick}`;
  return [
    "qemu-system-x86_64",
    ...["-accel", "tcg,thread=multi", "-cpu", `max,-erms,-fsrm${lacks}`, "-smp", "2"],
    ...["-m", MEMORY, "-display", "none", "-nodefaults", "-no-reboot"],
    ...["-serial", "stdio", "-serial", `file:${console}`],
    ...["-kernel", path.join(kernel.folder, "vmlinuz")],
    ...["-initrd", path.join(folder, "initramfs.cpio")],
    ...["-object", `memory-backend-memfd,id=mem,size=${MEMORY},share=on`],
    ...["-numa", "node,memdev=mem", "-chardev", `socket,id=root,path=${socket}`],
    ...["-device", "vhost-user-fs-pci,queue-size=1024,chardev=root,tag=machine"],
    ...["-append", `${kernelLine} ${words.join(" ")}`],
  ];
}

/** Why the machine did not come to the end of the tests; undefined if it did. */
async function watch(
  machine: ChildProcess,
  onLine: (line: string) => void,
): Promise<string | undefined> {
  let errors = "";
  machine.stderr!.setEncoding("utf8").on("data", (text: string) => {
    errors += text;
  });
  const exited = once(machine, "exit");
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    machine.kill("SIGKILL");
  }, SILENCE_SECONDS * 1000);
  let ended = false;
  for await (const line of createInterface({ input: machine.stdout! })) {
    timer.refresh();
    if (line.startsWith("guest: exit")) ended = true;
    else onLine(line);
  }
  await exited;
  clearTimeout(timer);
  if (ended) return undefined;
  const why = silent ? `was silent for ${SILENCE_SECONDS} s` : "ended before its tests did";
  return `The guest ${why}. ${errors}Its console:`;
}

async function lastLines(console: string): Promise<string> {
  if (!existsSync(console)) return "(nothing)";
  const text = await readFile(console, "utf8");
  return text.trimEnd().split(/\r?\n/).slice(-CONSOLE_LINES).join("\n");
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}
