// How packets of one family are written, in scapy's notation, so that one table of cases serves
// IPv4 and IPv6. Knows no program and no expectation.
import { type Family, PLACES } from "./places.ts";

/** How packets of one family are written. */
export interface Words {
  family: Family;
  at: (typeof PLACES)[Family];
  /** An IP header. */
  ip(source: string, destination: string, fields?: { ttl?: number; more?: string }): string;
  /** The IP header of an answer of our own. */
  answer(source: string, destination: string): string;
  /** An ICMP error header: port unreachable, too big, or time exceeded. */
  error(what: "unreachable" | "tooBig" | "time", mtu?: number): string;
  icmp: { echo: string; reply: string };
  /** Fragment `index` of the datagram `id` with so many bytes after its UDP, TCP or SCTP header. */
  fragment(index: number, datagram: { id: number; head: string; transport: string }): string;
  /** An IP header whose options or extension headers make it no plain one. */
  optional(source: string, destination: string, fields?: { ttl?: number }): string;
}

const v4: Words = {
  family: 4,
  at: PLACES[4],
  ip: (source, destination, { ttl = 64, more = "" } = {}) =>
    `IP(src="${source}",dst="${destination}",ttl=${ttl}${more})`,
  answer: (source, destination) => `IP(src="${source}",dst="${destination}",ttl=64,id=0)`,
  error: (what, mtu = 0) =>
    ({
      unreachable: "ICMP(type=3,code=3)",
      tooBig: `ICMP(type=3,code=4,nexthopmtu=${mtu})`,
      time: "ICMP(type=11,code=0)",
    })[what],
  icmp: { echo: "ICMP(type=8,id=7,seq=1)", reply: "ICMP(type=0,id=7,seq=1)" },
  fragment: (index, { id, head, transport }) =>
    `fragment(${head.replace(/\)$/, `,id=${id})`)}/${transport},32)[${index}]`,
  optional: (source, destination, { ttl = 64 } = {}) =>
    v4.ip(source, destination, { ttl, more: ",options=[IPOption_Router_Alert()]" }),
};

const v6: Words = {
  family: 6,
  at: PLACES[6],
  ip: (source, destination, { ttl = 64, more = "" } = {}) =>
    `IPv6(src="${source}",dst="${destination}",hlim=${ttl}${more})`,
  answer: (source, destination) => `IPv6(src="${source}",dst="${destination}",hlim=64)`,
  error: (what, mtu = 0) =>
    ({
      unreachable: "ICMPv6DestUnreach(code=4)",
      tooBig: `ICMPv6PacketTooBig(mtu=${mtu})`,
      time: "ICMPv6TimeExceeded()",
    })[what],
  icmp: { echo: "ICMPv6EchoRequest(id=7,seq=1)", reply: "ICMPv6EchoReply(id=7,seq=1)" },
  // Headers of 40 and 8 bytes, and 32 of the datagram.
  fragment: (index, { id, head, transport }) =>
    `fragment6(${head}/IPv6ExtHdrFragment(id=${id})/${transport},80)[${index}]`,
  optional: (source, destination, fields) =>
    `${v6.ip(source, destination, fields)}/IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])`,
};

export function wordsOf(family: Family): Words {
  return family === 4 ? v4 : v6;
}

/** A client's port that the host never takes itself, so that it may stay. */
export const KEPT = 20000;
/** One that it does. */
export const TAKEN = 40000;

export const PAYLOAD = `b"0123456789abcde"`;
/** Of three fragments, or two where the transport header is long. */
export const LONG_PAYLOAD = `(b"0123456789abcdef"*5)`;

/** A number, or a placeholder for one that the programs choose. */
type Port = number | string;

/** Packets of each protocol in the middle of a connection. */
export const TRANSPORTS = {
  TCP: (sport: Port, dport: Port, payload = PAYLOAD) =>
    `TCP(sport=${sport},dport=${dport},flags="A")/${payload}`,
  UDP: (sport: Port, dport: Port, payload = PAYLOAD) =>
    `UDP(sport=${sport},dport=${dport})/${payload}`,
  SCTP: (sport: Port, dport: Port, payload = PAYLOAD) =>
    `SCTP(sport=${sport},dport=${dport},tag=7)/SCTPChunkData(data=${payload})`,
} as const;
export type Transport = keyof typeof TRANSPORTS;
export const everyTransport = Object.keys(TRANSPORTS) as Transport[];

/** A TCP header, by default of a packet that begins a connection. */
export const tcp = (sport: Port, dport: Port, flags = "S") =>
  `TCP(sport=${sport},dport=${dport},flags="${flags}",seq=1000,ack=2000)`;

export const udp = (sport: Port, dport: Port) => `UDP(sport=${sport},dport=${dport})/${PAYLOAD}`;
