// ICMP errors about the tunnels of direct server return, at random: what a router may say of a
// packet that this node has put in one, and what nobody would. Knows what was sent, not what should
// become of an error about it.
import { type Random, SOURCES } from "./make.ts";
import {
  addBytes,
  ETHERNET_BYTES,
  fold,
  HEADER_BYTES,
  pseudoSum,
  readFrame,
  repair,
  SUM_AT,
} from "./read.ts";

/** No error is longer (RFC 1812 §4.3.2.3, RFC 4443 §2.4), so that it fits every way. */
const MOST_BYTES = { 4: 576, 6: 1280 } as const;
const MTUS = [0, 20, 21, 60, 68, 576, 1279, 1280, 1300, 1319, 1320, 1321, 1400, 1500, 65535];
/** Type and code; too big most of all, as it is answered by a number. */
const MESSAGES = {
  4: [
    [3, 4],
    [3, 4],
    [3, 4],
    [3, 0],
    [3, 1],
    [3, 2],
    [3, 3],
    [3, 5],
    [3, 13],
    [11, 0],
    [12, 0],
  ],
  6: [
    [2, 0],
    [2, 0],
    [2, 0],
    [1, 0],
    [1, 3],
    [1, 4],
    [3, 0],
    [4, 1],
    [4, 0],
  ],
} as const;
/** Headers that extend IPv6's: hop by hop, routing, fragment, destination options. */
const EXTENSIONS = [0, 43, 44, 60];

type Change = (quoted: Uint8Array, family: 4 | 6, random: Random) => Uint8Array;

/** Bytes with others put in. */
function insert(bytes: Uint8Array, at: number, more: Uint8Array): Uint8Array {
  return Uint8Array.from([...bytes.subarray(0, at), ...more, ...bytes.subarray(at)]);
}

/** Options or an extension header in the IP header at `at`. */
function extend(bytes: Uint8Array, at: number, family: 4 | 6, random: Random): Uint8Array {
  if (family === 4) {
    const words = 1 + random.below(10);
    const longer = insert(bytes, at + 20, new Uint8Array(words * 4).fill(1));
    longer[at] = 0x45 + words;
    return longer;
  }
  const kind = random.of(EXTENSIONS);
  const extension = new Uint8Array(kind === 44 ? 8 : 8 * (1 + random.below(2)));
  extension[0] = bytes[at + 6]!;
  extension[1] = extension.length / 8 - 1;
  if (kind === 44) extension[3] = random.of([0, 1, 8, 9]);
  const longer = insert(bytes, at + 40, extension);
  longer[at + 6] = kind;
  return longer;
}

/** Says in the IPv4 header at `at` that more of its datagram comes. */
function cut(bytes: Uint8Array, at: number): Uint8Array {
  const whole = Uint8Array.from(bytes);
  whole.set([0x20, 0], at + 6);
  return whole;
}

/** An address of the IP header at `at`, or one of the ports behind it, becomes another. */
function rename(bytes: Uint8Array, at: number, family: 4 | 6, random: Random): Uint8Array {
  const renamed = Uint8Array.from(bytes);
  const [from, width] = family === 4 ? [12, 4] : [8, 16];
  const which = random.below(3);
  if (which < 2) renamed.set(random.of(SOURCES[family]), at + from + which * width);
  else renamed[at + HEADER_BYTES[family] + random.below(4)]! ^= 1 << random.below(8);
  return renamed;
}

/** What a quoted tunnel can be that this node has not sent. */
const CHANGES: readonly Change[] = [
  (quoted, family, random) => extend(quoted, 0, family, random),
  (quoted, family, random) => extend(quoted, HEADER_BYTES[family], family, random),
  (quoted, family, random) => rename(quoted, 0, family, random),
  (quoted, family, random) => rename(quoted, HEADER_BYTES[family], family, random),
  (quoted, family, random) =>
    family === 4 ? cut(quoted, random.of([0, 20])) : extend(quoted, 40, family, random),
  (quoted, family) => insert(quoted, 0, quoted.subarray(0, HEADER_BYTES[family])),
  (quoted, family) => {
    const other = Uint8Array.from(quoted);
    other[family === 4 ? 9 : 6] = family === 4 ? 41 : 4;
    return other;
  },
  (quoted, _family, random) => {
    const damaged = Uint8Array.from(quoted);
    for (let count = 1 + random.below(3); count > 0; count--)
      damaged[random.below(Math.min(damaged.length, 90))] = random.below(256);
    return damaged;
  },
];

/** How much is quoted: as much as may be, or about as much as is needed. */
function quotedBytes(family: 4 | 6, random: Random): number {
  const header = HEADER_BYTES[family];
  const most = MOST_BYTES[family] - header - 8;
  const all = [most, most, most, 2 * header + 20, 2 * header + 8, 2 * header + 7, header + 8];
  return random.chance(0.2) ? random.below(3 * header) : random.of(all);
}

function sumHeader(bytes: Uint8Array, at: number): void {
  const length = (bytes[at]! & 15) * 4;
  if (length < 20 || at + length > bytes.length) return;
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  view.setUint16(at + 10, 0);
  view.setUint16(at + 10, ~fold(addBytes(0, bytes, at, at + length)) & 0xffff);
}

/** The checksum of what is in a tunnel, as it stands where a device is to complete it. */
function leaveSum(quoted: Uint8Array, family: 4 | 6): void {
  const type = family === 4 ? [0x08, 0x00] : [0x86, 0xdd];
  const inner = quoted.subarray(HEADER_BYTES[family]);
  const frame = Uint8Array.from([...new Uint8Array(12), ...type, ...inner]);
  const packet = readFrame(frame);
  const at = packet && SUM_AT[packet.protocol];
  if (!packet || packet.transport === 0 || at === undefined) return;
  const where = HEADER_BYTES[family] + packet.transport - ETHERNET_BYTES + at;
  if (where + 2 > quoted.length) return;
  new DataView(quoted.buffer, quoted.byteOffset).setUint16(where, fold(pseudoSum(frame, packet)));
}

/** What of a finished error is wrong: its checksum, its length, or more comes than it says. */
function spoil(frame: Uint8Array, family: 4 | 6, random: Random): Uint8Array {
  const kind = random.below(4);
  const spoilt = new Uint8Array(frame.length + (kind === 0 ? 1 + random.below(40) : 0));
  spoilt.set(frame);
  for (let at = frame.length; at < spoilt.length; at++) spoilt[at] = random.below(256);
  const view = new DataView(spoilt.buffer);
  const message = ETHERNET_BYTES + HEADER_BYTES[family];
  if (kind === 1) spoilt[message + random.below(Math.min(70, frame.length - message))]! ^= 0x10;
  else if (kind > 1) {
    // Shorter than what is there: a shorter message, or the same with bytes behind it.
    const length = ETHERNET_BYTES + (family === 4 ? 2 : 4);
    const bytes = view.getUint16(length) - random.below(90);
    const least = family === 4 ? 28 : 8;
    const said = Math.max(least, kind === 2 ? bytes : bytes + 100);
    const end = ETHERNET_BYTES + said + (family === 4 ? 0 : 40);
    if (end < frame.length && random.chance(0.8)) {
      const whole = spoilt.slice(0, end);
      repair(whole);
      spoilt.set(whole);
    } else view.setUint16(length, said);
  }
  if (family === 4 && random.chance(0.9)) sumHeader(spoilt, ETHERNET_BYTES);
  return spoilt;
}

/** An error about a packet that has left in a tunnel, whose frame this is. */
export function makeReport(sent: Uint8Array, random: Random): Uint8Array {
  const family = sent[12] === 0x08 ? 4 : 6;
  const header = HEADER_BYTES[family];
  let quoted = Uint8Array.from(sent.subarray(ETHERNET_BYTES));
  const source = quoted.subarray(header === 20 ? 12 : 8, header === 20 ? 16 : 24);
  const to = random.chance(0.95) ? source : random.of(SOURCES[family]);
  if (random.chance(0.5)) {
    quoted = Uint8Array.from(random.of(CHANGES)(quoted, family, random));
    if (family === 4 && random.chance(0.8)) sumHeader(quoted, 0);
  }
  if (random.chance(0.05)) leaveSum(quoted, family);
  quoted = quoted.slice(0, quotedBytes(family, random));
  const frame = new Uint8Array(ETHERNET_BYTES + header + 8 + quoted.length);
  frame.set(sent.subarray(0, ETHERNET_BYTES));
  const from = random.of(SOURCES[family]);
  if (family === 4) frame.set([0x45, 0, 0, 0, 0, 9, 0, 0, 64, 1, 0, 0, ...from, ...to], 14);
  else frame.set([0x60, 0, 0, 0, 0, 0, 58, 64, ...from, ...to], 14);
  const message = ETHERNET_BYTES + header;
  frame.set(random.of<readonly [number, number]>(MESSAGES[family]), message);
  new DataView(frame.buffer).setUint32(message + 4, random.of(MTUS));
  frame.set(quoted, message + 8);
  repair(frame);
  const isExtended = random.chance(0.1);
  const whole = isExtended ? extend(frame, ETHERNET_BYTES, family, random) : frame;
  if (isExtended) repair(whole);
  return !isExtended && random.chance(0.3) ? spoil(whole, family, random) : whole;
}
