// Bodies of lists and watches as they arrive, in pieces of any size, to versions and events: a list
// is never held whole in protobuf, only in JSON. Knows no connection.
import type { Decoder, Version, WatchEvent, WatchedKind } from "./decode.ts";
import { LIST_META, readMessage, TYPE_META, type Value } from "./schema.ts";
import { DecodeError, decoding, expectMagic, MAGIC_LENGTH, openReader, Texts } from "./wire.ts";

/** Larger things the API server does not store: etcd takes 1.5 MiB. */
const MOST_BYTES = 64 * 1024 * 1024;
const LENGTH_BYTES = 4;
const NEWLINE = 0x0a;
const TYPE_META_FIELD = 1;
const RAW_FIELD = 2;
const LIST_META_FIELD = 1;
const ITEM_FIELD = 2;

/** What a list says of itself. */
export interface ListMeta {
  resourceVersion: string;
  /** Leads to the next page; empty on the last. */
  continue: string;
}

/** Takes the pieces of a list's body. Both throw DecodeError. */
export interface ListReader {
  push(piece: Buffer): void;
  /** To be called when the body has ended. */
  end(): ListMeta;
}

/** Takes the pieces of a watch's body. Both throw DecodeError. */
export interface EventReader {
  push(piece: Buffer): void;
  /** To be called when the body has ended: throws if it ended within an event. */
  end(): void;
}

/** The reader for a list of this media type; undefined if it is neither protobuf nor JSON. */
export function makeListReader(
  mediaType: string,
  decoder: Decoder,
  onVersion: (version: Version) => void,
): ListReader | undefined {
  if (mediaType === PROTOBUF) return new ProtobufList(decoder, onVersion);
  if (mediaType === JSON_TYPE) return new JsonList(decoder, onVersion);
  return undefined;
}

/** The reader for a watch of this media type; undefined if it is neither protobuf nor JSON. */
export function makeEventReader(
  mediaType: string,
  decoder: Decoder,
  onEvent: (event: WatchEvent) => void,
): EventReader | undefined {
  if (mediaType === PROTOBUF) return new ProtobufEvents(decoder, onEvent);
  if (mediaType === JSON_TYPE) return new JsonEvents(decoder, onEvent);
  return undefined;
}

export const PROTOBUF = "application/vnd.kubernetes.protobuf";
export const JSON_TYPE = "application/json";

const NOTHING = Buffer.alloc(0);

/** Bytes that have arrived and were not used yet. */
class Pending {
  bytes: Buffer = NOTHING;
  /** How many more are needed before anything can be used. */
  #wanted = 0;
  #pieces: Buffer[] = [];
  #length = 0;

  /** Adds a piece; false while too few are there. Copies only what was left over. */
  add(piece: Buffer): boolean {
    this.#pieces.push(piece);
    this.#length += piece.length;
    if (this.#length < this.#wanted) return false;
    this.bytes = this.#pieces.length === 1 ? piece : Buffer.concat(this.#pieces, this.#length);
    return true;
  }

  /** Keeps what comes from `at` on; it is of no use before there are `wanted` bytes of it. */
  keep(at: number, wanted: number): void {
    const rest = this.bytes.subarray(at);
    this.#pieces = rest.length === 0 ? [] : [rest];
    this.#length = rest.length;
    this.#wanted = wanted;
    this.bytes = NOTHING;
  }

  get isEmpty(): boolean {
    return this.#length === 0;
  }
}

/** A field of a message of which a part has arrived; where it ends may lie beyond that. */
interface Field {
  number: number;
  isLength: boolean;
  start: number;
  end: number;
}

/** The number that starts at `at` and where it ends; undefined if not all of it is there. */
function readVarint(bytes: Buffer, at: number): { value: number; end: number } | undefined {
  let value = 0;
  for (let end = at; end < bytes.length; end++) {
    const byte = bytes[end]!;
    if (end - at > 9) throw new DecodeError("a number has more than ten bytes");
    value += (byte & 0x7f) * 2 ** ((end - at) * 7);
    if (byte < 0x80) return { value, end: end + 1 };
  }
  return undefined;
}

/** The field that starts at `at`; undefined if not even its length is there. */
function readField(bytes: Buffer, at: number): Field | undefined {
  const tag = readVarint(bytes, at);
  if (tag === undefined) return undefined;
  const number = Math.floor(tag.value / 8);
  const type = tag.value % 8;
  if (number === 0) throw new DecodeError("a field has the number 0");
  if (type === 1 || type === 5) {
    const end = tag.end + (type === 1 ? 8 : 4);
    return { number, isLength: false, start: tag.end, end };
  }
  const next = readVarint(bytes, tag.end);
  if (next === undefined) return undefined;
  if (type === 0) return { number, isLength: false, start: tag.end, end: next.end };
  if (type !== 2) throw new DecodeError(`field ${number} has wire type ${type}`);
  return { number, isLength: true, start: next.end, end: next.end + next.value };
}

class ProtobufList implements ListReader {
  readonly #decoder: Decoder;
  readonly #onVersion: (version: Version) => void;
  readonly #pending = new Pending();
  readonly #texts = new Texts();
  #hasMagic = false;
  #hasList = false;
  /** Bytes of the list that are still to come; -1 outside of it. */
  #left = -1;
  #kind = "";
  #meta: Value = {};

  constructor(decoder: Decoder, onVersion: (version: Version) => void) {
    this.#decoder = decoder;
    this.#onVersion = onVersion;
    this.#pending.keep(0, MAGIC_LENGTH);
  }

  push(piece: Buffer): void {
    decoding(`a list of ${this.#decoder.kind}`, () => {
      if (!this.#pending.add(piece)) return;
      const { bytes } = this.#pending;
      let at = 0;
      if (!this.#hasMagic) {
        expectMagic(bytes);
        this.#hasMagic = true;
        at = MAGIC_LENGTH;
      }
      for (;;) {
        const field = readField(bytes, at);
        const next = field && this.#take(bytes, at, field);
        if (next === undefined) {
          // Two numbers of ten bytes at most tell where a field ends.
          const wanted = field === undefined ? bytes.length - at + 1 : field.end - at;
          this.#pending.keep(at, wanted);
          return;
        }
        at = next;
      }
    });
  }

  /** Uses the field at `at`; returns where the next begins, or undefined if it is not whole. */
  #take(bytes: Buffer, at: number, { number, isLength, start, end }: Field): number | undefined {
    const isOutside = this.#left < 0;
    if (isOutside && number === RAW_FIELD && isLength) {
      if (this.#hasList) throw new DecodeError("there are two lists in one");
      this.#hasList = true;
      this.#left = end - start;
      this.#leaveIfOver();
      return start;
    }
    if (!isOutside && end - at > this.#left) throw new DecodeError("an item ends beyond the list");
    if (end - start > MOST_BYTES) throw new DecodeError(`a field has ${end - start} bytes`);
    if (end > bytes.length) return undefined;
    if (isOutside) {
      if (number === TYPE_META_FIELD && isLength) this.#readType(bytes.subarray(start, end));
      return end;
    }
    this.#left -= end - at;
    if (isLength && number === ITEM_FIELD)
      this.#onVersion(this.#decoder.decode(bytes.subarray(start, end)));
    else if (isLength && number === LIST_META_FIELD)
      this.#meta = this.#readWhole(bytes.subarray(start, end), LIST_META);
    this.#leaveIfOver();
    return end;
  }

  #leaveIfOver(): void {
    if (this.#left === 0) this.#left = -1;
  }

  #readType(bytes: Buffer): void {
    this.#kind = String(this.#readWhole(bytes, TYPE_META).kind);
    expectList(this.#kind, this.#decoder.kind);
  }

  #readWhole(bytes: Buffer, shape: typeof LIST_META): Value {
    return readMessage(openReader(bytes), shape, { end: bytes.length, texts: this.#texts });
  }

  end(): ListMeta {
    return decoding(`a list of ${this.#decoder.kind}`, () => {
      if (!this.#hasList || this.#left >= 0 || !this.#pending.isEmpty)
        throw new DecodeError("it ends before its end");
      expectList(this.#kind, this.#decoder.kind);
      return readListMeta(this.#meta);
    });
  }
}

function expectList(kind: unknown, wanted: WatchedKind): void {
  if (kind !== `${wanted}List`) throw new DecodeError(`it is a "${String(kind)}"`);
}

function readListMeta({ resourceVersion, continue: token }: Value): ListMeta {
  if (typeof resourceVersion !== "string" || resourceVersion === "")
    throw new DecodeError("it has no resourceVersion");
  return { resourceVersion, continue: typeof token === "string" ? token : "" };
}

class JsonList implements ListReader {
  readonly #decoder: Decoder;
  readonly #onVersion: (version: Version) => void;
  readonly #pieces: Buffer[] = [];

  constructor(decoder: Decoder, onVersion: (version: Version) => void) {
    this.#decoder = decoder;
    this.#onVersion = onVersion;
  }

  push(piece: Buffer): void {
    this.#pieces.push(piece);
  }

  end(): ListMeta {
    return decoding(`a list of ${this.#decoder.kind}`, () => {
      const list = JSON.parse(Buffer.concat(this.#pieces).toString("utf8")) as Value;
      expectList(list?.kind, this.#decoder.kind);
      const { items = [], metadata = {} } = list;
      const meta = readListMeta(metadata as Value);
      for (const item of (items ?? []) as unknown[]) this.#onVersion(this.#decoder.read(item));
      return meta;
    });
  }
}

/** A watch in protobuf: frames of a length, big-endian, and an event. */
class ProtobufEvents implements EventReader {
  readonly #decoder: Decoder;
  readonly #onEvent: (event: WatchEvent) => void;
  readonly #pending = new Pending();

  constructor(decoder: Decoder, onEvent: (event: WatchEvent) => void) {
    this.#decoder = decoder;
    this.#onEvent = onEvent;
  }

  push(piece: Buffer): void {
    if (!this.#pending.add(piece)) return;
    const { bytes } = this.#pending;
    let at = 0;
    let wanted = LENGTH_BYTES;
    while (bytes.length - at >= wanted) {
      const length = bytes.readUInt32BE(at);
      if (length > MOST_BYTES) throw new DecodeError(`Cannot decode an event of ${length} bytes`);
      wanted = LENGTH_BYTES + length;
      if (bytes.length - at < wanted) break;
      this.#onEvent(this.#decoder.decodeEvent(bytes.subarray(at + LENGTH_BYTES, at + wanted)));
      at += wanted;
      wanted = LENGTH_BYTES;
    }
    this.#pending.keep(at, wanted);
  }

  end(): void {
    expectNoRest(this.#pending);
  }
}

/** A watch in JSON: an event a line. */
class JsonEvents implements EventReader {
  readonly #decoder: Decoder;
  readonly #onEvent: (event: WatchEvent) => void;
  readonly #pending = new Pending();

  constructor(decoder: Decoder, onEvent: (event: WatchEvent) => void) {
    this.#decoder = decoder;
    this.#onEvent = onEvent;
  }

  push(piece: Buffer): void {
    this.#pending.add(piece);
    const { bytes } = this.#pending;
    if (bytes.length > MOST_BYTES)
      throw new DecodeError(`Cannot decode an event of more than ${MOST_BYTES} bytes`);
    let at = 0;
    for (let end = bytes.indexOf(NEWLINE); end >= 0; end = bytes.indexOf(NEWLINE, at)) {
      const line = bytes.toString("utf8", at, end);
      at = end + 1;
      if (line.trim() !== "") this.#onEvent(this.#decoder.readEvent(line));
    }
    this.#pending.keep(at, 0);
  }

  end(): void {
    expectNoRest(this.#pending);
  }
}

function expectNoRest(pending: Pending): void {
  if (!pending.isEmpty) throw new DecodeError("The watch ended within an event");
}
