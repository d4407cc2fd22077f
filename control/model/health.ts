// What load balancers and supervisors are told: the answers of a Service's health-check node port
// (§12) and of /healthz and /livez (§13). Pure: time is an argument, and who listens is not known.
import { type Endpoint, findEndpoints } from "./endpoint.ts";
import type { NodeObject, ServiceObject, SliceObject } from "./objects.ts";
import type { Family } from "./rows.ts";
import { isExternalLocal, servicePorts } from "./service.ts";
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

/** True if load balancers are to ask each node for a Service's endpoints there (§12.1). */
export function hasHealthCheck(service: ServiceObject): boolean {
  return service.type === "LoadBalancer" && isExternalLocal(service);
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

/** What load balancers that ask this node about a Service are told, and where they ask. */
export interface HealthCheck {
  namespace: string;
  name: string;
  /** 0 if none was allocated: then they cannot ask (§12.1). */
  port: number;
  /** countLocalEndpoints() of each family that the Service has. */
  localEndpoints: ReadonlyMap<Family, number>;
}

/** The health check of a Service with these slices; undefined if it is to have none. */
export function makeHealthCheck(
  service: ServiceObject,
  { slices, node }: { slices: readonly SliceObject[]; node: NodeTopology },
): HealthCheck | undefined {
  if (!hasHealthCheck(service)) return undefined;
  const found = new Map<Family, Endpoint[]>();
  for (const { port, family } of servicePorts(service)) {
    const query = { name: port.name, protocol: port.protocol, family };
    found.set(family, [...(found.get(family) ?? []), ...findEndpoints(slices, query)]);
  }
  if (found.size === 0) return undefined;
  const counts = Array.from(
    found,
    ([family, endpoints]) => [family, countLocalEndpoints(endpoints, { node })] as const,
  );
  const { namespace, name, healthCheckNodePort: port } = service;
  return { namespace, name, port, localEndpoints: new Map(counts) };
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
  /** Whether new traffic may be sent to the node: isEligible(). */
  nodeEligible: boolean;
  nowMs: number;
  /** How long a change may wait: twice the sync period (§13.2). */
  timeoutMs: number;
}

/** True if no change waits too long; without any change that is so for ever (§13.2). */
export function isHealthy(
  { pendingSinceMs }: FamilyHealth,
  health: Pick<ProxyHealth, "nowMs" | "timeoutMs">,
): boolean {
  return pendingSinceMs === undefined || health.nowMs - pendingSinceMs < health.timeoutMs;
}

/** True if no family waits too long, whatever becomes of the node (§13.2). */
export function isProxyHealthy(health: Omit<ProxyHealth, "nodeEligible">): boolean {
  return [...health.families.values()].every((family) => isHealthy(family, health));
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
  const { families, nodeEligible, nowMs } = health;
  const isAllHealthy = isProxyHealthy(health);
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
