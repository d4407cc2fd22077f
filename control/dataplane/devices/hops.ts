// svc_hops: the next hops that programs have looked up. Says which are in use, and has programs ask
// the kernel again. Writes nothing but generations.
import { hop } from "../../../bindings/layout.ts";

/** A row that some flow has led to. */
export interface UsedHop {
  index: number;
  ifindex: number;
  /** This node's address towards it, an index in svc_node; 0: not known. */
  source: number;
  /** 16 bytes. */
  next: Uint8Array;
  /** The MAC that packets are sent to. */
  mac: Uint8Array;
  /** When the kernel was asked last, by the programs' clock. */
  checked: number;
}

const MAC_BYTES = 6;
const IFINDEX_WORDS = hop.bytes / 4;
const GENERATION_HALVES = hop.bytes / 2;

export class Hops {
  readonly #bytes: Uint8Array;
  readonly #ifindexes: Uint32Array;
  readonly #generations: Uint16Array;

  /** `bytes` is all of svc_hops as memory. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#ifindexes = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 4);
    this.#generations = new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 2);
  }

  *used(): Generator<UsedHop> {
    const view = new DataView(this.#bytes.buffer, this.#bytes.byteOffset, this.#bytes.byteLength);
    for (let index = 0; index * hop.bytes < view.byteLength; index++) {
      if (this.#ifindexes[index * IFINDEX_WORDS + hop.offset.ifindex / 4] === 0) continue;
      const { ifindex, source, next, header, checked } = hop.read(view, index * hop.bytes);
      yield { index, ifindex, source, next, checked, mac: header.subarray(0, MAC_BYTES) };
    }
  }

  /**
   * Takes rows out of use for flows that refer to them: each asks the kernel at its next packet.
   * Returns how many could not be, since a program was just writing them.
   */
  retire(isStale: (hop: UsedHop) => boolean = () => true): number {
    let busy = 0;
    for (const used of this.used()) if (isStale(used) && !this.#retireRow(used.index)) busy++;
    return busy;
  }

  /** A generation is even unless a program is writing the row. */
  #retireRow(index: number): boolean {
    const at = index * GENERATION_HALVES + hop.offset.generation / 2;
    for (;;) {
      const before = Atomics.load(this.#generations, at);
      if (before & 1) return false;
      const after = (before + 2) & 0xffff;
      if (Atomics.compareExchange(this.#generations, at, before, after) === before) return true;
    }
  }
}
