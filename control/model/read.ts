// Turns a value that may be anything (decoded YAML, JSON or protobuf) into one of our objects.
// Never throws: a bad part is skipped and named, the rest of the object works. Knows no lists of
// objects and no files; those are the sources' business.
import { formatRange } from "./address.ts";
import {
  type FieldMap,
  Fields,
  fieldOf,
  isAbsent,
  isMap,
  isName,
  type ObjectLabel,
  showValue,
} from "./fields.ts";
import type {
  KubernetesObject,
  NodeAddress,
  NodeObject,
  ObjectKind,
  Problem,
  ServiceRangesObject,
} from "./objects.ts";
import { LABEL_LENGTH, type Metadata, type Reading } from "./readport.ts";
import { readService } from "./readservice.ts";
import { readSlice } from "./readslice.ts";

const LABEL_ZONE = "topology.kubernetes.io/zone";

const NAME_LENGTH = 253;

const API_VERSIONS: Record<ObjectKind, string> = {
  Service: "v1",
  EndpointSlice: "discovery.k8s.io/v1",
  Node: "v1",
  ServiceCIDR: "networking.k8s.io/v1",
};
/** Kinds without a namespace. */
const CLUSTER_WIDE: readonly string[] = ["Node", "ServiceCIDR"];

/** What reading one value gave: an object of ours or none, and what was wrong with it. */
export interface ReadResult {
  object: KubernetesObject | undefined;
  problems: Problem[];
}

function isOurKind(kind: unknown): kind is ObjectKind {
  return typeof kind === "string" && Object.hasOwn(API_VERSIONS, kind);
}

function loose(map: FieldMap, name: string): string {
  const value = fieldOf(map, name);
  return typeof value === "string" ? value : "";
}

/** Kind, namespace and name of a value as far as they can be read, to name it in a message. */
export function identify(value: unknown): ObjectLabel {
  const map = isMap(value) ? value : {};
  const metadata = fieldOf(map, "metadata");
  const names = isMap(metadata) ? metadata : {};
  const kind = loose(map, "kind").slice(0, NAME_LENGTH);
  const name = loose(names, "name").slice(0, NAME_LENGTH);
  const given = loose(names, "namespace").slice(0, NAME_LENGTH);
  return { kind, namespace: CLUSTER_WIDE.includes(kind) ? "" : given || "default", name };
}

/**
 * Reads a Service, EndpointSlice, Node or ServiceCIDR. Objects of other kinds or API groups give
 * neither an object nor a problem; `object` is undefined with a problem if it cannot be used as a
 * whole.
 */
export function readObject(value: unknown): ReadResult {
  const fields = new Fields(() => identify(value));
  if (!isMap(value)) {
    fields.report("the document", `is ${showValue(value)}, not a Kubernetes object; it is skipped`);
    return { object: undefined, problems: fields.finish() };
  }
  const kind = fieldOf(value, "kind");
  if (typeof kind !== "string" || kind === "") {
    fields.report("kind", `is ${showValue(kind)}, not a kind such as "Service"; it is skipped`);
    return { object: undefined, problems: fields.finish() };
  }
  if (!isOurKind(kind)) return { object: undefined, problems: [] };
  const version = fieldOf(value, "apiVersion");
  // Other groups have kinds of the same name: a Knative Service is not ours.
  if (!isAbsent(version) && version !== API_VERSIONS[kind]) {
    return { object: undefined, problems: [] };
  }
  const object = readKind(kind, { value, fields });
  return { object, problems: fields.finish() };
}

function readKind(kind: ObjectKind, { value, fields }: Reading): KubernetesObject | undefined {
  const metadata = readMetadata(kind, { value, fields });
  if (metadata === undefined) return undefined;
  if (kind === "EndpointSlice") return readSlice(metadata, { value, fields });
  const spec = fieldOf(value, "spec");
  if (!isMap(spec) && !(kind === "Node" && isAbsent(spec))) {
    fields.report("spec", `is ${showValue(spec)}, not a map; the object is not used`);
    return undefined;
  }
  if (kind === "Node") return readNode(metadata, { value, fields });
  if (kind === "ServiceCIDR") return readServiceRanges(metadata, { value, fields });
  return readService(metadata, { value, fields });
}

function readMetadata(kind: ObjectKind, { value, fields }: Reading): Metadata | undefined {
  const metadata = fieldOf(value, "metadata");
  const map = isMap(metadata) ? metadata : {};
  const limit = kind === "Service" ? LABEL_LENGTH : NAME_LENGTH;
  const name = fieldOf(map, "name");
  const isClusterWide = CLUSTER_WIDE.includes(kind);
  const given = isClusterWide ? "default" : fieldOf(map, "namespace");
  const namespace = isAbsent(given) || given === "" ? "default" : given;
  if (!isName(name, limit)) {
    const wanted = `not a name of 1 to ${limit} letters, digits, "-" and "."`;
    fields.report("metadata.name", `is ${showValue(name)}, ${wanted}; the object is not used`);
    return undefined;
  }
  if (!isName(namespace, LABEL_LENGTH)) {
    const wanted = `not a name of 1 to ${LABEL_LENGTH} letters, digits and "-"`;
    const rest = `is ${showValue(namespace)}, ${wanted}; the object is not used`;
    fields.report("metadata.namespace", rest);
    return undefined;
  }
  const created = fieldOf(map, "creationTimestamp");
  const createdMs =
    created instanceof Date ? created.getTime() : Date.parse(loose(map, "creationTimestamp"));
  return {
    namespace: isClusterWide ? "" : namespace,
    name,
    isDeleted: !isAbsent(fieldOf(map, "deletionTimestamp")),
    createdMs: Number.isNaN(createdMs) ? Number.MAX_SAFE_INTEGER : createdMs,
    labels: fields.map(fieldOf(map, "labels"), "metadata.labels"),
  };
}

function readNode(metadata: Metadata, { value, fields }: Reading): NodeObject {
  const spec = fields.map(fieldOf(value, "spec"), "spec");
  const status = fields.map(fieldOf(value, "status"), "status");
  const addresses: NodeAddress[] = [];
  for (const [index, entry] of fields
    .list(fieldOf(status, "addresses"), "status.addresses")
    .entries()) {
    const field = `status.addresses[${index}]`;
    const map = fields.map(entry, field);
    const type = fieldOf(map, "type");
    if (type !== "InternalIP" && type !== "ExternalIP") continue;
    const address = fields.serviceAddress(fieldOf(map, "address"), `${field}.address`);
    if (address !== undefined) addresses.push({ type, address });
  }
  return {
    kind: "Node",
    namespace: "",
    name: metadata.name,
    zone: fields.name(fieldOf(metadata.labels, LABEL_ZONE), `metadata.labels["${LABEL_ZONE}"]`),
    addresses,
    podRanges: fields.ranges(fieldOf(spec, "podCIDRs"), "spec.podCIDRs"),
    isDeleted: metadata.isDeleted,
    taints: readTaints(spec, fields),
  };
}

function readTaints(spec: FieldMap, fields: Fields): readonly string[] {
  const list = fields.list(fieldOf(spec, "taints"), "spec.taints");
  const keys = list.map((entry, index) => {
    const field = `spec.taints[${index}]`;
    return fields.text(fieldOf(fields.map(entry, field), "key"), `${field}.key`);
  });
  return keys.filter((key) => key !== "");
}

function readServiceRanges(metadata: Metadata, { value, fields }: Reading): ServiceRangesObject {
  const spec = fields.map(fieldOf(value, "spec"), "spec");
  const ranges = fields.ranges(fieldOf(spec, "cidrs"), "spec.cidrs").filter((range) => {
    if (range.prefixLength > 0) return true;
    // Whatever no Service owns in such a range is dropped (§7.6).
    const rest = `holds ${formatRange(range)}, every address there is; it is skipped`;
    fields.report("spec.cidrs", rest);
    return false;
  });
  return { kind: "ServiceCIDR", namespace: "", name: metadata.name, ranges };
}
