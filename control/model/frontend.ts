// The border between Kubernetes and the kernel: a service port, its endpoints and this node become
// one ServiceRow. Knows nothing of other Services: who owns a contested frontend is claims.ts'.
import type { Endpoint } from "./endpoint.ts";
import type { HostAddresses, NodePortAddresses } from "./nodeaddresses.ts";
import type { BackendRow, FrontendKind, FrontendRow, ServiceRow, TableRow } from "./rows.ts";
import {
  hasExternalFrontend,
  isExternalLocal,
  isInternalLocal,
  type ServicePort,
  serviceRowKey,
} from "./service.ts";
import { makeSources } from "./sources.ts";
import { categorizeEndpoints, type EndpointLists, isLocal, type NodeTopology } from "./topology.ts";

/** This node as far as rows depend on it. */
export interface NodeContext {
  topology: NodeTopology;
  addresses: HostAddresses;
  nodePortAddresses: NodePortAddresses;
}

const NO_TABLE: TableRow = { kind: "uniform", members: [], whenEmpty: "refuse" };

/**
 * What a service port captures (§3.1), decided by fields and not by type (§3.2); distinct by
 * address and port, a cluster IP before an external IP before a VIP before a node port (§3.5).
 */
export function findFrontends(
  servicePort: ServicePort,
  { nodePortAddresses }: { nodePortAddresses: NodePortAddresses },
): FrontendRow[] {
  const { port, family, clusterIP, externalIPs, loadBalancerIPs } = servicePort;
  const frontends: FrontendRow[] = [];
  const add = (kind: FrontendKind, address: string, { port }: { port: number }) => {
    if (frontends.some((row) => row.address === address && row.port === port)) return;
    frontends.push({ kind, address, port });
  };
  add("clusterIP", clusterIP, port);
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

/** A table over one list; empty it refuses, or drops if endpoints exist elsewhere (§7.1–7.3). */
function makeTable(
  list: readonly Endpoint[] | undefined,
  { lists, kind }: { lists: EndpointLists; kind: TableRow["kind"] },
): TableRow {
  if (list === undefined || list.length === 0) {
    return { ...NO_TABLE, whenEmpty: lists.hasEndpoints ? "drop" : "refuse" };
  }
  const { reachable } = lists;
  const members: number[] = [];
  // Both lists are in one order, and every endpoint of a list is reachable.
  for (let at = 0; at < reachable.length; at++) {
    if (reachable[at] === list[members.length]) members.push(at);
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
  const external = hasExternalFrontend(servicePort);
  const internalLocal = isInternalLocal(service);
  const externalLocal = isExternalLocal(service);
  const policy = { internalLocal, externalLocal, hasExternalFrontend: external };
  const lists = categorizeEndpoints(endpoints, { node: node.topology, policy });
  const internalList = internalLocal ? lists.local : lists.cluster;
  const outsideList = externalLocal ? lists.local : lists.cluster;
  return {
    key: serviceRowKey(servicePort),
    namespace: service.namespace,
    name: service.name,
    port: port.name,
    protocol: port.protocol,
    family,
    type: service.type === "ExternalName" ? "ClusterIP" : service.type,
    externalPolicy: externalLocal ? "Local" : "Cluster",
    affinitySeconds: service.affinitySeconds,
    sources: makeSources(service.sourceRanges, { family, vips, primary }),
    frontends: findFrontends(servicePort, node),
    backends: lists.reachable.map((endpoint) => makeBackend(endpoint, node.topology)),
    internal: makeTable(internalList, { lists, kind: "uniform" }),
    inside: external ? makeTable(lists.cluster, { lists, kind: "uniform" }) : NO_TABLE,
    outside: external ? makeTable(outsideList, { lists, kind: "maglev" }) : NO_TABLE,
  };
}
