// svc_node: what programs need to know of this node. Addresses keep their index while anything may
// use it; the rest is written as one word each, so that no program sees half of it. Finds nothing
// out.
import { randomBytes } from "node:crypto";
import { limit, node, serviceRange } from "../../../bindings/layout.ts";
import { type AddressRange, formatAddress, formatRange } from "../../model/address.ts";
import { addressBytes, rangeBytes } from "../maps.ts";
import { maskOf } from "../ranges.ts";

/** Ports from first to last; 0 and 0 for none. */
export interface PortRange {
  first: number;
  last: number;
}

/** What tells pods (§10.8). */
export interface PodDetection {
  ranges: readonly AddressRange[];
  isByDevice: boolean;
}

/** Ports below are for servers with privileges. */
const FIRST_PORT = 1024;
const LAST_PORT = 65535;
/** What Kubernetes gives node ports from unless told otherwise. */
const USUAL_NODE_PORTS: PortRange = { first: 30000, last: 32767 };
const ADDRESS_BYTES = 16;
const KEY_BYTES = node.offset.natFirst - node.offset.hashKey;

/**
 * The largest range of ports that neither the host takes by itself nor node ports come from; of 0
 * ports if there is none.
 */
export function natPorts(host: PortRange, nodePorts: PortRange): { first: number; count: number } {
  const taken = [host, USUAL_NODE_PORTS, nodePorts]
    .filter(({ last }) => last >= FIRST_PORT)
    .sort((a, b) => a.first - b.first);
  let best = { first: 0, count: 0 };
  let next = FIRST_PORT;
  for (const { first, last } of [...taken, { first: LAST_PORT + 1, last: LAST_PORT + 1 }]) {
    if (first - next > best.count) best = { first: next, count: first - next };
    next = Math.max(next, last + 1);
  }
  return best;
}

export class NodeMap {
  readonly #bytes: Uint8Array;
  readonly #view: DataView;
  readonly #words: BigUint64Array;
  /** The index of every address that has one. */
  readonly #indexes = new Map<string, number>();

  /** Takes over what the memory holds. Writes nothing. */
  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#words = new BigUint64Array(bytes.buffer, bytes.byteOffset, bytes.byteLength / 8);
    for (let index = 1; index < limit.NODE_SOURCES; index++) {
      const address = this.#addressAt(index);
      if (address.some((byte) => byte !== 0)) this.#indexes.set(formatAddress(address), index);
    }
  }

  /** Gives the flows' hash its key, once: to be called before anything is attached. */
  setHashKey(): void {
    const key = this.#bytes.subarray(node.offset.hashKey, node.offset.hashKey + KEY_BYTES);
    if (key.every((byte) => byte === 0)) key.set(randomBytes(KEY_BYTES));
  }

  /** The index that stands for an address from now on; undefined if there is none left. */
  indexOf(address: string): number | undefined {
    const known = this.#indexes.get(address);
    if (known !== undefined) return known;
    const taken = new Set(this.#indexes.values());
    for (let index = 1; index < limit.NODE_SOURCES; index++) {
      if (taken.has(index)) continue;
      this.#addressAt(index).set(addressBytes(address));
      this.#indexes.set(address, index);
      return index;
    }
    return undefined;
  }

  /** Takes back the indexes of addresses that nothing uses. */
  release(isUsed: (address: string, index: number) => boolean): void {
    for (const [address, index] of this.#indexes) {
      if (isUsed(address, index)) continue;
      this.#addressAt(index).fill(0);
      this.#indexes.delete(address);
    }
  }

  /** The addresses that have an index. */
  get addresses(): string[] {
    return [...this.#indexes.keys()];
  }

  /** The address of an index, undefined for none. */
  addressOf(index: number): string | undefined {
    for (const [address, each] of this.#indexes) if (each === index) return address;
    return undefined;
  }

  get nodePorts(): PortRange {
    const first = this.#view.getUint16(node.offset.nodePortFirst, true);
    return { first, last: this.#view.getUint16(node.offset.nodePortLast, true) };
  }

  /** The ports that rewritten sources may get. */
  get natPorts(): { first: number; count: number } {
    const first = this.#view.getUint16(node.offset.natFirst, true);
    return { first, count: this.#view.getUint16(node.offset.natCount, true) };
  }

  /** Has node ports lie in a range that this one is part of too. Never shrinks. */
  addNodePort(port: number): void {
    const { first, last } = this.nodePorts;
    if (first !== 0 && first <= port && port <= last) return;
    const grown = { first: first === 0 ? port : Math.min(first, port), last: Math.max(last, port) };
    this.#writeWord(node.offset.nodePortFirst, (word) => {
      word.setUint16(0, grown.first, true);
      word.setUint16(2, grown.last, true);
    });
  }

  /** Takes the ports that the host uses by itself, and chooses those for rewritten sources. */
  setHostPorts(host: PortRange): void {
    const { first, count } = natPorts(host, this.nodePorts);
    this.#writeWord(node.offset.natFirst, (word) => {
      word.setUint16(0, first, true);
      word.setUint16(2, count, true);
      word.setUint16(4, host.first, true);
      word.setUint16(6, host.last, true);
    });
  }

  /** Where pods are. While a range changes no pods are told from others. */
  setPods({ ranges, isByDevice }: PodDetection): void {
    const families = [4, 6].map((family) => ranges.find((range) => range.family === family));
    const places = families.map((range, index) => ({
      bytes: encodeRange(range),
      present: this.#podsAt(index),
    }));
    const isSame = places.every(({ bytes, present }) => Buffer.compare(bytes, present) === 0);
    if (!isSame) this.#setDetection([false, false, false]);
    for (const { bytes, present } of places) if (!isSame) present.set(bytes);
    const detects = families.map((range) => isByDevice || range !== undefined);
    this.#setDetection([...detects, isByDevice]);
  }

  /** Whether pods are told from others: of IPv4, of IPv6, and by devices. */
  #setDetection(values: readonly boolean[]): void {
    const { nodePortFirst, detectsIpv4 } = node.offset;
    this.#writeWord(nodePortFirst, (word) => {
      for (const [index, value] of values.entries())
        word.setUint8(detectsIpv4 - nodePortFirst + index, value ? 1 : 0);
    });
  }

  /** Has no connection begin until this moment of CLOCK_MONOTONIC, in ns; 0n ends that. */
  holdFlows(until: bigint): void {
    Atomics.store(this.#words, node.offset.heldUntil / 8, until);
  }

  /** Changes fields that share a word of 8 bytes as one, if they differ. */
  #writeWord(offset: number, change: (word: DataView) => void): void {
    const before = Atomics.load(this.#words, offset / 8);
    const word = new DataView(new ArrayBuffer(8));
    word.setBigUint64(0, before, true);
    change(word);
    const after = word.getBigUint64(0, true);
    if (after !== before) Atomics.store(this.#words, offset / 8, after);
  }

  #addressAt(index: number): Uint8Array {
    const at = node.offset.source + index * ADDRESS_BYTES;
    return this.#bytes.subarray(at, at + ADDRESS_BYTES);
  }

  /** struct service_range */
  #podsAt(index: number): Uint8Array {
    const at = node.offset.pods + index * serviceRange.bytes;
    return this.#bytes.subarray(at, at + serviceRange.bytes);
  }
}

/** struct service_range; zeros for no range. */
function encodeRange(range: AddressRange | undefined): Uint8Array {
  const bytes = new Uint8Array(serviceRange.bytes);
  if (range === undefined) return bytes;
  const { address, bits } = rangeBytes(formatRange(range));
  serviceRange.write(new DataView(bytes.buffer), 0, { address, mask: maskOf(bits) });
  return bytes;
}
