// The other end of packets.py: crafted packets from a place of the lab, and what arrives there,
// checked by sums that are not ours. Knows how requests are put, not what packets mean.
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import path from "node:path";
import { createInterface } from "node:readline";
import type { Host } from "./host.ts";

const PYTHON = "/usr/bin/python3";
const PROGRAM = path.resolve(import.meta.dirname, "../../lab/packets.py");

/** One header as scapy names it and its fields, such as IP with src and IPerror with dst. */
export interface Layer {
  layer: string;
  [field: string]: string | number | null;
}

/** A frame that a capture saw. */
export interface Seen {
  /** From the Ethernet header on, with any VLAN tag in it. */
  frame: Uint8Array;
  /** One line for people. */
  summary: string;
  /** From the outermost inwards. */
  layers: Layer[];
  /** What is wrong with lengths and checksums, as sentences. */
  problems: string[];
  /** Whether the checksum is still to be completed, as that of the kernel's own packets is. */
  isPartial: boolean;
  /** Whether this host sent it. */
  isOutgoing: boolean;
}

/** The fields of the first layer of this name. Throws if the frame has none. */
export function layerOf(seen: Seen, name: string): Layer {
  const found = seen.layers.find(({ layer }) => layer === name);
  if (found === undefined) throw new Error(`There is no ${name} in '${seen.summary}'`);
  return found;
}

/** A capture on one device, from when it was opened. */
export interface Capture {
  /** The next frames that match, `count` (1) of them unless `timeoutSeconds` (2) are over. */
  take(options?: { count?: number; timeoutSeconds?: number }): Promise<Seen[]>;
  close(): Promise<void>;
}

interface Reply {
  id: number;
  value?: unknown;
  error?: string;
}

type RawSeen = Omit<Seen, "frame"> & { frame: string };

/**
 * A process of scapy. Packets are written in its notation, with lengths and checksums filled in
 * where they are left out: `IP(dst="10.96.0.1", ttl=1)/UDP(sport=7, dport=53)/b"hello"`. A list of
 * packets is an expression too: `fragment(IP(…)/UDP(…)/(b"x"*3000), 1000)[::-1]`. Errors of the
 * expression, of the kernel and of scapy reject the call. Calls wait for each other.
 */
export class Packets {
  readonly #child: ChildProcess;
  readonly #lines: AsyncIterator<string>;
  #last: Promise<unknown>;
  #id = 0;

  private constructor(child: ChildProcess) {
    this.#child = child;
    this.#lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]();
    this.#last = this.#reply();
  }

  /** Starts one at a place of the lab, or in this process's own (about 1 s). */
  static async start(host?: Host): Promise<Packets> {
    const stdio = ["pipe", "pipe", "inherit"] as const;
    const command = [PYTHON, PROGRAM] as const;
    const child = host
      ? host.spawn(command, { stdio: [...stdio] })
      : spawn(PYTHON, [PROGRAM], { stdio: [...stdio] });
    const packets = new Packets(child);
    await packets.#last;
    return packets;
  }

  /** The bytes of each packet. */
  async build(packets: string): Promise<Uint8Array[]> {
    const hexes = (await this.#ask("build", packets)) as string[];
    return hexes.map((hex) => Buffer.from(hex, "hex"));
  }

  /**
   * Sends packets one after the other. An IP packet goes where the kernel routes it, which
   * completes an IPv4 header; a frame, one that begins with Ether, goes out as it is by `device`,
   * or "eth0". MAC addresses left out are those of the way to its destination.
   */
  async send(packets: string, options: { device?: string } = {}): Promise<void> {
    await this.#ask("send", packets, options.device ?? null);
  }

  /** What is wrong with lengths and checksums of each Ethernet frame, as sentences. */
  async check(frames: readonly Uint8Array[]): Promise<string[][]> {
    const hexes = frames.map((frame) => Buffer.from(frame).toString("hex"));
    return (await this.#ask("check", hexes)) as string[][];
  }

  /**
   * Captures what comes in by a device, "eth0" unless given, and with `outgoing` what goes out, if
   * `match` is true of it: a Python expression over the packet p, such as
   * `SCTP in p and p[SCTP].dport == 7`.
   */
  async capture({ device = "eth0", match = "True", outgoing = false } = {}): Promise<Capture> {
    const id = await this.#ask("capture", device, match, outgoing);
    return {
      take: async ({ count = 1, timeoutSeconds = 2 } = {}) => {
        const seen = (await this.#ask("take", id, count, timeoutSeconds)) as RawSeen[];
        return seen.map((each) => ({ ...each, frame: Buffer.from(each.frame, "hex") }));
      },
      close: async () => {
        await this.#ask("close", id);
      },
    };
  }

  async close(): Promise<void> {
    if (this.#child.exitCode !== null || this.#child.signalCode !== null) return;
    const exited = once(this.#child, "exit");
    this.#child.kill("SIGKILL");
    await exited;
  }

  #ask(call: string, ...values: unknown[]): Promise<unknown> {
    const ask = async () => {
      this.#id += 1;
      this.#child.stdin!.write(`${JSON.stringify({ id: this.#id, call, values })}\n`);
      return this.#reply();
    };
    const answer = this.#last.then(ask, ask);
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #reply(): Promise<unknown> {
    const { value: line, done } = await this.#lines.next();
    if (done) throw new Error("packets.py ended; does the Debian package python3-scapy exist?");
    const { value, error } = JSON.parse(line) as Reply;
    if (error !== undefined) throw new Error(error);
    return value;
  }
}
