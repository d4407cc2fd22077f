// A whole agent on maps in memory, with time that passes when told to, asked over real HTTP: what
// it listens on is told apart by the places that it asked for, and is at a free port of loopback.
import http from "node:http";
import type { ExecutionContext } from "ava";
import { Agent } from "../../control/agent.ts";
import type { BindAddress } from "../../control/config/kinds.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { Maps } from "../../control/dataplane/maps.ts";
import { type MemorySizes, memoryStorage } from "../../control/dataplane/memory.ts";
import { FakeClock } from "../../control/fakeclock.ts";
import type { Logger } from "../../control/log.ts";
import { Cluster } from "../../control/model/cluster.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "../../control/model/config.ts";
import type { KubernetesObject } from "../../control/model/objects.ts";
import { readObject } from "../../control/model/read.ts";
import type { Family } from "../../control/model/rows.ts";
import { type Listen, listenHttp } from "../../control/serve/http.ts";
import { Monitor, type MonitorOptions } from "../../control/serve/monitor.ts";
import { formatPlace } from "../../control/serve/standing.ts";
import type { Notice, Sink } from "../../control/source/source.ts";

export const HEALTHZ = "0.0.0.0:10256";
export const METRICS = "127.0.0.1:10249";
export const NODE = "node-a";
/** What a sweep has counted. */
const FLOWS = [{ family: 6, protocol: "UDP", state: "unreplied", connections: 3 }] as const;
/** The bytes that IPv4 addresses begin with in keys of svc_frontends. */
const MAPPED = `${"\0".repeat(10)}\xff\xff`;

export interface WholeAgentOptions {
  startMs?: number;
  /** Programs and maps of an agent before this one serve. */
  isServing?: boolean;
  sizes?: MemorySizes;
  config?: Partial<ProxyConfig>;
  monitor?: Partial<MonitorOptions>;
}

export interface Answered {
  status: number;
  headers: http.IncomingHttpHeaders;
  body: string;
}

/** Asks over one connection of its own, or that of an agent. Rejects as the connection does. */
export function ask(
  { address, port }: BindAddress,
  path: string,
  { method = "GET", agent = false }: { method?: string; agent?: http.Agent | false } = {},
): Promise<Answered> {
  return new Promise((resolve, reject) => {
    const request = http.request({ host: address, port, path, method, agent }, (response) => {
      let body = "";
      response.setEncoding("utf8").on("data", (text: string) => {
        body += text;
      });
      response.on("error", reject).on("end", () => {
        resolve({ status: response.statusCode ?? 0, headers: response.headers, body });
      });
    });
    request.on("error", reject).end();
  });
}

export class WholeAgent {
  readonly clock = new FakeClock();
  readonly storage: ReturnType<typeof memoryStorage>;
  readonly cluster: Cluster;
  readonly agent: Agent;
  readonly monitor: Monitor;
  /** What a source gives its objects to. */
  readonly sink: Sink;
  /** Lines of the log, with their levels. */
  readonly lines: string[] = [];
  readonly notices: Notice[] = [];
  readonly fatal: Error[] = [];
  /** Places that cannot be listened on, and the system's code for why. */
  readonly refused = new Map<string, string>();
  /** Where each place really is that is listened on now. */
  readonly #places = new Map<string, BindAddress>();
  #failing: readonly Family[] = [];

  constructor(t: ExecutionContext, options: WholeAgentOptions = {}) {
    const { startMs = 0, isServing = false, sizes = {}, config = {}, monitor = {} } = options;
    const { clock } = this;
    this.storage = memoryStorage(sizes);
    this.storage.frontends.fails = (key) => this.#failing.includes(key.startsWith(MAPPED) ? 4 : 6);
    this.cluster = new Cluster({
      nodeName: NODE,
      fallbackNodeAddresses: [],
      config: { ...DEFAULT_CONFIG, ...config },
    });
    const dataplane = new Dataplane(new Maps(this.storage));
    const log = this.#makeLog();
    this.monitor = new Monitor({
      cluster: this.cluster,
      log,
      clock,
      epochMs: () => startMs + clock.now(),
      listen: this.#listen,
      build: { version: "0.0.0", kernel: "6.1.0" },
      healthz: { address: "0.0.0.0", port: 10256 },
      metrics: { address: "127.0.0.1", port: 10249 },
      bindAddressHardFail: false,
      syncPeriodMs: 30_000,
      isServing,
      configz: () => "{}",
      series: { most: 100 },
      nodeName: NODE,
      tell: (notice) => this.notices.push(notice),
      measures: {
        isAttached: () => true,
        servicePorts: () => dataplane.size,
        maps: () => dataplane.usage(),
        flows: () => FLOWS,
        reasons: () => [["refused", 7]],
        services: () => dataplane.counters(),
        watches: () => [],
        brokenSockets: () => 0,
      },
      onFatal: (error) => this.fatal.push(error),
      ...monitor,
    });
    this.agent = new Agent({
      cluster: this.cluster,
      dataplane,
      log,
      minSyncPeriodMs: 0,
      syncPeriodMs: 30_000,
      clock,
      onFirstSync: () => {},
      onFlush: (flush) => this.monitor.updated(flush),
      onUdpDeparture: () => {},
      onFatal: (error) => this.fatal.push(error as Error),
    });
    this.sink = this.monitor.watch(this.agent);
    t.teardown(() => {
      this.agent.stop();
      this.monitor.stop();
    });
  }

  /** Applies objects as a source does, and lets the agent act on them. */
  apply(...values: readonly object[]): void {
    for (const value of values) this.sink.apply(this.read(value));
    this.act();
  }

  /** An object of the model. Throws if it is none. */
  read(value: object): KubernetesObject {
    const { object, problems } = readObject(value);
    if (object === undefined) throw new Error(problems[0]?.message ?? "It is no object");
    return object;
  }

  remove(kind: "Service" | "EndpointSlice" | "Node", name: string): void {
    this.sink.remove({ kind, namespace: kind === "Node" ? "" : "shop", name });
    this.act();
  }

  act(): void {
    this.sink.changed();
    this.clock.pass(0);
  }

  /** From now on frontends of these families cannot be written. */
  failFrontends(...families: readonly Family[]): void {
    this.#failing = families;
  }

  /** Where a place that is listened on really is. Throws if it is not listened on. */
  place(name: string): BindAddress {
    const place = this.#places.get(name);
    if (place) return place;
    throw new Error(`Nothing listens at "${name}", only at ${[...this.#places.keys()].join(", ")}`);
  }

  /** What is listened on. */
  get places(): string[] {
    return [...this.#places.keys()].sort();
  }

  async ask(name: string, path: string, options: { method?: string } = {}): Promise<Answered> {
    return ask(this.place(name), path, options);
  }

  readonly #listen: Listen = async (place, options) => {
    const name = formatPlace(place);
    const code = this.refused.get(name);
    if (code) throw Object.assign(new Error(`listen ${code}: ${name}`), { code });
    const loopback = { address: "127.0.0.1", port: 0 };
    const listening = await listenHttp(loopback, { ...options, isIPv6Only: false });
    this.#places.set(name, listening.place);
    const close = () => {
      this.#places.delete(name);
      listening.close();
    };
    return { place, close };
  };

  #makeLog(): Logger {
    const add = (level: string) => (message: string) => {
      this.lines.push(`${level} ${message}`);
    };
    const levels = ["debug", "info", "warn", "error"].map((level) => [level, add(level)]);
    return Object.fromEntries(levels) as unknown as Logger;
  }
}
