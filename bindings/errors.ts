// What goes wrong below: errno numbers become names, causes and fixes in one kind of error.
// It knows no call and no map; those who call say what they did to what.
import { constants } from "node:os";

/** The kernel's own number for an operation that a kind of map or program does not have. */
export const ENOTSUPP = 524;

const NAMES = new Map<number, string>([
  [ENOTSUPP, "ENOTSUPP"],
  // The kernel's name for a number that libc has two for.
  [constants.errno.EOPNOTSUPP, "EOPNOTSUPP"],
  // libbpf's own, of which these tell something.
  [4001, "LIBBPF_FORMAT"],
  [4005, "LIBBPF_RELOCATION"],
]);
for (const [name, number] of Object.entries(constants.errno)) {
  if (!NAMES.has(number)) NAMES.set(number, name);
}

const EXPLANATIONS: Readonly<Record<string, string>> = {
  EPERM: "run as root, or with CAP_BPF and CAP_NET_ADMIN",
  EACCES: "run as root",
  ENOENT: "it does not exist",
  EEXIST: "it exists already",
  E2BIG: "it is full or the index is beyond its end",
  ENOSPC: "it is full",
  ENOMEM: "the kernel has no memory for it",
  EINVAL: "the kernel does not accept these arguments, or is too old for them",
  EBUSY: "something else uses it",
  EBADF: "it is no open file of the right kind",
  ENODEV: "the kernel does not have it",
  EOPNOTSUPP: "the device or its driver does not offer this",
  ENOTSUPP: "the kernel does not offer this for its kind",
  ENOLINK: "its link was detached",
};

/** What an operation on the kernel failed with. */
export interface BpfFailure {
  /** A verb, such as "update". */
  operation: string;
  /** The name or path of what it was done to. */
  subject: string;
  /** An errno name such as "ENOSPC", or its number, negative or not. */
  code: string | number;
  /** The cause in words, with the fix; left out, the usual cause of the code. */
  reason?: string | undefined;
  /** The verifier's log, or what libbpf said. */
  log?: string | undefined;
  /** How many elements of a batch were written before the failure. */
  done?: number | undefined;
  cause?: unknown;
}

/** The only error that the kernel causes: "Cannot update svc_names: E2BIG, the map holds 9". */
export class BpfError extends Error {
  override readonly name = "BpfError";
  readonly operation: string;
  readonly subject: string;
  readonly code: string;
  readonly log: string | undefined;
  readonly done: number | undefined;

  constructor({ operation, subject, code, reason, log, done, cause }: BpfFailure) {
    const name = typeof code === "string" ? code : errnoName(code);
    const why = reason ?? EXPLANATIONS[name];
    const what = `Cannot ${operation} ${quote(subject)}: ${name}`;
    super(why === undefined ? what : `${what}, ${why}`, cause === undefined ? {} : { cause });
    this.operation = operation;
    this.subject = subject;
    this.code = name;
    this.log = log;
    this.done = done;
  }
}

/** The name of an errno number: "ENOSPC" for 28 and -28, "errno 999" if it is unknown. */
export function errnoName(number: number): string {
  return NAMES.get(Math.abs(number)) ?? `errno ${Math.abs(number)}`;
}

/** The inverse of errnoName(): 28 for "ENOSPC", 0 for what is no errno's name. */
export function errnoNumber(name: string): number {
  for (const [number, each] of NAMES) if (each === name) return number;
  return Number(/^errno (\d+)$/.exec(name)?.[1] ?? 0);
}

/** Names of maps and programs stay bare; paths and anything else are quoted. */
function quote(subject: string): string {
  return /^[\w.]+$/.test(subject) ? subject : `"${subject}"`;
}
