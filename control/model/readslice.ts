// Reads an EndpointSlice from a value that may be anything. Fills in the defaults of conditions and
// leaves out endpoints and ports that cannot be used (§4.4, §4.5, §4.10).
import {
  formatAddress,
  isUnusableForEndpoint,
  type ParsedAddress,
  parseAddress,
} from "./address.ts";
import { fieldOf, isAbsent, showValue } from "./fields.ts";
import type { SliceEndpoint, SliceObject, SlicePort } from "./objects.ts";
import { type Metadata, type Place, type Reading, readPortName, readProtocol } from "./readport.ts";
import type { Family } from "./rows.ts";

const LABEL_HEADLESS = "service.kubernetes.io/headless";
const LABEL_SERVICE_NAME = "kubernetes.io/service-name";
const NO_NAMES: readonly string[] = [];

function readSlicePort(entry: unknown, { field, fields }: Place): SlicePort | undefined {
  const map = fields.map(entry, field);
  const protocol = readProtocol(fieldOf(map, "protocol"), { field: `${field}.protocol`, fields });
  const port = fields.port(fieldOf(map, "port"), `${field}.port`, {
    otherwise: "the port is skipped",
  });
  const name = fieldOf(map, "name");
  if (isAbsent(name)) {
    const fix = 'the port is skipped; write name: "" for a service port without a name';
    fields.report(`${field}.name`, `is missing; ${fix}`);
    return undefined;
  }
  const read = readPortName(name, { field: `${field}.name`, fields });
  if (protocol === undefined || read === undefined || port === 0) return undefined;
  return { name: read, protocol, port };
}

function readHints(value: unknown, { field, fields }: Place): readonly string[] {
  if (isAbsent(value)) return NO_NAMES;
  const names: string[] = [];
  for (const [index, entry] of fields.list(value, field).entries()) {
    const path = `${field}[${index}]`;
    const name = fields.name(fieldOf(fields.map(entry, path), "name"), `${path}.name`);
    if (name !== "") names.push(name);
  }
  return names;
}

function endpointAddress(value: unknown, field: string): ParsedAddress | string {
  const parsed = typeof value === "string" ? parseAddress(value) : undefined;
  if (parsed === undefined) return `${field} is ${showValue(value)}, not an address`;
  if (!isUnusableForEndpoint(parsed.bytes)) return parsed;
  return `${field} is ${showValue(value)}, which cannot be an endpoint's address`;
}

function readEndpoint(
  entry: unknown,
  { field, fields, family, port }: Place & { family: Family; port: number },
): SliceEndpoint | undefined {
  const map = fields.map(entry, field);
  const addresses = fields.list(fieldOf(map, "addresses"), `${field}.addresses`);
  if (addresses.length === 0) return undefined;
  const address = endpointAddress(addresses[0], "addresses[0]");
  if (typeof address === "string" || address.family !== family) {
    const wrong = `addresses[0] is ${showValue(addresses[0])}, but addressType is IPv${family}`;
    const fault = typeof address === "string" ? address : wrong;
    fields.report(field, `is skipped: its ${fault}`);
    return undefined;
  }
  const conditions = fields.map(fieldOf(map, "conditions"), `${field}.conditions`);
  const flag = (name: string, whenAbsent: boolean) =>
    fields.flag(fieldOf(conditions, name), `${field}.conditions.${name}`, { default: whenAbsent });
  const hints = fields.map(fieldOf(map, "hints"), `${field}.hints`);
  return {
    address: formatAddress(address.bytes),
    port,
    nodeName: fields.name(fieldOf(map, "nodeName"), `${field}.nodeName`),
    ready: flag("ready", true),
    serving: flag("serving", true),
    terminating: flag("terminating", false),
    zoneHints: readHints(fieldOf(hints, "forZones"), { field: `${field}.hints.forZones`, fields }),
    nodeHints: readHints(fieldOf(hints, "forNodes"), { field: `${field}.hints.forNodes`, fields }),
  };
}

function present<T>(value: T | undefined): value is T {
  return value !== undefined;
}

/** A slice; undefined with a problem if its addressType is unknown. */
export function readSlice(metadata: Metadata, { value, fields }: Reading): SliceObject | undefined {
  const type = fieldOf(value, "addressType");
  if (type !== "IPv4" && type !== "IPv6" && type !== "FQDN") {
    const wanted = 'not "IPv4", "IPv6" or "FQDN"; the object is not used';
    fields.report("addressType", `is ${showValue(type)}, ${wanted}`);
    return undefined;
  }
  const family = type === "FQDN" ? undefined : type === "IPv4" ? 4 : 6;
  const serviceName = fields.text(
    fieldOf(metadata.labels, LABEL_SERVICE_NAME),
    `metadata.labels["${LABEL_SERVICE_NAME}"]`,
  );
  const slice: SliceObject = {
    kind: "EndpointSlice",
    namespace: metadata.namespace,
    name: metadata.name,
    serviceName,
    headless: Object.hasOwn(metadata.labels, LABEL_HEADLESS),
    family,
    ports: [],
    endpoints: [],
  };
  if (family === undefined) return slice;
  slice.ports = fields
    .list(fieldOf(value, "ports"), "ports")
    .map((entry, index) => readSlicePort(entry, { field: `ports[${index}]`, fields }))
    .filter(present);
  const port = slice.ports[0]?.port ?? 0;
  slice.endpoints = fields
    .list(fieldOf(value, "endpoints"), "endpoints")
    .map((entry, index) => {
      return readEndpoint(entry, { field: `endpoints[${index}]`, fields, family, port });
    })
    .filter(present);
  return slice;
}
