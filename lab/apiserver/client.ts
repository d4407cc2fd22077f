// A plain client for tests of the API server: one request over HTTP/1.1 or HTTP/2, its bytes as
// they come, and protobuf turned back into JSON. Knows no Kubernetes client's habits.
import { once } from "node:events";
import type { IncomingMessage } from "node:http";
import https from "node:https";
import { waitFor } from "../wait.ts";
import { type Field, type Message, messageOf } from "./schema.ts";
import type { ApiServer } from "./server.ts";

/** Where to ask, whom to trust and what to show. */
export type Reachable = Pick<ApiServer, "url" | "ca" | "token">;

export interface AskOptions {
  accept?: string;
  /** The server's token if not given; "" for none. */
  token?: string;
  headers?: Readonly<Record<string, string>>;
  key?: string;
  certificate?: string;
  method?: string;
}

/** An answer that may still be coming. */
export class Answer {
  readonly #message: IncomingMessage;
  #chunks: Buffer[] = [];
  /** The error that the connection ended with. */
  error: Error | undefined;
  isOver = false;

  constructor(message: IncomingMessage) {
    this.#message = message;
    message.on("data", (chunk: Buffer) => this.#chunks.push(chunk));
    message.on("error", (error) => {
      this.error = error;
    });
    message.on("close", () => {
      this.isOver = true;
    });
  }

  get status(): number {
    return this.#message.statusCode ?? 0;
  }

  get type(): string {
    return this.#message.headers["content-type"] ?? "";
  }

  header(name: string): string | undefined {
    return this.#message.headers[name] as string | undefined;
  }

  /** What came so far. */
  get bytes(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  get text(): string {
    return this.bytes.toString();
  }

  /** Waits for the end and returns everything; throws if the connection broke. */
  async whole(): Promise<Buffer> {
    await waitFor(() => this.isOver, { what: "the end of an answer" });
    if (this.error) throw this.error;
    return this.bytes;
  }

  /** Waits until at least so many bytes are there. */
  async atLeast(bytes: number): Promise<Buffer> {
    const what = `${bytes} bytes of an answer`;
    await waitFor(() => this.bytes.length >= bytes, { what });
    return this.bytes;
  }

  /** Waits for so many events of a JSON watch. */
  async events(count: number): Promise<WatchEvent[]> {
    const lines = () => this.text.split("\n").slice(0, -1);
    await waitFor(() => lines().length >= count, { what: `${count} events, not '${this.text}'` });
    return lines().map((line) => JSON.parse(line));
  }

  close(): void {
    this.#message.destroy();
  }
}

export interface WatchEvent {
  type: string;
  // biome-ignore lint/suspicious/noExplicitAny: tests look at whatever a server sent
  object: any;
}

/** Sends a request over HTTP/1.1 on a connection of its own; resolves with the head. */
export async function ask(
  server: Reachable,
  path: string,
  options: AskOptions = {},
): Promise<Answer> {
  const { accept, token = server.token, headers, key, certificate, method } = options;
  const request = https.request(`${server.url}${path}`, {
    ca: server.ca,
    agent: false,
    ...(method && { method }),
    ...(key && { key }),
    ...(certificate && { cert: certificate }),
    headers: {
      ...(accept && { accept }),
      ...(token && { authorization: `Bearer ${token}` }),
      ...headers,
    },
  });
  request.end();
  const [message] = (await once(request, "response")) as [IncomingMessage];
  const answer = new Answer(message);
  // A reset may be told of the request, even though its answer had begun.
  request.on("error", (error) => {
    answer.error ??= error;
  });
  return answer;
}

type Value = Record<string, unknown>;

interface Wire {
  number: number;
  /** A varint's value, or the bytes of all else. */
  value: bigint | Buffer;
}

function readVarint(bytes: Buffer, offset: number): { value: bigint; offset: number } {
  let value = 0n;
  for (let shift = 0n; ; shift += 7n) {
    const byte = bytes.readUInt8(offset++);
    value |= BigInt(byte & 127) << shift;
    if (byte < 128) return { value: BigInt.asIntN(64, value), offset };
  }
}

/** The fields on the wire, in their order. */
export function* readWire(bytes: Buffer): Generator<Wire> {
  for (let offset = 0; offset < bytes.length; ) {
    const tag = readVarint(bytes, offset);
    const number = Number(tag.value >> 3n);
    const content = readVarint(bytes, tag.offset);
    offset = content.offset;
    if ((tag.value & 7n) === 0n) {
      yield { number, value: content.value };
      continue;
    }
    const end = offset + Number(content.value);
    if (end > bytes.length)
      throw new Error(`Field ${number} reaches ${end - bytes.length} too far`);
    yield { number, value: bytes.subarray(offset, end) };
    offset = end;
  }
}

function fieldsByNumber(bytes: Buffer): Map<number, bigint | Buffer> {
  return new Map([...readWire(bytes)].map(({ number, value }) => [number, value]));
}

function decodeTime(bytes: Buffer): string | undefined {
  const seconds = fieldsByNumber(bytes).get(1);
  if (seconds === undefined) return undefined;
  return new Date(Number(seconds) * 1000).toISOString().replace(".000Z", "Z");
}

function decodeValue(field: Field, value: bigint | Buffer): unknown {
  if (typeof value === "bigint") return field.type === "bool" ? value !== 0n : Number(value);
  if (field.type === "string") return value.toString();
  if (field.type === "message") return decodeFields(field.message!, value);
  if (field.type === "time") return decodeTime(value);
  const parts = fieldsByNumber(value);
  const text = (number: number) => String(parts.get(number) ?? "");
  if (field.type === "fieldsV1") return JSON.parse(text(1));
  if (field.type === "intOrString") return parts.get(1) === 1n ? text(3) : Number(parts.get(2));
  const quantity = parts.get(2) as Buffer;
  return [text(1), field.type === "map" ? text(2) : String(fieldsByNumber(quantity).get(1))];
}

function decodeFields(message: Message, bytes: Buffer): Value {
  const result: Value = {};
  for (const { number, value } of readWire(bytes)) {
    const field = message.fields.find((candidate) => candidate.number === number);
    if (!field) throw new Error(`'${message.name}' has no field ${number} in the schema`);
    const decoded = decodeValue(field, value);
    if (field.isList) result[field.name] = [...((result[field.name] as []) ?? []), decoded];
    else if (field.type !== "map" && field.type !== "quantities") result[field.name] = decoded;
    else {
      const [key, entry] = decoded as [string, string];
      result[field.name] = { ...(result[field.name] as Value), [key]: entry };
    }
  }
  return result;
}

/** A message's bytes as JSON, with the zeros that Go writes. */
export function decodeMessage(name: string, bytes: Buffer): Value {
  return decodeFields(messageOf(name), bytes);
}

/** Kind, version and bytes of what is in an envelope. */
export function openEnvelope(bytes: Buffer): { apiVersion: string; kind: string; raw: Buffer } {
  if (bytes.toString("latin1", 0, 4) !== "k8s\0") throw new Error("The bytes begin without k8s\\0");
  const parts = fieldsByNumber(bytes.subarray(4));
  const type = fieldsByNumber(parts.get(1) as Buffer);
  return {
    apiVersion: String(type.get(1)),
    kind: String(type.get(2)),
    raw: parts.get(2) as Buffer,
  };
}

/** The whole frames of a protobuf watch, each with its type and the envelope of its object. */
export function readFrames(bytes: Buffer): { type: string; frame: Buffer; object: Buffer }[] {
  const frames: { type: string; frame: Buffer; object: Buffer }[] = [];
  for (let offset = 0; offset + 4 <= bytes.length; ) {
    const end = offset + 4 + bytes.readUInt32BE(offset);
    if (end > bytes.length) break;
    const frame = bytes.subarray(offset, end);
    const event = fieldsByNumber(frame.subarray(4));
    const object = fieldsByNumber(event.get(2) as Buffer).get(1) as Buffer;
    frames.push({ type: String(event.get(1)), frame, object });
    offset = end;
  }
  return frames;
}
