// Frames of 64 bytes, as bytes: Ethernet, IPv4, and TCP or UDP, with right checksums. Pure; knows
// no program and no device.

export interface FrameFields {
  /** As "02:00:00:00:00:01". */
  destinationMac: string;
  sourceMac: string;
  source: string;
  destination: string;
  protocol: "TCP" | "UDP";
  sourcePort: number;
  destinationPort: number;
}

/** Of the shortest frame, and of all that are made here. */
export const FRAME_BYTES = 64;
const ETHERNET = 14;
const IPV4 = 20;
const NUMBERS = { TCP: 6, UDP: 17 } as const;
/** The source address and port, which differ between flows, and the header's checksum. */
export const SOURCE_WORD = ETHERNET + 12;
export const PORT_OFFSET = ETHERNET + IPV4;
export const CHECKSUM_OFFSET = ETHERNET + 10;
/** Where the transport header has its own, from its beginning. */
const TRANSPORT_CHECKSUMS = { TCP: 16, UDP: 6 } as const;

/** Where the checksum of the protocol is in a frame. */
export function transportChecksum(protocol: FrameFields["protocol"]): number {
  return ETHERNET + IPV4 + TRANSPORT_CHECKSUMS[protocol];
}

function parseMac(text: string): number[] {
  return text.split(":").map((byte) => Number.parseInt(byte, 16));
}

function parseIpv4(text: string): number[] {
  return text.split(".").map(Number);
}

/** The Internet checksum (RFC 1071) of an even number of bytes. */
export function internetChecksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let at = 0; at < bytes.length; at += 2) sum += (bytes[at]! << 8) | bytes[at + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** A frame with these fields. */
export function makeFrame(fields: FrameFields): Uint8Array {
  const frame = new Uint8Array(FRAME_BYTES);
  const view = new DataView(frame.buffer);
  const source = parseIpv4(fields.source);
  const destination = parseIpv4(fields.destination);
  frame.set(parseMac(fields.destinationMac), 0);
  frame.set(parseMac(fields.sourceMac), 6);
  view.setUint16(12, 0x0800);
  view.setUint16(ETHERNET, 0x4500);
  view.setUint16(ETHERNET + 2, FRAME_BYTES - ETHERNET);
  view.setUint16(ETHERNET + 6, 0x4000);
  frame[ETHERNET + 8] = 64;
  frame[ETHERNET + 9] = NUMBERS[fields.protocol];
  frame.set(source, ETHERNET + 12);
  frame.set(destination, ETHERNET + 16);
  view.setUint16(CHECKSUM_OFFSET, internetChecksum(frame.subarray(ETHERNET, ETHERNET + IPV4)));
  const transport = frame.subarray(ETHERNET + IPV4);
  const body = new DataView(frame.buffer, ETHERNET + IPV4);
  body.setUint16(0, fields.sourcePort);
  body.setUint16(2, fields.destinationPort);
  if (fields.protocol === "UDP") body.setUint16(4, transport.length);
  else {
    body.setUint16(12, 0x5010);
    body.setUint16(14, 0xffff);
  }
  const pseudo = [...source, ...destination, 0, NUMBERS[fields.protocol], 0, transport.length];
  const checksum = internetChecksum(Uint8Array.from([...pseudo, ...transport]));
  body.setUint16(TRANSPORT_CHECKSUMS[fields.protocol], checksum || 0xffff);
  return frame;
}
