// Connections of a table of another size, put into this one while programs work with both: first
// all, then what has changed. Where a flow lies is flow.h's, once more. Knows not when that is.
import {
  flowKind,
  flow as flowLayout,
  flowPath,
  flowState,
  limit,
  node,
} from "../../bindings/layout.ts";
import {
  BUSY,
  FLOW_STAGES,
  idleTime,
  isFree,
  kindOf,
  nextUse,
  pathOf,
  patienceOf,
  protocolOf,
  SEQUENCE_MASK,
  STATE_MASK,
  sourceOf,
  stageOf,
} from "./flowlock.ts";

const { FLOW_FORWARD, FLOW_REVERSE } = flowKind;
const { FLOW_CLOSED, FLOW_PEER_CLOSED } = flowState;
const { FLOW_GROUP, FLOW_WAYS } = limit;
const WORDS = flowLayout.bytes / 4;
const ADDRESS_WORDS = 4;
/** Words of a flow. */
const AT = {
  /** When it was used, and in the upper half where packets go. */
  used: flowLayout.offset.lastUsed / 4,
  /** From here on all is the same in both halves of a connection. */
  content: flowLayout.offset.clientPort / 4,
  requestPorts: flowLayout.offset.clientPort / 4,
  replyPorts: flowLayout.offset.backendPort / 4,
  client: flowLayout.offset.client / 4,
  frontend: flowLayout.offset.frontend / 4,
  backend: flowLayout.offset.backend / 4,
};
/** Words of a tuple (bpf/packet.h): two addresses, ports, protocol. */
const TUPLE = { source: 0, destination: 4, ports: 8, protocol: 9, words: 10 } as const;
const GOLDEN = 0x9e3779b97f4a7c15n;
const U64 = 0xffff_ffff_ffff_ffffn;

/** flow_hash() of flow.h; of a tuple and a key of ten words each. */
export function flowHash(tuple: Uint32Array, key: Uint32Array): bigint {
  // Of each product, the halves of its first factor apart: numbers below 2^53.
  let [low, high] = [0, 0];
  const add = (left: number, right: number) => {
    low += (left & 0xffff) * right;
    high += (left >>> 16) * right;
  };
  for (let word = 0; word < ADDRESS_WORDS; word++)
    add(
      (tuple[TUPLE.source + word]! + key[2 * word]!) >>> 0,
      (tuple[TUPLE.destination + word]! + key[2 * word + 1]!) >>> 0,
    );
  add((tuple[TUPLE.ports]! + key[8]!) >>> 0, (tuple[TUPLE.protocol]! + key[9]!) >>> 0);
  let sum = ((BigInt(high) << 16n) + BigInt(low)) & U64;
  sum = ((sum ^ (sum >> 32n)) * GOLDEN) & U64;
  return sum ^ (sum >> 32n);
}

/** What is known of one half of a connection here. */
interface Found {
  /** Its place, as the first of its words. */
  at: number | undefined;
  /** Whether a flow of another connection meets its packets. */
  isAnother: boolean;
  /** The places that are free for it, and one of a closed connection's. */
  free: readonly number[];
  closed: number | undefined;
}

export class FlowMove {
  readonly #words: Uint32Array;
  readonly #sources: Uint32Array;
  readonly #key: Uint32Array;
  /** Each lock there, as it was when its flow was taken. */
  #taken: Uint32Array | undefined;
  /** By the numbers there. */
  readonly #lost = new Set<number>();

  /** Into svc_flows, with the svc_node that both tables go by. */
  constructor({ flows, node: bytes }: { flows: Uint8Array; node: Uint8Array }) {
    this.#words = wordsOf(flows);
    this.#sources = wordsOf(bytes, node.offset.source, limit.NODE_SOURCES * ADDRESS_WORDS);
    this.#key = wordsOf(bytes, node.offset.hashKey, TUPLE.words);
  }

  /** How many connections have found no place. */
  get lost(): number {
    return this.#lost.size;
  }

  /**
   * Takes the connections that are new in the other table since the last call, and how far they
   * have come: first those that most is lost with, and none that is over at `now`, in units of the
   * flows' clock. Of two connections that share packets the one that was in use last stays: a
   * client asks from the same port again.
   */
  take(other: Uint8Array, now: number): void {
    const words = wordsOf(other);
    this.#taken ??= new Uint32Array(words.length / WORDS);
    for (const number of this.#findNew(words, this.#taken)) {
      const at = number * WORDS;
      const lock = Atomics.load(words, at);
      const flow = words.slice(at, at + WORDS);
      // By a write, since arm64 may read what is before this later (flow_copy() in flow.h).
      const isWhole = isRequests(lock) && Atomics.or(words, at, 0) === lock;
      if (!isWhole) continue;
      this.#taken[number] = lock;
      if (idleTime(usedAt(flow), now) > patienceOf(lock)) continue;
      if (this.#put(flow, lock)) this.#lost.delete(number);
      else this.#lost.add(number);
    }
  }

  /** A connection is told by the half that requests meet; its other half has the same content. */
  #findNew(words: Uint32Array, taken: Uint32Array): number[] {
    const found = FLOW_STAGES.map((): number[] => []);
    for (let number = 0; number < taken.length; number++) {
      const lock = Atomics.load(words, number * WORDS);
      if (lock !== taken[number] && isRequests(lock))
        found[FLOW_STAGES.indexOf(stageOf(lock))]!.push(number);
    }
    return found.flat();
  }

  /** Has both halves of a connection here, or neither, the one that replies meet first. */
  #put(flow: Uint32Array, lock: number): boolean {
    const isTunnel = pathOf(lock) === flowPath.FLOW_TUNNEL;
    const kinds = isTunnel ? [FLOW_FORWARD] : [FLOW_REVERSE, FLOW_FORWARD];
    let found = kinds.map((kind) => this.#find(flow, lock, kind));
    const rivals = found.flatMap(({ at, isAnother }) => (isAnother ? at! : []));
    if (rivals.some((at) => !this.#isNewer(flow, at))) return true;
    for (const at of rivals) this.#remove(at);
    if (rivals.length > 0) found = kinds.map((kind) => this.#find(flow, lock, kind));
    const isPlaced = kinds.every((kind, index) =>
      kind === FLOW_FORWARD
        ? this.#putHalf(found[index]!, flow, lock)
        : this.#putHalf(found[index]!, turned(flow), turnedLock(lock)),
    );
    if (isPlaced || isTunnel) return isPlaced;
    const { at } = this.#find(flow, lock, FLOW_REVERSE);
    if (at !== undefined) this.#free(at);
    return false;
  }

  /** False if there is no place. */
  #putHalf({ at, free, closed }: Found, flow: Uint32Array, lock: number): boolean {
    if (at === undefined) {
      if (this.#place(free, flow, lock)) return true;
      if (closed === undefined || stageOf(lock) === "closed") return false;
      this.#remove(closed);
      return this.#place([closed], flow, lock);
    }
    const there = Atomics.load(this.#words, at);
    if (this.#isNewer(flow, at)) {
      const state = (there & ~STATE_MASK) | (lock & STATE_MASK);
      Atomics.compareExchange(this.#words, at, there, state);
      const used = this.#words[at + AT.used]!;
      this.#words[at + AT.used] = (used & ~0xffff) | usedAt(flow);
    } else Atomics.or(this.#words, at, lock & STATE_MASK);
    return true;
  }

  /** Whether a flow was in use after the one here, or this is closed and was not later. */
  #isNewer(flow: Uint32Array, at: number): boolean {
    const later = (usedAt(flow) - usedAt(this.#words.subarray(at, at + WORDS))) & 0xffff;
    if (later === 0) return stageOf(Atomics.load(this.#words, at)) === "closed";
    return later < 0x8000;
  }

  /** Takes out both halves of the connection here. */
  #remove(at: number): void {
    const flow = this.#words.slice(at, at + WORDS);
    const lock = Atomics.load(this.#words, at);
    for (const kind of [FLOW_FORWARD, FLOW_REVERSE]) {
      const half = this.#find(flow, lock, kind);
      if (half.at !== undefined && !half.isAnother) this.#free(half.at);
    }
  }

  /** The place of one half of a flow's connection, whether another one has its tuple, or places. */
  #find(flow: Uint32Array, lock: number, kind: number): Found {
    const tuple = this.#tuple(flow, lock, kind);
    const hash = flowHash(tuple, this.#key);
    const sets = this.#words.length / WORDS / FLOW_WAYS;
    const first = Number(hash & BigInt(sets - 1));
    const step = 1 + (Number(hash >> 40n) % (FLOW_GROUP - 1));
    const second = (first & ~(FLOW_GROUP - 1)) | ((first + step) & (FLOW_GROUP - 1));
    const free: number[] = [];
    let closed: number | undefined;
    // Sets fill up from the first place on: the next is taken in the emptier one.
    for (let way = 0; way < FLOW_WAYS; way++)
      for (const set of [first, second]) {
        const at = (set * FLOW_WAYS + way) * WORDS;
        const there = Atomics.load(this.#words, at);
        if (isFree(there)) free.push(at);
        else if (!(there & BUSY) && stageOf(there) === "closed") closed = at;
        if (kindOf(there) !== kind || protocolOf(there) !== protocolOf(lock)) continue;
        const present = this.#words.subarray(at, at + WORDS);
        if (!isEqual(this.#tuple(present, there, kind), tuple)) continue;
        const isAnother =
          sourceOf(there) !== sourceOf(lock) ||
          !isEqual(present.subarray(AT.content), flow.subarray(AT.content));
        return { at, isAnother, free, closed };
      }
    return { at: undefined, isAnother: false, free, closed };
  }

  /** flow_tuple() of flow.h */
  #tuple(flow: Uint32Array, lock: number, kind: number): Uint32Array {
    const tuple = new Uint32Array(TUPLE.words);
    const put = (words: Uint32Array, from: number, at: number) =>
      tuple.set(words.subarray(from, from + ADDRESS_WORDS), at);
    tuple[TUPLE.protocol] = protocolOf(lock);
    const source = sourceOf(lock);
    if (kind === FLOW_FORWARD) {
      put(flow, AT.client, TUPLE.source);
      put(flow, AT.frontend, TUPLE.destination);
      tuple[TUPLE.ports] = flow[AT.requestPorts]!;
    } else {
      put(flow, AT.backend, TUPLE.source);
      if (source === 0) put(flow, AT.client, TUPLE.destination);
      else put(this.#sources, source * ADDRESS_WORDS, TUPLE.destination);
      tuple[TUPLE.ports] = flow[AT.replyPorts]!;
    }
    return tuple;
  }

  /** Puts a flow in the first place that is still free; false if none is. */
  #place(free: readonly number[], flow: Uint32Array, lock: number): boolean {
    for (const at of free) {
      const before = Atomics.load(this.#words, at);
      if (!isFree(before)) continue;
      const next = nextUse(before);
      if (Atomics.compareExchange(this.#words, at, before, next | BUSY) !== before) continue;
      this.#words.set(flow.subarray(1), at + 1);
      Atomics.store(this.#words, at, next | (lock & ~SEQUENCE_MASK));
      return true;
    }
    return false;
  }

  #free(at: number): void {
    const lock = Atomics.load(this.#words, at);
    Atomics.compareExchange(this.#words, at, lock, nextUse(lock));
  }
}

/** Whether a flow is whole, and met by what clients send. */
function isRequests(lock: number): boolean {
  return kindOf(lock) === FLOW_FORWARD && !(lock & BUSY);
}

function usedAt(flow: Uint32Array): number {
  return flow[AT.used]! & 0xffff;
}

/** The other half of a flow: where it leads is found by the first reply. */
function turned(flow: Uint32Array): Uint32Array {
  const half = flow.slice();
  half[AT.used]! &= 0xffff;
  return half;
}

function turnedLock(lock: number): number {
  const state = lock >>> limit.FLOW_STATE_SHIFT;
  const closed =
    (state & FLOW_CLOSED ? FLOW_PEER_CLOSED : 0) | (state & FLOW_PEER_CLOSED ? FLOW_CLOSED : 0);
  const other = (state & ~(FLOW_CLOSED | FLOW_PEER_CLOSED)) | closed;
  const kind = (FLOW_FORWARD ^ FLOW_REVERSE) << limit.FLOW_KIND_SHIFT;
  return ((lock ^ kind) & ~STATE_MASK) | (other << limit.FLOW_STATE_SHIFT);
}

function isEqual(left: Uint32Array, right: Uint32Array): boolean {
  return left.every((word, index) => word === right[index]);
}

/** The words from a byte on, so many or all. */
function wordsOf(bytes: Uint8Array, from = 0, count = (bytes.length - from) / 4): Uint32Array {
  return new Uint32Array(bytes.buffer, bytes.byteOffset + from, count);
}
