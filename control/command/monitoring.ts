// Wires what the agent tells over HTTP to those who know it: maps, programs, sockets and the API
// server. Decides nothing.
import { release } from "node:os";
import { formatConfigz } from "../config/file.ts";
import { type Config, effectiveValues, type Given } from "../config.ts";
import { missingHooks } from "../dataplane/attach.ts";
import type { Clients } from "../dataplane/clients.ts";
import type { Dataplane } from "../dataplane/dataplane.ts";
import type { Flows } from "../dataplane/flows.ts";
import { readReasons } from "../dataplane/reasons.ts";
import type { Kernel } from "../dataplane/takeover.ts";
import type { UserError } from "../exit.ts";
import type { Logger } from "../log.ts";
import type { Cluster } from "../model/cluster.ts";
import { machineClock } from "../pace.ts";
import type { MapUsage } from "../serve/metrics/own.ts";
import { DEFAULT_CHOICE, type SeriesChoice } from "../serve/metrics/series.ts";
import { Monitor } from "../serve/monitor.ts";
import type { Source } from "../source/source.ts";
import type { Serving } from "./serving.ts";
import type { StaleSockets } from "./stale.ts";

export interface MonitoringOptions {
  settings: Config;
  given: Given;
  version: string;
  nodeName: string;
  /** Of which service ports single numbers are told. */
  series: SeriesChoice | undefined;
  kernel: Kernel;
  cgroup: string;
  cluster: Cluster;
  dataplane: Dataplane;
  clients: Clients;
  source: Source;
  log: Logger;
  /** Called when somebody asks, not before: these come later. */
  parts: () => { serving: Serving; stale: StaleSockets };
  onFatal: (error: UserError) => void;
}

/** What is served over HTTP; nothing listens before start(). */
export function makeMonitor(options: MonitoringOptions): Monitor {
  const { settings, given, version, kernel, cgroup, cluster, dataplane, clients } = options;
  const { source, nodeName, log, parts, onFatal } = options;
  const { healthz, metrics, bindAddressHardFail, syncPeriodMs } = settings;
  const isServing = missingHooks(kernel.pins, cgroup).length === 0;
  return new Monitor({
    cluster,
    log,
    build: { version, kernel: release() },
    healthz,
    metrics,
    bindAddressHardFail,
    syncPeriodMs,
    isServing,
    configz: () => formatConfigz(effectiveValues(given)),
    series: options.series ?? DEFAULT_CHOICE,
    clock: machineClock,
    nodeName,
    tell: (notice) => source.tell?.(notice),
    onFatal,
    measures: {
      isAttached: () => parts().serving.isWhole ?? isServing,
      servicePorts: () => dataplane.size,
      maps: () => [...dataplane.usage(), clients.usage(), ...flowsUsage(kernel.storage.flows)],
      flows: () => kernel.storage.flows.counts,
      reasons: () => readReasons(kernel.maps.svc_reasons),
      services: () => dataplane.counters(),
      watches: () => source.statistics?.() ?? [],
      brokenSockets: () => parts().stale.brokenCount,
    },
  });
}

/** What programs fill, as far as it is known: nothing is gone through for a scrape. */
function flowsUsage({ used, capacity }: Flows): MapUsage[] {
  return used === undefined ? [] : [{ map: "svc_flows", entries: used, capacity }];
}
