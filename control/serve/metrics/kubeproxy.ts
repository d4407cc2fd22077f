// The metrics that kube-proxy has, by its names and with its meaning (§18.2), so that what is made
// of them goes on. What is about iptables, nftables or connection tracking has no place here. Knows
// no server.
import { Counter, Histogram, type Registry } from "prom-client";
import type { Family, ServiceRow } from "../../model/rows.ts";
import { FAMILIES } from "../backlog.ts";
import type { Changes } from "../changes.ts";
import { type Reading, type Sample, single } from "./readings.ts";

const FAMILY = "ip_family";
/** 1 ms to 16 s. */
const SYNC_BUCKETS = Array.from({ length: 15 }, (_, index) => 2 ** index / 1000);
/** 0.25 s to 5 minutes, as the indicator of network programming latency has them. */
const PROGRAMMING_BUCKETS = [
  ...[0.25, 0.5],
  ...steps(1, { by: 1, count: 59 }),
  ...steps(60, { by: 5, count: 12 }),
  ...steps(120, { by: 30, count: 7 }),
];

function steps(from: number, { by, count }: { by: number; count: number }): number[] {
  return Array.from({ length: count }, (_, index) => from + index * by);
}

/** A family's label. */
export function familyLabel(family: Family): { ip_family: string } {
  return { [FAMILY]: `IPv${family}` };
}

/** An update of the maps. */
export interface Sync {
  /** Of which something was to be written. */
  families: readonly Family[];
  /** Everything was compared, as at a start; else what changed. */
  isFull: boolean;
  durationMs: number;
}

/** What is counted as it happens. */
export class KubeProxyMetrics {
  readonly #syncs: Record<"all" | "full" | "partial", Histogram>;
  readonly #programming: Histogram;
  readonly #answers: Record<"/healthz" | "/livez", Counter>;

  constructor(registry: Registry) {
    const registers = [registry];
    const durations = (name: string, { help, buckets }: { help: string; buckets: number[] }) =>
      new Histogram({ name, help, labelNames: [FAMILY], buckets, registers });
    const syncs = (name: string, help: string) =>
      durations(`kubeproxy_${name}_proxy_rules_duration_seconds`, { help, buckets: SYNC_BUCKETS });
    this.#syncs = {
      all: syncs("sync", "How long updates of the maps took"),
      full: syncs("sync_full", "How long those took that compared everything, as at a start"),
      partial: syncs("sync_partial", "How long those took that were of what had changed"),
    };
    this.#programming = durations("kubeproxy_network_programming_duration_seconds", {
      help: "From a change of pods or Service, as its EndpointSlice is annotated, to the maps",
      buckets: PROGRAMMING_BUCKETS,
    });
    const answers = (path: string) => {
      const name = `kubeproxy_proxy_${path}_total`;
      const help = `Answers of /${path} by status`;
      return new Counter({ name, help, labelNames: ["code"], registers });
    };
    this.#answers = { "/healthz": answers("healthz"), "/livez": answers("livez") };
  }

  observeSync({ families, isFull, durationMs }: Sync): void {
    for (const family of families)
      for (const kind of ["all", isFull ? "full" : "partial"] as const)
        this.#syncs[kind].observe(familyLabel(family), durationMs / 1000);
  }

  /** A change of an EndpointSlice is in the maps, so long after it came about. */
  observeProgramming(family: Family, milliseconds: number): void {
    this.#programming.observe(familyLabel(family), milliseconds / 1000);
  }

  countAnswer(path: "/healthz" | "/livez", status: number): void {
    this.#answers[path].inc({ code: String(status) });
  }
}

/** What is read at a scrape. */
export interface KubeProxyState {
  changes: Pick<Changes, "endpoints" | "services" | "lastQueuedMs">;
  /** When each family was last in the maps as a whole, in ms since the epoch. */
  writtenMs: ReadonlyMap<Family, number>;
  rows: Iterable<ServiceRow>;
}

function times(milliseconds: ReadonlyMap<Family, number>): Sample[] {
  return Array.from(milliseconds, ([family, ms]) => [familyLabel(family), ms / 1000]);
}

/** Service ports of each family that have endpoints, but none for a policy Local (§7.2, §7.3). */
function countNoLocal(rows: Iterable<ServiceRow>): Sample[] {
  const counts = new Map(FAMILIES.map((family) => [family, { internal: 0, external: 0 }]));
  for (const { family, internal, outside } of rows) {
    const count = counts.get(family)!;
    if (internal.whenEmpty === "drop") count.internal++;
    if (outside.whenEmpty === "drop") count.external++;
  }
  return [...counts].flatMap(([family, { internal, external }]): Sample[] => [
    [{ ...familyLabel(family), traffic_policy: "internal" }, internal],
    [{ ...familyLabel(family), traffic_policy: "external" }, external],
  ]);
}

export const KUBE_PROXY_READINGS: readonly Reading<KubeProxyState>[] = [
  {
    type: "gauge",
    name: "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
    help: "When the maps last came to hold everything, in seconds since the epoch",
    labels: [FAMILY],
    read: ({ writtenMs }) => times(writtenMs),
  },
  {
    type: "gauge",
    name: "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds",
    help: "When a change came last, in seconds since the epoch",
    labels: [FAMILY],
    read: ({ changes }) => times(changes.lastQueuedMs),
  },
  {
    type: "gauge",
    name: "kubeproxy_sync_proxy_rules_endpoint_changes_pending",
    help: "Changes of EndpointSlices that no update has taken yet",
    read: ({ changes }) => single(changes.endpoints.pending),
  },
  {
    type: "counter",
    name: "kubeproxy_sync_proxy_rules_endpoint_changes_total",
    help: "Changes of EndpointSlices",
    read: ({ changes }) => single(changes.endpoints.total),
  },
  {
    type: "gauge",
    name: "kubeproxy_sync_proxy_rules_service_changes_pending",
    help: "Changes of Services that no update has taken yet",
    read: ({ changes }) => single(changes.services.pending),
  },
  {
    type: "counter",
    name: "kubeproxy_sync_proxy_rules_service_changes_total",
    help: "Changes of Services",
    read: ({ changes }) => single(changes.services.total),
  },
  {
    type: "gauge",
    name: "kubeproxy_sync_proxy_rules_no_local_endpoints_total",
    help: "Service ports that drop by policy Local, all their endpoints being on other nodes",
    labels: [FAMILY, "traffic_policy"],
    read: ({ rows }) => countNoLocal(rows),
  },
];
