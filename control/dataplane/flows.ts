// Connections that pass through the node, as svc_flows has them: read for people, and taken out
// when they are over, or UDP cannot go on as it does (§14). Programs write the table at the same
// time: a flow is taken out only if its lock is still as it was read (bpf/flow.h).
import { setImmediate as nextTurn } from "node:timers/promises";
import {
  flowKind,
  flow as flowLayout,
  flowPath,
  flowProtocol,
  limit,
  node as nodeLayout,
} from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import type { Family, Protocol } from "../model/rows.ts";
import { type FlowFilter, matchesFlow } from "./flowfilter.ts";
import {
  BUSY,
  FLOW_STAGES,
  type FlowStage,
  idleTime,
  kindOf,
  nextUse,
  pathOf,
  patienceOf,
  protocolOf,
  sourceOf,
  stageOf,
} from "./flowlock.ts";
import { FlowMove } from "./flowmove.ts";

/** Flows looked at in one go: about half a millisecond. */
const CHUNK = 65_536;
const WORDS = flowLayout.bytes / 4;

const PROTOCOLS: ReadonlyMap<number, Protocol> = new Map([
  [flowProtocol.FLOW_TCP, "TCP"],
  [flowProtocol.FLOW_UDP, "UDP"],
  [flowProtocol.FLOW_SCTP, "SCTP"],
]);
const PATHS = new Map([
  [flowPath.FLOW_STACK, "stack"],
  [flowPath.FLOW_REDIRECT, "redirect"],
  [flowPath.FLOW_NODE, "node"],
  [flowPath.FLOW_TUNNEL, "tunnel"],
] as const);
export type FlowPath = typeof PATHS extends Map<number, infer Word> ? Word : never;

/**
 * How many elements svc_flows needs for so many connections, with two flows each. The programs take
 * a power of two.
 */
export function flowSets(connections: number): number {
  const sets = Math.ceil((2 * connections) / limit.FLOW_WAYS);
  return Math.max(limit.FLOW_GROUP, 2 ** Math.ceil(Math.log2(sets)));
}

/** An address and port. */
export interface Place {
  address: string;
  port: number;
}

/** One connection. `source` is what the endpoint sees as its client. */
export interface Flow {
  protocol: Protocol;
  client: Place;
  frontend: Place;
  backend: Place;
  source: Place;
  path: FlowPath;
  state: FlowStage;
  idleSeconds: number;
}

/** How many connections of a kind there are. */
export interface FlowCount {
  family: Family;
  protocol: Protocol;
  state: FlowStage;
  connections: number;
}

const FAMILIES = [4, 6] as const;
/** The third word of an IPv4 address, after two of zeros. */
const MAPPED = 0xffff;

/** Whether an endpoint still serves those who asked a frontend, be it for them alone. */
export type Serves = (asked: Pick<Flow, "protocol" | "frontend" | "backend">) => boolean;
/** Whether a connection can go on as it is. */
export type Works = (flow: Flow) => boolean;

export class Flows {
  readonly #view: DataView;
  /** The same memory, for what programs write at the same time. */
  readonly #words: Int32Array;
  readonly #node: Uint8Array;
  readonly #now: () => bigint;
  #counted: { flows: number; connections: readonly FlowCount[] } | undefined;

  /** On svc_flows and svc_node; `now` is CLOCK_MONOTONIC in nanoseconds. */
  constructor({ flows, node }: { flows: Uint8Array; node: Uint8Array }, now = machineNow) {
    this.#view = new DataView(flows.buffer, flows.byteOffset, flows.byteLength);
    this.#words = new Int32Array(flows.buffer, flows.byteOffset, flows.byteLength / 4);
    this.#node = node;
    this.#now = now;
  }

  /** How many flows there is room for: two for each connection. */
  get capacity(): number {
    return this.#words.length / WORDS;
  }

  /** What takes over from a table of another size that goes by the same svc_node. */
  newMove(): FlowMove {
    const { buffer, byteOffset, byteLength } = this.#words;
    const flows = new Uint8Array(buffer, byteOffset, byteLength);
    return new FlowMove({ flows, node: this.#node });
  }

  /** The time by the flows' clock, in its units. */
  get time(): number {
    return Number((this.#now() >> BigInt(limit.FLOW_CLOCK_SHIFT)) & 0xffffn);
  }

  /** How many flows are in use, as the last sweep found; undefined before the first. */
  get used(): number | undefined {
    return this.#counted?.flows;
  }

  /** The connections that the last sweep left, by what they are; none before the first. */
  get counts(): readonly FlowCount[] {
    return this.#counted?.connections ?? [];
  }

  /** Every connection that a filter lets through, by the flow that its client's packets meet. */
  *list(filter: FlowFilter = {}): Generator<Flow> {
    for (let number = 0; number < this.capacity; number++) {
      const lock = this.#lock(number);
      if (kindOf(lock) !== flowKind.FLOW_FORWARD || lock & BUSY) continue;
      if (filter.protocol !== undefined && PROTOCOLS.get(protocolOf(lock)) !== filter.protocol)
        continue;
      if (matchesFlow(this.#view, number * flowLayout.bytes, filter))
        yield this.#read(number, lock);
    }
  }

  /** The indexes of this node's addresses in svc_node that connections are sent on from. */
  sourcesInUse(): Set<number> {
    const used = new Set<number>();
    for (let number = 0; number < this.capacity; number++) {
      const lock = this.#lock(number);
      if (kindOf(lock) !== flowKind.FLOW_FREE) used.add(sourceOf(lock));
    }
    return used;
  }

  /**
   * Takes out what is over and, given `works`, UDP that does not: its next packet begins it anew.
   * Returns how many flows of each were taken out. Other work goes on in between, and so do
   * packets: no request may be translated whose reply would not be, so that all halves that
   * requests meet go first.
   */
  async sweep(works?: Works): Promise<{ over: number; stale: number }> {
    const taken = { over: 0, stale: 0 };
    const tally = new Tally();
    for (const kind of [flowKind.FLOW_FORWARD, flowKind.FLOW_REVERSE])
      for (let from = 0; from < this.capacity; from += CHUNK) {
        await nextTurn();
        const now = this.time;
        for (let number = from; number < Math.min(from + CHUNK, this.capacity); number++) {
          const lock = this.#lock(number);
          if (kindOf(lock) !== kind || lock & BUSY) continue;
          const why = this.#whyOut(number, { lock, now, works });
          if (why !== undefined) taken[why] += this.#free(number, lock);
          else tally.add(lock, this.#isIpv4(number));
        }
      }
    this.#counted = { flows: tally.flows, connections: tally.connections() };
    return taken;
  }

  #whyOut(
    number: number,
    { lock, now, works }: { lock: number; now: number; works: Works | undefined },
  ): "over" | "stale" | undefined {
    if (this.#idle(number, now) > patienceOf(lock)) return "over";
    if (works === undefined || protocolOf(lock) !== flowProtocol.FLOW_UDP) return undefined;
    return works(this.#read(number, lock)) ? undefined : "stale";
  }

  #isIpv4(number: number): boolean {
    const client = number * flowLayout.bytes + flowLayout.offset.client;
    const view = this.#view;
    return (
      view.getUint32(client + 8) === MAPPED &&
      view.getUint32(client) === 0 &&
      view.getUint32(client + 4) === 0
    );
  }

  #lock(number: number): number {
    return Atomics.load(this.#words, number * WORDS);
  }

  /** 1, or 0 if it is another flow's place by now. */
  #free(number: number, lock: number): number {
    const at = number * WORDS;
    return Atomics.compareExchange(this.#words, at, lock, nextUse(lock)) === lock ? 1 : 0;
  }

  #idle(number: number, now: number): number {
    const at = number * flowLayout.bytes + flowLayout.offset.lastUsed;
    return idleTime(this.#view.getUint16(at, true), now);
  }

  #read(number: number, lock: number): Flow {
    const row = flowLayout.read(this.#view, number * flowLayout.bytes);
    const source = sourceOf(lock);
    const client = formatAddress(row.client);
    return {
      protocol: PROTOCOLS.get(protocolOf(lock)) ?? "TCP",
      client: { address: client, port: row.clientPort },
      frontend: { address: formatAddress(row.frontend), port: row.frontendPort },
      backend: { address: formatAddress(row.backend), port: row.backendPort },
      source: { address: source ? this.#source(source) : client, port: row.sourcePort },
      path: PATHS.get(pathOf(lock) as 0)!,
      state: stageOf(lock),
      idleSeconds: Math.round((this.#idle(number, this.time) * 2 ** limit.FLOW_CLOCK_SHIFT) / 1e9),
    };
  }

  #source(index: number): string {
    const { offset, stride } = nodeLayout;
    const at = offset.source + index * stride.source;
    return formatAddress(this.#node.subarray(at, at + stride.source));
  }
}

/** Counts flows by what their locks say. */
class Tally {
  flows = 0;
  readonly #counts = new Uint32Array(FAMILIES.length * PROTOCOLS.size * FLOW_STAGES.length);

  add(lock: number, isIpv4: boolean): void {
    this.flows += 1;
    if (kindOf(lock) !== flowKind.FLOW_FORWARD) return;
    const row = (isIpv4 ? 0 : 1) * PROTOCOLS.size + protocolOf(lock);
    this.#counts[row * FLOW_STAGES.length + FLOW_STAGES.indexOf(stageOf(lock))]! += 1;
  }

  connections(): FlowCount[] {
    let at = 0;
    return FAMILIES.flatMap((family) =>
      [...PROTOCOLS.values()].flatMap((protocol) =>
        FLOW_STAGES.map((state) => ({ family, protocol, state, connections: this.#counts[at++]! })),
      ),
    );
  }
}

function machineNow(): bigint {
  return process.hrtime.bigint();
}
