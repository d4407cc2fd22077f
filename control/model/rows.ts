// What should be in the kernel, as plain data: the only words that the model and the dataplane
// have in common. Addresses are canonical text (see address.ts); no ids, no bytes, no maps.

/** 4 or 6. An IPv4-mapped IPv6 address is of family 4. */
export type Family = 4 | 6;

/** Protocols a Service can name, with their IP protocol numbers. */
export const PROTOCOLS = { TCP: 6, UDP: 17, SCTP: 132 } as const;
export type Protocol = keyof typeof PROTOCOLS;

export type ServiceType = "ClusterIP" | "NodePort" | "LoadBalancer";
export type FrontendKind = "clusterIP" | "externalIP" | "loadBalancer" | "nodePort";
export type TrafficPolicy = "Cluster" | "Local";
export type BackendState = "ready" | "terminating";

/** An address and port that is captured (semantics §3.1). */
export interface FrontendRow {
  kind: FrontendKind;
  address: string;
  port: number;
}

/** One endpoint of one service port. Distinct by address and port within its service row. */
export interface BackendRow {
  address: string;
  port: number;
  state: BackendState;
  /** Share of new connections relative to the other endpoints, 1 to 1000. */
  weight: number;
  /** Whether it is on this node: a pod that draws itself needs another source (§10.5). */
  local: boolean;
}

/** Which endpoints a packet may get, and what happens to it when there are none. */
export interface TableRow {
  /** "uniform" has one slot for each member; "maglev" has a ladder length (maglev.ts). */
  kind: "uniform" | "maglev";
  /** Indexes into the service row's backends, ascending. */
  members: readonly number[];
  /** New connections to an empty table (semantics §7). */
  whenEmpty: "refuse" | "drop";
}

/** Who may ask the load-balancer VIPs of a service port (semantics §8). */
export interface SourceRow {
  /** Canonical "address/length" ranges of the row's family, sorted, at least one; no /0. */
  ranges: readonly string[];
  /** The verdict on this node's own processes, whose source address is not known at connect. */
  nodeAllowed: boolean;
}

/** What becomes of the ports of an address that no service row captures (semantics §7.5, §7.6). */
export interface AddressRow {
  address: string;
  /**
   * "refuse": a cluster IP of ours. "leave": an address of a Service of another proxy. "answer": a
   * load balancer's address, whose other ports are left alone (§7.7), but which answers pings.
   * "host": an external IP. A host may have it, so that only pings that this node would send back
   * to where they came from are answered.
   */
  action: "refuse" | "leave" | "answer" | "host";
}

/** One service port of one family: the unit in which everything is programmed. */
export interface ServiceRow {
  /** Unique and stable: "namespace/name:port/protocol/family", port being the port's name. */
  key: string;
  namespace: string;
  name: string;
  /** The service port's name, empty if it has none. */
  port: string;
  protocol: Protocol;
  family: Family;
  type: ServiceType;
  /** Local: external frontends keep the client's address (§10.2), Cluster: they do not (§10.1). */
  externalPolicy: TrafficPolicy;
  /** Timeout of ClientIP affinity in seconds, 0 for none (semantics §11). */
  affinitySeconds: number;
  /** What the load-balancer VIPs accept; undefined: they are open to all (semantics §8). */
  sources: SourceRow | undefined;
  /** Distinct by address and port; order carries no meaning. A frontend another Service owns
   * (claims.ts) is not listed. */
  frontends: readonly FrontendRow[];
  /** Sorted by address, then port, so that equal sets are equal rows. A UDP row also has those
   * that serve but are in no table: sockets that got them before keep them (§14.2). */
  backends: readonly BackendRow[];
  /** To the cluster IP, from anywhere (semantics §6.1). */
  internal: TableRow;
  /** To an external frontend, from a pod or from the node (semantics §6.3). */
  inside: TableRow;
  /** To an external frontend, from outside (semantics §6.2, §6.3). */
  outside: TableRow;
}

/** The order of a row's backends: by address as text, then by port. */
export function compareBackends(
  left: Pick<BackendRow, "address" | "port">,
  right: Pick<BackendRow, "address" | "port">,
): number {
  if (left.address !== right.address) return left.address < right.address ? -1 : 1;
  return left.port - right.port;
}

type ServiceIdentity = Pick<ServiceRow, "namespace" | "name" | "port" | "family"> & {
  protocol: string;
};

/** The order in which people see service ports: by namespace, name, port, protocol and family. */
export function compareServices(a: ServiceIdentity, b: ServiceIdentity): number {
  return (
    compareText(a.namespace, b.namespace) ||
    compareText(a.name, b.name) ||
    compareText(a.port, b.port) ||
    compareText(a.protocol, b.protocol) ||
    a.family - b.family
  );
}

/** For sort(): by UTF-16 code units, whatever the locale. */
export function compareText(a: string, b: string): number {
  return a < b ? -1 : a > b ? 1 : 0;
}
