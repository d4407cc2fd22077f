// The network namespaces that a cgroup's processes are in, and who sockets in them are to others:
// found through the cgroup that is served, so that of several nodes on one machine each sees its
// own pods. Knows nothing of Services.
import { closeSync, fstatSync, openSync, readdirSync, readFileSync, statSync } from "node:fs";
import { networkInterfaces } from "node:os";
import path from "node:path";
import { insideNetns, netnsCookie } from "../../bindings/system.ts";
import type { ClientRow } from "./clients.ts";

/** Who may ask on this node. */
export interface FoundClients {
  /** The cookie of the node's own network namespace, that is, of this process. */
  own: bigint;
  /** All others, each once. An address is left out if there is none, or no telling which it is. */
  clients: ClientRow[];
}

export interface WalkOptions {
  /** The cgroup v2 folder that is served; everything below it counts. */
  cgroup: string;
  /** Called for each process that cannot be looked at: "EACCES", "EPERM", or "hostPID" if it has no
   * number in this PID namespace. */
  onHidden: (why: string) => void;
}

const NOT_LOOKED_AT = "some processes may not be looked at, give the agent CAP_SYS_PTRACE";
const HIDDEN: Readonly<Record<string, string>> = {
  hostPID: "some processes are not to be seen from here, give the agent the host's PID namespace",
  EACCES: NOT_LOOKED_AT,
  EPERM: NOT_LOOKED_AT,
};

/** What is missing where a process cannot be looked at, of what onHidden is called with. */
export function whatHides(why: string): string {
  return HIDDEN[why] ?? why;
}

/** Errors of a process, a cgroup or a namespace that went while it was looked at. */
const GONE: ReadonlySet<unknown> = new Set(["ENOENT", "ESRCH", "ENODEV"]);
/** The list of processes of a threaded cgroup is the one of the cgroup above. */
const IS_THREADED = "EOPNOTSUPP";

/** A network namespace, open while eachNamespace() stays at it. */
export class Namespace {
  /** Device and inode: the same for all processes in it. */
  readonly id: string;
  readonly #fd: number;

  /** Only for eachNamespace(). */
  constructor(fd: number) {
    this.#fd = fd;
    this.id = idOf(fstatSync(fd, { bigint: true }));
  }

  /** Runs a synchronous function in it, see insideNetns(). Throws BpfError if it may not. */
  run<T>(action: () => T): T {
    return insideNetns(this.#fd, action);
  }
}

/**
 * Goes through the network namespaces of all processes of a cgroup and below, this process's own
 * among them if it is in there, each once. What goes meanwhile is passed over.
 */
export function* eachNamespace({ cgroup, onHidden }: WalkOptions): Generator<Namespace> {
  const seen = new Set<string>();
  for (const pid of processesOf(cgroup)) {
    if (pid === "0") {
      onHidden("hostPID");
      continue;
    }
    const fd = openUnseen(`/proc/${pid}/ns/net`, { seen, onHidden });
    if (fd === undefined) continue;
    try {
      const namespace = new Namespace(fd);
      if (seen.has(namespace.id)) continue;
      seen.add(namespace.id);
      yield namespace;
    } finally {
      closeSync(fd);
    }
  }
}

/**
 * Who asks from where: the network namespaces of a cgroup's processes with their addresses.
 * `isInside` says of a canonical address whether it is a pod's (§10.8).
 */
export function findClients(
  options: WalkOptions,
  { isInside }: { isInside: (address: string) => boolean },
): FoundClients {
  const own = idOf(statSync("/proc/thread-self/ns/net", { bigint: true }));
  const clients: ClientRow[] = [];
  for (const namespace of eachNamespace(options))
    if (namespace.id !== own)
      clients.push(
        namespace.run(() => {
          const { ipv4, ipv6 } = ownAddresses();
          return {
            cookie: netnsCookie(),
            ipv4: onlyOne(ipv4, isInside),
            ipv6: onlyOne(ipv6, isInside),
            inside: ([4, 6] as const).filter((family) =>
              (family === 4 ? ipv4 : ipv6).some(isInside),
            ),
          };
        }),
      );
  return { own: netnsCookie(), clients };
}

/** The cookie of the network namespace that this process is in. */
export function ownNamespace(): bigint {
  return netnsCookie();
}

/** The addresses of the present network namespace, without loopback and link-local ones. */
function ownAddresses(): { ipv4: string[]; ipv6: string[] } {
  const found = Object.values(networkInterfaces())
    .flatMap((addresses) => addresses ?? [])
    .filter(({ internal, address }) => !internal && !isLinkLocal(address));
  const of = (family: string) =>
    found.filter((each) => each.family === family).map(({ address }) => address);
  return { ipv4: of("IPv4"), ipv6: of("IPv6") };
}

/** fe80::/10 and 169.254.0.0/16, in the kernel's own spelling. */
function isLinkLocal(address: string): boolean {
  return /^fe[89ab][0-9a-f]:/.test(address) || address.startsWith("169.254.");
}

/**
 * Source ranges are a rule of security: of several addresses none is taken for the one that a
 * socket will send from, unless just one of them is a pod's.
 */
function onlyOne(
  addresses: readonly string[],
  isInside: (address: string) => boolean,
): string | undefined {
  const candidates = addresses.length > 1 ? addresses.filter(isInside) : addresses;
  return candidates.length === 1 ? candidates[0] : undefined;
}

/** The process ids of a cgroup and of all below, as text. */
function* processesOf(cgroup: string): Generator<string> {
  yield* passOver(() => readFileSync(path.join(cgroup, "cgroup.procs"), "utf8").match(/\d+/g));
  const below = passOver(() => readdirSync(cgroup, { withFileTypes: true }));
  for (const entry of below)
    if (entry.isDirectory()) yield* processesOf(path.join(cgroup, entry.name));
}

/** What a cgroup lists; nothing if it has gone, or lists its processes elsewhere. */
function passOver<T>(read: () => T[] | null): T[] {
  try {
    return read() ?? [];
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (GONE.has(code) || code === IS_THREADED) return [];
    throw error;
  }
}

/** Opens a namespace's file unless it was seen before, or its process is gone or not for us. */
function openUnseen(
  file: string,
  { seen, onHidden }: { seen: ReadonlySet<string> } & Pick<WalkOptions, "onHidden">,
): number | undefined {
  try {
    if (seen.has(idOf(statSync(file, { bigint: true })))) return undefined;
    return openSync(file, "r");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === "EACCES" || code === "EPERM") onHidden(code);
    else if (!GONE.has(code)) throw error;
    return undefined;
  }
}

function idOf({ dev, ino }: { dev: bigint; ino: bigint }): string {
  return `${dev}:${ino}`;
}
