// Iterators: programs that the kernel runs for each of its objects of a kind when somebody reads.
// Knows how to run one to its end, not what it looks at.
import { closeSync, readSync } from "node:fs";
import { BpfError } from "./errors.ts";
import { loadLibbpf } from "./libbpf.ts";
import type { Attachable } from "./link.ts";

/**
 * More than the kernel has room for at a time: an iterator whose reader takes all goes from object
 * to object without a stop, which kernels before 6.16 need to see each object once.
 */
const CHUNK_BYTES = 65536;

/** One SEC("iter/...") program, ready to run until close(). */
export class BpfIterator {
  readonly #name: string;
  #fd: number | undefined;

  private constructor(name: string, fd: number) {
    this.#name = name;
    this.#fd = fd;
  }

  /** Makes a loaded iterator program ready to run. Throws BpfError. */
  static attach(program: Attachable): BpfIterator {
    const { name, fd, expectedAttachType } = program;
    const link = loadLibbpf().linkCreate(fd, 0, expectedAttachType, null);
    if (link < 0) throw new BpfError({ operation: "attach", subject: name, code: link });
    return new BpfIterator(name, link);
  }

  /**
   * Runs the program for every object once, and returns how many bytes it wrote. Sockets are those
   * of the network namespace that the caller is in. Throws BpfError, and if it is closed.
   */
  run(): number {
    if (this.#fd === undefined) throw new Error(`Iterator "${this.#name}" is closed`);
    const fd = loadLibbpf().iteratorCreate(this.#fd);
    if (fd < 0) throw new BpfError({ operation: "run", subject: this.#name, code: fd });
    try {
      const chunk = new Uint8Array(CHUNK_BYTES);
      let total = 0;
      for (;;) {
        const count = readOnce(fd, chunk, this.#name);
        if (count === 0) return total;
        total += count ?? 0;
      }
    } finally {
      closeSync(fd);
    }
  }

  /** Gives it back; any use after that throws. */
  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }
}

/** Bytes read, 0 at the end; undefined after a million objects that wrote nothing. */
function readOnce(fd: number, chunk: Uint8Array, name: string): number | undefined {
  try {
    return readSync(fd, chunk);
  } catch (cause) {
    const code = (cause as NodeJS.ErrnoException).code ?? "EIO";
    if (code === "EAGAIN") return undefined;
    throw new BpfError({ operation: "run", subject: name, code, cause });
  }
}
