// The Services of the packet tests, as rows: one for each way that a packet can take.
import type { AddressRow, BackendRow, ServiceRow, TableRow } from "../../control/model/rows.ts";
import { type Family, PLACES } from "./bed.ts";

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

interface Wanted {
  name: string;
  family: Family;
  protocol: ServiceRow["protocol"];
  port: number;
  backends: readonly BackendRow[];
  whenEmpty?: TableRow["whenEmpty"];
  guarded?: boolean;
  nodePort?: number;
  externalPolicy?: ServiceRow["externalPolicy"];
}

function makeRow({ name, family, protocol, port, backends, ...rest }: Wanted): ServiceRow {
  const { clusterIP, vip, node } = PLACES[family];
  const members = backends.map((_, index) => index);
  const table = { kind: "uniform", members, whenEmpty: rest.whenEmpty ?? "refuse" } as const;
  const nodePorts =
    rest.nodePort === undefined
      ? []
      : [{ kind: "nodePort" as const, address: node, port: rest.nodePort }];
  return {
    key: `test/${name}:/${protocol}/${family}`,
    namespace: "test",
    name,
    port: "",
    protocol,
    family,
    type: "LoadBalancer",
    externalPolicy: rest.externalPolicy ?? "Cluster",
    affinitySeconds: 0,
    sources: rest.guarded
      ? { ranges: [family === 4 ? "203.0.113.10/32" : "2001:db8:ffff::10/128"], nodeAllowed: false }
      : undefined,
    frontends: [
      { kind: "clusterIP", address: clusterIP, port },
      { kind: "loadBalancer", address: vip, port },
      ...nodePorts,
    ],
    backends,
    internal: table,
    inside: table,
    outside: { ...table, kind: "maglev" },
  };
}

function makeBackend(address: string, local: boolean): BackendRow {
  return { address, port: ENDPOINT_PORT, state: "ready", weight: 1, local };
}

/** What is programmed in the bed. */
export function makeServices(): {
  services: ServiceRow[];
  addresses: AddressRow[];
  serviceRanges: string[];
} {
  const services: ServiceRow[] = [];
  const addresses: AddressRow[] = [];
  for (const family of [4, 6] as const) {
    const { remote, local, clusterIP, vip } = PLACES[family];
    addresses.push({ address: clusterIP, action: "refuse" }, { address: vip, action: "answer" });
    const far = [makeBackend(remote, false)];
    const near = [makeBackend(local, true)];
    for (const protocol of ["TCP", "UDP", "SCTP"] as const) {
      const common = { family, protocol } as const;
      services.push(
        makeRow({ ...common, name: "remote", port: PORT, backends: far, nodePort: NODE_PORT }),
        makeRow({ ...common, name: "again", port: AGAIN_PORT, backends: far }),
        makeRow({ ...common, name: "local", port: LOCAL_PORT, backends: near }),
        makeRow({ ...common, name: "empty", port: EMPTY_PORT, backends: [] }),
        makeRow({ ...common, name: "drop", port: DROP_PORT, backends: [], whenEmpty: "drop" }),
        makeRow({ ...common, name: "guarded", port: GUARDED_PORT, backends: far, guarded: true }),
      );
    }
  }
  return { services, addresses, serviceRanges: ["10.96.0.0/16", "fd00:10:96::/112"] };
}
