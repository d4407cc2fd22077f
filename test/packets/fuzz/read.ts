// Reads frames and checks their lengths and checksums, independently of the programs and of scapy,
// at a microsecond each. Knows packets, not what should become of them.

/** What may be wrong with a frame; a set of bits. */
export const FAULT = {
  /** The IP header says more bytes than there are, or fewer than its own. */
  ipLength: 1,
  /** Bytes come after what the IP header says. */
  trailing: 2,
  ipHeaderSum: 4,
  transportLength: 8,
  transportSum: 16,
  /** Of the IPv4 header that an ICMP error quotes. */
  quotedHeaderSum: 32,
} as const;

export const TCP = 6;
export const UDP = 17;
export const SCTP = 132;
export const ICMP = 1;
export const ICMPV6 = 58;
const IPV4_IN_IP = 4;
const IPV6_IN_IP = 41;
const LEAST_BYTES: Readonly<Record<number, number>> = {
  [TCP]: 20,
  [UDP]: 8,
  [SCTP]: 12,
  [ICMP]: 8,
  [ICMPV6]: 8,
};
export const ETHERNET_BYTES = 14;
/** Of an IP header without options. */
export const HEADER_BYTES = { 4: 20, 6: 40 } as const;
const ICMP_BYTES = 8;
/** Extension headers are followed so far. */
const MOST_EXTENSIONS = 8;

/** Who sends to whom; addresses are their bytes as a string of as many characters. */
export interface Tuple {
  protocol: number;
  source: string;
  destination: string;
  sourcePort: number;
  destinationPort: number;
}

export interface PacketRead extends Tuple {
  family: 4 | 6;
  /** Offset of the IP header. */
  network: number;
  /** Of what comes after it and after extension headers; 0: none, as in a later fragment. */
  transport: number;
  /** Where the packet ends, as its IP header says. */
  end: number;
  isFragment: boolean;
  isLater: boolean;
  /** Of its datagram, if it is a fragment. */
  id: number;
  /** Of ICMP and ICMPv6; -1 for others. */
  type: number;
  /** The packet that an ICMP error quotes, or that a tunnel holds. */
  inner: PacketRead | undefined;
  /** What is wrong. */
  faults: number;
}

/** A tuple alone, of what has one. */
export function tupleOf({
  protocol,
  source,
  destination,
  sourcePort,
  destinationPort,
}: Tuple): Tuple {
  return { protocol, source, destination, sourcePort, destinationPort };
}

export function keyOf({
  protocol,
  source,
  destination,
  sourcePort,
  destinationPort,
}: Tuple): string {
  return `${protocol} ${sourcePort} ${destinationPort} ${source}${destination}`;
}

export function turn({ protocol, ...rest }: Tuple): Tuple {
  return {
    protocol,
    source: rest.destination,
    destination: rest.source,
    sourcePort: rest.destinationPort,
    destinationPort: rest.sourcePort,
  };
}

/** The one's complement sum of bytes (RFC 1071), not folded; added to what there is. */
export function addBytes(sum: number, frame: Uint8Array, from: number, to: number): number {
  let at = from;
  let total = sum;
  for (; at + 1 < to; at += 2) total += (frame[at]! << 8) | frame[at + 1]!;
  return at < to ? total + (frame[at]! << 8) : total;
}

export function fold(sum: number): number {
  let folded = sum;
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000);
  return folded;
}

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte;
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  return crc >>> 0;
});

/** CRC32c of an SCTP packet as it is to stand in it, its own four bytes taken for zeros. */
export function sctpSum(frame: Uint8Array, from: number, to: number): number {
  let crc = 0xffffffff;
  for (let at = from; at < to; at++) {
    const byte = at - from >= 8 && at - from < 12 ? 0 : frame[at]!;
    crc = CRC_TABLE[(crc ^ byte) & 0xff]! ^ (crc >>> 8);
  }
  return (crc ^ 0xffffffff) >>> 0;
}

/** The sum of what TCP, UDP and ICMPv6 add to their own (RFC 9293 §3.1, RFC 8200 §8.1). */
export function pseudoSum(
  frame: Uint8Array,
  { family, network, protocol, transport, end }: PacketRead,
) {
  const [from, to] = family === 4 ? [network + 12, network + 20] : [network + 8, network + 40];
  return addBytes(protocol + (end - transport), frame, from, to);
}

/** Where the checksum of a protocol is, counted from its header. */
export const SUM_AT: Readonly<Record<number, number>> = {
  [TCP]: 16,
  [UDP]: 6,
  [ICMP]: 2,
  [ICMPV6]: 2,
};

function text(frame: Uint8Array, from: number, to: number): string {
  let characters = "";
  for (let at = from; at < to; at++) characters += String.fromCharCode(frame[at]!);
  return characters;
}

const word = (frame: Uint8Array, at: number) => (frame[at]! << 8) | frame[at + 1]!;

function blank(family: 4 | 6, network: number): PacketRead {
  return {
    family,
    network,
    protocol: -1,
    source: "",
    destination: "",
    sourcePort: 0,
    destinationPort: 0,
    transport: 0,
    end: 0,
    isFragment: false,
    isLater: false,
    id: 0,
    type: -1,
    inner: undefined,
    faults: 0,
  };
}

/** An IPv4 header. False: it is none. */
function readIpv4(frame: Uint8Array, packet: PacketRead): boolean {
  const { network } = packet;
  if (network + 20 > frame.length) return false;
  const bytes = (frame[network]! & 15) * 4;
  if (frame[network]! >> 4 !== 4 || bytes < 20 || network + bytes > frame.length) return false;
  const total = word(frame, network + 2);
  const fragment = word(frame, network + 6);
  packet.id = word(frame, network + 4);
  packet.end = network + total;
  if (total < bytes || packet.end > frame.length) packet.faults |= FAULT.ipLength;
  if (fold(addBytes(0, frame, network, network + bytes)) !== 0xffff)
    packet.faults |= FAULT.ipHeaderSum;
  packet.protocol = frame[network + 9]!;
  packet.source = text(frame, network + 12, network + 16);
  packet.destination = text(frame, network + 16, network + 20);
  packet.isFragment = (fragment & 0x3fff) !== 0;
  packet.isLater = (fragment & 0x1fff) !== 0;
  packet.transport = packet.isLater ? 0 : network + bytes;
  return true;
}

/** An IPv6 header and those that extend it. False: it is none. */
function readIpv6(frame: Uint8Array, packet: PacketRead): boolean {
  const { network } = packet;
  if (network + 40 > frame.length || frame[network]! >> 4 !== 6) return false;
  packet.end = network + 40 + word(frame, network + 4);
  if (packet.end > frame.length) packet.faults |= FAULT.ipLength;
  packet.source = text(frame, network + 8, network + 24);
  packet.destination = text(frame, network + 24, network + 40);
  let at = network + 40;
  let next = frame[network + 6]!;
  for (let count = 0; count < MOST_EXTENSIONS; count++) {
    if (next !== 0 && next !== 43 && next !== 44 && next !== 60) break;
    if (at + 8 > frame.length) return true;
    const own = next;
    // Where it goes in the end, and with what, is for others to see (RFC 8200 §4.4).
    if (own === 43 && frame[at + 3] !== 0) return true;
    next = frame[at]!;
    if (own === 44) {
      const offset = word(frame, at + 2);
      packet.isFragment ||= (offset & 0xfff9) !== 0;
      packet.isLater ||= offset >> 3 !== 0;
      packet.id = word(frame, at + 4) * 65536 + word(frame, at + 6);
    }
    at += own === 44 ? 8 : (frame[at + 1]! + 1) * 8;
    if (packet.isLater) break;
  }
  packet.protocol = next;
  packet.transport = packet.isLater ? 0 : at;
  return true;
}

/** Ports, type, and what the transport's own length and checksum are worth. */
function readTransport(frame: Uint8Array, packet: PacketRead): void {
  const { protocol, transport, isFragment } = packet;
  const end = Math.min(packet.end, frame.length);
  const least = LEAST_BYTES[protocol];
  if (transport === 0 || least === undefined) return;
  if (transport + least > end) {
    packet.faults |= FAULT.transportLength;
    return;
  }
  if (protocol === ICMP || protocol === ICMPV6) packet.type = frame[transport]!;
  else {
    packet.sourcePort = word(frame, transport);
    packet.destinationPort = word(frame, transport + 2);
  }
  if (isFragment || packet.faults & FAULT.ipLength) return;
  if (protocol === UDP && word(frame, transport + 4) !== end - transport)
    packet.faults |= FAULT.transportLength;
  if (!isSummed(frame, packet)) packet.faults |= FAULT.transportSum;
}

function isSummed(frame: Uint8Array, packet: PacketRead): boolean {
  const { protocol, transport, end, family } = packet;
  if (protocol === SCTP) {
    const at = transport + 8;
    const found = new DataView(frame.buffer, frame.byteOffset).getUint32(at, true);
    return found === sctpSum(frame, transport, end);
  }
  if (protocol === UDP && word(frame, transport + 6) === 0) return family === 4;
  const pseudo = protocol === ICMP ? 0 : pseudoSum(frame, packet);
  return fold(addBytes(pseudo, frame, transport, end)) === 0xffff;
}

/**
 * Whether a checksum is that of the pseudo header alone, as where a device is to complete it, or by
 * chance: nothing in a frame tells.
 */
export function isSumLeft(frame: Uint8Array, packet: PacketRead): boolean {
  const { protocol, transport, end } = packet;
  const at = transport + (protocol === TCP || protocol === UDP ? SUM_AT[protocol]! : Infinity);
  if (transport === 0 || at + 2 > end) return false;
  return word(frame, at) % 0xffff === fold(pseudoSum(frame, packet)) % 0xffff;
}

/** Whether another packet of the same family is all that a packet holds. */
export function isTunnel({ family, protocol }: PacketRead): boolean {
  return protocol === (family === 4 ? IPV4_IN_IP : IPV6_IN_IP);
}

/** True for the types that tell of another packet. */
export function isError({ family, type }: PacketRead): boolean {
  return family === 4 ? type === 3 || type === 11 || type === 12 : type >= 1 && type <= 4;
}

interface ReadOptions {
  /** Whether the packet stands for segments, of which an IP header need say no length: BIG TCP. */
  isSegmented?: boolean;
}

function readPacket(
  frame: Uint8Array,
  { family, network, isSegmented = false }: { family: 4 | 6; network: number } & ReadOptions,
): PacketRead | undefined {
  const packet = blank(family, network);
  if (!(family === 4 ? readIpv4 : readIpv6)(frame, packet)) return undefined;
  const length = word(frame, network + (family === 4 ? 2 : 4));
  if (length === 0 && isSegmented && packet.protocol === TCP) {
    packet.end = frame.length;
    packet.faults &= ~FAULT.ipLength;
  }
  return packet;
}

/** A packet of which the end may be missing: as much of it as is there. */
function readStart(
  frame: Uint8Array,
  { family, network }: { family: 4 | 6; network: number },
): PacketRead | undefined {
  const packet = readPacket(frame, { family, network });
  if (!packet || packet.transport === 0 || packet.transport + 4 > frame.length) return packet;
  if (isTunnel(packet)) packet.inner = readStart(frame, { family, network: packet.transport });
  packet.sourcePort = word(frame, packet.transport);
  packet.destinationPort = word(frame, packet.transport + 2);
  return packet;
}

/** A packet that is quoted, and its own header's checksum. */
function readQuoted(frame: Uint8Array, outer: PacketRead): void {
  const { family, transport } = outer;
  const quoted = readStart(frame, { family, network: transport + ICMP_BYTES });
  if (!quoted) return;
  if (quoted.faults & FAULT.ipHeaderSum) outer.faults |= FAULT.quotedHeaderSum;
  outer.inner = quoted;
}

/** Undefined for what is no IP packet in an Ethernet frame. */
export function readFrame(frame: Uint8Array, options: ReadOptions = {}): PacketRead | undefined {
  if (frame.length < ETHERNET_BYTES) return undefined;
  const kind = word(frame, 12);
  if (kind !== 0x0800 && kind !== 0x86dd) return undefined;
  const family = kind === 0x0800 ? 4 : 6;
  const packet = readPacket(frame, { family, network: ETHERNET_BYTES, ...options });
  if (!packet) return undefined;
  if (packet.end < frame.length) packet.faults |= FAULT.trailing;
  readTransport(frame, packet);
  if (isError(packet)) readQuoted(frame, packet);
  if (isTunnel(packet) && packet.transport > 0) {
    packet.inner = readPacket(frame, { family, network: packet.transport, ...options });
    if (packet.inner) {
      if (packet.inner.end < frame.length) packet.inner.faults |= FAULT.trailing;
      readTransport(frame, packet.inner);
    }
  }
  return packet;
}

/** Puts right what lengths and checksums of a frame are wrong, as far as they can be told. */
export function repair(frame: Uint8Array): void {
  repairNetwork(frame);
  const packet = readFrame(frame);
  if (packet && packet.transport > 0 && !packet.isFragment)
    repairTransport(frame, new DataView(frame.buffer, frame.byteOffset), packet);
}

/** The same of its IP header alone, which says no length if it `isUnsaid`. */
export function repairNetwork(frame: Uint8Array, { isUnsaid = false } = {}): void {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const kind = word(frame, 12);
  if (kind === 0x0800 && frame.length >= 34) {
    const bytes = (frame[14]! & 15) * 4;
    view.setUint16(16, isUnsaid ? 0 : frame.length - 14);
    if (bytes < 20 || 14 + bytes > frame.length) return;
    view.setUint16(24, 0);
    view.setUint16(24, ~fold(addBytes(0, frame, 14, 14 + bytes)) & 0xffff);
  } else if (kind === 0x86dd && frame.length >= 54)
    view.setUint16(18, isUnsaid ? 0 : frame.length - 54);
}

function repairTransport(frame: Uint8Array, view: DataView, packet: PacketRead): void {
  const { protocol, transport, end } = packet;
  if (transport + (LEAST_BYTES[protocol] ?? Number.POSITIVE_INFINITY) > end) return;
  if (protocol === SCTP) {
    view.setUint32(transport + 8, sctpSum(frame, transport, end), true);
    return;
  }
  if (protocol === UDP) view.setUint16(transport + 4, end - transport);
  const at = transport + SUM_AT[protocol]!;
  view.setUint16(at, 0);
  const pseudo = protocol === ICMP ? 0 : pseudoSum(frame, packet);
  const sum = ~fold(addBytes(pseudo, frame, transport, end)) & 0xffff;
  view.setUint16(at, sum === 0 && protocol === UDP ? 0xffff : sum);
}
