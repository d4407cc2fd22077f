// What runs in the kernel already, looked up by its id: programs that links hold, and the BTF that
// maps were created with. Ids are for CAP_SYS_ADMIN alone: others get EPERM.
import { closeSync } from "node:fs";
import { type Btf, readBareBtf } from "./btf.ts";
import { describe, openPinnedDescriptor, pinDescriptor, readName } from "./descriptor.ts";
import { BpfError } from "./errors.ts";
import { addressOf, bytesAt, lastErrno, loadLibbpf } from "./libbpf.ts";

/** More maps than a program of ours has; the kernel tells no more than there is room for. */
const MAPS_TOLD = 64;
const ID_AT = 4;
const MAP_COUNT_AT = 52;
const MAPS_AT = 56;
const NAME_AT = 64;

/** A program in the kernel, held by a file descriptor of its own until close(). */
export class RunningProgram {
  readonly fd: number;
  readonly id: number;
  readonly name: string;
  /** Ids of the maps it uses. */
  readonly mapIds: readonly number[];

  private constructor(fd: number, subject: string) {
    this.fd = fd;
    const ids = new Uint32Array(MAPS_TOLD);
    const info = describe(fd, subject, {
      prepare: (view) => {
        view.setUint32(MAP_COUNT_AT, MAPS_TOLD, true);
        view.setBigUint64(MAPS_AT, addressOf(new Uint8Array(ids.buffer)), true);
      },
    });
    this.id = info.getUint32(ID_AT, true);
    this.name = readName(info, NAME_AT);
    this.mapIds = [...ids.subarray(0, Math.min(MAPS_TOLD, info.getUint32(MAP_COUNT_AT, true)))];
  }

  /** The program with this id, such as LinkInfo names. Throws BpfError: EPERM, or ENOENT. */
  static openById(id: number): RunningProgram {
    const fd = loadLibbpf().programFdById(id);
    const subject = `id ${id}`;
    if (fd < 0) throw new BpfError({ operation: "open program", subject, code: fd });
    return RunningProgram.#of(fd, subject);
  }

  /** The program pinned at `path`. Throws BpfError if there is none, or something else. */
  static openPinned(path: string): RunningProgram {
    return RunningProgram.#of(openPinnedDescriptor(path, "program"), path);
  }

  static #of(fd: number, subject: string): RunningProgram {
    try {
      return new RunningProgram(fd, subject);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** Pins the program, so that it outlives this process. Throws BpfError. */
  pin(path: string): void {
    pinDescriptor(this.fd, path);
  }

  /** Gives the descriptor back. */
  close(): void {
    closeSync(this.fd);
  }
}

/** The BTF with this id, such as MapInfo names. Throws BpfError: EPERM, ENOENT; and BtfError. */
export function readKernelBtf(id: number): Btf {
  const bpf = loadLibbpf();
  const subject = `id ${id}`;
  const btf = bpf.btfLoad(id);
  if (btf === null) throw new BpfError({ operation: "read BTF", subject, code: lastErrno() });
  try {
    const length = new Uint32Array(1);
    const data = bpf.btfData(btf, length);
    if (data === null) throw new BpfError({ operation: "read BTF", subject, code: lastErrno() });
    return readBareBtf(bytesAt(data, length[0]!).slice());
  } finally {
    bpf.btfFree(btf);
  }
}
