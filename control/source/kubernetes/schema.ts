// The few fields of Kubernetes' messages that bpfsvc reads, by number, as in the generated.proto
// files of k8s.io/api and k8s.io/apimachinery. Gives plain values in the form of their JSON, but
// Dates for times.
import { readTriggerEntry, TRIGGER_ANNOTATION } from "./trigger.ts";
import { decodeText, enter, expectVarint, leave, type Reader, skip, type Texts } from "./wire.ts";

type Kind = "text" | "integer" | "flag" | "time" | "labels" | "trigger" | "bytes" | Message;

interface Field {
  name: string;
  kind: Kind;
  isList: boolean;
}

/** Fields by number; the others are skipped. */
export type Message = readonly (Field | undefined)[];

function message(fields: Record<number, readonly [name: string, kind: Kind]>): Message {
  const list: (Field | undefined)[] = [];
  for (const [number, [name, kind]] of Object.entries(fields)) {
    const isList = name.endsWith("[]");
    list[Number(number)] = { name: isList ? name.slice(0, -2) : name, kind, isList };
  }
  return Array.from(list);
}

const objectMeta = message({
  1: ["name", "text"],
  3: ["namespace", "text"],
  6: ["resourceVersion", "text"],
  8: ["creationTimestamp", "time"],
  9: ["deletionTimestamp", "time"],
  11: ["labels", "labels"],
  12: ["annotations", "labels"],
});

/** What matters of a slice's metadata. */
export const SLICE_META = message({
  1: ["name", "text"],
  3: ["namespace", "text"],
  6: ["resourceVersion", "text"],
  11: ["labels", "labels"],
  12: ["triggeredMs", "trigger"],
});

const serviceSpec = message({
  1: [
    "ports[]",
    message({
      1: ["name", "text"],
      2: ["protocol", "text"],
      3: ["port", "integer"],
      5: ["nodePort", "integer"],
    }),
  ],
  3: ["clusterIP", "text"],
  4: ["type", "text"],
  5: ["externalIPs[]", "text"],
  7: ["sessionAffinity", "text"],
  9: ["loadBalancerSourceRanges[]", "text"],
  11: ["externalTrafficPolicy", "text"],
  12: ["healthCheckNodePort", "integer"],
  14: [
    "sessionAffinityConfig",
    message({ 1: ["clientIP", message({ 1: ["timeoutSeconds", "integer"] })] }),
  ],
  18: ["clusterIPs[]", "text"],
  19: ["ipFamilies[]", "text"],
  22: ["internalTrafficPolicy", "text"],
});

const serviceStatus = message({
  1: [
    "loadBalancer",
    message({ 1: ["ingress[]", message({ 1: ["ip", "text"], 3: ["ipMode", "text"] })] }),
  ],
});

const names = message({ 1: ["name", "text"] });

const endpoint = message({
  1: ["addresses[]", "text"],
  2: [
    "conditions",
    message({ 1: ["ready", "flag"], 2: ["serving", "flag"], 3: ["terminating", "flag"] }),
  ],
  6: ["nodeName", "text"],
  8: ["hints", message({ 1: ["forZones[]", names], 2: ["forNodes[]", names] })],
});

const slicePort = message({
  1: ["name", "text"],
  2: ["protocol", "text"],
  3: ["port", "integer"],
});

/** The messages of the objects that are watched. */
export const OBJECTS = {
  Service: message({
    1: ["metadata", objectMeta],
    2: ["spec", serviceSpec],
    3: ["status", serviceStatus],
  }),
  EndpointSlice: message({
    1: ["metadata", objectMeta],
    2: ["endpoints[]", endpoint],
    3: ["ports[]", slicePort],
    4: ["addressType", "text"],
  }),
  Node: message({
    1: ["metadata", objectMeta],
    2: [
      "spec",
      message({ 5: ["taints[]", message({ 1: ["key", "text"] })], 7: ["podCIDRs[]", "text"] }),
    ],
    3: [
      "status",
      message({ 5: ["addresses[]", message({ 1: ["type", "text"], 2: ["address", "text"] })] }),
    ],
  }),
  ServiceCIDR: message({
    1: ["metadata", objectMeta],
    2: ["spec", message({ 1: ["cidrs[]", "text"] })],
  }),
} as const;

export const LIST_META = message({ 2: ["resourceVersion", "text"], 3: ["continue", "text"] });

export const STATUS = message({
  1: ["metadata", LIST_META],
  3: ["message", "text"],
  4: ["reason", "text"],
  5: ["details", message({ 5: ["retryAfterSeconds", "integer"] })],
  6: ["code", "integer"],
});

export const TYPE_META = message({ 1: ["apiVersion", "text"], 2: ["kind", "text"] });

/** What wraps every object and list: its kind, and its bytes. */
export const UNKNOWN = message({
  1: ["typeMeta", TYPE_META],
  2: ["raw", "bytes"],
});

export const WATCH_EVENT = message({
  1: ["type", "text"],
  2: ["object", message({ 1: ["raw", "bytes"] })],
});

/** Labels and annotations that are read, here or by the model. */
const LABELS: ReadonlySet<string> = new Set([
  "kubernetes.io/service-name",
  "service.kubernetes.io/headless",
  "service.kubernetes.io/service-proxy-name",
  "topology.kubernetes.io/zone",
  "k8s.io/initial-events-end",
]);

/** A decoded message: fields that were absent are absent. */
export type Value = Record<string, unknown>;

export interface Place {
  /** Where the message ends. */
  end: number;
  texts: Texts;
}

/** Reads a message from where the reader stands. Throws what a damaged message makes it throw. */
export function readMessage(reader: Reader, shape: Message, place: Place): Value {
  const value: Value = {};
  const { end } = place;
  while (reader.pos < end) {
    const tag = reader.tag();
    const field = shape[tag >>> 3];
    if (field === undefined) skip(reader, tag, end);
    else if (field.kind === "labels") readLabel(reader, mapAt(value, field.name), { tag, place });
    else if (field.kind === "trigger")
      value[field.name] = readTriggerEntry(reader, enter(reader, tag, end)) || value[field.name];
    else if (!field.isList) value[field.name] = readField(reader, field.kind, { tag, place });
    else listAt(value, field.name).push(readField(reader, field.kind, { tag, place }));
  }
  leave(reader, end);
  return value;
}

function listAt(value: Value, name: string): unknown[] {
  value[name] ??= [];
  return value[name] as unknown[];
}

function mapAt(value: Value, name: string): Value {
  value[name] ??= {};
  return value[name] as Value;
}

interface At {
  tag: number;
  place: Place;
}

function readField(reader: Reader, kind: Kind, { tag, place }: At): unknown {
  if (kind === "text") return place.texts.read(reader, tag, place.end);
  if (kind === "integer" || kind === "flag") {
    expectVarint(tag);
    return kind === "flag" ? reader.bool() : reader.int32();
  }
  const end = enter(reader, tag, place.end);
  if (kind === "time") return readTime(reader, end);
  if (typeof kind !== "string") return readMessage(reader, kind, { end, texts: place.texts });
  const bytes = reader.buf.subarray(reader.pos, end);
  reader.pos = end;
  return bytes;
}

/** Adds one entry of a map of texts, if it is read. */
function readLabel(reader: Reader, labels: Value, { tag, place }: At): void {
  const end = enter(reader, tag, place.end);
  let key = "";
  let valueAt = 0;
  let valueEnd = 0;
  while (reader.pos < end) {
    const inner = reader.tag();
    const number = inner >>> 3;
    if (number === 1) {
      key = place.texts.read(reader, inner, end);
    } else if (number === 2) {
      valueEnd = enter(reader, inner, end);
      valueAt = reader.pos;
      reader.pos = valueEnd;
    } else {
      skip(reader, inner, end);
    }
  }
  leave(reader, end);
  if (LABELS.has(key)) labels[key] = place.texts.take(reader, valueAt, valueEnd);
  else if (key === TRIGGER_ANNOTATION) labels[key] = decodeText(reader, valueAt, valueEnd);
}

/** A time, to the second; undefined for the zero time, an empty message. */
function readTime(reader: Reader, end: number): Date | undefined {
  let seconds: number | undefined;
  while (reader.pos < end) {
    const tag = reader.tag();
    if (tag >>> 3 !== 1) {
      skip(reader, tag, end);
      continue;
    }
    expectVarint(tag);
    // The low 32 of 64 bits: until the year 2106.
    seconds = reader.uint32();
  }
  leave(reader, end);
  return seconds === undefined ? undefined : new Date(seconds * 1000);
}
