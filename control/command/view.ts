// Service ports as a table for people: what the kernel holds. Knows how things look, not where they
// come from.
import type { BackendState, FrontendKind, ServiceType, SourceRow } from "../model/rows.ts";
import { formatEndpoint, formatSeconds, formatTable } from "../print.ts";

/** A service port in the kernel. */
export interface ServiceView {
  namespace: string;
  name: string;
  /** The service port's name, empty if it has none. */
  port: string;
  protocol: string;
  type: ServiceType;
  affinitySeconds: number;
  /** Who may ask the load balancer frontends; absent: everybody. */
  sources?: SourceRow;
  frontends: readonly { kind: FrontendKind; address: string; port: number }[];
  endpoints: readonly EndpointView[];
  tables: Readonly<Record<"internal" | "inside" | "outside", { whenEmpty: "refuse" | "drop" }>>;
  id: number;
  refused: number;
  dropped: number;
}

export interface EndpointView {
  address: string;
  port: number;
  state: BackendState | "serving";
  /** The tables that list it: internal, inside, outside. */
  tables: readonly string[];
  id: number;
  connections: number;
}

export interface ViewOptions {
  /** More columns: tables, counters of what got no endpoint, and ids. */
  wide: boolean;
}

/** What stands behind a frontend's address to tell its kind; a cluster IP needs no word. */
export const KIND_NOTES: Readonly<Record<FrontendKind, string>> = {
  clusterIP: "",
  externalIP: " (external IP)",
  loadBalancer: " (load balancer)",
  nodePort: " (node port)",
};

/** A block of lines for each service port: frontends and endpoints stand side by side. */
export function formatServices(services: readonly ServiceView[], options: ViewOptions): string {
  if (services.length === 0) return "No Services.\n";
  const header = ["SERVICE", "TYPE", "FRONTEND", "ENDPOINT", "STATE", "CONNECTIONS", "AFFINITY"];
  if (options.wide) header.push("TABLES", "REFUSED", "DROPPED", "ID", "ENDPOINT ID", "SOURCES");
  return formatTable(
    header,
    services.flatMap((service) => blockOf(service, options)),
  );
}

/** namespace/name:port/protocol, the port only if it has a name. */
export function serviceTitle(
  service: Pick<ServiceView, "namespace" | "name" | "port" | "protocol">,
): string {
  const port = service.port === "" ? "" : `:${service.port}`;
  return `${service.namespace}/${service.name}${port}/${service.protocol}`;
}

function blockOf(service: ServiceView, options: ViewOptions): string[][] {
  const { frontends, endpoints } = service;
  const lists = options.wide ? [frontends, endpoints, sourcesOf(service)] : [frontends, endpoints];
  const rows: string[][] = [];
  for (let line = 0; line < Math.max(1, ...lists.map(({ length }) => length)); line++) {
    const frontend = frontends[line];
    rows.push([
      line === 0 ? serviceTitle(service) : "",
      line === 0 ? service.type : "",
      frontend ? formatEndpoint(frontend) + KIND_NOTES[frontend.kind] : "",
      ...endpointCells(service, line),
      line === 0 ? affinityCell(service) : "",
      ...(options.wide ? wideCells(service, line) : []),
    ]);
  }
  return rows;
}

function endpointCells(service: ServiceView, line: number): string[] {
  const endpoint = service.endpoints[line];
  if (endpoint) return [formatEndpoint(endpoint), endpoint.state, String(endpoint.connections)];
  if (line > 0) return ["", "", ""];
  const whenEmpty = service.tables.internal.whenEmpty === "refuse" ? "refuses" : "drops";
  return ["<none>", whenEmpty, emptyCount(service)];
}

function emptyCount({ tables, refused, dropped }: ServiceView): string {
  return tables.internal.whenEmpty === "refuse" ? `${refused} refused` : `${dropped} dropped`;
}

function affinityCell({ affinitySeconds }: ServiceView): string {
  return affinitySeconds === 0 ? "-" : `ClientIP ${formatSeconds(affinitySeconds)}`;
}

/** The allowed sources of a guarded service, one a line. */
function sourcesOf({ sources }: ServiceView): string[] {
  if (sources === undefined) return [];
  return [...sources.ranges, ...(sources.nodeAllowed ? ["this node"] : [])];
}

function wideCells(service: ServiceView, line: number): string[] {
  const endpoint = service.endpoints[line];
  const tables = endpoint ? endpoint.tables.join(",") : "";
  const { refused, dropped, id } = service;
  const first = line === 0 ? [String(refused), String(dropped), String(id)] : ["", "", ""];
  return [tables, ...first, String(endpoint?.id ?? ""), sourcesOf(service)[line] ?? ""];
}
