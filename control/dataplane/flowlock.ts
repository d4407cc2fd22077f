// What the first word of a flow says (bpf/maps.h, enum limit): whose it is, how often its place was
// used, and how far its connection has come. Knows nothing else of flows.
import { flowKind, flowProtocol, flowState, limit } from "../../bindings/layout.ts";

/** The flow is being written. */
export const BUSY = 1;
const SEQUENCE_ONE = 1 << limit.FLOW_SEQUENCE_SHIFT;
/** How often a place was used. */
export const SEQUENCE_MASK = (1 << limit.FLOW_STATE_SHIFT) - SEQUENCE_ONE;
/** How far a connection has come. */
export const STATE_MASK = -1 << limit.FLOW_STATE_SHIFT;
const BOTH_CLOSED = flowState.FLOW_CLOSED | flowState.FLOW_PEER_CLOSED;

/** What a connection is, in a word: first what most is lost with. */
export const FLOW_STAGES = ["established", "unreplied", "closed"] as const;
export type FlowStage = (typeof FLOW_STAGES)[number];

export function kindOf(lock: number): number {
  return (lock >>> limit.FLOW_KIND_SHIFT) & 3;
}

export function protocolOf(lock: number): number {
  return (lock >>> limit.FLOW_PROTOCOL_SHIFT) & 3;
}

export function pathOf(lock: number): number {
  return (lock >>> limit.FLOW_PATH_SHIFT) & 3;
}

/** An index in svc_node; 0 for the client's own address. */
export function sourceOf(lock: number): number {
  return (lock >>> limit.FLOW_SOURCE_SHIFT) & (limit.NODE_SOURCES - 1);
}

/** Whether nobody has the place. */
export function isFree(lock: number): boolean {
  return kindOf(lock) === flowKind.FLOW_FREE && (lock & BUSY) === 0;
}

/** The lock of a place that is free again, or about to be used again. */
export function nextUse(lock: number): number {
  return (lock + SEQUENCE_ONE) & SEQUENCE_MASK;
}

export function stageOf(lock: number): FlowStage {
  const state = lock >>> limit.FLOW_STATE_SHIFT;
  if (state & flowState.FLOW_RESET || (state & BOTH_CLOSED) === BOTH_CLOSED) return "closed";
  return state & flowState.FLOW_REPLIED ? "established" : "unreplied";
}

/**
 * For how long a flow was without packets at `now`, both in units of the flows' clock; flow_idle()
 * in flow.h: packets go on coming while many flows are looked at by one `now`.
 */
export function idleTime(lastUsed: number, now: number): number {
  const idle = (now - lastUsed) & 0xffff;
  return idle > 0xffff - limit.FLOW_CLOCK_AHEAD ? 0 : idle;
}

/** How long a flow may be without packets, in units of its clock; flow_patience() in flow.h. */
export function patienceOf(lock: number): number {
  const stage = stageOf(lock);
  if (stage === "closed") return limit.FLOW_IDLE_CLOSED;
  if (stage === "unreplied") return limit.FLOW_IDLE_UNREPLIED;
  if ((lock >>> limit.FLOW_STATE_SHIFT) & BOTH_CLOSED) return limit.FLOW_IDLE_HALF_CLOSED;
  return protocolOf(lock) === flowProtocol.FLOW_UDP ? limit.FLOW_IDLE_UDP : limit.FLOW_IDLE_TCP;
}
