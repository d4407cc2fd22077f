// Protobuf's wire format as Kubernetes uses it: lengths that are checked at every level, and text
// that is shared. Knows no object; which field means what is schema.ts' business.
import protobuf from "protobufjs/minimal.js";

export type Reader = protobuf.Reader;

/** Bytes that are not what they claim to be. All that decoding ever throws. */
export class DecodeError extends Error {}

const MAGIC = [0x6b, 0x38, 0x73, 0x00] as const; // "k8s" and a zero byte.
/** Lengths of what opens every object and list. */
export const MAGIC_LENGTH = MAGIC.length;

const VARINT = 0;
const LENGTH_DELIMITED = 2;

/** A reader at the start of some bytes, which it does not copy. */
export function openReader(bytes: Buffer): Reader {
  return new protobuf.Reader(bytes);
}

/** Runs a decoder; whatever it throws becomes a DecodeError that names the subject. */
export function decoding<T>(subject: string, decode: () => T): T {
  try {
    return decode();
  } catch (error) {
    throw new DecodeError(`Cannot decode ${subject}: ${(error as Error).message}`, {
      cause: error,
    });
  }
}

/** Enters a field of text, bytes or a message, which must end by `limit`; returns its end. */
export function enter(reader: Reader, tag: number, limit: number): number {
  if ((tag & 7) !== LENGTH_DELIMITED) throwWireType(tag);
  const size = reader.size();
  const end = reader.pos + size;
  if (end > limit) throw new DecodeError(`a field of ${size} bytes ends beyond its message`);
  return end;
}

/** Leaves a message: throws unless its fields ended exactly where it does. */
export function leave(reader: Reader, end: number): void {
  if (reader.pos !== end) throw new DecodeError("a field ends beyond its message");
}

/** Steps over a field of no interest, whose tag has been read. */
export function skip(reader: Reader, tag: number, limit: number): void {
  if ((tag & 7) === LENGTH_DELIMITED && tag >>> 3 !== 0) reader.pos = enter(reader, tag, limit);
  else reader.skipType(tag & 7, 0, tag >>> 3);
}

/** Throws unless a field that must be a number or boolean is on the wire as one. */
export function expectVarint(tag: number): void {
  if ((tag & 7) !== VARINT) throwWireType(tag);
}

function throwWireType(tag: number): never {
  throw new DecodeError(`field ${tag >>> 3} has wire type ${tag & 7}`);
}

/** Throws unless the bytes begin with Kubernetes' four magic ones. */
export function expectMagic(bytes: Uint8Array): void {
  if (MAGIC.every((byte, index) => bytes[index] === byte)) return;
  throw new DecodeError('the bytes do not begin with "k8s" and a zero byte');
}

/** Texts longer than this are not shared. */
const LONGEST_SHARED = 64;
const SHARED_TEXTS = 8192;

/**
 * Texts as they were read, each once: namespaces, names of nodes and zones, labels and the words
 * of the API come again and again. Holds a fixed number; a new text takes an older one's place.
 */
export class Texts {
  readonly #texts = new Array<string>(SHARED_TEXTS).fill("");

  /** Reads a field of text, whose tag has been read and which must end by `limit`. */
  read(reader: Reader, tag: number, limit: number): string {
    const end = enter(reader, tag, limit);
    const start = reader.pos;
    reader.pos = end;
    return this.take(reader, start, end);
  }

  /** The text of a reader's bytes `start` to `end`. */
  take(reader: Reader, start: number, end: number): string {
    const bytes = reader.buf;
    if (end - start > LONGEST_SHARED) return decodeText(reader, start, end);
    let hash = end - start;
    for (let at = start; at < end; at++) hash = (Math.imul(hash, 31) + bytes[at]!) | 0;
    const place = (hash ^ (hash >>> 13)) & (SHARED_TEXTS - 1);
    const known = this.#texts[place]!;
    if (isText(known, bytes, { start, end })) return known;
    const text = decodeText(reader, start, end);
    this.#texts[place] = text;
    return text;
  }
}

/** True if bytes are an ASCII text; others are decoded each time. */
function isText(text: string, bytes: Uint8Array, at: { start: number; end: number }): boolean {
  const length = at.end - at.start;
  if (text.length !== length) return false;
  for (let i = 0; i < length; i++) {
    const byte = bytes[at.start + i]!;
    if (byte >= 0x80 || text.charCodeAt(i) !== byte) return false;
  }
  return true;
}

/** The text of a reader's bytes `start` to `end`, in UTF-8, not shared. */
export function decodeText(reader: Reader, start: number, end: number): string {
  return (reader.buf as Buffer).toString("utf8", start, end);
}

/** The text of a reader's bytes `start` to `end`, which must be ASCII, not shared. */
export function decodeAscii(reader: Reader, start: number, end: number): string {
  return (reader.buf as Buffer).toString("latin1", start, end);
}
