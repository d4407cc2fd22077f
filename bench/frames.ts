// The other side of testdata/frames.bpf.c: loads it for a frame and a number of flows, and runs a
// program on frames that are whole again each time. Knows no device and no Service.
import { readFileSync } from "node:fs";
import path from "node:path";
import { BpfObject, type Program } from "../bindings/object.ts";
import { type FrameFields, MOST_FRAME_BYTES, makeFrame, offsetsOf } from "./frame.ts";

const OBJECT = path.join(import.meta.dirname, "testdata/frames.bpf.o");

/** As in enum sink_word. */
const [SINK_COUNT, SINK_REFLECTS, SINK_WORDS] = [0, 1, 2];

/** Offsets in struct xdp_md and struct __sk_buff, and their sizes. */
const XDP = { bytes: 24, dataEnd: 4, ifindex: 12 } as const;
const SKB = { bytes: 192, ifindex: 40 } as const;

/** What one kind of hook has: who calls the measured program, by which map. */
const HOOKS = {
  xdp: { caller: "svc_frame", tested: "tested", floor: "svc_tx" },
  tc: { caller: "svc_frame_tc", tested: "tested_tc", floor: "svc_next" },
} as const;
export type Hook = keyof typeof HOOKS;

export interface FramesOptions {
  /** What frames are; those who only take frames in have no use for it. */
  fields?: FrameFields;
  /** A power of two. */
  flows?: number;
  /** That flows are spread over: as many addresses from that of the fields on. */
  services?: number;
  /** The index of the device that redirected frames leave by. */
  device?: number;
}

/** How a program is run. */
export interface Runs {
  /** What errors say of it; by default the program's. */
  name?: string;
  repeat: number;
  /** By default XDP. */
  hook?: Hook;
  /** Of the device that frames came in by, or leave by; by default none that is known. */
  ifindex?: number;
}

/** The programs, for frames of the same fields but for who sends them. */
export class Frames {
  readonly #object: BpfObject;
  readonly #frame: Uint8Array;
  readonly #words: BigUint64Array;

  constructor({ fields, flows = 1, services = 1, device = 0 }: FramesOptions = {}) {
    this.#frame = fields ? makeFrame(fields) : new Uint8Array(MOST_FRAME_BYTES);
    const header = new Uint8Array(MOST_FRAME_BYTES);
    header.set(this.#frame);
    const offsets = fields && offsetsOf(fields);
    const rodata = {
      header,
      header_words: this.#frame.length / 8,
      flow_mask: flows - 1,
      services,
      source_word: offsets?.sourceWord ?? 0,
      destination_word: offsets?.destinationWord ?? 0,
      port_offset: offsets?.port ?? 0,
      network_checksum: offsets?.networkChecksum ?? 0,
      transport_checksum: offsets?.transportChecksum ?? 0,
      device,
    };
    this.#object = BpfObject.open(OBJECT);
    for (const [name, value] of Object.entries(rodata)) this.#object.setRodata(name, value);
    this.#object.load();
    const map = this.#object.map("sink").toMap();
    const bytes = map.mmap();
    map.close();
    this.#words = new BigUint64Array(bytes.buffer, bytes.byteOffset, SINK_WORDS);
  }

  /** One of the file's own programs. */
  program(name: "tx" | "parse_tx" | "pass" | "next" | "generate" | "forward" | "sink"): Program {
    return this.#object.program(`svc_${name}`);
  }

  /** What every program of a hook takes at least: one that does nothing. */
  floor(hook: Hook): Program {
    return this.#object.program(HOOKS[hook].floor);
  }

  /**
   * Nanoseconds for one run of a program, of the kernel's own clock, the header restored before
   * each. Throws unless the last verdict is `verdict` (enum xdp_action, or TC_ACT_*).
   */
  time(program: Pick<Program, "fd" | "name">, options: Runs & { verdict: number }): number {
    const { hook = "xdp", repeat, verdict, ifindex } = options;
    const { caller, tested } = HOOKS[hook];
    const map = this.#object.map(tested).toMap();
    map.set(new Uint8Array(4), new Uint8Array(Uint32Array.of(program.fd).buffer));
    map.close();
    const context = this.#context(hook, ifindex);
    const run = this.#object.program(caller).testPacket({ data: this.#frame, repeat, ...context });
    if (run.verdict === verdict) return run.durationNs;
    const name = options.name ?? program.name;
    throw new Error(`"${name}" ended with verdict ${run.verdict}, wanted was ${verdict}`);
  }

  /** The same for a hook's floor, with nothing restored: it leaves frames as they are. */
  timeAlone({ hook = "xdp", repeat, ifindex }: Runs): number {
    const context = this.#context(hook, ifindex);
    return this.floor(hook).testPacket({ data: this.#frame, repeat, ...context }).durationNs;
  }

  #context(hook: Hook, ifindex: number | undefined): { context?: Uint8Array } {
    if (ifindex === undefined) return {};
    const context = new Uint8Array(hook === "xdp" ? XDP.bytes : SKB.bytes);
    const view = new DataView(context.buffer);
    if (hook === "xdp") view.setUint32(XDP.dataEnd, this.#frame.length, true);
    view.setUint32(hook === "xdp" ? XDP.ifindex : SKB.ifindex, ifindex, true);
    return { context };
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

/** Names of enum xdp_action, and of TC_ACT_* where they say what XDP does not, as numbers. */
export const VERDICTS = { pass: 2, tx: 3, next: 0xffff_ffff, sent: 7 } as const;

/** Whether this kernel's programs are compiled to machine code: without, nanoseconds say little. */
export function isJited(): boolean {
  try {
    return readFileSync("/proc/sys/net/core/bpf_jit_enable", "utf8").trim() !== "0";
  } catch {
    return true;
  }
}
