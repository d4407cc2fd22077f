// Reads a Service from a value that may be anything. What its fields mean is service.ts' business;
// here they become canonical, and what cannot be used is left out and named.
import { addressFamily } from "./address.ts";
import { type FieldMap, type Fields, fieldOf, isAbsent, isMap, showValue } from "./fields.ts";
import type { LoadBalancerIngress, ServiceObject, ServicePortObject } from "./objects.ts";
import { type Metadata, type Place, type Reading, readPortName, readProtocol } from "./readport.ts";
import type { Family } from "./rows.ts";

const LABEL_PROXY_NAME = "service.kubernetes.io/service-proxy-name";
const DEFAULT_AFFINITY_SECONDS = 10800;
const MAX_AFFINITY_SECONDS = 86400;
const NONE: readonly never[] = [];

function readServicePort(entry: unknown, { field, fields }: Place): ServicePortObject | undefined {
  const map = fields.map(entry, field);
  const otherwise = "the port is skipped";
  const given = fieldOf(map, "port");
  const port = fields.integer(given, `${field}.port`, { lowest: 1, highest: 65535, otherwise });
  if (isAbsent(given) && isMap(entry)) fields.report(`${field}.port`, `is missing; ${otherwise}`);
  const protocol = readProtocol(fieldOf(map, "protocol"), { field: `${field}.protocol`, fields });
  const name = readPortName(fieldOf(map, "name"), { field: `${field}.name`, fields });
  if (port === undefined || protocol === undefined || name === undefined) return undefined;
  const nodePort = fields.port(fieldOf(map, "nodePort"), `${field}.nodePort`, {
    otherwise: "the port has no node port",
  });
  return { name, protocol, port, nodePort };
}

/** The usable service ports; of two with one name and protocol, or one number, the first. */
function readServicePorts(value: unknown, fields: Fields): readonly ServicePortObject[] {
  const ports: ServicePortObject[] = [];
  const taken = new Set<string>();
  for (const [index, entry] of fields.list(value, "spec.ports").entries()) {
    const field = `spec.ports[${index}]`;
    const port = readServicePort(entry, { field, fields });
    if (port === undefined) continue;
    const byName = `${port.protocol} "${port.name}"`;
    const byNumber = `${port.protocol} ${port.port}`;
    if (taken.has(byName) || taken.has(byNumber)) {
      const repeated = taken.has(byNumber) ? byNumber : byName;
      fields.report(field, `repeats port ${repeated} of an earlier entry; the port is skipped`);
      continue;
    }
    taken.add(byName).add(byNumber);
    ports.push(port);
  }
  return ports;
}

function readFamilies(value: unknown, fields: Fields): readonly (Family | undefined)[] {
  return fields.list(value, "spec.ipFamilies").map((entry, index) => {
    if (entry === "IPv4") return 4;
    if (entry === "IPv6") return 6;
    const rest = `is ${showValue(entry)}, not "IPv4" or "IPv6"; it is skipped`;
    fields.report(`spec.ipFamilies[${index}]`, rest);
    return undefined;
  });
}

/**
 * spec.clusterIP, spec.clusterIPs and spec.ipFamilies. Without ipFamilies clusterIP alone counts
 * (§2.3); without clusterIPs it is their first, as the API server would fill it in.
 */
function readClusterIPs(
  spec: FieldMap,
  fields: Fields,
): Pick<ServiceObject, "clusterIP" | "clusterIPs" | "ipFamilies"> | undefined {
  const given = fieldOf(spec, "clusterIP");
  if (isAbsent(given) || given === "" || given === "None") {
    return { clusterIP: given === "None" ? "None" : "", clusterIPs: [], ipFamilies: [] };
  }
  const clusterIP = fields.serviceAddress(given, "spec.clusterIP");
  if (clusterIP === undefined) return undefined;
  const families = readFamilies(fieldOf(spec, "ipFamilies"), fields);
  const list = fields.list(fieldOf(spec, "clusterIPs"), "spec.clusterIPs");
  const clusterIPs: string[] = [];
  const ipFamilies: Family[] = [];
  if (families.length === 0) {
    return { clusterIP, clusterIPs: [clusterIP], ipFamilies: [addressFamily(clusterIP)] };
  }
  for (const [index, entry] of (list.length === 0 ? [clusterIP] : list).entries()) {
    const family = families[index];
    const field = `spec.clusterIPs[${index}]`;
    // Mostly the first is clusterIP again: one text then, read once.
    const address = entry === given ? clusterIP : fields.serviceAddress(entry, field);
    if (address === undefined || family === undefined || ipFamilies.includes(family)) continue;
    if (addressFamily(address) !== family) {
      fields.report(
        field,
        `is ${showValue(entry)}, but ipFamilies names IPv${family} there; skipped`,
      );
      continue;
    }
    clusterIPs.push(address);
    ipFamilies.push(family);
  }
  return { clusterIP, clusterIPs, ipFamilies };
}

function readAddresses(value: unknown, { field, fields }: Place): readonly string[] {
  const list = fields.list(value, field);
  if (list.length === 0) return NONE;
  const addresses = new Set<string>();
  for (const [index, entry] of list.entries()) {
    const address = fields.serviceAddress(entry, `${field}[${index}]`);
    if (address !== undefined) addresses.add(address);
  }
  return [...addresses];
}

function readIngress(value: FieldMap, fields: Fields): readonly LoadBalancerIngress[] {
  const status = fields.map(fieldOf(value, "status"), "status");
  const balancer = fields.map(fieldOf(status, "loadBalancer"), "status.loadBalancer");
  const list = fields.list(fieldOf(balancer, "ingress"), "status.loadBalancer.ingress");
  if (list.length === 0) return NONE;
  const ingress: LoadBalancerIngress[] = [];
  for (const [index, entry] of list.entries()) {
    const field = `status.loadBalancer.ingress[${index}]`;
    const map = fields.map(entry, field);
    const given = fieldOf(map, "ip");
    // An entry with a host name alone is no address to capture (§3.2).
    if (isAbsent(given) || given === "") continue;
    const address = fields.serviceAddress(given, `${field}.ip`);
    const choices = ["VIP", "Proxy"] as const;
    const ipMode = fields.choice(fieldOf(map, "ipMode"), `${field}.ipMode`, { choices });
    if (address !== undefined) ingress.push({ address, ipMode });
  }
  return ingress;
}

function readAffinity(spec: FieldMap, fields: Fields): number {
  const choices = ["None", "ClientIP"] as const;
  const affinity = fields.choice(fieldOf(spec, "sessionAffinity"), "spec.sessionAffinity", {
    choices,
  });
  if (affinity === "None") return 0;
  const base = "spec.sessionAffinityConfig";
  const config = fields.map(fieldOf(spec, "sessionAffinityConfig"), base);
  const client = fields.map(fieldOf(config, "clientIP"), `${base}.clientIP`);
  const seconds = fields.integer(
    fieldOf(client, "timeoutSeconds"),
    `${base}.clientIP.timeoutSeconds`,
    { lowest: 1, highest: MAX_AFFINITY_SECONDS, otherwise: `${DEFAULT_AFFINITY_SECONDS} is used` },
  );
  return seconds ?? DEFAULT_AFFINITY_SECONDS;
}

/** A Service; undefined with a problem if its cluster IP is no address. */
export function readService(
  metadata: Metadata,
  { value, fields }: Reading,
): ServiceObject | undefined {
  const spec = fields.map(fieldOf(value, "spec"), "spec");
  const types = ["ClusterIP", "NodePort", "LoadBalancer", "ExternalName"] as const;
  const policies = ["Cluster", "Local"] as const;
  const policy = (name: string) =>
    fields.choice(fieldOf(spec, name), `spec.${name}`, { choices: policies });
  const clusterIPs = readClusterIPs(spec, fields);
  if (clusterIPs === undefined) return undefined;
  return {
    kind: "Service",
    namespace: metadata.namespace,
    name: metadata.name,
    createdMs: metadata.createdMs,
    otherProxy: Object.hasOwn(metadata.labels, LABEL_PROXY_NAME),
    type: fields.choice(fieldOf(spec, "type"), "spec.type", { choices: types }),
    // One by one: what is spread lies in a part of its own, which takes more memory.
    clusterIP: clusterIPs.clusterIP,
    clusterIPs: clusterIPs.clusterIPs,
    ipFamilies: clusterIPs.ipFamilies,
    ports: readServicePorts(fieldOf(spec, "ports"), fields),
    externalIPs: readAddresses(fieldOf(spec, "externalIPs"), { field: "spec.externalIPs", fields }),
    ingress: readIngress(value, fields),
    sourceRanges: fields.ranges(
      fieldOf(spec, "loadBalancerSourceRanges"),
      "spec.loadBalancerSourceRanges",
    ),
    internalTrafficPolicy: policy("internalTrafficPolicy"),
    externalTrafficPolicy: policy("externalTrafficPolicy"),
    affinitySeconds: readAffinity(spec, fields),
    healthCheckNodePort: fields.port(
      fieldOf(spec, "healthCheckNodePort"),
      "spec.healthCheckNodePort",
      { otherwise: "there is no health check" },
    ),
  };
}
