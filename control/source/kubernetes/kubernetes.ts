// The Kubernetes API as a source of objects: everything that is watched, delivered as one. Knows
// what must be there before anything may be programmed, and tells of outages; protocol and bytes
// are its neighbours' business.
import type { KubernetesObject, ObjectIdentity, SliceObject } from "../../model/objects.ts";
import { StandingProblems } from "../problems.ts";
import type { Notice, Sink, Source, WatchStatistics } from "../source.ts";
import { ApiClient, TIMEOUTS, type Timeouts } from "./client.ts";
import { Credentials } from "./credentials.ts";
import { ApiError, commonTrouble } from "./errors.ts";
import { Events } from "./events.ts";
import { Outage, SharedOutage } from "./outage.ts";
import { Reflector } from "./reflector.ts";
import { Delivery, type Replica } from "./replica.ts";
import { type Resource, watchedResources } from "./resources.ts";
import { isApiServerSlice, Servers, serversOf } from "./servers.ts";
import { type BackoffOptions, type Clock, machineClock } from "./time.ts";

/** Codes that say that a resource is not to be had: it has no objects for us then. */
const NOT_TO_BE_HAD: readonly number[] = [403, 404];
/**
 * After so many answers that are errors, a minute or so, what else is known waits no more for a
 * resource. Of connections that fail it is not known that they would for ever.
 */
const PATIENCE = 8;
const BACKOFF: BackoffOptions = { firstMs: 500, lastMs: 30_000 };

export interface KubernetesOptions {
  /** Path of a kubeconfig; without it, the service account of the pod that this runs in. */
  kubeconfig?: string | undefined;
  /** The API server's URL, in place of the kubeconfig's. */
  master?: string | undefined;
  nodeName: string;
  /** Where the API server's addresses are kept for the next start; nowhere if not given. */
  statePath?: string | undefined;
  log: { debug(message: string): void };
  timeouts?: Timeouts;
  backoff?: BackoffOptions;
  clock?: Clock;
}

interface Watched {
  resource: Resource;
  replica: Replica;
  reflector: Reflector;
}

/** Services, EndpointSlices, the own Node and ServiceCIDRs of an API server, kept up to date. */
export class KubernetesSource implements Source {
  readonly #options: KubernetesOptions;
  readonly #clock: Clock;
  readonly #credentials: Credentials;
  readonly #servers: Servers;
  readonly #unsettled = new Set<Resource>();
  readonly #statistics: { resource: string; watches: number; lastEventMs: number | undefined }[] =
    [];
  readonly #closing = new AbortController();
  readonly #client: ApiClient;
  readonly #events: Events;
  #watched: Watched[] = [];
  #running: Promise<unknown> = Promise.resolve();
  #delivery: Delivery | undefined;
  #sink: Sink | undefined;
  #onStarted: () => void = () => {};
  /** Of the API server: each resource has its own besides, for what is wrong with that alone. */
  readonly #serverOutage: SharedOutage;
  /** The slices of the API server's own Service, by name, and whether they changed. */
  readonly #apiServer = new Map<string, SliceObject>();
  #hasMoved = false;

  constructor(options: KubernetesOptions) {
    this.#options = options;
    this.#clock = options.clock ?? machineClock;
    this.#serverOutage = new SharedOutage(this.#newOutage());
    this.#credentials = new Credentials(options.kubeconfig, options);
    this.#servers = new Servers(options.statePath);
    const { timeouts = TIMEOUTS, nodeName, log } = options;
    const [credentials, servers] = [this.#credentials, this.#servers];
    this.#client = new ApiClient({ credentials, servers, timeouts });
    this.#events = new Events({
      client: this.#client,
      nodeName,
      signal: this.#closing.signal,
      log,
    });
  }

  /**
   * Rejects if the credentials cannot be read. A server that does not answer is waited for, and
   * told of; resolves without anything being synced if `close` comes first.
   */
  async start(sink: Sink): Promise<void> {
    const { server } = await this.#credentials.get();
    this.#options.log.debug(`API server "${server.host}", by ${this.#credentials.origin}`);
    this.#sink = sink;
    const delivery = new Delivery(this.#listenTo(sink), new StandingProblems(sink));
    this.#delivery = delivery;
    const client = this.#client;
    const resources = watchedResources(this.#options.nodeName);
    for (const resource of resources) this.#unsettled.add(resource);
    this.#watched = resources.map((resource) => {
      const replica = delivery.addReplica(resource.kind);
      return { resource, replica, reflector: this.#makeReflector({ resource, replica, client }) };
    });
    const started = new Promise<void>((resolve) => {
      this.#onStarted = resolve;
    });
    this.#running = Promise.all(this.#watched.map(({ reflector }) => reflector.run()));
    await started;
  }

  async close(): Promise<void> {
    this.#sink = undefined;
    this.#closing.abort();
    for (const { reflector } of this.#watched) reflector.close();
    this.#onStarted();
    await this.#running;
    this.#credentials.close();
  }

  tell(notice: Notice): void {
    void this.#events.send(notice);
  }

  statistics(): WatchStatistics[] {
    return this.#statistics.map(({ resource, watches, lastEventMs }) => {
      return { resource, restarts: Math.max(0, watches - 1), lastEventMs };
    });
  }

  #makeReflector(parts: { resource: Resource; replica: Replica; client: ApiClient }): Reflector {
    const { resource, replica } = parts;
    const { backoff = BACKOFF } = this.#options;
    const outage = this.#newOutage();
    let refusals = 0;
    const name = resource.title.replaceAll(" ", "_");
    const statistics = { resource: name, watches: 0, lastEventMs: undefined as number | undefined };
    this.#statistics.push(statistics);
    return new Reflector({
      ...parts,
      clock: this.#clock,
      backoff,
      onListed: () => {
        this.#options.log.debug(`Listed ${replica.size} ${resource.title}`);
        this.#settle(resource);
      },
      onWatch: () => {
        statistics.watches++;
      },
      onChanged: () => {
        statistics.lastEventMs = Date.now();
        this.#tellChanged();
      },
      onFailed: (error) => {
        const { message } = error;
        const subject = commonTrouble(error);
        if (subject !== undefined) this.#serverOutage.fail(resource, { message, subject });
        else {
          outage.fail(message);
          // A server that refuses this alone is itself well, and this may never be.
          if (error instanceof ApiError) this.#serverOutage.end(resource);
        }
        if (resource.isRequired || !(error instanceof ApiError)) return;
        if (this.#knowsRequired) refusals++;
        if (NOT_TO_BE_HAD.includes(error.code) || refusals >= PATIENCE) this.#settle(resource);
      },
      onWell: () => {
        outage.end();
        this.#serverOutage.end(resource);
      },
    });
  }

  #newOutage(): Outage {
    return new Outage(this.#clock, {
      problem: (message) => this.#sink?.problem(message),
      resolved: (message) => this.#sink?.resolved(message),
    });
  }

  /** Whether all is known that nothing may be programmed without. */
  get #knowsRequired(): boolean {
    return ![...this.#unsettled].some(({ isRequired }) => isRequired);
  }

  /** A resource is known as a whole, or known not to be had. */
  #settle(resource: Resource): void {
    const isFirst = this.#unsettled.delete(resource) && this.#unsettled.size === 0;
    if (!isFirst) {
      this.#tellChanged();
      return;
    }
    this.#delivery?.takeChanged();
    this.#learnServers();
    this.#sink?.synced();
    this.#sink?.changed();
    this.#onStarted();
  }

  #tellChanged(): void {
    if (!this.#delivery?.takeChanged() || this.#unsettled.size > 0) return;
    this.#learnServers();
    this.#sink?.changed();
  }

  /** The sink, with an eye on the API server's own Service. */
  #listenTo(sink: Sink): Pick<Sink, "apply" | "remove"> {
    return {
      apply: (object, triggeredMs) => {
        sink.apply(object, triggeredMs);
        if (!isOfApiServer(object)) return this.#forgetServers(object);
        this.#apiServer.set(object.name, object);
        this.#hasMoved = true;
      },
      remove: (identity) => {
        sink.remove(identity);
        this.#forgetServers(identity);
      },
    };
  }

  /** An object is none of the API server's slices, or no longer one. */
  #forgetServers({ kind, namespace, name }: ObjectIdentity): void {
    const isSlice = kind === "EndpointSlice" && namespace === "default";
    if (isSlice && this.#apiServer.delete(name)) this.#hasMoved = true;
  }

  /** Keeps where else an API server is, as its own Service says. */
  #learnServers(): void {
    if (!this.#hasMoved) return;
    this.#hasMoved = false;
    try {
      this.#servers.learn(serversOf(this.#apiServer.values()));
    } catch (error) {
      this.#sink?.problem(
        `Cannot keep the API server's addresses in "${this.#options.statePath}": ` +
          `${(error as Error).message}; make the folder writable`,
      );
    }
  }
}

function isOfApiServer(object: KubernetesObject): object is SliceObject {
  return object.kind === "EndpointSlice" && isApiServerSlice(object);
}
