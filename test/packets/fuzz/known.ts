// The connections that programs have been seen to translate: what became of a request tells what
// must become of replies. Knows nothing of endpoints.
import { keyOf, type PacketRead, type Tuple, tupleOf, turn } from "./read.ts";

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
  /** What first fragments have said of their datagrams' ports. */
  readonly #datagrams = new Map<string, Map<string, Tuple>>();
  /** Where packets went in tunnels: the endpoints, by what was in them. */
  readonly #tunnels = new Map<string, Set<string>>();
  /** What was asked and came to nothing that is seen, by addresses: a connection may have begun. */
  readonly #tried = new Map<string, Map<string, Tuple>>();
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
    this.#recent[this.#next++ % RECENT] = connection;
  }

  /** A packet was seen to be put in a tunnel to an endpoint. */
  addTunnel(packet: Tuple, endpoint: string): void {
    const key = keyOf(packet);
    const endpoints = this.#tunnels.get(key);
    if (endpoints) endpoints.add(endpoint);
    else this.#tunnels.set(key, new Set([endpoint]));
  }

  /** Whether packets of this tuple were put in tunnels to an endpoint. */
  hasTunnel(packet: Tuple, endpoint: string): boolean {
    return this.#tunnels.get(keyOf(packet))?.has(endpoint) ?? false;
  }

  /** A packet was dropped or answered, or has no ports: what it asked may have begun. */
  try(packet: PacketRead): void {
    const asked = packet.isLater ? this.datagrams(packet) : [packet.inner ?? packet];
    for (const tuple of asked) {
      const between = addressesKey(tuple);
      const tuples = this.#tried.get(between) ?? new Map<string, Tuple>();
      tuples.set(keyOf(tuple), tupleOf(tuple));
      this.#tried.set(between, tuples);
    }
  }

  hasTried(tuple: Tuple): boolean {
    return this.#tried.get(addressesKey(tuple))?.has(keyOf(tuple)) ?? false;
  }

  /** What was tried so between two addresses, from any port to any. */
  triedBetween(addresses: Addresses): Iterable<Tuple> {
    return this.#tried.get(addressesKey(addresses))?.values() ?? [];
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

  /** A datagram's first fragment was seen. */
  note(first: PacketRead): void {
    const key = datagramKey(first);
    const tuples = this.#datagrams.get(key) ?? new Map<string, Tuple>();
    tuples.set(`${first.sourcePort} ${first.destinationPort}`, tupleOf(first));
    this.#datagrams.set(key, tuples);
  }

  /** With the ports that it may have: what a fragment without ports is a part of. */
  datagrams(later: PacketRead): Iterable<Tuple> {
    return this.#datagrams.get(datagramKey(later))?.values() ?? [];
  }
}

type Addresses = Pick<Tuple, "protocol" | "source" | "destination">;

function addressesKey({ protocol, source, destination }: Addresses): string {
  return `${protocol} ${source}${destination}`;
}

function datagramKey({ protocol, id, source, destination }: PacketRead): string {
  return `${protocol} ${id} ${source}${destination}`;
}
