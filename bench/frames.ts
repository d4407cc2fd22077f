// The other side of testdata/frames.bpf.c: loads it for a frame and a number of flows, and runs a
// program on frames that are whole again each time. Knows no device and no Service.
import { readFileSync } from "node:fs";
import path from "node:path";
import { BpfObject, type Program } from "../bindings/object.ts";
import {
  CHECKSUM_OFFSET,
  FRAME_BYTES,
  type FrameFields,
  makeFrame,
  PORT_OFFSET,
  SOURCE_WORD,
  transportChecksum,
} from "./frame.ts";

const OBJECT = path.join(import.meta.dirname, "testdata/frames.bpf.o");

/** As in enum sink_word. */
const [SINK_COUNT, SINK_REFLECTS, SINK_WORDS] = [0, 1, 2];

export interface FramesOptions {
  /** What frames are; those who only take frames in have no use for it. */
  fields?: FrameFields;
  /** A power of two. */
  flows?: number;
  /** The index of the device that redirected frames leave by. */
  device?: number;
}

/** The programs, for frames of the same fields but for who sends them. */
export class Frames {
  readonly #object: BpfObject;
  readonly #frame: Uint8Array;
  readonly #words: BigUint64Array;

  constructor({ fields, flows = 1, device = 0 }: FramesOptions = {}) {
    this.#frame = fields ? makeFrame(fields) : new Uint8Array(FRAME_BYTES);
    this.#object = BpfObject.open(OBJECT);
    this.#object.setRodata("header", this.#frame.slice());
    this.#object.setRodata("flow_mask", flows - 1);
    this.#object.setRodata("source_word", SOURCE_WORD);
    this.#object.setRodata("port_offset", PORT_OFFSET);
    this.#object.setRodata("network_checksum", CHECKSUM_OFFSET);
    if (fields) this.#object.setRodata("transport_checksum", transportChecksum(fields.protocol));
    this.#object.setRodata("device", device);
    this.#object.load();
    const map = this.#object.map("sink").toMap();
    const bytes = map.mmap();
    map.close();
    this.#words = new BigUint64Array(bytes.buffer, bytes.byteOffset, SINK_WORDS);
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

  /** The same for one of the file's own programs that leaves frames as they are. */
  timeAlone(name: "tx" | "pass", { repeat }: { repeat: number }): number {
    return this.program(name).testPacket({ data: this.#frame, repeat }).durationNs;
  }

  /** How many frames have come to "sink", which either drops them or sends them back. */
  get sunk(): number {
    return Number(Atomics.load(this.#words, SINK_COUNT));
  }

  set reflects(value: boolean) {
    Atomics.store(this.#words, SINK_REFLECTS, value ? 1n : 0n);
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
