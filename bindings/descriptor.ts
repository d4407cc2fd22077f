// What maps, links and programs have in common: a file descriptor of the kernel's, its kind, its
// pin, and the struct that describes it. It knows no field of that struct.
import { closeSync, readlinkSync } from "node:fs";
import { BpfError } from "./errors.ts";
import { loadLibbpf } from "./libbpf.ts";

const INFO_BYTES = 256;

export type DescriptorKind = "map" | "program" | "link";
const KINDS: Readonly<Record<string, DescriptorKind>> = {
  "anon_inode:bpf-map": "map",
  "anon_inode:bpf-prog": "program",
  // The kernel has one name for a link it makes and another for one it opens.
  "anon_inode:bpf_link": "link",
  "anon_inode:bpf-link": "link",
};

/**
 * An own descriptor for a pinned map, program or link. Throws BpfError if there is none at `path`
 * or it is of another kind.
 */
export function openPinnedDescriptor(path: string, kind: DescriptorKind): number {
  const fd = loadLibbpf().openPinned(path);
  const operation = `open pinned ${kind}`;
  if (fd < 0) throw new BpfError({ operation, subject: path, code: fd });
  const found = KINDS[readlinkSync(`/proc/self/fd/${fd}`)];
  if (found === kind) return fd;
  closeSync(fd);
  const reason = `a ${found ?? "file"} is pinned there`;
  throw new BpfError({ operation, subject: path, code: "EINVAL", reason });
}

/** Pins a descriptor at a path on a bpf file system. Throws BpfError naming the path. */
export function pinDescriptor(fd: number, path: string): void {
  const error = loadLibbpf().pin(fd, path);
  if (error === 0) return;
  const reason = error === -1 ? "it must lie on a bpf file system, and root may write" : undefined;
  throw new BpfError({ operation: "pin", subject: path, code: error, reason });
}

/**
 * The kernel's struct about a descriptor, zeros where it is shorter. `prepare` fills in what the
 * kernel reads from it. Throws BpfError.
 */
export function describe(
  fd: number,
  subject: string,
  { prepare }: { prepare?: (info: DataView) => void } = {},
): DataView {
  const info = new Uint8Array(INFO_BYTES);
  prepare?.(new DataView(info.buffer));
  const length = Uint32Array.of(INFO_BYTES);
  const error = loadLibbpf().info(fd, info, length);
  if (error !== 0) throw new BpfError({ operation: "describe", subject, code: error });
  return new DataView(info.buffer);
}

/** A kernel name: up to 15 characters and a NUL. */
export function readName(view: DataView, at: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, 16);
  return new TextDecoder().decode(bytes.subarray(0, bytes.indexOf(0)));
}
