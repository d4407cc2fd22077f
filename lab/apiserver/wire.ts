// The envelopes of the Kubernetes API in both encodings: objects, lists, Status errors and watch
// events, out of bytes that are already there. Knows no store and no connection.
import { toJson, type Version } from "./objects.ts";
import { encodeMessage, fieldHead, lengthDelimited } from "./protobuf.ts";
import { apiVersionOf, type Resource } from "./resources.ts";
import type { Status } from "./status.ts";

export type Encoding = "json" | "protobuf";

export const MEDIA_TYPES: Readonly<Record<Encoding, string>> = {
  json: "application/json",
  protobuf: "application/vnd.kubernetes.protobuf",
};

const MAGIC = Buffer.from("k8s\0");
const NO_ENCODING = Buffer.concat([lengthDelimited(3, ""), lengthDelimited(4, "")]);

export interface ListMeta {
  resourceVersion: string;
  continue?: string;
  remainingItemCount?: number;
}

interface Kind {
  apiVersion: string;
  kind: string;
}

const kinds = new Map<Resource, Kind>();

function kindOf(resource: Resource): Kind {
  let kind = kinds.get(resource);
  if (!kind) {
    kind = { apiVersion: apiVersionOf(resource), kind: resource.kind };
    kinds.set(resource, kind);
  }
  return kind;
}

/** All of a runtime.Unknown that comes before so many bytes of an object. */
function unknownHead({ apiVersion, kind }: Kind, rawLength: number): Buffer {
  const type = Buffer.concat([lengthDelimited(1, apiVersion), lengthDelimited(2, kind)]);
  return Buffer.concat([MAGIC, lengthDelimited(1, type), fieldHead(2, rawLength)]);
}

function unknown(kind: Kind, raw: Buffer): Buffer {
  return Buffer.concat([unknownHead(kind, raw.length), raw, NO_ENCODING]);
}

/** `{"kind":...,"apiVersion":...,` and the rest of an object's text. */
function jsonOf({ kind, apiVersion }: Kind, text: Buffer): Buffer {
  const head = `{"kind":${toJson(kind)},"apiVersion":${toJson(apiVersion)},`;
  return Buffer.concat([Buffer.from(head), text.subarray(1)]);
}

const NEWLINE = Buffer.from("\n");

function objectBytes(version: Version, encoding: Encoding): Buffer {
  const kind = kindOf(version.resource);
  return encoding === "json" ? jsonOf(kind, version.json) : unknown(kind, version.protobuf);
}

/** The body of an answer that is one object. */
export function objectBody(version: Version, encoding: Encoding): Buffer {
  const bytes = objectBytes(version, encoding);
  return encoding === "json" ? Buffer.concat([bytes, NEWLINE]) : bytes;
}

function statusBytes(status: Status, encoding: Encoding): Buffer {
  const kind = { apiVersion: "v1", kind: "Status" };
  if (encoding === "protobuf") return unknown(kind, encodeMessage("Status", status));
  return jsonOf(kind, Buffer.from(toJson(status)));
}

/** The body of an error. */
export function statusBody(status: Status, encoding: Encoding): Buffer {
  const bytes = statusBytes(status, encoding);
  return encoding === "json" ? Buffer.concat([bytes, NEWLINE]) : bytes;
}

/** A list's body in small pieces, and how many bytes they are together. */
export interface ListBody {
  length: number;
  pieces: Iterable<Buffer>;
}

export interface List {
  resource: Resource;
  metadata: ListMeta;
  items: readonly Version[];
}

function* jsonPieces({ resource, metadata, items }: List): Generator<Buffer> {
  const { kind, apiVersion } = kindOf(resource);
  const head = toJson({ kind: `${kind}List`, apiVersion, metadata, items: [] });
  yield Buffer.from(head.slice(0, -2));
  const comma = Buffer.from(",");
  for (let index = 0; index < items.length; index++) {
    if (index > 0) yield comma;
    yield items[index]!.json;
  }
  yield Buffer.from("]}\n");
}

function* protobufPieces({ resource, metadata, items }: List): Generator<Buffer> {
  const { kind, apiVersion } = kindOf(resource);
  const meta = lengthDelimited(1, encodeMessage("ListMeta", metadata));
  const heads = items.map(({ protobuf }) => fieldHead(2, protobuf.length));
  let length = meta.length;
  items.forEach(({ protobuf }, index) => {
    length += heads[index]!.length + protobuf.length;
  });
  yield unknownHead({ apiVersion, kind: `${kind}List` }, length);
  yield meta;
  for (let index = 0; index < items.length; index++) {
    yield heads[index]!;
    yield items[index]!.protobuf;
  }
  yield NO_ENCODING;
}

/** The body of a list. */
export function listBody(list: List, encoding: Encoding): ListBody {
  const pieces = [...(encoding === "json" ? jsonPieces(list) : protobufPieces(list))];
  return { length: pieces.reduce((sum, piece) => sum + piece.length, 0), pieces };
}

export type EventType = "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK" | "ERROR";

function frame(type: EventType, { object, encoding }: { object: Buffer; encoding: Encoding }) {
  if (encoding === "json")
    return Buffer.concat([Buffer.from(`{"type":"${type}","object":`), object, Buffer.from("}\n")]);
  const extension = fieldHead(1, object.length);
  const head = Buffer.concat([
    lengthDelimited(1, type),
    fieldHead(2, extension.length + object.length),
    extension,
  ]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(head.length + object.length);
  return Buffer.concat([length, head, object]);
}

/** The bytes of a watch event about an object. */
export function eventFrame(type: EventType, version: Version, encoding: Encoding): Buffer {
  return frame(type, { object: objectBytes(version, encoding), encoding });
}

/** The bytes of the event that ends a watch with an error. */
export function errorFrame(status: Status, encoding: Encoding): Buffer {
  return frame("ERROR", { object: statusBytes(status, encoding), encoding });
}

/** The bytes of a bookmark; `isInitialEnd` marks the one that ends the initial events. */
export function bookmarkFrame(
  resource: Resource,
  options: { resourceVersion: number; isInitialEnd: boolean; encoding: Encoding },
): Buffer {
  const metadata = {
    resourceVersion: String(options.resourceVersion),
    ...(options.isInitialEnd && { annotations: { "k8s.io/initial-events-end": "true" } }),
  };
  const value = { metadata, ...resource.empty };
  const kind = kindOf(resource);
  const object =
    options.encoding === "json"
      ? jsonOf(kind, Buffer.from(toJson(value)))
      : unknown(kind, encodeMessage(resource.kind, value));
  return frame("BOOKMARK", { object, encoding: options.encoding });
}
