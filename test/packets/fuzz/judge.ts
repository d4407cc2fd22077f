// Judges what became of a packet, by first principles and the model's decisions: nothing leaves
// broken that came in whole; only what a frontend captures is translated, to an endpoint of its
// own; replies reach who asked, and nobody else; only what is ours is dropped or answered.

import { formatAddress } from "../../../control/model/address.ts";
import { type Decision, decide, type Serving } from "../../../control/model/decision.ts";
import type { Protocol } from "../../../control/model/rows.ts";
import type { Arrival, Run } from "../bed.ts";
import type { Known } from "./known.ts";
import { latin, SOURCES } from "./make.ts";
import {
  addBytes,
  FAULT,
  fold,
  ICMP,
  ICMPV6,
  isSumLeft,
  isTunnel,
  keyOf,
  type PacketRead,
  readFrame,
  SCTP,
  TCP,
  type Tuple,
  tupleOf,
  turn,
  UDP,
} from "./read.ts";
import { isTold, type Report, reportOf, whatIsWrong } from "./told.ts";

const PROTOCOL_NAMES: Readonly<Record<number, Protocol>> = {
  [TCP]: "TCP",
  [UDP]: "UDP",
  [SCTP]: "SCTP",
};

/** What a packet was found to have become. */
export type Fate =
  | "passed"
  | "dropped"
  | "answered"
  | "request"
  | "reply"
  | "error"
  | "fragment"
  | "tunnel"
  | "told";

export type Judgement = { fate: Fate } | { fault: string };

/** Decisions of the model, for packets that come from outside or from this node. */
export class Oracle {
  readonly #serving: Serving;
  readonly #decided = new Map<string, Decision>();

  constructor(serving: Serving) {
    this.#serving = serving;
  }

  decide(tuple: Tuple): Decision {
    // A decision depends on no source port.
    const { protocol, source, destination, destinationPort } = tuple;
    const key = `${protocol} ${destinationPort} ${source}${destination}`;
    const known = this.#decided.get(key);
    if (known) return known;
    const decision = this.#decide(tuple);
    if (this.#decided.size > 200_000) this.#decided.clear();
    this.#decided.set(key, decision);
    return decision;
  }

  #decide({ protocol, source, destination, destinationPort: port }: Tuple): Decision {
    const name = PROTOCOL_NAMES[protocol];
    if (!name) return { outcome: "untouched", reason: "noService" };
    const packet = {
      protocol: name,
      source: textOf(source),
      destination: textOf(destination),
      port,
    };
    return decide(packet, this.#serving);
  }

  /** Whether any port of an address is a Service's. */
  isServed(destination: string): boolean {
    const address = textOf(destination);
    const { addresses, rows } = this.#serving;
    return (
      addresses.some((row) => row.address === address && row.action !== "leave") ||
      rows.some(({ frontends }) => frontends.some((frontend) => frontend.address === address))
    );
  }
}

/** An address of a packet as text. */
export function textOf(address: string): string {
  const bytes = Buffer.from(address, "latin1");
  return formatAddress(bytes.length === 4 ? mapped(bytes) : bytes);
}

function mapped(bytes: Uint8Array): Uint8Array {
  return Uint8Array.from([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, ...bytes]);
}

export class Judge {
  readonly #oracle: Oracle;
  readonly #known: Known;
  /** This node's addresses, as packets have them. */
  readonly #own: ReadonlySet<string>;

  constructor(parts: { oracle: Oracle; known: Known; own: ReadonlySet<string> }) {
    this.#oracle = parts.oracle;
    this.#known = parts.known;
    this.#own = parts.own;
  }

  /** What became of an error about `packet`, which has just left in a tunnel, or about another. */
  judgeReport(frame: Uint8Array, run: Run, arrival: Arrival, packet: Tuple): Judgement {
    const judgement = this.judge(frame, run, arrival);
    if ("fault" in judgement || judgement.fate === "told") return judgement;
    const report = reportOf(readFrame(frame));
    if (!report?.packet || keyOf(report.packet) !== keyOf(packet)) return judgement;
    if (!this.#isOfTunnel(report) || isTold(frame, report) !== "must") return judgement;
    // To others than those no way need lead; none leads to a Service's own address.
    const { source, family } = report.packet;
    const isThere = SOURCES[family].some((bytes) => latin(bytes) === source);
    const isNobody = !isThere || this.#oracle.isServed(source);
    return isNobody ? judgement : { fault: `nobody was told: it was ${judgement.fate}` };
  }

  judge(frame: Uint8Array, { verdict, frame: out }: Run, arrival: Arrival): Judgement {
    const options = { isSegmented: arrival.gsoSize !== undefined };
    const before = readFrame(frame, options);
    const isError = before?.protocol === ICMP || before?.protocol === ICMPV6;
    const read = isError ? before : (before?.inner ?? before);
    if (read?.isFragment && !read.isLater && read.transport > 0) this.#known.note(read);
    if (verdict === "dropped") return this.#judgeDrop(before);
    const isSame = Buffer.compare(out.subarray(12), frame.subarray(12)) === 0;
    if (isSame && verdict === "next") return { fate: "passed" };
    if (!before) return { fault: "what is no IP packet was changed or sent" };
    const after = readFrame(out, options);
    if (!after) return { fault: "it became no IP packet" };
    const change = { frame, before, out, after, arrival };
    const report = reportOf(before);
    if (report) return this.#judgeTold(change, report);
    const isOpened = before.inner !== undefined && isTunnel(before) && !isTunnel(after);
    // An answer to a sum that seems left to a device is left to it as well.
    const left = isAnswer(change) && isSumLeft(frame, before) ? FAULT.transportSum : 0;
    const broken = after.faults & ~(isOpened ? before.inner!.faults : before.faults | left);
    if (broken) return { fault: `it left with ${faultNames(broken)}` };
    if (before.faults & UNSOUND && (isOpened || isRouted(frame, before, out, after)))
      return { fault: "what the stack would drop was routed" };
    return this.#judgeChange(change);
  }

  #judgeDrop(packet: PacketRead | undefined): Judgement {
    if (!packet) return { fault: "what is no IP packet was dropped" };
    this.#known.try(packet);
    const { inner } = packet;
    const report = reportOf(packet);
    if (report && this.#mayBeOfTunnel(report)) return { fate: "dropped" };
    const asked = packet.isLater ? [packet, ...this.#known.datagrams(packet)] : [packet];
    const isOurs =
      this.#oracle.isServed(packet.destination) ||
      asked.some((tuple) => this.#oracle.decide(tuple).outcome !== "untouched") ||
      asked.some((tuple) => this.#isTranslated(tuple)) ||
      (inner !== undefined &&
        (this.#isTranslated(turn(inner)) || this.#oracle.isServed(inner.destination)));
    return isOurs ? { fate: "dropped" } : { fault: "what is not ours was dropped" };
  }

  /** Whether an error is about what this node has put in a tunnel to where that one led. */
  #isOfTunnel({ outer, packet }: Report): boolean {
    if (!packet || !this.#own.has(outer.source)) return false;
    return this.#known.hasTunnel(packet, outer.destination);
  }

  /** The same, of a connection that may have begun with a packet that was dropped or answered. */
  #mayBeOfTunnel(report: Report): boolean {
    const { outer, packet } = report;
    if (this.#isOfTunnel(report)) return true;
    if (!packet || !this.#known.hasTried(packet)) return false;
    const decision = this.#oracle.decide(packet);
    if (decision.outcome !== "endpoints") return false;
    const to = textOf(outer.destination);
    return decision.endpoints.some(({ address }) => address === to);
  }

  #judgeTold({ frame, out, after, arrival }: Change, report: Report): Judgement {
    if (arrival.hook !== "ingress") return { fault: "an error about a tunnel was changed" };
    if (!this.#mayBeOfTunnel(report)) return { fault: "an error about others' tunnel was changed" };
    const fault = whatIsWrong({ frame, report }, { out, after });
    return fault ? { fault } : { fate: "told" };
  }

  #isTranslated(tuple: Tuple): boolean {
    return this.#known.translate(tuple) !== undefined;
  }

  #judgeChange(change: Change): Judgement {
    const { before, after } = change;
    if (before.inner && isTunnel(before) && !isTunnel(after)) return this.#judgeOpened(change);
    if (after.inner && isTunnel(after) && !isTunnel(before)) return this.#judgeClosed(change);
    const isBack = after.source === before.destination && after.destination === before.source;
    if (isBack && isAnswer(change)) return this.#judgeAnswer(change);
    if (before.inner && after.inner && before.protocol === after.protocol)
      return this.#judgeError(change);
    if (before.protocol !== after.protocol) return { fault: "its protocol has changed" };
    if (before.isLater) return this.#judgeFragment(change);
    return this.#judgeTranslated(change);
  }

  #judgeTranslated(change: Change): Judgement {
    const { before, after, arrival } = change;
    if (!isSummedAlike(change)) return { fault: "a fragment's part of the checksum has changed" };
    if (this.#isReply(before, after)) return { fate: "reply" };
    if (this.#isRequest(before, after)) return this.#requested(before, after);
    const { outcome } = this.#oracle.decide(before);
    if (outcome !== "endpoints") return { fault: `it was translated, to be is "${outcome}"` };
    if (!this.#isEndpoint(before, after))
      return { fault: "it was sent to what is no endpoint of its Service" };
    const isKept = after.source === before.source;
    if (!isKept && !this.#own.has(after.source)) return { fault: "its source is a stranger's" };
    if (arrival.hook === "xdp" && isKept) return { fault: "XDP has sent on a foreign source" };
    return this.#requested(before, after);
  }

  /** From now on replies are this connection's, even if those of an earlier one were alike. */
  #requested(before: PacketRead, after: PacketRead): Judgement {
    this.#known.add({ request: tupleOf(before), sent: tupleOf(after), family: before.family });
    return { fate: "request" };
  }

  #isRequest(before: Tuple, after: Tuple): boolean {
    const sent = this.#known.sent(before);
    return (sent && keyOf(sent) === keyOf(after)) || this.#mayHaveBegun(before, after);
  }

  #isReply(before: Tuple, after: Tuple): boolean {
    const reply = this.#known.replied(before);
    if (reply && keyOf(reply) === keyOf(after)) return true;
    return this.#mayHaveBegun(turn(after), turn(before));
  }

  /** A connection may have begun with a packet that was then dropped, or that shows no ports. */
  #mayHaveBegun(request: Tuple, sent: Tuple): boolean {
    if (!this.#known.hasTried(request)) return false;
    const isKept = sent.source === request.source || this.#own.has(sent.source);
    return isKept && this.#isEndpoint(request, sent);
  }

  #isEndpoint(request: Tuple, { destination, destinationPort }: Tuple): boolean {
    const decision = this.#oracle.decide(request);
    if (decision.outcome !== "endpoints") return false;
    const to = textOf(destination);
    return decision.endpoints.some(
      ({ address, port }) => address === to && port === destinationPort,
    );
  }

  /** A fragment without ports goes where a packet with those of its datagram's first one would. */
  #judgeFragment({ before, after }: Change): Judgement {
    const to = textOf(after.destination);
    const isKept = after.source === before.source || this.#own.has(after.source);
    this.#known.try(before);
    for (const tuple of this.#known.datagrams(before)) {
      const reply = this.#known.replied(tuple);
      if (reply?.source === after.source && reply.destination === after.destination)
        return { fate: "fragment" };
      for (const request of this.#known.triedBetween(turn(after)))
        if (this.#mayHaveBegun(request, turn(tuple))) return { fate: "fragment" };
      const decision = this.#oracle.decide(tuple);
      if (decision.outcome !== "endpoints" || !isKept) continue;
      if (decision.endpoints.some(({ address }) => address === to)) return { fate: "fragment" };
    }
    return { fault: "a fragment was sent where nothing of its datagram goes" };
  }

  /** An error is about a packet that somebody got; its receiver must know it as its own. */
  #judgeError({ before, after }: Change): Judgement {
    const got = turn(before.inner!);
    if (before.destination !== got.destination)
      return { fault: "an error was changed that is about another's packet" };
    const becomes = turn(after.inner!);
    if (!this.#isRequest(got, becomes) && !this.#isReply(got, becomes))
      return { fault: "an error is about a packet that its receiver has not sent" };
    if (after.destination !== becomes.destination) return { fault: "an error went to a stranger" };
    const isReporter = [before.source, becomes.source].includes(after.source);
    return isReporter ? { fate: "error" } : { fault: "an error comes from a stranger" };
  }

  #judgeAnswer({ before, after, frame, out }: Change): Judgement {
    const isOurs =
      this.#oracle.isServed(before.destination) ||
      this.#oracle.decide(before).outcome !== "untouched" ||
      this.#isTranslated(before);
    if (!isOurs) return { fault: "what is not ours was answered" };
    if (before.faults & UNSOUND) return { fault: "what the stack would drop was answered" };
    if (after.inner && keyOf(after.inner) !== keyOf(before))
      return { fault: "an answer quotes another packet" };
    this.#known.try(before);
    if (after.protocol === TCP && (out[after.transport + 13]! & 4) === 0)
      return { fault: "an answer that is no reset" };
    if (isReset(frame, before) && isRefusal(out, after)) return { fault: "a reset was answered" };
    return { fate: "answered" };
  }

  /** A packet out of a tunnel is for the endpoint that the tunnel was. */
  #judgeOpened({ before, after }: Change): Judgement {
    const { inner } = before;
    const decision = this.#oracle.decide(inner!);
    // The other node has chosen: this one may know of no endpoint, and asks for no source again.
    const isCaptured =
      decision.outcome === "endpoints" ||
      ["noEndpoints", "noLocalEndpoints", "sourceRange"].includes(decision.reason);
    if (!isCaptured) return { fault: "a tunnel held what is not ours" };
    const isFor = after.destination === before.destination && after.source === inner!.source;
    if (!isFor) return { fault: "a packet of a tunnel went elsewhere" };
    this.#known.add({ request: tupleOf(inner!), sent: tupleOf(after), family: before.family });
    return { fate: "tunnel" };
  }

  /**
   * A packet in a tunnel is as it came, and goes to an endpoint of its own, or of the reply that it
   * is an error about.
   */
  #judgeClosed({ before, after }: Change): Judgement {
    const { inner } = after;
    const asked = before.isLater
      ? [...this.#known.datagrams(before)]
      : [before.inner ? turn(before.inner) : before];
    const led = asked.map((tuple) => this.#oracle.decide(tuple));
    const endpoints = led.flatMap((each) => (each.outcome === "endpoints" ? each.endpoints : []));
    if (endpoints.length === 0) return { fault: "what is not ours was put in a tunnel" };
    const to = textOf(after.destination);
    if (!endpoints.some(({ address }) => address === to))
      return { fault: "a tunnel leads to what is no endpoint of its Service" };
    if (keyOf(inner!) !== keyOf(before)) return { fault: "a tunnel holds another packet" };
    if (!this.#own.has(after.source)) return { fault: "a tunnel from a stranger" };
    if (!before.isLater) this.#known.addTunnel(inner!, after.destination);
    return { fate: "tunnel" };
  }
}

/** What the stack drops without a word: a header that lies, or is not what was sent. */
const UNSOUND = FAULT.ipLength | FAULT.ipHeaderSum;

/** Whether one router more has been passed. */
function isRouted(
  frame: Uint8Array,
  before: PacketRead,
  out: Uint8Array,
  after: PacketRead,
): boolean {
  const at = before.family === 4 ? 8 : 7;
  return out[after.network + at]! === frame[before.network + at]! - 1;
}

interface Change {
  frame: Uint8Array;
  before: PacketRead;
  out: Uint8Array;
  after: PacketRead;
  arrival: Arrival;
}

/** A packet of our own: a reset, an error about what came, a reply to a ping. */
function isAnswer({ before, after, frame, out }: Change): boolean {
  if (after.protocol === TCP)
    return (
      before.protocol === TCP &&
      (out[after.transport + 13]! & 4) !== 0 &&
      after.sourcePort === before.destinationPort &&
      after.destinationPort === before.sourcePort
    );
  if (after.protocol !== (after.family === 4 ? ICMP : ICMPV6)) return false;
  return before.protocol !== after.protocol || frame[before.transport] !== out[after.transport];
}

/** Whether a packet has ended its connection: RST, ABORT, SHUTDOWN COMPLETE. */
function isReset(frame: Uint8Array, { protocol, transport }: PacketRead): boolean {
  if (protocol === TCP) return (frame[transport + 13]! & 4) !== 0;
  return protocol === SCTP && [6, 14].includes(frame[transport + 12]!);
}

/** Whether an answer says that nobody is there; others speak of the way. */
function isRefusal(out: Uint8Array, { family, protocol, transport }: PacketRead): boolean {
  if (protocol === TCP) return true;
  const [type, code] = family === 4 ? [3, 3] : [1, 4];
  return out[transport] === type && out[transport + 1] === code;
}

/** Of a first fragment, whose checksum cannot be told: that what it adds to the sum stays. */
function isSummedAlike({ frame, before, out, after }: Change): boolean {
  if (!before.isFragment || before.protocol === SCTP) return true;
  if (
    before.protocol === UDP &&
    frame[before.transport + 6] === 0 &&
    frame[before.transport + 7] === 0
  )
    return out[after.transport + 6] === 0 && out[after.transport + 7] === 0;
  const sum = (bytes: Uint8Array, { family, network, transport, end }: PacketRead) => {
    const [from, to] = family === 4 ? [network + 12, network + 20] : [network + 8, network + 40];
    return fold(
      addBytes(addBytes(0, bytes, from, to), bytes, transport, Math.min(end, bytes.length)),
    );
  };
  return sum(frame, before) % 0xffff === sum(out, after) % 0xffff;
}

export function faultNames(faults: number): string {
  return Object.entries(FAULT)
    .filter(([, bit]) => faults & bit)
    .map(([name]) => name)
    .join(", ");
}
