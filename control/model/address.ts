// Addresses and address ranges as text and as 16 bytes. Everything else in the model handles
// addresses as canonical text, so that equal addresses are equal strings. Knows no Services.
import type { Family } from "./rows.ts";

/** An address as the kernel keeps it: 16 bytes in network order, IPv4 as ::ffff:a.b.c.d. */
export interface ParsedAddress {
  family: Family;
  bytes: Uint8Array;
}

/** A CIDR range; `address` is canonical with the host bits cleared, the length is the family's. */
export interface AddressRange {
  family: Family;
  address: string;
  prefixLength: number;
}

const DOT = 0x2e;
const COLON = 0x3a;
/** The octets of dotted quads but the last, as they stand in one. */
const OCTETS: readonly string[] = Array.from({ length: 256 }, (_, octet) => `${octet}.`);
const IPV4_AT = 12;
const BYTES = 16;

/** The value of a hexadecimal digit's character code, or -1. */
function hexDigit(code: number): number {
  if (code >= 0x30 && code <= 0x39) return code - 0x30;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x57 : -1;
}

/** Writes the dotted quad that `text` ends with, from `start` on, to `bytes` at `at`. */
function parseDotted(text: string, start: number, out: { bytes: Uint8Array; at: number }): boolean {
  let octet = 0;
  let digits = 0;
  let parts = 0;
  for (let i = start; i <= text.length; i++) {
    const code = i < text.length ? text.charCodeAt(i) : DOT;
    if (code === DOT) {
      if (digits === 0 || parts === 4) return false;
      out.bytes[out.at + parts++] = octet;
      octet = 0;
      digits = 0;
    } else if (code >= 0x30 && code <= 0x39) {
      octet = octet * 10 + code - 0x30;
      digits++;
      if (octet > 255) return false;
    } else {
      return false;
    }
  }
  return parts === 4;
}

/** Moves what was written after a "::" to the end; false if the gap stands for nothing. */
function closeGap(bytes: Uint8Array, gap: number, written: number): boolean {
  if (gap < 0) return written === BYTES;
  if (written === BYTES) return false;
  bytes.copyWithin(BYTES - (written - gap), gap, written);
  bytes.fill(0, gap, BYTES - (written - gap));
  return true;
}

function parseGroups(text: string, bytes: Uint8Array): boolean {
  let written = 0;
  let gap = -1;
  let i = 0;
  if (text.charCodeAt(0) === COLON) {
    if (text.charCodeAt(1) !== COLON) return false;
    gap = 0;
    i = 2;
  }
  while (i < text.length) {
    const start = i;
    let value = 0;
    for (let digit = 0; i < text.length && i - start < 5; i++) {
      digit = hexDigit(text.charCodeAt(i));
      if (digit < 0) break;
      value = (value << 4) | digit;
    }
    if (i === start || i - start > 4) return false;
    if (i < text.length && text.charCodeAt(i) === DOT) {
      if (written > IPV4_AT || !parseDotted(text, start, { bytes, at: written })) return false;
      return closeGap(bytes, gap, written + 4);
    }
    if (written === BYTES) return false;
    bytes[written++] = value >> 8;
    bytes[written++] = value & 0xff;
    if (i === text.length) break;
    if (text.charCodeAt(i++) !== COLON || i === text.length) return false;
    if (text.charCodeAt(i) === COLON) {
      if (gap >= 0) return false;
      gap = written;
      i++;
    }
  }
  return closeGap(bytes, gap, written);
}

/** True if 16 address bytes are an IPv4 address in its mapped form. */
function isMapped(bytes: Uint8Array, at = 0): boolean {
  if (bytes[at + 10] !== 0xff || bytes[at + 11] !== 0xff) return false;
  for (let i = at; i < at + 10; i++) if (bytes[i] !== 0) return false;
  return true;
}

/**
 * Reads an IPv4 or IPv6 address in any text form, as tolerantly as kube-proxy: leading zeros of
 * an octet mean decimal (§3.6). A mapped address is of family 4. No blanks, no zone ids:
 * undefined if `text` is no address.
 */
export function parseAddress(text: string): ParsedAddress | undefined {
  const bytes = new Uint8Array(BYTES);
  const family = writeAddress(text, bytes);
  return family && { family, bytes };
}

/**
 * The same into 16 bytes that are there; returns the family. If `text` is no address: undefined,
 * and the bytes are any.
 */
export function writeAddress(text: string, bytes: Uint8Array): Family | undefined {
  if (text.indexOf(":") < 0) {
    bytes.fill(0, 0, 10);
    bytes[10] = 0xff;
    bytes[11] = 0xff;
    return parseDotted(text, 0, { bytes, at: IPV4_AT }) ? 4 : undefined;
  }
  if (!parseGroups(text, bytes)) return undefined;
  return isMapped(bytes) ? 4 : 6;
}

/** Start and length, in groups, of the zeros that "::" replaces (RFC 5952 §4.2). */
function longestZeros(bytes: Uint8Array): { start: number; length: number } {
  const best = { start: -1, length: 1 };
  let length = 0;
  for (let group = 0; group < 8; group++) {
    length = bytes[group * 2] === 0 && bytes[group * 2 + 1] === 0 ? length + 1 : 0;
    if (length > best.length) {
      best.start = group - length + 1;
      best.length = length;
    }
  }
  return best;
}

/** Canonical text of the 16 address bytes at `at`: dotted for a mapped one, else RFC 5952. */
export function formatAddress(bytes: Uint8Array, at = 0): string {
  if (!isMapped(bytes, at)) return formatGroups(bytes.subarray(at, at + BYTES));
  const first = OCTETS[bytes[at + 12]!]! + OCTETS[bytes[at + 13]!]! + OCTETS[bytes[at + 14]!]!;
  return first + bytes[at + 15]!;
}

function formatGroups(bytes: Uint8Array): string {
  const zeros = longestZeros(bytes);
  let text = "";
  for (let group = 0; group < 8; group++) {
    if (group === zeros.start) {
      text += "::";
      group += zeros.length - 1;
      continue;
    }
    if (text !== "" && !text.endsWith(":")) text += ":";
    text += ((bytes[group * 2]! << 8) | bytes[group * 2 + 1]!).toString(16);
  }
  return text;
}

/** The one text form of an address that `parseAddress` reads, or undefined. */
export function canonicalAddress(text: string): string | undefined {
  const parsed = parseAddress(text);
  return parsed && formatAddress(parsed.bytes);
}

/** The family of a *canonical* address. */
export function addressFamily(canonical: string): Family {
  return canonical.indexOf(":") < 0 ? 4 : 6;
}

/** Reads up to three decimal digits, or returns -1. */
function parseLength(text: string): number {
  if (text.length === 0 || text.length > 3) return -1;
  let value = 0;
  for (let i = 0; i < text.length; i++) {
    const digit = text.charCodeAt(i) - 0x30;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
  }
  return value;
}

/**
 * Reads "address/length", trimming blanks around it (§3.6); host bits are cleared. A mapped
 * address gives an IPv4 range if the length covers the mapping. Undefined if it is no range.
 */
export function parseRange(text: string): AddressRange | undefined {
  const trimmed = text.trim();
  const slash = trimmed.indexOf("/");
  if (slash < 0) return undefined;
  const parsed = parseAddress(trimmed.slice(0, slash));
  const length = parseLength(trimmed.slice(slash + 1));
  if (parsed === undefined || length < 0) return undefined;
  const dotted = trimmed.indexOf(":") < 0;
  const bits = dotted ? length + 96 : length;
  if (bits > 128 || (parsed.family === 4 && bits < 96)) return undefined;
  for (let i = 0; i < BYTES; i++) {
    const kept = Math.min(8, Math.max(0, bits - i * 8));
    parsed.bytes[i]! &= 0xff00 >> kept;
  }
  const prefixLength = parsed.family === 4 ? bits - 96 : bits;
  return { family: parsed.family, address: formatAddress(parsed.bytes), prefixLength };
}

/** A range as text: "address/length". */
export function formatRange({ address, prefixLength }: AddressRange): string {
  return `${address}/${prefixLength}`;
}

/** True if a *canonical* address lies in a range; never across families. */
export function isInRange(canonical: string, range: AddressRange): boolean {
  if (addressFamily(canonical) !== range.family) return false;
  const covering = parseRange(`${canonical}/${range.prefixLength}`);
  return covering?.address === range.address;
}

/** True for 127.0.0.0/8 and ::1, given a *canonical* address. */
export function isLoopback(canonical: string): boolean {
  return canonical.startsWith("127.") || canonical === "::1";
}

/** True for addresses that no Service may capture: unspecified, loopback, multicast. */
export function isUnusableForService(bytes: Uint8Array): boolean {
  if (isMapped(bytes)) {
    const first = bytes[12]!;
    // 240.0.0.0/4 is not multicast: clusters do use it for pods.
    return first === 0 || first === 127 || (first & 0xf0) === 0xe0;
  }
  if (bytes[0] === 0xff) return true;
  for (let i = 0; i < 15; i++) if (bytes[i] !== 0) return false;
  return bytes[15]! <= 1;
}

/** True for addresses that are no endpoint (§4.10): those above and link-local ones. */
export function isUnusableForEndpoint(bytes: Uint8Array): boolean {
  if (isUnusableForService(bytes)) return true;
  if (isMapped(bytes)) return bytes[12] === 169 && bytes[13] === 254;
  return bytes[0] === 0xfe && (bytes[1]! & 0xc0) === 0x80;
}
