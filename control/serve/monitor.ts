// What the agent answers over HTTP: whether it is healthy, whether Services have endpoints here,
// and metrics. It hears of changes and updates and never has a say in them: whatever fails here,
// the maps are written on. Time and listening are arguments.
import type { BindAddress } from "../config/kinds.ts";
import { UserError } from "../exit.ts";
import type { Logger } from "../log.ts";
import type { Cluster } from "../model/cluster.ts";
import type { Clock } from "../pace.ts";
import type { Notice, Sink, WatchStatistics } from "../source/source.ts";
import { Backlog } from "./backlog.ts";
import { Changes } from "./changes.ts";
import { Health } from "./health.ts";
import { type Answerer, type Listen, listenHttp } from "./http.ts";
import { Metrics, type MetricsState } from "./metrics/metrics.ts";
import type { Build, FlowCount, MapUsage, ServerState } from "./metrics/own.ts";
import { chooseServices, type SeriesChoice, type ServiceCounters } from "./metrics/series.ts";
import { answerPage } from "./pages.ts";
import { ServiceHealth } from "./servicehealth.ts";
import { explainRefusal, formatPlace, RETRY_SECONDS, Standing } from "./standing.ts";

/** Prometheus and a person or two; kubelet, load balancers and their fellows. */
const MOST_CONNECTIONS = { metrics: 16, healthz: 512 };
/** A change may wait for two sync periods (§13.2). */
const PERIODS = 2;

/** What is asked when somebody asks for metrics. */
export interface Measures {
  isAttached(): boolean;
  servicePorts(): number;
  maps(): readonly MapUsage[];
  flows(): readonly FlowCount[];
  reasons(): Iterable<readonly [word: string, count: number]>;
  services(): Iterable<ServiceCounters>;
  /** None if objects do not come from an API server. */
  watches(): readonly WatchStatistics[];
  brokenSockets(): number;
}

export interface MonitorOptions {
  cluster: Cluster;
  measures: Measures;
  log: Logger;
  build: Build;
  /** Where to listen; undefined: nowhere (§13.1, §18). */
  healthz: BindAddress | undefined;
  metrics: BindAddress | undefined;
  /** Whether one that cannot be listened on is fatal. */
  bindAddressHardFail: boolean;
  syncPeriodMs: number;
  /** Whether programs and maps of an agent before this one serve. */
  isServing: boolean;
  /** The configuration in force, as JSON. */
  configz: () => string;
  /** Of which service ports single numbers are told. */
  series: SeriesChoice;
  clock: Clock;
  /** The time in ms since the epoch. */
  epochMs?: () => number;
  listen?: Listen;
  nodeName: string;
  /** Puts a notice where people look for it (§17.8). */
  tell: (notice: Notice) => void;
  onFatal: (error: UserError) => void;
}

/** An update of the maps, as the agent tells of it. */
export interface Update {
  /** Rows that could not be written. */
  errors: readonly { key: string }[];
  durationMs: number;
}

interface ServerOptions {
  /** In metrics. */
  server: string;
  /** In messages. */
  what: string;
  setting: string;
  /** What a notice says when it cannot be listened on. */
  reason: string;
  maxConnections: number;
  answer: Answerer;
}

export class Monitor {
  readonly #options: MonitorOptions;
  readonly #epochMs: () => number;
  readonly #backlog: Backlog;
  readonly #health: Health;
  readonly #services: ServiceHealth;
  readonly #metrics = new Metrics();
  readonly #servers = new Map<string, Standing>();
  readonly #changes: Changes;

  constructor(options: MonitorOptions) {
    const { cluster, clock, log, syncPeriodMs, isServing, listen = listenHttp } = options;
    const { epochMs = Date.now } = options;
    this.#options = options;
    this.#epochMs = epochMs;
    this.#backlog = new Backlog({ now: () => clock.now(), epochMs });
    this.#changes = new Changes({ cluster, backlog: this.#backlog, epochMs });
    this.#health = new Health({
      cluster,
      backlog: this.#backlog,
      timeoutMs: PERIODS * syncPeriodMs,
      isServing,
      epochMs,
      onAnswer: (path, status) => this.#metrics.kubeProxy.countAnswer(path, status),
    });
    const isProxyHealthy = () => this.#health.isHealthy;
    this.#services = new ServiceHealth({
      ...{ listen, clock, log, isProxyHealthy },
      onRefused: ({ namespace, name }, note) => {
        const about = { kind: "Service", namespace, name } as const;
        const reason = "FailedToStartServiceHealthcheck";
        options.tell({ type: "Warning", reason, action: "Listen", note, about });
      },
    });
  }

  /** The sink to give to a source in place of the agent. */
  watch(agent: Sink): Sink {
    return this.#changes.watch(agent);
  }

  /** Listens, or tries to until stop(). */
  start(): void {
    const { healthz, metrics } = this.#options;
    if (healthz)
      this.#listen(healthz, {
        server: "healthz",
        what: "/healthz and /livez",
        setting: "--healthz-bind-address (healthzBindAddress)",
        reason: "FailedToStartProxierHealthcheck",
        maxConnections: MOST_CONNECTIONS.healthz,
        answer: (path) => this.#health.answer(path),
      });
    const pages = { scrape: () => this.#scrape(), configz: this.#options.configz };
    if (metrics)
      this.#listen(metrics, {
        server: "metrics",
        what: "/metrics",
        setting: "--metrics-bind-address (metricsBindAddress)",
        reason: "FailedToStartMetricServer",
        maxConnections: MOST_CONNECTIONS.metrics,
        answer: (path) => answerPage(path, pages),
      });
  }

  /** The agent has updated the maps. */
  updated({ errors, durationMs }: Update): void {
    const { cluster, build } = this.#options;
    const isFull = !this.#backlog.hasSynced;
    const keys = errors.map(({ key }) => key);
    const families = this.#backlog.synced(keys);
    this.#metrics.kubeProxy.observeSync({ families, isFull, durationMs });
    // The clock of whoever wrote the time may be ahead.
    for (const { family, triggeredMs } of this.#changes.taken(keys))
      this.#metrics.kubeProxy.observeProgramming(
        family,
        Math.max(0, this.#epochMs() - triggeredMs),
      );
    this.#services.update(cluster.healthChecks, cluster.listenAddresses);
    if (!isFull) return;
    const note = `bpfsvc ${build.version} serves the Services of this node`;
    this.#tellOfNode({ type: "Normal", reason: "Starting", action: "Start", note });
  }

  /** Whether the programs are attached to what is to be served, as far as that could be done. */
  attached(isAttached: boolean): void {
    this.#backlog.setFault("programs", !isAttached);
  }

  /** Answers nobody any more. */
  stop(): void {
    for (const server of this.#servers.values()) server.stop();
    this.#services.stop();
  }

  #listen(place: BindAddress, { server, what, setting, reason, ...options }: ServerOptions): void {
    const { clock, log, bindAddressHardFail, onFatal, listen = listenHttp } = this.#options;
    let told = "";
    const standing = new Standing({
      ...options,
      listen,
      clock,
      places: [place],
      onError: ({ message }) => {
        if (message !== told) log.warn(`Cannot answer a request for ${what}: ${message}`);
        told = message;
      },
      onListening: (places) => log.info(`Answers ${what} at ${places.map(formatPlace)}`),
      onRefused: (place, error) => {
        const subject = `Cannot answer ${what} at ${formatPlace(place)}`;
        const why = explainRefusal(place, error);
        const message = `${subject}: ${why}; correct that, or give another ${setting}`;
        this.#tellOfNode({ type: "Warning", reason, action: "Listen", note: message });
        if (bindAddressHardFail) onFatal(new UserError(message));
        else log.warn(`${message}; it is tried every ${RETRY_SECONDS} s`);
      },
    });
    this.#servers.set(server, standing);
    void standing.start();
  }

  #tellOfNode(notice: Omit<Notice, "about">): void {
    const { nodeName: name, tell } = this.#options;
    tell({ ...notice, about: { kind: "Node", namespace: "", name } });
  }

  #scrape(): Promise<string> {
    return this.#metrics.scrape(() => this.#state());
  }

  #state(): MetricsState {
    const { measures, cluster, build, series } = this.#options;
    const families = [...this.#backlog.get()];
    return {
      changes: this.#changes,
      writtenMs: new Map(families.map(([family, { updatedMs }]) => [family, updatedMs])),
      rows: cluster.rows(),
      build,
      isAttached: measures.isAttached(),
      servicePorts: measures.servicePorts(),
      maps: measures.maps(),
      flows: measures.flows(),
      pending: families.map(([family, { pendingMs = 0 }]) => {
        return { family, rows: this.#backlog.countRows(family), ageMs: pendingMs };
      }),
      reasons: measures.reasons(),
      ...chooseServices(measures.services(), series),
      watches: measures.watches(),
      brokenSockets: measures.brokenSockets(),
      servers: this.#serverStates(),
    };
  }

  #serverStates(): ServerState[] {
    const own = Array.from(this.#servers, ([server, { isListening }]) => ({ server, isListening }));
    const services = Array.from(this.#services.states(), ({ isListening }) => {
      return { server: "service_health", isListening };
    });
    return [...own, ...services];
  }
}
