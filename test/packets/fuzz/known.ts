// The connections that programs have been seen to translate: what became of a request tells what
// must become of replies. Knows nothing of endpoints.
import { keyOf, type Tuple, turn } from "./read.ts";

export interface Connection {
  /** As the client sends it, and as it was sent on. */
  request: Tuple;
  sent: Tuple;
  family: 4 | 6;
}

/** So many of the latest connections are told to those who make replies. */
const RECENT = 512;

export class Known {
  readonly #byRequest = new Map<string, Connection>();
  /** By what their endpoints send: the latest of two is its owner. */
  readonly #byReply = new Map<string, Connection>();
  /** What later fragments, which have no ports, may become: pairs of addresses. */
  readonly #pairs = new Map<string, Set<string>>();
  readonly #recent: Connection[] = [];
  #next = 0;

  get size(): number {
    return this.#byRequest.size;
  }

  /** A request was seen to be sent on. */
  add(connection: Connection): void {
    const { request, sent } = connection;
    this.#byRequest.set(keyOf(request), connection);
    this.#byReply.set(keyOf(turn(sent)), connection);
    this.#pair(request, sent);
    this.#pair(turn(sent), turn(request));
    this.#recent[this.#next++ % RECENT] = connection;
  }

  /** One of the latest, by a number from 0 to below 1. Undefined if there is none. */
  recent(random: number): Connection | undefined {
    return this.#recent[Math.floor(random * this.#recent.length)];
  }

  /** What packets of this tuple become, undefined if they are of no known connection. */
  translate(tuple: Tuple): { kind: "request" | "reply"; becomes: Tuple } | undefined {
    const key = keyOf(tuple);
    const reply = this.#byReply.get(key);
    if (reply) return { kind: "reply", becomes: turn(reply.request) };
    const request = this.#byRequest.get(key);
    return request && { kind: "request", becomes: request.sent };
  }

  /** What requests of this tuple were sent on as. */
  sent(tuple: Tuple): Tuple | undefined {
    return this.#byRequest.get(keyOf(tuple))?.sent;
  }

  /** What replies of this tuple become. */
  replied(tuple: Tuple): Tuple | undefined {
    const connection = this.#byReply.get(keyOf(tuple));
    return connection && turn(connection.request);
  }

  /** Whether a packet without ports may become this. */
  mayBecome(from: Tuple, to: Tuple): boolean {
    const pairs = this.#pairs.get(from.source + from.destination);
    return pairs?.has(to.source + to.destination) ?? false;
  }

  #pair(from: Tuple, to: Tuple): void {
    const key = from.source + from.destination;
    const pairs = this.#pairs.get(key) ?? new Set();
    pairs.add(to.source + to.destination);
    this.#pairs.set(key, pairs);
  }
}
