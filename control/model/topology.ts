// Which endpoints of a service port may be used from this node (§5): readiness, the
// serving-and-terminating fallback, traffic policies, node hints and zone hints. One pure function;
// it knows nothing of frontends, and nothing of trafficDistribution, which arrives as hints (§5.8).
import type { Endpoint } from "./endpoint.ts";

/** This node as far as selection depends on it. */
export interface NodeTopology {
  name: string;
  /** Empty if unknown: then zone hints are not used (§5.5). */
  zone: string;
}

/** What the service port needs to know of itself. */
export interface EndpointPolicy {
  internalLocal: boolean;
  externalLocal: boolean;
  hasExternalFrontend: boolean;
}

/** The endpoints that may be used, each list in the order of the input. */
export interface EndpointLists {
  /** For policy Cluster; undefined if this service port never uses it (§5.1). */
  cluster: readonly Endpoint[] | undefined;
  /** For policy Local; undefined if this service port never uses it (§5.1). */
  local: readonly Endpoint[] | undefined;
  /** Union of both lists (§5.11). */
  reachable: readonly Endpoint[];
  /** Whether any endpoint exists anywhere: tells drop from refuse (§5.10). */
  hasEndpoints: boolean;
}

type Test = (endpoint: Endpoint) => boolean;

const isReady: Test = (endpoint) => endpoint.ready;
const isLeaving: Test = (endpoint) => endpoint.serving && endpoint.terminating;

/** The endpoints that satisfy `test`; the same list if all do. */
function keep(endpoints: readonly Endpoint[], test: Test): readonly Endpoint[] {
  return endpoints.every(test) ? endpoints : endpoints.filter(test);
}

/** Those hinted for `wanted`, or undefined unless every one has a hint and some name it (§5.5). */
function keepHinted(
  ready: readonly Endpoint[],
  wanted: string,
  { hints }: { hints: (endpoint: Endpoint) => readonly string[] },
): readonly Endpoint[] | undefined {
  if (wanted === "") return undefined;
  let named = false;
  for (const endpoint of ready) {
    const names = hints(endpoint);
    if (names.length === 0) return undefined;
    named ||= names.includes(wanted);
  }
  return named ? keep(ready, (endpoint) => hints(endpoint).includes(wanted)) : undefined;
}

/** Ready endpoints that pass topology; without any ready one, those serving and terminating. */
function clusterList(endpoints: readonly Endpoint[], node: NodeTopology): readonly Endpoint[] {
  const ready = keep(endpoints, isReady);
  if (ready.length === 0) return keep(endpoints, isLeaving);
  const byNode = keepHinted(ready, node.name, { hints: (endpoint) => endpoint.nodeHints });
  if (byNode !== undefined) return byNode;
  return keepHinted(ready, node.zone, { hints: (endpoint) => endpoint.zoneHints }) ?? ready;
}

/** Local ready endpoints; without any, local ones serving and terminating (§5.4). */
function localList(endpoints: readonly Endpoint[], node: NodeTopology): readonly Endpoint[] {
  // An endpoint without a node is never local, whatever this node is called (§4.7).
  const local = endpoints.filter(({ nodeName }) => nodeName !== "" && nodeName === node.name);
  const ready = keep(local, isReady);
  return ready.length > 0 ? ready : keep(local, isLeaving);
}

/**
 * Sorts the endpoints of one service port (as findEndpoints gives them) into the lists that its
 * policies use, seen from `node`.
 */
export function categorizeEndpoints(
  endpoints: readonly Endpoint[],
  { node, policy }: { node: NodeTopology; policy: EndpointPolicy },
): EndpointLists {
  const { internalLocal, externalLocal, hasExternalFrontend } = policy;
  const usesCluster = !internalLocal || hasExternalFrontend;
  const usesLocal = internalLocal || (externalLocal && hasExternalFrontend);
  const cluster = usesCluster ? clusterList(endpoints, node) : undefined;
  const local = usesLocal ? localList(endpoints, node) : undefined;
  const reachable = union(endpoints, { cluster, local });
  const hasEndpoints = endpoints.some((endpoint) => isReady(endpoint) || isLeaving(endpoint));
  return { cluster, local, reachable, hasEndpoints };
}

function union(
  endpoints: readonly Endpoint[],
  { cluster, local }: Pick<EndpointLists, "cluster" | "local">,
): readonly Endpoint[] {
  if (cluster === undefined || cluster.length === 0) return local ?? [];
  if (local === undefined || local.length === 0) return cluster;
  const either = new Set([...cluster, ...local]);
  return keep(endpoints, (endpoint) => either.has(endpoint));
}
