// Packets at random, from seeds that take every way: other clients, ports, flags; replies and ICMP
// errors of connections that there are; bytes that are wrong, lengths that are. Knows what programs
// read, not what they should make of it.
import { addressBytes } from "../../../control/dataplane/maps.ts";
import type { Arrival, HookName } from "../bed.ts";
import { FAMILIES, type Family, PLACES } from "../places.ts";
import * as services from "../services.ts";
import {
  everyTransport,
  KEPT,
  LONG_PAYLOAD,
  PAYLOAD,
  TAKEN,
  TRANSPORTS,
  type Transport,
  tcp,
  type Words,
  wordsOf,
} from "../words.ts";
import type { Connection, Known } from "./known.ts";
import { readFrame, repair, repairNetwork, SCTP, TCP, type Tuple, turn, UDP } from "./read.ts";

const PROTOCOLS: Readonly<Record<Transport, number>> = { TCP, UDP, SCTP };
const FRONTEND_PORTS = [
  services.PORT,
  services.LOCAL_PORT,
  services.EMPTY_PORT,
  services.DROP_PORT,
  services.GUARDED_PORT,
  services.AGAIN_PORT,
  services.STICKY_PORT,
  services.OWN_PORT,
  services.KEEPING_PORT,
  services.LOCAL_AGAIN_PORT,
  services.LOOPBACK_PORT,
  services.MULTICAST_PORT,
  999,
];
const NODE_PORTS = [
  services.NODE_PORT,
  services.STICKY_NODE_PORT,
  services.LOWEST_NODE_PORT,
  31999,
];

/** Numbers at random, the same for the same seed (Doty-Humphrey's sfc32). */
export class Random {
  readonly #state: Uint32Array;

  constructor(seed: number) {
    this.#state = Uint32Array.of(seed, 0x9e3779b9, 0x243f6a88, 1);
    for (let turns = 0; turns < 12; turns++) this.next();
  }

  /** A whole number of 32 bits. */
  next(): number {
    const state = this.#state;
    const [a, b, c, counter] = [state[0]!, state[1]!, state[2]!, state[3]!];
    const sum = (a + b + counter) >>> 0;
    state[0] = b ^ (b >>> 9);
    state[1] = c + (c << 3);
    state[2] = ((c << 21) | (c >>> 11)) + sum;
    state[3] = counter + 1;
    return sum;
  }

  /** From 0 to below the limit. */
  below(limit: number): number {
    return Math.floor((this.next() / 2 ** 32) * limit);
  }

  chance(share: number): boolean {
    return this.next() < share * 2 ** 32;
  }

  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)]!;
  }
}

/** A seed, and what varies in it. */
interface Seed {
  frame: Uint8Array;
  family: Family | undefined;
  /** Offsets of source and destination addresses, of ports, TCP flags and TTL; 0: none. */
  addresses: number;
  ports: number;
  flags: number;
  ttl: number;
}

/** In scapy's notation, without the frame around it. */
function expressions(words: Words): string[] {
  const { at, ip, optional, fragment, icmp } = words;
  const all: string[] = [];
  for (const transport of everyTransport) {
    const write = TRANSPORTS[transport];
    for (const port of FRONTEND_PORTS)
      for (const to of [at.vip, at.clusterIP])
        all.push(`${ip(at.client, to)}/${write(KEPT, port)}`);
    for (const port of NODE_PORTS) all.push(`${ip(at.client, at.node)}/${write(KEPT, port)}`);
    for (const to of [at.unowned, at.stranger, at.local])
      all.push(`${ip(at.client, to)}/${write(KEPT, services.PORT)}`);
    for (const port of [services.PORT, services.LOCAL_PORT]) {
      all.push(`${optional(at.client, at.vip)}/${write(KEPT, port)}`);
      const datagram = { id: 77, head: ip(at.client, at.vip) };
      for (const index of [0, 1])
        all.push(fragment(index, { ...datagram, transport: write(KEPT, port, LONG_PAYLOAD) }));
    }
  }
  for (const to of [at.vip, at.clusterIP, at.node, at.stranger])
    all.push(`${ip(at.client, to)}/${icmp.echo}/${PAYLOAD}`);
  all.push(`Dot1Q(vlan=7)/${ip(at.client, at.vip)}/${tcp(KEPT, services.PORT)}`);
  all.push(...tunnels(words));
  return all;
}

/** What another node would send to an endpoint of this one, and what it would not. */
function tunnels({ at, ip, family }: Words): string[] {
  const more = (port: number) => (family === 4 ? `,id=${port}` : `,fl=${port}`);
  const inner = `${ip(at.client, at.vip)}/${tcp(KEPT, services.LOCAL_PORT)}`;
  const outer = ip(at.nodeB, at.local, { more: more(services.ENDPOINT_PORT) });
  return [
    `${outer}/${inner}`,
    `${outer}/${outer}/${inner}`,
    `${outer}/${ip(at.client, at.stranger)}/${tcp(KEPT, 80)}`,
  ];
}

/** The bytes of an address as its family has them in packets. */
export function packetBytes(address: string, family: Family): Uint8Array {
  return addressBytes(address).subarray(family === 4 ? 12 : 0);
}

/** Addresses that packets come from. */
export const SOURCES: Readonly<Record<Family, readonly Uint8Array[]>> = {
  4: sources(4),
  6: sources(6),
};

function sources(family: Family): Uint8Array[] {
  const { client, other, router, node, local, remote, vip, clusterIP, loopback } = PLACES[family];
  // Clients most of all.
  const clients = Array.from({ length: 12 }, (_, index) =>
    family === 4 ? `203.0.113.${100 + index}` : `2001:db8:ffff::1:${index + 1}`,
  );
  return [
    client,
    client,
    other,
    router,
    node,
    local,
    remote,
    vip,
    clusterIP,
    loopback,
    ...clients,
  ].map((address) => packetBytes(address, family));
}

const FLAGS = [0x02, 0x02, 0x10, 0x10, 0x18, 0x11, 0x04, 0x14, 0x12, 0x03, 0x00, 0xff];
const TTLS = [0, 1, 2, 64, 64, 64, 64, 255];
const ODD = [0, 1, 0x7f, 0x80, 0xff];

/** Where frames of a seed's kind come in or leave. */
const ARRIVALS: readonly { hook: HookName; device: "eth0" | "pod-a1" }[] = [
  ...Array.from({ length: 6 }, () => ({ hook: "xdp", device: "eth0" }) as const),
  ...Array.from({ length: 6 }, () => ({ hook: "ingress", device: "eth0" }) as const),
  { hook: "ingress", device: "pod-a1" },
  { hook: "ingress", device: "pod-a1" },
  { hook: "egress", device: "eth0" },
  { hook: "egress", device: "eth0" },
  { hook: "egress", device: "pod-a1" },
];

export interface Made {
  frame: Uint8Array;
  arrival: Arrival & { device: "eth0" | "pod-a1" };
  /** What has just left in a tunnel, of an error about that. */
  about?: Tuple;
}

export class Maker {
  readonly #random: Random;
  readonly #known: Known;
  readonly #seeds: readonly Seed[];
  readonly #macs: Readonly<Record<string, Uint8Array>>;

  /** Seeds are made by scapy; `macs` are the addresses of the node's devices. */
  static async open(options: {
    random: Random;
    known: Known;
    macs: Readonly<Record<string, Uint8Array>>;
    build: (packets: string) => Promise<Uint8Array[]>;
  }): Promise<Maker> {
    const list = FAMILIES.flatMap((family) => expressions(wordsOf(family)));
    const around = `Ether(src="02:00:00:00:00:99",dst="02:00:00:00:00:98")`;
    const frames = await options.build(
      `[${[...list, "ARP()"].map((packet) => `${around}/${packet}`).join(",")}]`,
    );
    return new Maker(options, frames.map(makeSeed));
  }

  private constructor(
    { random, known, macs }: Pick<Parameters<typeof Maker.open>[0], "random" | "known" | "macs">,
    seeds: readonly Seed[],
  ) {
    this.#random = random;
    this.#known = known;
    this.#macs = macs;
    this.#seeds = seeds;
  }

  next(): Made {
    const random = this.#random;
    const known = random.chance(0.35) ? this.#known.recent(random.next() / 2 ** 32) : undefined;
    let frame = known ? this.#follow(known) : this.#vary(random.of(this.#seeds));
    if (random.chance(0.4)) frame = this.#damage(frame);
    const arrival: Made["arrival"] = { ...random.of(ARRIVALS) };
    if (arrival.hook !== "xdp") {
      if (random.chance(0.03)) arrival.gsoSize = 1 + random.below(1500);
      else if (random.chance(0.5)) arrival.isSummed = true;
    }
    // The stack lets none leave whose header is wrong.
    if (arrival.hook === "egress") repairNetwork(frame);
    if (arrival.gsoSize && random.chance(0.3)) repairNetwork(frame, { isUnsaid: true });
    const isOurs = arrival.hook === "egress" || random.chance(0.97);
    if (isOurs) frame.set(this.#macs[arrival.device]!, arrival.hook === "egress" ? 6 : 0);
    return { frame, arrival };
  }

  /** A seed by another client, from another port. */
  #vary(seed: Seed): Uint8Array {
    const random = this.#random;
    const frame = Uint8Array.from(seed.frame);
    const view = new DataView(frame.buffer);
    if (seed.family && random.chance(0.8))
      frame.set(random.of(SOURCES[seed.family]), seed.addresses);
    if (seed.ports && random.chance(0.9)) view.setUint16(seed.ports, this.#port());
    if (seed.flags && random.chance(0.9)) frame[seed.flags] = random.of(FLAGS);
    if (seed.ttl && random.chance(0.3)) frame[seed.ttl] = random.of(TTLS);
    repair(frame);
    return frame;
  }

  #port(): number {
    const random = this.#random;
    const from = [KEPT, KEPT, TAKEN, 1, 1000, services.PORT, 29990, 60990, 65500];
    return random.chance(0.05) ? random.below(65536) : random.of(from) + random.below(24);
  }

  /** A packet of a connection that there is: a request, a reply, or an error about either. */
  #follow({ family, request, sent }: Connection): Uint8Array {
    const random = this.#random;
    const tuple = random.chance(0.3) ? request : turn(sent);
    const isError = random.chance(0.2);
    const frame = makePlain(family, tuple, random);
    if (!isError) return frame;
    const reporter = random.chance(0.5) ? tuple.source : latin(random.of(SOURCES[family]));
    const to = random.chance(0.9) ? tuple.destination : latin(random.of(SOURCES[family]));
    return makeError({ family, reporter, about: turn(tuple), to }, random);
  }

  #damage(original: Uint8Array): Uint8Array {
    const random = this.#random;
    let frame = original;
    if (random.chance(0.15)) {
      const length = Math.max(14, frame.length + random.of([-40, -9, -4, -1, 1, 3, 40]));
      const sized = new Uint8Array(length);
      sized.set(frame.subarray(0, length));
      frame = sized;
    }
    const reach = Math.min(frame.length - 12, 110);
    for (let count = random.below(4); count > 0; count--) {
      const at = 12 + random.below(reach);
      const kind = random.below(3);
      if (kind === 0) frame[at]! ^= 1 << random.below(8);
      else if (kind === 1) frame[at] = random.of(ODD);
      else frame[at] = random.below(256);
    }
    if (random.chance(0.6)) repair(frame);
    return frame;
  }
}

/** Bytes as a string of as many characters. */
export function latin(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("latin1");
}

function makeSeed(frame: Uint8Array): Seed {
  const packet = readFrame(frame);
  if (!packet) return { frame, family: undefined, addresses: 0, ports: 0, flags: 0, ttl: 0 };
  const { family, network, transport, protocol } = packet;
  const hasPorts = transport > 0 && Object.values(PROTOCOLS).includes(protocol);
  return {
    frame,
    family,
    addresses: network + (family === 4 ? 12 : 8),
    ports: hasPorts ? transport : 0,
    flags: hasPorts && protocol === TCP ? transport + 13 : 0,
    ttl: network + (family === 4 ? 8 : 7),
  };
}

const ETHERNET = [2, 0, 0, 0, 0, 0x98, 2, 0, 0, 0, 0, 0x99];
const TRANSPORT_BYTES: Readonly<Record<number, number>> = { [TCP]: 20, [UDP]: 8, [SCTP]: 12 };
const SCTP_CHUNKS = [0, 0, 1, 6, 7, 8, 14, 200];

/** An IP header of a packet with so many bytes behind it; sums are left out. */
function writeNetwork(
  bytes: Uint8Array,
  at: number,
  header: { family: 4 | 6; protocol: number; source: string; destination: string; length: number },
): number {
  const view = new DataView(bytes.buffer);
  const { family, protocol, length } = header;
  const addresses = Buffer.from(header.source + header.destination, "latin1");
  if (family === 4) {
    bytes[at] = 0x45;
    view.setUint16(at + 2, 20 + length);
    bytes[at + 8] = 64;
    bytes[at + 9] = protocol;
    bytes.set(addresses, at + 12);
    return at + 20;
  }
  bytes[at] = 0x60;
  view.setUint16(at + 4, length);
  bytes[at + 6] = protocol;
  bytes[at + 7] = 64;
  bytes.set(addresses, at + 8);
  return at + 40;
}

function makePlain(family: 4 | 6, tuple: Tuple, random: Random): Uint8Array {
  const length = (TRANSPORT_BYTES[tuple.protocol] ?? 8) + 4 + random.below(30);
  const frame = new Uint8Array(14 + (family === 4 ? 20 : 40) + length);
  frame.set(ETHERNET);
  new DataView(frame.buffer).setUint16(12, family === 4 ? 0x0800 : 0x86dd);
  const at = writeNetwork(frame, 14, { family, ...tuple, length });
  writePorts(frame, at, tuple);
  if (tuple.protocol === TCP) {
    frame[at + 12] = 0x50;
    frame[at + 13] = random.of(FLAGS);
  } else if (tuple.protocol === SCTP) frame[at + 12] = random.of(SCTP_CHUNKS);
  for (let byte = at + (TRANSPORT_BYTES[tuple.protocol] ?? 8) + 1; byte < frame.length; byte++)
    frame[byte] = random.below(256);
  repair(frame);
  return frame;
}

function writePorts(frame: Uint8Array, at: number, tuple: Tuple): void {
  const view = new DataView(frame.buffer);
  view.setUint16(at, tuple.sourcePort);
  view.setUint16(at + 2, tuple.destinationPort);
}

/** An ICMP error about a packet of a tuple. */
function makeError(
  { family, reporter, about, to }: { family: 4 | 6; reporter: string; about: Tuple; to: string },
  random: Random,
): Uint8Array {
  const header = family === 4 ? 20 : 40;
  const quoted = header + 8 + random.of([0, 0, 4, 12, 40]);
  const frame = new Uint8Array(14 + header + 8 + quoted);
  frame.set(ETHERNET);
  new DataView(frame.buffer).setUint16(12, family === 4 ? 0x0800 : 0x86dd);
  const at = writeNetwork(frame, 14, {
    family,
    protocol: family === 4 ? 1 : 58,
    source: reporter,
    destination: to,
    length: 8 + quoted,
  });
  frame[at] = random.of(family === 4 ? [3, 3, 11, 12, 5] : [1, 2, 3, 4, 137]);
  frame[at + 1] = random.below(6);
  const inner = writeNetwork(frame, at + 8, { family, ...about, length: 1000 });
  writePorts(frame, inner, about);
  for (let byte = inner + 4; byte < frame.length; byte++) frame[byte] = random.below(256);
  repairQuoted(frame, at + 8, family);
  repair(frame);
  return frame;
}

function repairQuoted(frame: Uint8Array, at: number, family: 4 | 6): void {
  if (family === 6) return;
  let sum = 0;
  for (let byte = at; byte < at + 20; byte += 2) sum += (frame[byte]! << 8) | frame[byte + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  new DataView(frame.buffer).setUint16(at + 10, ~sum & 0xffff);
}
