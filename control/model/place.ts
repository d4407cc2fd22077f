// Places that people ask for: an address or a range of addresses, a port, or both. Pure; knows
// nothing of what is at such a place.
import { parseAddress, parseRange } from "./address.ts";

/** Addresses of a range, or any, at a port, or any. */
export interface PlaceFilter {
  /** 16 bytes each, IPv4 as ::ffff:a.b.c.d; the address has no bits beside the mask. */
  range?: { address: Uint8Array; mask: Uint8Array } | undefined;
  port?: number | undefined;
}

const ADDRESS_BITS = 128;
const MAPPED_BITS = 96;

/**
 * Reads "10.0.0.1", "10.0.0.0/8", "10.0.0.1:80", "[2001:db8::1]:80", "2001:db8::/32" or ":80";
 * undefined if it is none of these.
 */
export function parsePlace(text: string): PlaceFilter | undefined {
  const [, bracketed, dotted, digits] = /^(?:\[(.*)\]|([^:]*)):(\d{1,5})$/.exec(text) ?? [];
  const port = digits === undefined ? undefined : Number(digits);
  if (port !== undefined && (port === 0 || port > 0xffff)) return undefined;
  const place = port === undefined ? text : (bracketed ?? dotted)!;
  if (port !== undefined && place === "" && bracketed === undefined) return { port };
  const range = readRange(place);
  return range && { range, port };
}

function readRange(text: string): PlaceFilter["range"] {
  const whole = text.includes("/") ? parseRange(text) : undefined;
  if (text.includes("/") && whole === undefined) return undefined;
  const parsed = parseAddress(whole?.address ?? text);
  if (parsed === undefined) return undefined;
  const { family, bytes: address } = parsed;
  const bits = (whole?.prefixLength ?? ADDRESS_BITS) + (whole && family === 4 ? MAPPED_BITS : 0);
  const mask = Uint8Array.from(address, (_, index) => {
    const kept = Math.min(8, Math.max(0, bits - index * 8));
    return (0xff00 >> kept) & 0xff;
  });
  return { address, mask };
}
