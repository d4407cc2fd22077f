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

/** The lists that endpoints may be in, named by the policy that they serve. */
export type ListName = "cluster" | "local";

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

/** How a list is chosen: within this node or anywhere, and by what (§5.3–5.5). */
export interface ListRule {
  isLocal: boolean;
  /** "leaving": serving and terminating ones, for want of any that is ready. */
  by: "ready" | "nodeHint" | "zoneHint" | "leaving";
}

/** Why an endpoint is not in a list. */
export type Exclusion = "elsewhere" | "notReady" | "terminating" | "nodeHint" | "zoneHint";

/** True for an endpoint of this node; one without a node is never local (§4.7). */
export function isLocal({ nodeName }: Endpoint, node: NodeTopology): boolean {
  return nodeName !== "" && nodeName === node.name;
}

function isLeaving({ serving, terminating }: Endpoint): boolean {
  return serving && terminating;
}

/** The rule of the list for policy Cluster. Hints count only if every ready endpoint has one and
 * some name this node, else this zone (§5.5). */
function clusterRule(endpoints: readonly Endpoint[], node: NodeTopology): ListRule {
  let someReady = false;
  let byNode = node.name !== "";
  let byZone = node.zone !== "";
  let namesNode = false;
  let namesZone = false;
  for (const { ready, nodeHints, zoneHints } of endpoints) {
    if (!ready) continue;
    someReady = true;
    byNode &&= nodeHints.length > 0;
    byZone &&= zoneHints.length > 0;
    namesNode ||= byNode && nodeHints.includes(node.name);
    namesZone ||= byZone && zoneHints.includes(node.zone);
  }
  if (!someReady) return { isLocal: false, by: "leaving" };
  if (byNode && namesNode) return { isLocal: false, by: "nodeHint" };
  return { isLocal: false, by: byZone && namesZone ? "zoneHint" : "ready" };
}

/** The rule of the list for policy Local (§5.4): hints have no say in it (§6.5). */
function localRule(endpoints: readonly Endpoint[], node: NodeTopology): ListRule {
  const someReady = endpoints.some((endpoint) => endpoint.ready && isLocal(endpoint, node));
  return { isLocal: true, by: someReady ? "ready" : "leaving" };
}

/** Why a rule leaves an endpoint out; undefined if it takes it. */
export function whyExcluded(
  endpoint: Endpoint,
  { rule, node }: { rule: ListRule; node: NodeTopology },
): Exclusion | undefined {
  if (rule.isLocal && !isLocal(endpoint, node)) return "elsewhere";
  if (rule.by === "leaving") return isLeaving(endpoint) ? undefined : "notReady";
  if (!endpoint.ready) return isLeaving(endpoint) ? "terminating" : "notReady";
  if (rule.by === "nodeHint" && !endpoint.nodeHints.includes(node.name)) return "nodeHint";
  if (rule.by === "zoneHint" && !endpoint.zoneHints.includes(node.zone)) return "zoneHint";
  return undefined;
}

type Test = (endpoint: Endpoint) => boolean;

/** The endpoints that satisfy `test`; the same list if all do. */
function keep(endpoints: readonly Endpoint[], test: Test): readonly Endpoint[] {
  return endpoints.every(test) ? endpoints : endpoints.filter(test);
}

function select(
  list: ListName,
  { endpoints, node }: { endpoints: readonly Endpoint[]; node: NodeTopology },
): readonly Endpoint[] {
  const context = { rule: ruleOf(list, { endpoints, node }), node };
  return keep(endpoints, (endpoint) => whyExcluded(endpoint, context) === undefined);
}

/** The rule that a list is chosen by. */
export function ruleOf(
  list: ListName,
  { endpoints, node }: { endpoints: readonly Endpoint[]; node: NodeTopology },
): ListRule {
  return list === "cluster" ? clusterRule(endpoints, node) : localRule(endpoints, node);
}

/** Which lists a service port uses (§5.1). */
function listsInUse({
  internalLocal,
  externalLocal,
  hasExternalFrontend,
}: EndpointPolicy): Record<ListName, boolean> {
  return {
    cluster: !internalLocal || hasExternalFrontend,
    local: internalLocal || (externalLocal && hasExternalFrontend),
  };
}

/**
 * Sorts the endpoints of one service port (as findEndpoints gives them) into the lists that its
 * policies use, seen from `node`.
 */
export function categorizeEndpoints(
  endpoints: readonly Endpoint[],
  { node, policy }: { node: NodeTopology; policy: EndpointPolicy },
): EndpointLists {
  const uses = listsInUse(policy);
  const cluster = uses.cluster ? select("cluster", { endpoints, node }) : undefined;
  const local = uses.local ? select("local", { endpoints, node }) : undefined;
  const reachable = union(endpoints, { cluster, local });
  const hasEndpoints = endpoints.some((endpoint) => endpoint.ready || isLeaving(endpoint));
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
