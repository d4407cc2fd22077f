// From the bytes of one object, event or error to what bpfsvc makes of it, alike out of protobuf
// and out of JSON. Knows no lists and no streams; what is wrong with an object the model says.
import type { KubernetesObject, Problem } from "../../model/objects.ts";
import { readObject } from "../../model/read.ts";
import { sameData } from "../../model/same.ts";
import {
  type Message,
  OBJECTS,
  readMessage,
  STATUS,
  UNKNOWN,
  type Value,
  WATCH_EVENT,
} from "./schema.ts";
import { SliceReader } from "./slice.ts";
import { readTriggerTime } from "./trigger.ts";
import { DecodeError, decoding, expectMagic, MAGIC_LENGTH, openReader, Texts } from "./wire.ts";

const INITIAL_EVENTS_END = "k8s.io/initial-events-end";

export type WatchedKind = keyof typeof OBJECTS;

/** A version of an object as the API server has it. */
export interface Version {
  /** Empty for what is in no namespace. */
  namespace: string;
  name: string;
  resourceVersion: string;
  /** Undefined if it cannot be used, or is of a kind that the model does not know. */
  object: KubernetesObject | undefined;
  problems: readonly Problem[];
  /** When what a slice tells of came about, in ms since the epoch; 0 if it does not say. */
  triggeredMs: number;
}

/** What an API server says instead of an answer. */
export interface Status {
  code: number;
  reason: string;
  message: string;
  /** 0 if it does not say. */
  retryAfterSeconds: number;
}

export type WatchEvent =
  | { type: "ADDED" | "MODIFIED" | "DELETED"; version: Version }
  | { type: "BOOKMARK"; resourceVersion: string; endsInitialEvents: boolean }
  | { type: "ERROR"; status: Status };

/** Decodes the objects of one kind, and events of them. All that it throws is DecodeError. */
export class Decoder {
  readonly kind: WatchedKind;
  readonly #texts: Texts;
  readonly #slices: SliceReader;
  /** The object before this one: what is alike in both is kept once. */
  #previous: Value = {};

  constructor(kind: WatchedKind) {
    this.kind = kind;
    this.#texts = new Texts();
    this.#slices = new SliceReader(this.#texts);
  }

  /** Decodes the protobuf message of an object, without what wraps it. */
  decode(bytes: Buffer): Version {
    return decoding(`a ${this.kind}`, () => {
      if (this.kind === "EndpointSlice") {
        const read = this.#slices.read(openReader(bytes));
        if (read !== undefined) {
          const { object, resourceVersion, triggeredMs } = read;
          const { namespace, name } = object;
          return { namespace, name, resourceVersion, object, problems: NO_PROBLEMS, triggeredMs };
        }
      }
      return this.#readVersion(this.#readWhole(bytes, OBJECTS[this.kind]));
    });
  }

  /** Reads the JSON value of an object; in a list it does not say its kind. */
  read(value: unknown): Version {
    return decoding(`a ${this.kind}`, () => this.#readVersion(asMap(value)));
  }

  /** Decodes a watch event: the bytes of one frame, without its length. */
  decodeEvent(frame: Buffer): WatchEvent {
    return decoding(`a watch event of ${this.kind}`, () => {
      const { type, object } = this.#readWhole(frame, WATCH_EVENT);
      const wrapped = (object as Value | undefined)?.raw;
      if (wrapped === undefined) throw new DecodeError(`the event ${String(type)} has no object`);
      const { kind, raw } = unwrap(wrapped as Buffer);
      if (type === "ERROR") return { type, status: decodeStatus(raw) };
      if (kind !== this.kind) throw new DecodeError(`the event is of a ${kind}`);
      if (type === "BOOKMARK") return readBookmark(this.#readWhole(raw, OBJECTS[this.kind]));
      return { type: changeType(type), version: this.decode(raw) };
    });
  }

  /** Reads a watch event from its JSON: one line of the stream. */
  readEvent(line: string): WatchEvent {
    return decoding(`a watch event of ${this.kind}`, () => {
      const { type, object } = asMap(JSON.parse(line));
      const map = asMap(object);
      if (type === "ERROR") return { type, status: readStatus(map) };
      if (map.kind !== this.kind) throw new DecodeError(`the event is of a ${String(map.kind)}`);
      if (type === "BOOKMARK") return readBookmark(map);
      return { type: changeType(type), version: this.read(map) };
    });
  }

  #readWhole(bytes: Buffer, shape: Message): Value {
    return readMessage(openReader(bytes), shape, { end: bytes.length, texts: this.#texts });
  }

  #readVersion(value: Value): Version {
    const metadata = asMap(value.metadata);
    const { object, problems } = readObject({ ...value, kind: this.kind });
    if (object !== undefined) this.#share(object as unknown as Value);
    return {
      namespace: textOf(metadata.namespace),
      name: textOf(metadata.name),
      resourceVersion: textOf(metadata.resourceVersion),
      object,
      problems,
      triggeredMs: readTriggerTime(metadata.annotations),
    };
  }

  /** Lists take most of an object's memory: empty ones, families and ports are mostly alike. */
  #share(object: Value): void {
    for (const name in object) {
      const list = object[name];
      if (!Array.isArray(list)) continue;
      const before = this.#previous[name];
      // A copied list has no room to spare.
      object[name] = sameData(before, list) ? before : list.slice();
    }
    this.#previous = object;
  }
}

const NO_PROBLEMS: readonly Problem[] = [];

/** The kind and the bytes of what comes wrapped in runtime.Unknown, as all objects and lists do. */
function unwrap(bytes: Buffer): { kind: string; raw: Buffer } {
  expectMagic(bytes);
  const reader = openReader(bytes);
  reader.pos = MAGIC_LENGTH;
  const place = { end: bytes.length, texts: wrappingTexts };
  const { typeMeta, raw } = readMessage(reader, UNKNOWN, place);
  if (raw === undefined) throw new DecodeError("what wraps the object is empty");
  return { kind: textOf((typeMeta as Value | undefined)?.kind), raw: raw as Buffer };
}

/** Kinds and versions of the API are few. */
const wrappingTexts = new Texts();

/** The Status in a response's body, wrapped; undefined if it is none. */
export function decodeStatusBody(body: Buffer): Status | undefined {
  try {
    const { kind, raw } = unwrap(body);
    return kind === "Status" ? decodeStatus(raw) : undefined;
  } catch {
    return undefined;
  }
}

/** The Status in a response's JSON body; undefined if it is none. */
export function parseStatusBody(body: Buffer): Status | undefined {
  try {
    const value = asMap(JSON.parse(body.toString("utf8")));
    return value.kind === "Status" ? readStatus(value) : undefined;
  } catch {
    return undefined;
  }
}

function decodeStatus(raw: Buffer): Status {
  const place = { end: raw.length, texts: wrappingTexts };
  return readStatus(readMessage(openReader(raw), STATUS, place));
}

function readStatus({ code, reason, message, details }: Value): Status {
  return {
    code: numberOf(code),
    reason: textOf(reason),
    message: textOf(message),
    retryAfterSeconds: numberOf(asMap(details).retryAfterSeconds),
  };
}

function readBookmark({ metadata }: Value): WatchEvent {
  const { resourceVersion, annotations } = asMap(metadata);
  return {
    type: "BOOKMARK",
    resourceVersion: textOf(resourceVersion),
    endsInitialEvents: asMap(annotations)[INITIAL_EVENTS_END] === "true",
  };
}

function changeType(type: unknown): "ADDED" | "MODIFIED" | "DELETED" {
  if (type === "ADDED" || type === "MODIFIED" || type === "DELETED") return type;
  throw new DecodeError(`its type is "${String(type)}"`);
}

function asMap(value: unknown): Value {
  return typeof value === "object" && value !== null ? (value as Value) : {};
}

function textOf(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function numberOf(value: unknown): number {
  return typeof value === "number" ? value : 0;
}
