// Short frames as bytes: Ethernet, IPv4 or IPv6, and TCP or UDP, with right checksums, and where
// in them is what differs between flows. Pure; knows no program and no device.
import { addressBytes } from "../control/dataplane/maps.ts";

export interface FrameFields {
  /** As "02:00:00:00:00:01". */
  destinationMac: string;
  sourceMac: string;
  /** Both of one family. */
  source: string;
  destination: string;
  protocol: "TCP" | "UDP";
  sourcePort: number;
  destinationPort: number;
  /** Of IPv4: which fragment of a datagram it is. By default it is whole. */
  fragment?: "first" | "last";
}

const ETHERNET = 14;
/** What families differ in: bytes of the header, and of the frame, a multiple of 8. */
const FAMILIES = {
  4: { type: 0x0800, header: 20, source: 12, destination: 16, addressBytes: 4, frame: 64 },
  6: { type: 0x86dd, header: 40, source: 8, destination: 24, addressBytes: 16, frame: 80 },
} as const;
const NUMBERS = { TCP: 6, UDP: 17 } as const;
/** Where the transport header has its checksum, from its beginning. */
const TRANSPORT_CHECKSUMS = { TCP: 16, UDP: 6 } as const;
const IPV4_CHECKSUM = ETHERNET + 10;
const ACK = 0x5010;
/** Of the header of IPv4: flags and offset. */
const FRAGMENTS = { first: 0x2000, last: 0x0010 } as const;
const DONT_FRAGMENT = 0x4000;
const DATAGRAM = 0x1234;

/** Of the longest frame that is made here. */
export const MOST_FRAME_BYTES = FAMILIES[6].frame;

function familyOf({ source }: Pick<FrameFields, "source">) {
  return source.includes(":") ? FAMILIES[6] : FAMILIES[4];
}

/** Offsets of what differs between flows, and of what follows from that; 0: there is none. */
export interface FrameOffsets {
  /** Of the last four bytes of the addresses. */
  sourceWord: number;
  destinationWord: number;
  port: number;
  networkChecksum: number;
  transportChecksum: number;
}

export function offsetsOf(fields: Pick<FrameFields, "source" | "protocol">): FrameOffsets {
  const family = familyOf(fields);
  const lastWord = ETHERNET + family.addressBytes - 4;
  const port = ETHERNET + family.header;
  return {
    sourceWord: family.source + lastWord,
    destinationWord: family.destination + lastWord,
    port,
    networkChecksum: family === FAMILIES[4] ? IPV4_CHECKSUM : 0,
    transportChecksum: port + TRANSPORT_CHECKSUMS[fields.protocol],
  };
}

function parseMac(text: string): number[] {
  return text.split(":").map((byte) => Number.parseInt(byte, 16));
}

/** The Internet checksum (RFC 1071) of an even number of bytes. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** The header of IPv4 or IPv6, at the view's start. */
function writeNetwork(view: DataView, fields: FrameFields): void {
  const { protocol, fragment } = fields;
  const family = familyOf(fields);
  const length = family.frame - ETHERNET;
  const bytes = new Uint8Array(view.buffer, view.byteOffset);
  if (family === FAMILIES[6]) {
    view.setUint32(0, 6 << 28);
    view.setUint16(4, length - family.header);
    view.setUint8(6, NUMBERS[protocol]);
    view.setUint8(7, 64);
  } else {
    view.setUint16(0, 0x4500);
    view.setUint16(2, length);
    view.setUint16(4, fragment ? DATAGRAM : 0);
    view.setUint16(6, fragment ? FRAGMENTS[fragment] : DONT_FRAGMENT);
    view.setUint8(8, 64);
    view.setUint8(9, NUMBERS[protocol]);
  }
  bytes.set(addressBytes(fields.source).subarray(16 - family.addressBytes), family.source);
  bytes.set(
    addressBytes(fields.destination).subarray(16 - family.addressBytes),
    family.destination,
  );
  if (family === FAMILIES[4])
    view.setUint16(10, internetChecksum(bytes.subarray(0, family.header)));
}

/** A frame with these fields, of 64 bytes, or of 80 for IPv6. */
export function makeFrame(fields: FrameFields): Uint8Array {
  const { protocol } = fields;
  const family = familyOf(fields);
  const frame = new Uint8Array(family.frame);
  const view = new DataView(frame.buffer);
  frame.set(parseMac(fields.destinationMac), 0);
  frame.set(parseMac(fields.sourceMac), 6);
  view.setUint16(12, family.type);
  writeNetwork(new DataView(frame.buffer, ETHERNET), fields);
  if (fields.fragment === "last") return frame;
  const transport = frame.subarray(ETHERNET + family.header);
  const body = new DataView(frame.buffer, ETHERNET + family.header);
  body.setUint16(0, fields.sourcePort);
  body.setUint16(2, fields.destinationPort);
  if (protocol === "UDP") body.setUint16(4, transport.length);
  else {
    body.setUint16(12, ACK);
    body.setUint16(14, 0xffff);
  }
  const [from, to] = [ETHERNET + family.source, ETHERNET + family.header];
  const pseudo = [...frame.subarray(from, to), 0, NUMBERS[protocol], 0, transport.length];
  const checksum = internetChecksum(Uint8Array.from([...pseudo, ...transport]));
  body.setUint16(TRANSPORT_CHECKSUMS[protocol], checksum || 0xffff);
  return frame;
}
