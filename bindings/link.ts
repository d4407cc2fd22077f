// Links: what holds a program on a cgroup or a network device, until it is detached or nothing
// refers to it any more.
// A pinned link outlives the process, and update() changes its program without a gap.
import { closeSync, constants, openSync, statSync } from "node:fs";
import { describe, openPinnedDescriptor, pinDescriptor } from "./descriptor.ts";
import { BpfError } from "./errors.ts";
import { loadLibbpf } from "./libbpf.ts";

const TYPE_CGROUP = 3;
const TYPE_XDP = 6;
const TYPE_TCX = 11;
const XDP_OPTIONS_BYTES = 16;
const EBADF = -9;

/** Where programs attach to a device (enum bpf_attach_type); TCX is Linux 6.6. */
export const deviceHook = { XDP: 37, TCX_INGRESS: 46, TCX_EGRESS: 47 } as const;
/** Which XDP the kernel is asked for (XDP_FLAGS_*): the driver's own, or the stack's slow one. */
export const xdpFlag = { NATIVE: 4, GENERIC: 2 } as const;

/** What the kernel says about a link; what it is on is 0 for links on anything else or nothing. */
export interface LinkInfo {
  id: number;
  type: number;
  programId: number;
  cgroupId: bigint;
  ifindex: number;
  attachType: number;
}

/** A network device, by its number and, for errors, by its name. */
export interface DeviceTarget {
  ifindex: number;
  name: string;
}

/** A loaded program: one of an object, or one that the kernel has (running.ts). */
export interface Attachable {
  readonly name: string;
  readonly fd: number;
  /** enum bpf_attach_type */
  readonly expectedAttachType: number;
}

/** One link, held by a file descriptor of its own until close(). */
export class BpfLink {
  readonly #subject: string;
  #fd: number | undefined;

  private constructor(fd: number, subject: string) {
    this.#fd = fd;
    this.#subject = subject;
  }

  /**
   * Attaches a loaded program to a cgroup v2 folder, as its section says. It serves everything
   * below that folder. Throws BpfError naming program and cgroup.
   */
  static attachCgroup(program: Attachable, cgroupPath: string): BpfLink {
    const subject = `${program.name} to ${cgroupPath}`;
    const programFd = program.fd;
    const cgroupFd = openCgroup(cgroupPath, subject);
    try {
      const type = program.expectedAttachType;
      const fd = loadLibbpf().linkCreate(programFd, cgroupFd, type, null);
      if (fd >= 0) return new BpfLink(fd, program.name);
      const reason = fd === EBADF ? "that is no folder of a cgroup v2 tree" : undefined;
      throw new BpfError({ operation: "attach", subject, code: fd, reason });
    } finally {
      closeSync(cgroupFd);
    }
  }

  /**
   * Attaches a loaded program to a device of the caller's network namespace, after those that are
   * there: `flags` are for XDP, of which there can be one only (EBUSY, EEXIST). Throws BpfError
   * naming program and device: ENODEV if that is gone (of XDP EINVAL), EINVAL for TCX before 6.6.
   */
  static attachDevice(
    program: Attachable,
    { ifindex, name }: DeviceTarget,
    { hook, flags = 0 }: { hook: number; flags?: number },
  ): BpfLink {
    const options = new DataView(new ArrayBuffer(XDP_OPTIONS_BYTES));
    options.setBigUint64(0, BigInt(XDP_OPTIONS_BYTES), true);
    options.setUint32(8, flags, true);
    const bytes = flags === 0 ? null : new Uint8Array(options.buffer);
    const fd = loadLibbpf().linkCreate(program.fd, ifindex, hook, bytes);
    if (fd >= 0) return new BpfLink(fd, program.name);
    const subject = `${program.name} to ${name}`;
    throw new BpfError({ operation: "attach", subject, code: fd });
  }

  /** The link pinned at `path`. Throws BpfError if there is none, or something else. */
  static openPinned(path: string): BpfLink {
    return new BpfLink(openPinnedDescriptor(path, "link"), path);
  }

  /** Throws if the link is closed. */
  get fd(): number {
    if (this.#fd === undefined) throw new Error(`Link "${this.#subject}" is closed`);
    return this.#fd;
  }

  /** struct bpf_link_info, as it is now: the program changes, and what is gone is 0. */
  get info(): LinkInfo {
    const view = describe(this.fd, this.#subject);
    const type = view.getUint32(0, true);
    const isOnDevice = type === TYPE_XDP || type === TYPE_TCX;
    return {
      type,
      id: view.getUint32(4, true),
      programId: view.getUint32(8, true),
      cgroupId: type === TYPE_CGROUP ? view.getBigUint64(16, true) : 0n,
      ifindex: isOnDevice ? view.getUint32(16, true) : 0,
      attachType: attachTypeOf(type, view),
    };
  }

  /** Pins the link, so that it outlives this process. Throws BpfError. */
  pin(path: string): void {
    pinDescriptor(this.fd, path);
  }

  /** Puts another loaded program in place of the present one, without a gap. Throws BpfError. */
  update(program: Attachable): void {
    this.#try("update", loadLibbpf().linkUpdate(this.fd, program.fd, null));
  }

  /** Takes the program off at once, pins or not. The dead link can still be described. */
  detach(): void {
    this.#try("detach", loadLibbpf().linkDetach(this.fd));
  }

  /** Gives the descriptor back; an unpinned link ends with that. Any use after that throws. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #try(operation: string, code: number): void {
    if (code === 0) return;
    throw new BpfError({ operation: `${operation} link`, subject: this.#subject, code });
  }
}

/** Where in its description a link of a type says what it is attached as. */
function attachTypeOf(type: number, view: DataView): number {
  switch (type) {
    case TYPE_CGROUP:
      return view.getUint32(24, true);
    case TYPE_TCX:
      return view.getUint32(20, true);
    case TYPE_XDP:
      return deviceHook.XDP;
    default:
      return 0;
  }
}

/** The kernel's number for a cgroup v2 folder, as LinkInfo has it. Throws if it is absent. */
export function cgroupId(path: string): bigint {
  return statSync(path, { bigint: true }).ino;
}

function openCgroup(path: string, subject: string): number {
  try {
    return openSync(path, constants.O_RDONLY | constants.O_DIRECTORY);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EINVAL";
    const reason = `"${path}" is no cgroup v2 folder`;
    throw new BpfError({ operation: "attach", subject, code, reason, cause });
  }
}
