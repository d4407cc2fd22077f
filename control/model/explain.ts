// Why every Service, slice, list and endpoint is served as it is, as data with short phrases for
// people. Decides nothing: it asks the functions that do, so that the two cannot differ.
import { addressFamily } from "./address.ts";
import type { Cluster } from "./cluster.ts";
import {
  type Endpoint,
  type EndpointQuery,
  findEndpoints,
  isPortOf,
  type SliceUnused,
  whySliceUnused,
} from "./endpoint.ts";
import { listsFor, whenEmpty } from "./frontend.ts";
import { objectName, type ServiceObject, type SliceObject } from "./objects.ts";
import { compareServices, type FrontendRow, type ServiceRow, type SourceRow } from "./rows.ts";
import {
  endpointPolicy,
  type NotHandled,
  type ServicePort,
  servicePorts,
  serviceRowKey,
  whyNotHandled,
} from "./service.ts";
import {
  categorizeEndpoints,
  type EndpointLists,
  type Exclusion,
  type ListName,
  type ListRule,
  type NodeTopology,
  ruleOf,
  whyExcluded,
} from "./topology.ts";

/** Whether an endpoint is in a list, and if not, why. */
export interface Membership {
  in: boolean;
  /** "not ready"; empty if it is in. */
  why: string;
}

/** What becomes of a new connection that gets this list. */
export interface ListPlan {
  outcome: "endpoints" | "refuse" | "drop";
  endpoints: number;
  /** What chose the endpoints, or why there are none; empty if all that are ready were taken. */
  why: string;
}

/** A list of a service port; null if no traffic gets it. */
type Lists<T> = Record<ListName, T | null>;

export interface EndpointPlan extends Lists<Membership> {
  address: string;
  port: number;
  /** Empty if it is on none. */
  node: string;
  ready: boolean;
  serving: boolean;
  terminating: boolean;
  zoneHints: readonly string[];
  nodeHints: readonly string[];
}

export interface FrontendPlan extends FrontendRow {
  /** The list that pods and processes of the node get. */
  inside: ListName;
  /** The list that everybody else gets. */
  outside: ListName;
}

/** A service port of one family: what its row is made of. */
export interface ServicePlan
  extends Pick<
    ServiceRow,
    "namespace" | "name" | "port" | "protocol" | "family" | "type" | "affinitySeconds"
  > {
  internalTrafficPolicy: "Cluster" | "Local";
  externalTrafficPolicy: "Cluster" | "Local";
  /** Who may ask the load balancers; null: everybody. */
  sources: SourceRow | null;
  /** Empty if other Services have them all. */
  frontends: FrontendPlan[];
  lists: Lists<ListPlan>;
  endpoints: EndpointPlan[];
}

/** An object, or a part of one, that is not served. */
export interface Unserved {
  namespace: string;
  name: string;
  why: string;
}

const NOT_HANDLED: Readonly<Record<NotHandled, string>> = {
  otherProxy: "labelled service.kubernetes.io/service-proxy-name: left to another proxy",
  externalName: "ExternalName: a matter of DNS",
  headless: "headless: its name stands for its pods",
  noClusterIP: "it has no cluster IP yet",
};

const SLICE_UNUSED: Readonly<Record<SliceUnused, string>> = {
  headless: "labelled service.kubernetes.io/headless",
  noService: "no label kubernetes.io/service-name",
  noFamily: "addressType FQDN: only addresses can be served",
};

function names(list: readonly string[]): string {
  return list.length === 0 ? "nothing" : list.join(" and ");
}

/** Why an endpoint is left out, in words. */
function describeExclusion(
  why: Exclusion,
  { endpoint, rule, node }: { endpoint: Endpoint; rule: ListRule; node: NodeTopology },
): string {
  const { nodeName, serving, zoneHints, nodeHints } = endpoint;
  switch (why) {
    case "elsewhere":
      return nodeName === "" ? "on no node" : `on ${nodeName}`;
    case "notReady":
      return serving ? "not ready" : "not serving";
    case "terminating":
      return `terminating: ready ones exist${rule.isLocal ? " here" : ""}`;
    case "nodeHint":
      return `hint names ${names(nodeHints)}, not ${node.name}`;
    case "zoneHint":
      return `hint names ${names(zoneHints)}, not ${node.zone}`;
  }
}

function describeRule({ isLocal, by }: ListRule, node: NodeTopology): string {
  if (by === "nodeHint") return `hinted for ${node.name}`;
  if (by === "zoneHint") return `hinted for ${node.zone}`;
  return by === "leaving" ? `terminating: none is ready${isLocal ? " here" : ""}` : "";
}

/** What a service port is explained from. */
interface Subject {
  servicePort: ServicePort;
  slices: readonly SliceObject[];
  endpoints: readonly Endpoint[];
  selected: EndpointLists;
  node: NodeTopology;
}

/** Why there is no endpoint that may be used anywhere. */
function whyNone({ servicePort, slices, endpoints }: Subject): string {
  const { port, family } = servicePort;
  const query: EndpointQuery = { name: port.name, protocol: port.protocol, family };
  const ofFamily = slices.filter((slice) => slice.family === family);
  if (ofFamily.length === 0) return `no EndpointSlice of IPv${family}`;
  if (endpoints.length > 0) return "no endpoint is ready";
  if (ofFamily.some(({ ports }) => ports.some((each) => isPortOf(each, query)))) {
    return "no endpoints";
  }
  const found = ofFamily.flatMap(({ ports }) => ports);
  const shown = [...new Set(found.map(({ name, protocol }) => `"${name}"/${protocol}`))];
  return `no slice has a port "${port.name}"/${port.protocol}, but ${names(shown)}`;
}

function planList(list: ListName, subject: Subject): ListPlan | null {
  const { endpoints, selected, node } = subject;
  const taken = selected[list];
  if (taken === undefined) return null;
  if (taken.length > 0) {
    const why = describeRule(ruleOf(list, { endpoints, node }), node);
    return { outcome: "endpoints", endpoints: taken.length, why };
  }
  const outcome = whenEmpty(selected);
  const why = outcome === "drop" ? "endpoints only on other nodes" : whyNone(subject);
  return { outcome, endpoints: 0, why };
}

/** Tells for each endpoint whether it is in a list, or null if no traffic gets the list. */
function memberships(
  list: ListName,
  { endpoints, selected, node }: Subject,
): (endpoint: Endpoint) => Membership | null {
  if (selected[list] === undefined) return () => null;
  const rule = ruleOf(list, { endpoints, node });
  return (endpoint) => {
    const why = whyExcluded(endpoint, { rule, node });
    if (why === undefined) return { in: true, why: "" };
    return { in: false, why: describeExclusion(why, { endpoint, rule, node }) };
  };
}

function planEndpoints(subject: Subject): EndpointPlan[] {
  const inCluster = memberships("cluster", subject);
  const inLocal = memberships("local", subject);
  return subject.endpoints.map((endpoint) => {
    const { address, port, nodeName: node, ...rest } = endpoint;
    const lists = { cluster: inCluster(endpoint), local: inLocal(endpoint) };
    return { address, port, node, ...lists, ...rest };
  });
}

function planFrontends(row: ServiceRow | undefined, servicePort: ServicePort): FrontendPlan[] {
  const { internal, inside, outside } = listsFor(endpointPolicy(servicePort));
  return (row?.frontends ?? []).map((frontend) => {
    if (frontend.kind === "clusterIP") return { ...frontend, inside: internal, outside: internal };
    return { ...frontend, inside: inside ?? internal, outside: outside ?? internal };
  });
}

function planServicePort(subject: Subject, row: ServiceRow | undefined): ServicePlan {
  const { servicePort } = subject;
  const { service, port, family } = servicePort;
  return {
    namespace: service.namespace,
    name: service.name,
    port: port.name,
    protocol: port.protocol,
    family,
    type: service.type === "ExternalName" ? "ClusterIP" : service.type,
    affinitySeconds: service.affinitySeconds,
    internalTrafficPolicy: service.internalTrafficPolicy,
    externalTrafficPolicy: service.externalTrafficPolicy,
    sources: row?.sources ?? null,
    frontends: planFrontends(row, servicePort),
    lists: { cluster: planList("cluster", subject), local: planList("local", subject) },
    endpoints: planEndpoints(subject),
  };
}

/** Every service port of every Service that is served, in the order that people see them. */
export function explainServices(cluster: Cluster): ServicePlan[] {
  const node = cluster.node.topology;
  const rows = new Map(cluster.rows().map((row) => [row.key, row]));
  const plans: ServicePlan[] = [];
  for (const { service, slices } of cluster.services()) {
    for (const servicePort of servicePorts(service)) {
      const { port, family } = servicePort;
      const query = { name: port.name, protocol: port.protocol, family };
      const endpoints = findEndpoints(slices, query);
      const policy = endpointPolicy(servicePort);
      const selected = categorizeEndpoints(endpoints, { node, policy });
      const subject = { servicePort, slices, endpoints, selected, node };
      plans.push(planServicePort(subject, rows.get(serviceRowKey(servicePort))));
    }
  }
  return plans.sort(compareServices);
}

/** Addresses of a Service that is served which are not themselves (§2.3, §3.3). */
function unservedAddresses({ externalIPs, ingress, ipFamilies, clusterIPs }: ServiceObject) {
  const isServed = (address: string) => {
    const at = ipFamilies.indexOf(addressFamily(address));
    return at >= 0 && (clusterIPs[at] ?? "") !== "";
  };
  const phrases: string[] = [];
  for (const address of [...externalIPs, ...ingress.map((each) => each.address)]) {
    if (isServed(address)) continue;
    phrases.push(`${address}: the Service has no cluster IP of IPv${addressFamily(address)}`);
  }
  for (const { address, ipMode } of ingress) {
    if (ipMode === "Proxy" && isServed(address)) {
      phrases.push(`${address}: left to the load balancer itself (ipMode Proxy)`);
    }
  }
  return phrases;
}

function byName(left: Unserved, right: Unserved): number {
  const a = objectName(left);
  const b = objectName(right);
  return a === b ? 0 : a < b ? -1 : 1;
}

/** Every Service that is none of ours, and every address of ours that is not captured. */
export function explainUnserved(cluster: Cluster): Unserved[] {
  const unserved: Unserved[] = [];
  for (const { service } of cluster.services()) {
    const { namespace, name } = service;
    const why = whyNotHandled(service);
    const phrases = why === undefined ? unservedAddresses(service) : [NOT_HANDLED[why]];
    for (const phrase of phrases) unserved.push({ namespace, name, why: phrase });
  }
  return unserved.sort(byName);
}

/** Every one of these slices that has no part in what is served. */
export function explainUnusedSlices(
  slices: Iterable<SliceObject>,
  { cluster }: { cluster: Cluster },
): Unserved[] {
  const services = new Set(Array.from(cluster.services(), ({ service }) => objectName(service)));
  const unused: Unserved[] = [];
  for (const slice of slices) {
    const { namespace, name, serviceName } = slice;
    const fault = whySliceUnused(slice);
    const owner = objectName({ namespace, name: serviceName });
    if (fault !== undefined) unused.push({ namespace, name, why: SLICE_UNUSED[fault] });
    else if (!services.has(owner)) {
      unused.push({ namespace, name, why: `there is no Service ${owner}` });
    }
  }
  return unused.sort(byName);
}
