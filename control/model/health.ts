// What load balancers and supervisors are told: the answers of a Service's health-check node port
// (§12) and of /healthz and /livez (§13). Pure: time is an argument, and who listens is not known.
import type { Endpoint } from "./endpoint.ts";
import type { NodeObject, ServiceObject } from "./objects.ts";
import type { Family } from "./rows.ts";
import { isExternalLocal } from "./service.ts";
import { isLocal, type NodeTopology } from "./topology.ts";

/** The cluster autoscaler is about to remove a Node with this taint. */
const TAINT_LEAVING = "ToBeDeletedByClusterAutoscaler";
/** What Go prints for a time that was never set. */
const NEVER = "0001-01-01T00:00:00Z";

/** An HTTP answer. */
export interface Answer {
  status: 200 | 503;
  headers: Readonly<Record<string, string>>;
  body: string;
}

const JSON_HEADERS = {
  "Content-Type": "application/json",
  "X-Content-Type-Options": "nosniff",
} as const;

/** True if a Service has a health-check node port to be served (§12.1). */
export function hasHealthCheck(service: ServiceObject): boolean {
  const isAsked = service.type === "LoadBalancer" && isExternalLocal(service);
  return isAsked && service.healthCheckNodePort !== 0;
}

/**
 * How many endpoints of a Service this node has in one family: distinct addresses that are ready
 * and local, over the endpoints of all its service ports (§12.6). Terminating ones never count.
 */
export function countLocalEndpoints(
  endpoints: Iterable<Endpoint>,
  { node }: { node: NodeTopology },
): number {
  const addresses = new Set<string>();
  for (const endpoint of endpoints) {
    if (endpoint.ready && isLocal(endpoint, node)) addresses.add(endpoint.address);
  }
  return addresses.size;
}

/** The answer of a Service's health-check node port to any request (§12.3–12.5). */
export function answerServiceHealth(
  { namespace, name }: { namespace: string; name: string },
  { localEndpoints, isProxyHealthy }: { localEndpoints: number; isProxyHealthy: boolean },
): Answer {
  const body = {
    service: { namespace, name },
    localEndpoints,
    serviceProxyHealthy: isProxyHealthy,
  };
  return {
    status: localEndpoints > 0 && isProxyHealthy ? 200 : 503,
    headers: { ...JSON_HEADERS, "X-Load-Balancing-Endpoint-Weight": String(localEndpoints) },
    body: JSON.stringify(body, undefined, "\t"),
  };
}

/** What is known of the rows of one family; times are milliseconds since the epoch. */
export interface FamilyHealth {
  /** When everything known was written last. */
  updatedMs: number;
  /** When the oldest change came that is not written yet. */
  pendingSinceMs: number | undefined;
}

export interface ProxyHealth {
  /** Families that ever reported. */
  families: ReadonlyMap<Family, FamilyHealth>;
  /** This node's own Node object; undefined if there is none. */
  node: NodeObject | undefined;
  nowMs: number;
  /** How long a change may wait: twice the sync period (§13.2). */
  timeoutMs: number;
}

/** True if no change waits too long; without any change that is so for ever (§13.2). */
export function isHealthy({ pendingSinceMs }: FamilyHealth, health: ProxyHealth): boolean {
  return pendingSinceMs === undefined || health.nowMs - pendingSinceMs < health.timeoutMs;
}

/** True if new traffic may be sent to the node: it is there, and there to stay (§13.3). */
export function isEligible(node: NodeObject | undefined): boolean {
  return node !== undefined && !node.isDeleted && !node.taints.includes(TAINT_LEAVING);
}

/** A time as Go's JSON has it: without a fraction that is zero. */
function formatTime(milliseconds: number): string {
  return new Date(milliseconds).toISOString().replace(/\.?0*Z$/, "Z");
}

function lastUpdated({ families, nowMs }: ProxyHealth, isGood: boolean): string {
  // A good answer is as fresh as its request (§13.4).
  if (isGood) return formatTime(nowMs);
  const times = Array.from(families.values(), ({ updatedMs }) => updatedMs);
  return times.length === 0 ? NEVER : formatTime(Math.max(...times));
}

/** The answer of /healthz, or of /livez, which leaves the node out of it (§13.3, §13.4). */
export function answerProxyHealth(
  health: ProxyHealth,
  { path }: { path: "/healthz" | "/livez" },
): Answer {
  const { families, node, nowMs } = health;
  const isAllHealthy = [...families.values()].every((family) => isHealthy(family, health));
  const nodeEligible = isEligible(node);
  const isGood = isAllHealthy && (path === "/livez" || nodeEligible);
  const status = [...families].map(([family, state]) => {
    const healthy = isHealthy(state, health);
    return [`IPv${family}`, { lastUpdated: formatTime(state.updatedMs), healthy }];
  });
  const body = {
    lastUpdated: lastUpdated(health, isGood),
    currentTime: formatTime(nowMs),
    ...(path === "/healthz" && { nodeEligible }),
    healthy: isAllHealthy,
    ...(status.length > 0 && { status: Object.fromEntries(status) }),
  };
  return { status: isGood ? 200 : 503, headers: JSON_HEADERS, body: JSON.stringify(body) };
}
