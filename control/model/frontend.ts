// The border between Kubernetes and the kernel: a service port, its endpoints and this node become
// one ServiceRow. Knows nothing of other Services: who owns a contested frontend is claims.ts'.
import type { Endpoint } from "./endpoint.ts";
import type { HostAddresses, NodePortAddresses } from "./nodeaddresses.ts";
import type {
  BackendRow,
  FrontendKind,
  FrontendRow,
  Protocol,
  ServiceRow,
  TableRow,
} from "./rows.ts";
import { endpointPolicy, type ServicePort, serviceRowKey } from "./service.ts";
import { makeSources } from "./sources.ts";
import {
  categorizeEndpoints,
  type EndpointLists,
  type EndpointPolicy,
  isLocal,
  type ListName,
  type NodeTopology,
} from "./topology.ts";

/** This node as far as rows depend on it. */
export interface NodeContext {
  topology: NodeTopology;
  addresses: HostAddresses;
  nodePortAddresses: NodePortAddresses;
}

/** Which list each table of a row has; those that nothing leads to have none. */
export interface ListsFor {
  internal: ListName;
  inside: ListName | undefined;
  outside: ListName | undefined;
}

/**
 * The list that traffic gets: to the cluster IP by the internal policy alone (§6.1), to the others
 * by the external one (§6.2), but from inside as if it went out and came back (§6.3).
 */
export function listsFor({
  internalLocal,
  externalLocal,
  hasExternalFrontend,
}: EndpointPolicy): ListsFor {
  return {
    internal: internalLocal ? "local" : "cluster",
    inside: hasExternalFrontend ? "cluster" : undefined,
    outside: hasExternalFrontend ? (externalLocal ? "local" : "cluster") : undefined,
  };
}

interface TableOptions {
  backends: readonly Endpoint[];
  lists: EndpointLists;
  kind: TableRow["kind"];
}

const MOST_SHARED = 256;
/** The indexes below a count: most tables have all backends of their row, and share these. */
const INDEXES: (readonly number[])[] = [];

function firstIndexes(count: number): readonly number[] {
  // Longer ones are rare, and would stay in memory for good.
  if (count > MOST_SHARED) return Array.from({ length: count }, (_, index) => index);
  INDEXES[count] ??= Object.freeze(Array.from({ length: count }, (_, index) => index));
  return INDEXES[count];
}

const NO_TABLE: TableRow = { kind: "uniform", members: [], whenEmpty: "refuse" };

/**
 * What a service port captures (§3.1), decided by fields and not by type (§3.2); distinct by
 * address and port, a cluster IP before an external IP before a VIP before a node port (§3.5).
 */
function findFrontends(
  servicePort: ServicePort,
  { nodePortAddresses }: { nodePortAddresses: NodePortAddresses },
): FrontendRow[] {
  const { port, family, clusterIP, externalIPs, loadBalancerIPs } = servicePort;
  const frontends: FrontendRow[] = [{ kind: "clusterIP", address: clusterIP, port: port.port }];
  const add = (kind: FrontendKind, address: string, { port }: { port: number }) => {
    if (frontends.some((row) => row.address === address && row.port === port)) return;
    frontends.push({ kind, address, port });
  };
  for (const address of externalIPs) add("externalIP", address, port);
  for (const address of loadBalancerIPs) add("loadBalancer", address, port);
  if (port.nodePort !== 0) {
    const { ipv4, ipv6 } = nodePortAddresses;
    for (const address of family === 4 ? ipv4 : ipv6) {
      add("nodePort", address, { port: port.nodePort });
    }
  }
  return frontends;
}

/** What an empty list does: it refuses, or drops if endpoints exist elsewhere (§7.1–7.3). */
export function whenEmpty({ hasEndpoints }: EndpointLists): TableRow["whenEmpty"] {
  return hasEndpoints ? "drop" : "refuse";
}

/**
 * The endpoints that a row has: those of its tables and, for UDP, all that serve, since a flow is
 * stale only when its endpoint does not (§14.2).
 */
function findBackends(
  endpoints: readonly Endpoint[],
  { lists, protocol }: { lists: EndpointLists; protocol: Protocol },
): readonly Endpoint[] {
  if (protocol !== "UDP") return lists.reachable;
  if (lists.reachable.length === endpoints.length) return endpoints;
  const reachable = new Set(lists.reachable);
  return endpoints.filter((endpoint) => endpoint.serving || reachable.has(endpoint));
}

function makeTable(
  list: readonly Endpoint[] | undefined,
  { backends, lists, kind }: TableOptions,
): TableRow {
  if (list === undefined || list.length === 0) {
    return { ...NO_TABLE, whenEmpty: whenEmpty(lists) };
  }
  if (list.length === backends.length) {
    return { kind, members: firstIndexes(list.length), whenEmpty: "refuse" };
  }
  const members: number[] = [];
  // Both lists are in one order, and every endpoint of a list is among the backends.
  for (let at = 0; at < backends.length; at++) {
    if (backends[at] === list[members.length]) members.push(at);
  }
  return { kind, members, whenEmpty: "refuse" };
}

function makeBackend(endpoint: Endpoint, node: NodeTopology): BackendRow {
  const { address, port, ready } = endpoint;
  const state = ready ? "ready" : "terminating";
  return { address, port, state, weight: 1, local: isLocal(endpoint, node) };
}

/**
 * The row of a service port. `endpoints` are those findEndpoints gives for it. Without external
 * frontends the tables for them are empty, so that they take no slots.
 */
export function makeServiceRow(
  servicePort: ServicePort,
  { endpoints, node }: { endpoints: readonly Endpoint[]; node: NodeContext },
): ServiceRow {
  const { service, port, family, loadBalancerIPs: vips } = servicePort;
  const { primary } = node.addresses;
  const policy = endpointPolicy(servicePort);
  const { internal, inside, outside } = listsFor(policy);
  const lists = categorizeEndpoints(endpoints, { node: node.topology, policy });
  const backends = findBackends(endpoints, { lists, protocol: port.protocol });
  const uniform = { backends, lists, kind: "uniform" } as const;
  return {
    key: serviceRowKey(servicePort),
    namespace: service.namespace,
    name: service.name,
    port: port.name,
    protocol: port.protocol,
    family,
    type: service.type === "ExternalName" ? "ClusterIP" : service.type,
    externalPolicy: policy.externalLocal ? "Local" : "Cluster",
    affinitySeconds: service.affinitySeconds,
    sources: makeSources(service.sourceRanges, { family, vips, primary }),
    frontends: findFrontends(servicePort, node),
    backends: backends.map((endpoint) => makeBackend(endpoint, node.topology)),
    internal: makeTable(lists[internal], uniform),
    inside: inside ? makeTable(lists[inside], uniform) : NO_TABLE,
    outside: outside ? makeTable(lists[outside], { ...uniform, kind: "maglev" }) : NO_TABLE,
  };
}
