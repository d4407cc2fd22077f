// The Services of the packet tests, as rows: one for each way that a packet can
// take.
import {
  type AddressRow,
  type BackendRow,
  PROTOCOLS,
  type Protocol,
  type ServiceRow,
  type TableRow,
} from "../../control/model/rows.ts";
import { FAMILIES, type Family, PLACES } from "./places.ts";

export const PORT = 80;
export const ENDPOINT_PORT = 8080;
export const NODE_PORT = 30080;
/** Ports of the cluster IP and the VIP that lead somewhere else than to the remote endpoint. */
export const LOCAL_PORT = 81;
export const EMPTY_PORT = 82;
export const DROP_PORT = 83;
export const GUARDED_PORT = 84;
/** A second frontend of the remote endpoint. */
export const AGAIN_PORT = 85;
/** Two remote endpoints, with affinity. */
export const STICKY_PORT = 86;
export const STICKY_NODE_PORT = 30086;
/** A remote endpoint that can be replaced by another one. */
export const MOVING_PORT = 87;
/** An endpoint on this node's own network. */
export const OWN_PORT = 88;
/** The pod of this node, with externalTrafficPolicy Local. */
export const KEEPING_PORT = 89;
/** A second frontend of the pod. */
export const LOCAL_AGAIN_PORT = 90;
/** Endpoints that may be reached by nobody: a loopback address and a multicast one. */
export const LOOPBACK_PORT = 91;
export const MULTICAST_PORT = 92;
/** Remote, at the first and the last of all node ports. */
export const LOWEST_PORT = 93;
export const LOWEST_NODE_PORT = 30000;
export const HIGHEST_PORT = 94;
export const HIGHEST_NODE_PORT = 32767;

interface Wanted {
  name: string;
  port: number;
  backends: readonly BackendRow[];
  whenEmpty?: TableRow["whenEmpty"];
  guarded?: boolean;
  nodePort?: number;
  externalPolicy?: ServiceRow["externalPolicy"];
  affinitySeconds?: number;
}

function makeRow(
  { name, port, backends, nodePort, ...rest }: Wanted,
  { family, protocol }: { family: Family; protocol: Protocol },
): ServiceRow {
  const { clusterIP, vip, node, loopback } = PLACES[family];
  const members = backends.map((_, index) => index);
  const table = { kind: "uniform", members, whenEmpty: rest.whenEmpty ?? "refuse" } as const;
  const nodePorts = nodePort === undefined ? [] : [node, loopback];
  return {
    key: `test/${name}:/${protocol}/${family}`,
    namespace: "test",
    name,
    port: "",
    protocol,
    family,
    type: "LoadBalancer",
    externalPolicy: rest.externalPolicy ?? "Cluster",
    affinitySeconds: rest.affinitySeconds ?? 0,
    sources: rest.guarded
      ? { ranges: [family === 4 ? "203.0.113.10/32" : "2001:db8:ffff::10/128"], nodeAllowed: false }
      : undefined,
    frontends: [
      { kind: "clusterIP", address: clusterIP, port },
      { kind: "loadBalancer", address: vip, port },
      ...nodePorts.map((address) => ({
        kind: "nodePort" as const,
        address,
        port: nodePort!,
      })),
    ],
    backends,
    internal: table,
    inside: table,
    outside: { ...table, kind: "maglev" },
  };
}

function backend(address: string, local = false): BackendRow {
  return { address, port: ENDPOINT_PORT, state: "ready", weight: 1, local };
}

function makeWanted(family: Family, moved: boolean): Wanted[] {
  const { remote, second, local, node, loopback, multicast } = PLACES[family];
  const far = [backend(remote)];
  const near = [backend(local, true)];
  return [
    { name: "remote", port: PORT, backends: far, nodePort: NODE_PORT },
    { name: "again", port: AGAIN_PORT, backends: far },
    { name: "local", port: LOCAL_PORT, backends: near },
    { name: "local-again", port: LOCAL_AGAIN_PORT, backends: near },
    { name: "empty", port: EMPTY_PORT, backends: [] },
    { name: "drop", port: DROP_PORT, backends: [], whenEmpty: "drop" },
    { name: "guarded", port: GUARDED_PORT, backends: far, guarded: true },
    {
      name: "sticky",
      port: STICKY_PORT,
      backends: [backend(remote), backend(second)],
      nodePort: STICKY_NODE_PORT,
      affinitySeconds: 3600,
    },
    { name: "moving", port: MOVING_PORT, backends: [backend(moved ? second : remote)] },
    { name: "own", port: OWN_PORT, backends: [backend(node, true)] },
    { name: "keeping", port: KEEPING_PORT, backends: near, externalPolicy: "Local" },
    { name: "loopback", port: LOOPBACK_PORT, backends: [backend(loopback)] },
    { name: "multicast", port: MULTICAST_PORT, backends: [backend(multicast)] },
    { name: "lowest", port: LOWEST_PORT, backends: far, nodePort: LOWEST_NODE_PORT },
    { name: "highest", port: HIGHEST_PORT, backends: far, nodePort: HIGHEST_NODE_PORT },
  ];
}

/** What is programmed in the bed. `moved`: the moving Service has its second endpoint. */
export function makeServices({ moved = false } = {}): {
  services: ServiceRow[];
  addresses: AddressRow[];
  serviceRanges: string[];
} {
  const services = FAMILIES.flatMap((family) =>
    (Object.keys(PROTOCOLS) as Protocol[]).flatMap((protocol) =>
      makeWanted(family, moved).map((wanted) => makeRow(wanted, { family, protocol })),
    ),
  );
  const addresses = FAMILIES.flatMap((family): AddressRow[] => [
    { address: PLACES[family].clusterIP, action: "refuse" },
    { address: PLACES[family].vip, action: "answer" },
    { address: PLACES[family].externalIP, action: "host" },
  ]);
  return { services, addresses, serviceRanges: ["10.96.0.0/16", "fd00:10:96::/112"] };
}
