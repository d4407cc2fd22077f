// svc_reasons: how often programs did something else than translate. Knows the counters, not what
// they mean to anybody.
import { reason } from "../../bindings/layout.ts";
import type { BpfMap } from "../../bindings/map.ts";
import { REASON_WORDS } from "./words.ts";

/** A counter, summed over all CPUs. `index` is an enum reason. */
function readReason(reasons: BpfMap, index: number): bigint {
  const value = reasons.get(new Uint8Array(Uint32Array.of(index).buffer))!;
  const perCpu = new BigUint64Array(value.buffer, value.byteOffset, value.length / 8);
  return perCpu.reduce((sum, count) => sum + count, 0n);
}

/** Every counter, by the word for its reason. */
export function readReasons(reasons: BpfMap): [word: string, count: number][] {
  return Array.from(REASON_WORDS, ([word, index]) => [word, Number(readReason(reasons, index))]);
}

/** How often programs had to know a client (svc_clients) and did not. */
export function countUnknownClients(reasons: BpfMap): bigint {
  return readReason(reasons, reason.REASON_SOURCE_UNKNOWN);
}
