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
  /** Only some Services were asked for: there may be others. */
  isFiltered: boolean;
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
  if (services.length === 0) return `No ${options.isFiltered ? "such " : ""}Services.\n`;
  const header = ["SERVICE", "TYPE", "FRONTEND", "ENDPOINT", "STATE", "CONNECTIONS", "AFFINITY"];
  if (options.wide) header.push("TABLES", "REFUSED", "DROPPED", "ID", "ENDPOINT ID", "SOURCES");
  const rows: string[][] = [];
  for (const service of services) addRows(rows, service, options);
  return formatTable(header, rows);
}

/** namespace/name:port/protocol, the port only if it has a name. */
export function serviceTitle(
  service: Pick<ServiceView, "namespace" | "name" | "port" | "protocol">,
): string {
  const port = service.port === "" ? "" : `:${service.port}`;
  return `${service.namespace}/${service.name}${port}/${service.protocol}`;
}

function addRows(rows: string[][], service: ServiceView, options: ViewOptions): void {
  const { frontends, endpoints } = service;
  const ranges = options.wide ? sourcesOf(service).length : 0;
  const lines = Math.max(1, frontends.length, endpoints.length, ranges);
  for (let line = 0; line < lines; line++) rows.push(rowOf(service, line, options));
}

/** What is said of the service as a whole stands in its first line. */
function rowOf(service: ServiceView, line: number, { wide }: ViewOptions): string[] {
  const isFirst = line === 0;
  const frontend = service.frontends[line];
  const endpoint = service.endpoints[line];
  const isEmpty = isFirst && endpoint === undefined;
  const row = [
    isFirst ? serviceTitle(service) : "",
    isFirst ? service.type : "",
    frontend ? formatEndpoint(frontend) + KIND_NOTES[frontend.kind] : "",
    endpoint ? formatEndpoint(endpoint) : isEmpty ? "<none>" : "",
    endpoint?.state ?? (isEmpty ? `${service.tables.internal.whenEmpty}s` : ""),
    endpoint ? String(endpoint.connections) : isEmpty ? emptyCount(service) : "",
    isFirst ? affinityCell(service) : "",
  ];
  if (wide) row.push(...wideCells(service, line));
  return row;
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
