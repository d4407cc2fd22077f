// What the sender of a packet that went in a tunnel of this node is to be told of an ICMP error
// about that tunnel, by RFC 2003 §4 and RFC 2473 §8 alone, and whether what came out says so.
import { FAULT, HEADER_BYTES, isError, isTunnel, type PacketRead, SCTP, TCP, UDP } from "./read.ts";

/** Of a transport header, the ports and as much again: what every error quotes (RFC 792). */
const LEAST_QUOTED = 8;
/** Headers of more bytes are not quoted by this node, and nothing is told of their packets. */
const MOST_HEADERS = 60;
/** No way over IPv6 takes less (RFC 8200 §5), and no message that says so counts (RFC 8201 §4). */
const LEAST_MTU_IPV6 = 1280;
/** The smallest number that a host heeds (RFC 1191 §3). */
const LEAST_MTU_IPV4 = 68;

/** An error about a tunnel: the tunnel's packet and the one in it, as far as they are quoted. */
export interface Report {
  error: PacketRead;
  outer: PacketRead;
  packet: PacketRead | undefined;
}

/** Type, code and MTU; the code may be one of several. */
interface Message {
  type: number;
  codes: readonly number[];
  mtu: number;
}

/** Undefined for what is no error about a tunnel. */
export function reportOf(error: PacketRead | undefined): Report | undefined {
  const outer = error && isError(error) ? error.inner : undefined;
  return error && outer && isTunnel(outer) ? { error, outer, packet: outer.inner } : undefined;
}

/** What an error says to whoever sent what was in the tunnel; undefined: nothing. */
function messageOf(frame: Uint8Array, { family, type, transport }: PacketRead) {
  const view = new DataView(frame.buffer, frame.byteOffset);
  const code = frame[transport + 1]!;
  const header = HEADER_BYTES[family];
  const unreachable: Message =
    family === 4 ? { type: 3, codes: [0, 1], mtu: 0 } : { type: 1, codes: [3], mtu: 0 };
  if (family === 6) {
    if (type !== 2) return unreachable;
    const mtu = view.getUint32(transport + 4);
    if (mtu < LEAST_MTU_IPV6) return undefined;
    return { type: 2, codes: [0], mtu: Math.max(mtu - header, LEAST_MTU_IPV6) };
  }
  if (type === 11) return { ...unreachable, codes: [1] };
  if (type !== 3 || code !== 4) return unreachable;
  const mtu = view.getUint16(transport + 6);
  return { type: 3, codes: [4], mtu: Math.max(mtu - header, 0) };
}

/** Whether an error is so rare, or so little worth, that nobody need be told. */
function isIdle(frame: Uint8Array, { family, type, transport }: PacketRead): boolean {
  if (family === 6) return false;
  const code = frame[transport + 1]!;
  if (type === 12 || code === 3 || code === 5) return true;
  const mtu = (frame[transport + 6]! << 8) | frame[transport + 7]!;
  return type === 3 && code === 4 && mtu > 0 && mtu < LEAST_MTU_IPV4 + HEADER_BYTES[4];
}

/** Whether an error is one that the tunnel's packet, as this node sends such, can have met with. */
function isPossible({ error, outer, packet }: Report): boolean {
  if (!packet || packet.transport === 0 || packet.isLater) return false;
  if (![TCP, UDP, SCTP].includes(packet.protocol)) return false;
  const isPlain = outer.transport - outer.network === HEADER_BYTES[outer.family];
  const isThere = packet.transport + LEAST_QUOTED <= error.end;
  return isPlain && !outer.isFragment && outer.source === error.destination && isThere;
}

/** Whether the stack would take an error for one. */
function isSound({ error }: Report): boolean {
  const { ipLength, ipHeaderSum, transportLength, transportSum } = FAULT;
  return (
    !error.isFragment && !(error.faults & (ipLength | ipHeaderSum | transportLength | transportSum))
  );
}

/** Whether somebody may be told of an error about a tunnel, or must be. */
export function isTold(frame: Uint8Array, report: Report): "must" | "may" | "no" {
  const { error, packet } = report;
  if (!isPossible(report) || !isSound(report) || !messageOf(frame, error)) return "no";
  const isCut = packet!.end < packet!.transport + (packet!.protocol === TCP ? 20 : 13);
  const isLong = packet!.transport - packet!.network > MOST_HEADERS;
  return isCut || isLong || isIdle(frame, error) ? "may" : "must";
}

/** What is wrong with what came of an error about a tunnel, undefined if nothing. */
export function whatIsWrong(
  { frame, report }: { frame: Uint8Array; report: Report },
  { out, after }: { out: Uint8Array; after: PacketRead },
): string | undefined {
  const { error, packet } = report;
  if (isTold(frame, report) === "no") return "somebody was told of an error that is none";
  const wanted = messageOf(frame, error)!;
  const quotedSum = packet!.faults & FAULT.ipHeaderSum ? FAULT.quotedHeaderSum : 0;
  if (after.faults & ~quotedSum) return "what is told is broken";
  if (after.destination !== packet!.source) return "a stranger was told";
  if (after.source !== packet!.destination) return "a stranger tells";
  const { transport, protocol, inner } = after;
  const view = new DataView(out.buffer, out.byteOffset);
  const isSaid =
    protocol === error.protocol &&
    out[transport] === wanted.type &&
    wanted.codes.includes(out[transport + 1]!) &&
    view.getUint32(transport + 4) === wanted.mtu;
  if (!isSaid || !inner) return "something else was told";
  return whatQuoteIsWrong({ frame, report }, out.subarray(inner.network));
}

/** It quotes the packet in the tunnel, and nothing that was not quoted of that. */
function whatQuoteIsWrong(
  { frame, report }: { frame: Uint8Array; report: Report },
  quote: Uint8Array,
): string | undefined {
  const { error, packet } = report;
  const quoted = frame.subarray(packet!.network, error.end);
  if (quote.length > quoted.length) return "more is quoted than there was";
  if (quote.length < packet!.transport - packet!.network + LEAST_QUOTED) return "less is quoted";
  const isSame = Buffer.compare(quote, quoted.subarray(0, quote.length)) === 0;
  return isSame ? undefined : "another packet is quoted";
}
