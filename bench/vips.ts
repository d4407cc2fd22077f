// Services with an address for clients outside, in any number and of both families, and the few of
// which each packet takes a longer way. Pure; knows no kernel.
import type { AddressRow, BackendRow, Family, ServiceRow } from "../control/model/rows.ts";
import { makeRows, SERVICE_PORT } from "./services.ts";

const ENDPOINTS = 10;
const VIPS_FROM = (198 << 24) | (18 << 16);
const AFFINITY_SECONDS = 10_800;
/** Where clients of the guarded Service may be, and others. */
const RANGES = Array.from({ length: 16 }, (_, index) => `203.0.${100 + index}.0/24`);

/** The address of a Service for clients outside, by its number (IPv6: less than 65,536). */
export function vipAddress(service: number, family: Family = 4): string {
  if (family === 6) return `fd00:51::1:${service.toString(16)}`;
  const value = VIPS_FROM + service;
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}

/** Of IPv6, the endpoint of this number, counted over all Services. */
function wideEndpoint(endpoint: number): string {
  return `fd00:52::1:${endpoint.toString(16)}`;
}

/** The same Service for clients outside. */
function exposed(row: ServiceRow, service: number): ServiceRow {
  return {
    ...row,
    type: "LoadBalancer",
    frontends: [
      ...row.frontends,
      { kind: "loadBalancer", address: vipAddress(service), port: SERVICE_PORT },
    ],
    outside: { ...row.outside, kind: "maglev" },
  };
}

/** The same Service of IPv6. */
function widened(row: ServiceRow, service: number): ServiceRow {
  const [internal, external] = [`fd00:96::1:${service.toString(16)}`, vipAddress(service, 6)];
  return {
    ...row,
    key: row.key.replace(/4$/, "6"),
    family: 6,
    frontends: row.frontends.map((frontend) => ({
      ...frontend,
      address: frontend.kind === "clusterIP" ? internal : external,
    })),
    backends: row.backends.map((backend, index) => ({
      ...backend,
      address: wideEndpoint(service * ENDPOINTS + index),
    })),
  };
}

/** Services that come after all others, by what is special of them. */
export const SPECIAL = ["udp", "sticky", "guarded", "local"] as const;
export type Special = (typeof SPECIAL)[number];

/** The number of a special Service behind `services` others. */
export function specialService(services: number, special: Special): number {
  return services + SPECIAL.indexOf(special);
}

function specialized(row: ServiceRow, special: Special | undefined, pod: string): ServiceRow {
  switch (special) {
    case "udp":
      return { ...row, key: row.key.replace("TCP", "UDP"), protocol: "UDP" };
    case "sticky":
      return { ...row, affinitySeconds: AFFINITY_SECONDS };
    case "guarded":
      return { ...row, sources: { ranges: RANGES, nodeAllowed: false } };
    case "local": {
      const all = { kind: "uniform", members: [0], whenEmpty: "refuse" } as const;
      const local: BackendRow = { ...row.backends[0]!, address: pod, local: true };
      return { ...row, backends: [local], internal: all, inside: all, outside: all };
    }
  }
  return row;
}

/** So many Services of TCP over IPv4, IPv6 too if asked for, and then the special ones. */
export function* makeVips({
  services,
  pod,
  wide = false,
}: {
  services: number;
  /** The address of the endpoint on this node. */
  pod: string;
  wide?: boolean;
}): Generator<ServiceRow> {
  const shape = { services: services + SPECIAL.length, endpoints: ENDPOINTS };
  let service = 0;
  for (const plain of makeRows({ ...shape, protocolOf: () => "TCP" })) {
    const row = exposed(plain, service);
    yield specialized(row, SPECIAL[service - services], pod);
    if (wide && service < services) yield widened(row, service);
    service += 1;
  }
}

/** What is to become of other ports of all addresses of these rows. */
export function addressesOf(rows: Iterable<ServiceRow>): AddressRow[] {
  return [...rows].flatMap(({ frontends }) =>
    frontends.map(({ kind, address }) => ({
      address,
      action: kind === "clusterIP" ? ("refuse" as const) : ("answer" as const),
    })),
  );
}
