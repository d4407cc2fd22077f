// The other side of testdata/frames.bpf.c: loads it for a frame and a number of flows, and runs a
// program on frames that are whole again each time. Knows no device and no Service.
import { readFileSync } from "node:fs";
import path from "node:path";
import { BpfObject, type Program } from "../bindings/object.ts";
import { CHECKSUM_OFFSET, PORT_OFFSET, SOURCE_WORD } from "./frame.ts";

const OBJECT = path.join(import.meta.dirname, "testdata/frames.bpf.o");

export interface FramesOptions {
  frame: Uint8Array;
  /** A power of two. */
  flows?: number;
  /** The index of the device that redirected frames leave by. */
  device?: number;
}

/** The programs, for one frame. */
export class Frames {
  readonly #object: BpfObject;
  readonly #frame: Uint8Array;

  constructor({ frame, flows = 1, device = 0 }: FramesOptions) {
    this.#frame = frame;
    this.#object = BpfObject.open(OBJECT);
    this.#object.setRodata("header", frame.slice(0, 64));
    this.#object.setRodata("flow_mask", flows - 1);
    this.#object.setRodata("source_word", SOURCE_WORD);
    this.#object.setRodata("port_offset", PORT_OFFSET);
    this.#object.setRodata("checksum_offset", CHECKSUM_OFFSET);
    this.#object.setRodata("device", device);
    this.#object.load();
  }

  /** One of the file's own programs. */
  program(name: "tx" | "parse_tx" | "pass" | "generate" | "forward" | "sink"): Program {
    return this.#object.program(`svc_${name}`);
  }

  /**
   * Nanoseconds for one run of a program, of the kernel's own clock, the header restored before
   * each. Throws unless the last verdict is `verdict` (enum xdp_action).
   */
  time(
    program: Pick<Program, "fd" | "name">,
    options: { repeat: number; verdict: number },
  ): number {
    const map = this.#object.map("tested").toMap();
    map.set(new Uint8Array(4), new Uint8Array(Uint32Array.of(program.fd).buffer));
    map.close();
    const { repeat, verdict } = options;
    const wrapper = this.#object.program("svc_frame");
    const run = wrapper.testPacket({ data: this.#frame, repeat });
    if (run.verdict === verdict) return run.durationNs;
    throw new Error(`${program.name} ended with verdict ${run.verdict}, wanted was ${verdict}`);
  }

  /** How many frames have come to "sink", by a function that looks. */
  counter(): () => number {
    const map = this.#object.map("counted").toMap();
    const bytes = map.mmap({ readOnly: true });
    const words = new BigUint64Array(bytes.buffer, bytes.byteOffset, 1);
    return () => Number(Atomics.load(words, 0));
  }

  /** Pins one of the programs, for those who take it from a file. */
  pin(name: Parameters<Frames["program"]>[0], file: string): void {
    this.program(name).pin(file);
  }

  close(): void {
    this.#object.close();
  }
}

/** Names of enum xdp_action, as numbers. */
export const VERDICTS = { aborted: 0, drop: 1, pass: 2, tx: 3, redirect: 4 } as const;

/** Whether this kernel's programs are compiled to machine code: without, nanoseconds say little. */
export function isJited(): boolean {
  try {
    return readFileSync("/proc/sys/net/core/bpf_jit_enable", "utf8").trim() !== "0";
  } catch {
    return true;
  }
}
