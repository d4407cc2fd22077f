// Our own metrics. How many series there are does not follow from how large the cluster is: what is
// told of single Services is told of a chosen few. Knows no map and no API; what it tells of them
// comes as numbers.
import type { Family, Protocol } from "../../model/rows.ts";
import type { WatchStatistics } from "../../source/source.ts";
import { familyLabel } from "./kubeproxy.ts";
import { type Reading, type Sample, single } from "./readings.ts";
import { SERVICE_LABELS, type ServiceCounters, serviceLabels } from "./series.ts";

/** A map, as far as the agent fills it. */
export interface MapUsage {
  map: string;
  entries: number;
  capacity: number;
  /** Writes of entries that the kernel refused; absent where it has no say in them. */
  errors?: number;
}

/** Connections that pass through the node, of one kind. */
export interface FlowCount {
  family: Family;
  protocol: Protocol;
  state: string;
  connections: number;
}

/** One of the agent's servers. */
export interface ServerState {
  server: string;
  isListening: boolean;
}

export interface Build {
  version: string;
  /** The kernel's release. */
  kernel: string;
}

/** What is read at a scrape. */
export interface OwnState {
  build: Build;
  isAttached: boolean;
  servicePorts: number;
  maps: readonly MapUsage[];
  flows: readonly FlowCount[];
  pending: { family: Family; rows: number; ageMs: number }[];
  /** How often each reason came about, by its word. */
  reasons: Iterable<readonly [word: string, count: number]>;
  /** The chosen service ports. */
  connected: readonly ServiceCounters[];
  refused: readonly ServiceCounters[];
  watches: readonly WatchStatistics[];
  brokenSockets: number;
  servers: readonly ServerState[];
}

const FAMILY = "ip_family";

function flag(value: boolean): readonly Sample[] {
  return single(value ? 1 : 0);
}

/** About the maps and what programs count in them. */
const MAP_READINGS: readonly Reading<OwnState>[] = [
  {
    type: "gauge",
    name: "bpfsvc_map_entries",
    help: "Entries that are in use",
    labels: ["map"],
    read: ({ maps }) => maps.map(({ map, entries }) => [{ map }, entries]),
  },
  {
    type: "gauge",
    name: "bpfsvc_map_capacity",
    help: "Entries that fit",
    labels: ["map"],
    read: ({ maps }) => maps.map(({ map, capacity }) => [{ map }, capacity]),
  },
  {
    type: "counter",
    name: "bpfsvc_map_write_errors_total",
    help: "Writes of entries that the kernel refused",
    labels: ["map"],
    read: ({ maps }) =>
      maps.flatMap(({ map, errors }): Sample[] =>
        errors === undefined ? [] : [[{ map }, errors]],
      ),
  },
  {
    type: "gauge",
    name: "bpfsvc_flows",
    help: "Connections through the packet path, as the sweep of the last half minute left them",
    labels: [FAMILY, "protocol", "state"],
    read: ({ flows }) =>
      flows.map(({ family, connections, ...kind }) => [
        { ...familyLabel(family), ...kind },
        connections,
      ]),
  },
  {
    type: "counter",
    name: "bpfsvc_reasons_total",
    help: "How often a program did something else than translate, by its reason",
    labels: ["reason"],
    read: ({ reasons }) => Array.from(reasons, ([reason, count]) => [{ reason }, count]),
  },
  {
    type: "counter",
    name: "bpfsvc_service_connections_total",
    help: "Endpoints chosen, of the service ports of --metrics-services",
    labels: SERVICE_LABELS,
    read: ({ connected }) =>
      connected.map(({ key, connections }) => [serviceLabels(key), connections]),
  },
  {
    type: "counter",
    name: "bpfsvc_service_refusals_total",
    help: "Connections that found no endpoint, of the service ports of --metrics-services",
    labels: [...SERVICE_LABELS, "reason"],
    read: ({ refused }) =>
      refused.flatMap(({ key, refused, dropped }): Sample[] => [
        [{ ...serviceLabels(key), reason: "refused" }, refused],
        [{ ...serviceLabels(key), reason: "dropped" }, dropped],
      ]),
  },
];

export const OWN_READINGS: readonly Reading<OwnState>[] = [
  {
    type: "gauge",
    name: "bpfsvc_build_info",
    help: "Always 1; its labels say what runs",
    labels: ["version", "kernel", "node_version"],
    read: ({ build }) => [[{ ...build, node_version: process.version }, 1]],
  },
  {
    type: "gauge",
    name: "bpfsvc_programs_attached",
    help: "1 while every program is attached, pinned and on its maps",
    read: ({ isAttached }) => flag(isAttached),
  },
  {
    type: "gauge",
    name: "bpfsvc_service_ports",
    help: "Service ports in the maps, one of each family",
    read: ({ servicePorts }) => single(servicePorts),
  },
  {
    type: "gauge",
    name: "bpfsvc_rows_pending",
    help: "Service ports, addresses and ranges that could not be written",
    labels: [FAMILY],
    read: ({ pending }) => pending.map(({ family, rows }) => [familyLabel(family), rows]),
  },
  {
    type: "gauge",
    name: "bpfsvc_pending_seconds",
    help: "How long the oldest change has been waiting that is not in the maps",
    labels: [FAMILY],
    read: ({ pending }) => pending.map(({ family, ageMs }) => [familyLabel(family), ageMs / 1000]),
  },
  ...MAP_READINGS,
  {
    type: "counter",
    name: "bpfsvc_api_watch_restarts_total",
    help: "Watches that took the place of one that had ended; about ten an hour are usual",
    labels: ["resource"],
    read: ({ watches }) => watches.map(({ resource, restarts }) => [{ resource }, restarts]),
  },
  {
    type: "gauge",
    name: "bpfsvc_api_last_event_timestamp_seconds",
    help: "When the API server last sent anything, bookmarks too, in seconds since the epoch",
    labels: ["resource"],
    read: ({ watches }) =>
      watches.flatMap(({ resource, lastEventMs }): Sample[] =>
        lastEventMs === undefined ? [] : [[{ resource }, lastEventMs / 1000]],
      ),
  },
  {
    type: "counter",
    name: "bpfsvc_udp_sockets_broken_total",
    help: "Connected UDP sockets that were broken since their endpoint had left",
    read: ({ brokenSockets }) => single(brokenSockets),
  },
  {
    type: "gauge",
    name: "bpfsvc_servers",
    help: "The agent's own servers: healthz, metrics, and service_health of each family",
    labels: ["server", "state"],
    read: ({ servers }) => countServers(servers),
  },
];

function countServers(servers: readonly ServerState[]): Sample[] {
  const counts = new Map<string, { listening: number; refused: number }>();
  for (const { server, isListening } of servers) {
    const count = counts.get(server) ?? { listening: 0, refused: 0 };
    count[isListening ? "listening" : "refused"]++;
    counts.set(server, count);
  }
  return [...counts].flatMap(([server, { listening, refused }]): Sample[] => [
    [{ server, state: "listening" }, listening],
    [{ server, state: "refused" }, refused],
  ]);
}
