// Turns the JSON form of Kubernetes objects into the protobuf bytes that kube-apiserver sends for
// them. Knows schema.ts, not what any field means; what the schema lacks is refused aloud.
import { type Field, type Message, messageOf } from "./schema.ts";

const VARINT = 0;
const BYTES = 2;
const FIRST_SIZE = 16_384;

/** Writes from the end to the front, so that a length is known when it is written. */
class Writer {
  #buffer = Buffer.allocUnsafe(FIRST_SIZE);
  #start = FIRST_SIZE;

  /** Bytes written so far; the difference of two is a length. */
  get size(): number {
    return this.#buffer.length - this.#start;
  }

  #reserve(bytes: number): void {
    if (bytes <= this.#start) return;
    const { size } = this;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, size + bytes));
    this.#buffer.copy(larger, larger.length - size, this.#start);
    this.#buffer = larger;
    this.#start = larger.length - size;
  }

  /** A whole number; negative ones take ten bytes. */
  varint(value: number): void {
    if (value >= 0 && value < 128) {
      this.#reserve(1);
      this.#buffer[--this.#start] = value;
      return;
    }
    const bytes: number[] = [];
    let rest = BigInt.asUintN(64, BigInt(value));
    for (; rest > 127n; rest >>= 7n) bytes.push(Number(rest & 127n) | 128);
    bytes.push(Number(rest));
    this.bytes(Uint8Array.from(bytes));
  }

  bytes(bytes: Uint8Array): void {
    this.#reserve(bytes.length);
    this.#start -= bytes.length;
    this.#buffer.set(bytes, this.#start);
  }

  string(text: string): void {
    const length = Buffer.byteLength(text);
    this.#reserve(length);
    this.#start -= length;
    this.#buffer.write(text, this.#start, length);
  }

  tag(number: number, wireType: number): void {
    this.varint(number * 8 + wireType);
  }

  /** Length and tag of what was written since the writer had this size. */
  close(number: number, size: number): void {
    this.varint(this.size - size);
    this.tag(number, BYTES);
  }

  /** A copy of all bytes; the writer is empty after it. */
  take(): Buffer {
    const bytes = Buffer.from(this.#buffer.subarray(this.#start));
    this.#start = this.#buffer.length;
    return bytes;
  }
}

/** A JSON value cannot be put into the field that it is in. */
class Unencodable extends Error {}

function refuse(path: string, value: unknown, wanted: string): never {
  throw new Unencodable(`'${path}' is ${JSON.stringify(value)}, but the schema wants ${wanted}`);
}

type Fields = Record<string, unknown>;

function fieldsOf(value: unknown, path: string): Fields {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
  return refuse(path, value, "a map");
}

function writeString(writer: Writer, { number }: Field, value: unknown, path: string): void {
  if (typeof value !== "string") refuse(path, value, "a string");
  const { size } = writer;
  writer.string(value);
  writer.close(number, size);
}

function writeInt(writer: Writer, { number }: Field, value: unknown, path: string): void {
  if (!Number.isSafeInteger(value)) refuse(path, value, "a whole number");
  writer.varint(value as number);
  writer.tag(number, VARINT);
}

function writeBool(writer: Writer, { number }: Field, value: unknown, path: string): void {
  if (typeof value !== "boolean") refuse(path, value, "true or false");
  writer.varint(value ? 1 : 0);
  writer.tag(number, VARINT);
}

/** Seconds and nanoseconds; the zero time is an empty message. */
function writeTime(writer: Writer, { number }: Field, value: unknown, path: string): void {
  const { size } = writer;
  if (value !== undefined) {
    const milliseconds = typeof value === "string" ? Date.parse(value) : Number.NaN;
    if (Number.isNaN(milliseconds)) refuse(path, value, "a time like 2026-01-31T12:00:00Z");
    writer.varint(0);
    writer.tag(2, VARINT);
    writer.varint(Math.floor(milliseconds / 1000));
    writer.tag(1, VARINT);
  }
  writer.close(number, size);
}

/** Entries by key; a quantity is a message with its text as only field. */
function writeMap(writer: Writer, field: Field, value: unknown, path: string): void {
  const map = fieldsOf(value, path);
  for (const key of Object.keys(map).sort().reverse()) {
    const { size } = writer;
    const text = map[key];
    if (typeof text !== "string") refuse(`${path}[${key}]`, text, "a string");
    writer.string(text);
    writer.close(field.type === "quantities" ? 1 : 2, size);
    if (field.type === "quantities") writer.close(2, size);
    const afterValue = writer.size;
    writer.string(key);
    writer.close(1, afterValue);
    writer.close(field.number, size);
  }
}

function writeIntOrString(writer: Writer, { number }: Field, value: unknown, path: string): void {
  const isText = typeof value === "string";
  if (!isText && !Number.isSafeInteger(value)) refuse(path, value, "a whole number or a string");
  const { size } = writer;
  writer.string(isText ? value : "");
  writer.close(3, size);
  writer.varint(isText ? 0 : (value as number));
  writer.tag(2, VARINT);
  writer.varint(isText ? 1 : 0);
  writer.tag(1, VARINT);
  writer.close(number, size);
}

/** The JSON text of the value, as bytes in a message. */
function writeFieldsV1(writer: Writer, { number }: Field, value: unknown): void {
  const { size } = writer;
  writer.string(JSON.stringify(value));
  writer.close(1, size);
  writer.close(number, size);
}

function writeNested(writer: Writer, field: Field, value: unknown, path: string): void {
  const { size } = writer;
  writeMessage(writer, field.message!, fieldsOf(value, path), path);
  writer.close(field.number, size);
}

const WRITE = {
  string: writeString,
  int: writeInt,
  bool: writeBool,
  time: writeTime,
  map: writeMap,
  quantities: writeMap,
  intOrString: writeIntOrString,
  fieldsV1: writeFieldsV1,
  message: writeNested,
};

const ZERO: Readonly<Record<Field["type"], unknown>> = {
  string: "",
  int: 0,
  bool: false,
  time: undefined,
  map: {},
  quantities: {},
  intOrString: 0,
  fieldsV1: {},
  message: {},
};

function writeField(writer: Writer, field: Field, value: unknown, path: string): void {
  if (value === undefined || value === null) {
    if (field.isAlways) WRITE[field.type](writer, field, ZERO[field.type], path);
    return;
  }
  if (!field.isList) {
    WRITE[field.type](writer, field, value, path);
    return;
  }
  if (!Array.isArray(value)) refuse(path, value, "a list");
  for (let index = value.length - 1; index >= 0; index--)
    WRITE[field.type](writer, field, value[index], `${path}[${index}]`);
}

function writeMessage(writer: Writer, message: Message, value: Fields, path: string): void {
  for (const name in value)
    if (!message.names.has(name) && value[name] !== undefined)
      throw new Unencodable(
        `'${path}${path && "."}${name}' is no field of '${message.name}'; correct it, or add it ` +
          "to the schema with its number",
      );
  for (const field of message.fields)
    writeField(writer, field, value[field.name], path ? `${path}.${field.name}` : field.name);
}

const writer = new Writer();

/**
 * The bytes of a JSON value as the message of this name: fields in the order of their numbers, as
 * Go writes them. Throws with the field's path if the schema lacks it or wants another type.
 */
export function encodeMessage(name: string, value: object): Buffer {
  try {
    writeMessage(writer, messageOf(name), value as Fields, "");
    return writer.take();
  } catch (error) {
    writer.take();
    throw error;
  }
}

/** The bytes of a field: its tag, its length and what it holds. */
export function lengthDelimited(number: number, content: Uint8Array | string): Buffer {
  const { size } = writer;
  if (typeof content === "string") writer.string(content);
  else writer.bytes(content);
  writer.close(number, size);
  return writer.take();
}

/** Tag and length alone, for content of so many bytes that is kept elsewhere. */
export function fieldHead(number: number, length: number): Buffer {
  writer.varint(length);
  writer.tag(number, BYTES);
  return writer.take();
}
