// What the agent needs from the kernel beside BPF: locks, barriers, mounts, namespaces.
// It knows no map and no program.
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  readSync,
  statfsSync,
  statSync,
} from "node:fs";
import { arch } from "node:process";
import { BpfError, errnoName } from "./errors.ts";
import { lastErrno, loadLibbpf, loadLibc } from "./libbpf.ts";

const CGROUP2_MAGIC = 0x63677270n;
const BPFFS_MAGIC = 0xcafe4a11n;
const LOCK_EXCLUSIVE_NOW = 2 | 4;
const EPERM = 1;
const EAGAIN = 11;
const MEMBARRIER_CMD_GLOBAL = 1;
const MEMBARRIER: Readonly<Record<string, number>> = { x64: 324, arm64: 283 };
const KERNEL_BTF = "/sys/kernel/btf/vmlinux";
/** What may be a module of it, and whether that is ready: then the file says "live". */
const MODULE_BTF = "/sys/kernel/btf/nf_conntrack";
const MODULE_STATE = "/sys/module/nf_conntrack/initstate";
/** Numbers of capabilities(7). */
const CAPABILITY = { NET_ADMIN: 12, SYS_ADMIN: 21, PERFMON: 38, BPF: 39 } as const;
/** Since Linux 6.2 and 6.7; and what kernels without connection tracking do not have. */
const FEATURES = ["bpf_rdonly_cast", "BPF_FIB_LOOKUP_SRC", "bpf_skb_ct_lookup"] as const;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;
const CLONE_NEWNET = 0x40000000;
const M_TRIM_THRESHOLD = -1;
const TRIM_BYTES = 128 * 1024;

/** A held lock; it also ends with the process. */
export interface FolderLock {
  release(): void;
}

export type KernelFeature = (typeof FEATURES)[number];

let cpus: number | undefined;
/** By the BTF file that was read for them: a module may come later. */
const features = new Map<string, Set<KernelFeature>>();

/** CPUs that the kernel may ever have: the number of values of a per-CPU element. */
export function possibleCpus(): number {
  if (cpus === undefined) {
    const count = loadLibbpf().possibleCpus();
    if (count < 1) throw new BpfError({ operation: "count", subject: "CPUs", code: count });
    cpus = count;
  }
  return cpus;
}

/**
 * Whether the running kernel has, by now, what not every one has that we run on. False if it has no
 * BTF. That of nf_conntrack is read beside it, which libbpf does not find without CAP_SYS_ADMIN.
 */
export function kernelHas(feature: KernelFeature): boolean {
  for (const file of [KERNEL_BTF, MODULE_BTF]) {
    if (features.has(file) || !existsSync(file)) continue;
    if (file === MODULE_BTF && !mayUseModule()) continue;
    features.set(file, findKernelNames(FEATURES, file));
  }
  return [...features.values()].some((names) => names.has(feature));
}

function mayUseModule(): boolean {
  if (!hasCapability("SYS_ADMIN") || !existsSync(MODULE_STATE)) return false;
  return readFileSync(MODULE_STATE, "utf8").trim() === "live";
}

/** Whether this process has a capability in effect. */
export function hasCapability(name: keyof typeof CAPABILITY): boolean {
  const status = readFileSync("/proc/self/status", "utf8");
  const effective = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? "0"}`);
  return ((effective >> BigInt(CAPABILITY[name])) & 1n) === 1n;
}

/**
 * Which of these are types, functions or enumerators of the running kernel, or of a module, by its
 * BTF. Only the strings are read: the kernel hands BTF out page by page (struct btf_header).
 */
export function findKernelNames<Name extends string>(
  names: readonly Name[],
  file = KERNEL_BTF,
): Set<Name> {
  const strings = readBtfStrings(file);
  return new Set(names.filter((name) => strings.includes(`\0${name}\0`)));
}

function readBtfStrings(file: string): Buffer {
  const fd = openSync(file, constants.O_RDONLY);
  try {
    const header = readAt(fd, { from: 0, bytes: 24 });
    const [bytes, offset] = [header.readUInt32LE(20), header.readUInt32LE(16)];
    return readAt(fd, { from: header.readUInt32LE(4) + offset, bytes });
  } finally {
    closeSync(fd);
  }
}

function readAt(fd: number, { from, bytes }: { from: number; bytes: number }): Buffer {
  const buffer = Buffer.alloc(bytes);
  for (let at = 0; at < bytes; ) {
    const got = readSync(fd, buffer, at, bytes - at, from + at);
    if (got === 0) break;
    at += got;
  }
  return buffer;
}

/**
 * From now on libc gives freed memory back at once. Left alone it keeps twice the largest block
 * that was ever freed, for good (mallopt(3), M_TRIM_THRESHOLD): 30 MiB after a long LIST.
 */
export function returnFreedMemory(): void {
  loadLibc().mallopt(M_TRIM_THRESHOLD, TRIM_BYTES);
}

/** Whether a path lies in a cgroup v2 tree. Throws if it does not exist. */
export function isCgroup2(path: string): boolean {
  return statfsSync(path, { bigint: true }).type === CGROUP2_MAGIC;
}

/** Whether a path lies on a bpf file system. Throws if it does not exist. */
export function isBpffs(path: string): boolean {
  return statfsSync(path, { bigint: true }).type === BPFFS_MAGIC;
}

/** Mounts a bpf file system on an existing folder. Throws BpfError. */
export function mountBpffs(path: string): void {
  if (loadLibc().mount("bpf", path, "bpf", 0, null) === 0) return;
  const code = lastErrno();
  throw new BpfError({ operation: "mount a bpf file system on", subject: path, code });
}

/** Unmounts what is mounted on a folder. Throws BpfError. */
export function unmount(path: string): void {
  if (loadLibc().unmount(path, 0) === 0) return;
  throw new BpfError({ operation: "unmount", subject: path, code: lastErrno() });
}

/**
 * Locks a folder for this process, without waiting. If another has it: that process, 0 where its
 * id cannot be seen from this PID namespace. Throws if the folder does not exist.
 */
export function lockFolder(path: string): FolderLock | { holderPid: number } {
  const fd = openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  if (loadLibc().flock(fd, LOCK_EXCLUSIVE_NOW) === 0) return { release: () => closeSync(fd) };
  const code = lastErrno();
  closeSync(fd);
  if (code === EAGAIN) return { holderPid: lockHolder(path) };
  throw new BpfError({ operation: "lock", subject: path, code });
}

/** /proc/locks has lines such as "1: FLOCK  ADVISORY  WRITE 812 00:2d:9184 0 EOF". */
function lockHolder(path: string): number {
  const { dev, ino } = statSync(path, { bigint: true });
  const major = ((dev >> 8n) & 0xfffn) | ((dev >> 32n) & ~0xfffn);
  const minor = (dev & 0xffn) | ((dev >> 12n) & ~0xffn);
  const hex = (value: bigint) => value.toString(16).padStart(2, "0");
  const place = `${hex(major)}:${hex(minor)}:${ino}`;
  const lines = readFileSync("/proc/locks", "utf8").split("\n");
  const fields = lines.map((line) => line.split(/\s+/));
  const found = fields.find((line) => line[1] === "FLOCK" && line[5] === place);
  return Number(found?.[4] ?? 0);
}

/**
 * Waits until every BPF program that runs now has ended, without holding up the event loop.
 * False if that cannot be had: the kernel refuses, or only one CPU is online, where it does not
 * wait for programs that were preempted.
 */
export async function membarrier(): Promise<boolean> {
  const number = MEMBARRIER[arch];
  const { onlineCpus, syscallAsync } = loadLibc();
  if (number === undefined || onlineCpus() < 2) return false;
  return (await syscallAsync(number, MEMBARRIER_CMD_GLOBAL, 0, 0)) === 0;
}

/**
 * Runs a function in the network namespace that an open file such as /proc/1/ns/net is of, and
 * comes back whatever becomes of it. The function must be synchronous and start nothing that goes
 * on: threads born meanwhile would stay there. Throws BpfError where the namespace may not be
 * entered; a process that cannot come back ends at once.
 */
export function insideNetns<T>(fd: number, action: () => T): T {
  const { setns } = loadLibc();
  const operation = "enter";
  const subject = "the network namespace";
  const own = openSync("/proc/thread-self/ns/net", constants.O_RDONLY);
  try {
    if (setns(fd, CLONE_NEWNET) !== 0) {
      const code = lastErrno();
      const reason = code === EPERM ? "run as root, or with CAP_SYS_ADMIN" : undefined;
      throw new BpfError({ operation, subject, code, reason });
    }
    try {
      return action();
    } finally {
      if (setns(own, CLONE_NEWNET) !== 0) {
        // Whatever this process did next, it would do in the wrong place.
        console.error(`Cannot return to the own network namespace: ${errnoName(lastErrno())}`);
        process.abort();
      }
    }
  } finally {
    closeSync(own);
  }
}

/** The number that sockets of this network namespace show to BPF programs. Throws BpfError. */
export function netnsCookie(): bigint {
  const { socket, getsockopt } = loadLibc();
  const subject = "the network namespace";
  const fd = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) throw new BpfError({ operation: "identify", subject, code: lastErrno() });
  try {
    const cookie = new Uint8Array(8);
    const length = Uint32Array.of(cookie.length);
    if (getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, length) !== 0) {
      throw new BpfError({ operation: "identify", subject, code: lastErrno() });
    }
    return new DataView(cookie.buffer).getBigUint64(0, true);
  } finally {
    closeSync(fd);
  }
}
