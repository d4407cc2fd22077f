// What moves: objects come in, dirty services become rows, rows become bytes in the maps. One loop,
// never two syncs at once. Decides nothing about Services and nothing about bytes.
import type { Dataplane } from "./dataplane/dataplane.ts";
import type { RowError } from "./dataplane/errors.ts";
import type { Logger } from "./log.ts";
import type { Cluster } from "./model/cluster.ts";
import type { KubernetesObject, ObjectIdentity } from "./model/objects.ts";
import { type Clock, machineClock, Pace } from "./pace.ts";
import type { Sink } from "./source/source.ts";

/** Back-off between attempts to write what could not be written; syncPeriodMs ends it. */
const RETRY_FIRST_MS = 500;

export interface AgentOptions {
  cluster: Cluster;
  dataplane: Dataplane;
  log: Logger;
  /** Between the end of one sync and the beginning of the next (§17.1). */
  minSyncPeriodMs: number;
  /** The longest time until what could not be written is tried again (§17.2). */
  syncPeriodMs: number;
  clock?: Clock;
  /** Called once, after everything of the first full list is in the maps. */
  onFirstSync: () => void;
  /** Called after every flush, with what it could not write. */
  onFlush?: (flush: { errors: readonly RowError[]; durationMs: number }) => void;
  /** Called after a flush that took endpoints of UDP away. */
  onUdpDeparture: () => void;
  /** An error that the agent cannot go on after. */
  onFatal: (error: unknown) => void;
}

export class Agent implements Sink {
  readonly #options: AgentOptions;
  readonly #clock: Clock;
  readonly #pace: Pace;
  #isSynced = false;
  #callOffRetry = () => {};
  #retryMs = RETRY_FIRST_MS;
  /** Errors as last reported, by row, so that each is told once and its end is told. */
  #reported = new Map<string, string>();

  constructor(options: AgentOptions) {
    this.#options = options;
    this.#clock = options.clock ?? machineClock;
    this.#pace = new Pace({
      minPeriodMs: options.minSyncPeriodMs,
      clock: this.#clock,
      update: () => this.#guard(() => this.#sync()),
    });
  }

  apply(object: KubernetesObject): void {
    this.#options.cluster.apply(object);
  }

  remove(identity: ObjectIdentity): void {
    this.#options.cluster.remove(identity);
  }

  /** A batch of objects is complete. Nothing is programmed before the first full list (§1.6). */
  changed(): void {
    if (this.#isSynced) this.#pace.request();
  }

  /** The first full list is in: the maps are made to say just that. */
  synced(): void {
    this.#guard(() => {
      this.#isSynced = true;
      this.#sync(true);
      this.#options.onFirstSync();
    });
  }

  problem(message: string): void {
    this.#options.log.warn(message);
  }

  resolved(message: string): void {
    this.#options.log.info(message);
  }

  /** Stops writing; what is in the maps keeps serving. */
  stop(): void {
    this.#pace.stop();
    this.#callOffRetry();
    this.#isSynced = false;
  }

  #sync(isFirst = false): void {
    const { cluster, dataplane, log } = this.#options;
    const startMs = this.#clock.now();
    const { changed, removed, addresses, serviceRanges, problems, resolved } = cluster.takeDirty();
    for (const problem of problems) log.warn(problem.message);
    for (const problem of resolved) log.info(`No longer: ${problem.message}`);
    dataplane.replace(changed);
    dataplane.remove(removed);
    dataplane.replaceAddresses(addresses.changed);
    dataplane.removeAddresses(addresses.removed);
    dataplane.setServiceRanges(serviceRanges);
    if (isFirst) dataplane.removeOthers();
    this.#report(dataplane.flush(), { startMs });
    if (dataplane.takeUdpDeparture()) this.#options.onUdpDeparture();
    log.debug(`Synced ${changed.length} changed and ${removed.length} removed service ports`);
    this.#pace.ended();
    this.#scheduleRetry();
    void this.#release();
  }

  /** Gives up ids and extents again after a grace period; rows may wait for them. */
  async #release(): Promise<void> {
    const { dataplane, log } = this.#options;
    try {
      if (await dataplane.release()) this.changed();
    } catch (error) {
      log.error(`Cannot wait for readers of the maps: ${(error as Error).message}`);
      this.#scheduleRetry();
    }
  }

  #scheduleRetry(): void {
    const { dataplane, syncPeriodMs } = this.#options;
    this.#callOffRetry();
    const waitMs = Math.min(this.#retryMs, syncPeriodMs);
    this.#retryMs = dataplane.isPending ? waitMs * 2 : RETRY_FIRST_MS;
    if (dataplane.isPending) this.#callOffRetry = this.#clock.after(waitMs, () => this.changed());
  }

  #report(errors: readonly RowError[], { startMs }: { startMs: number }): void {
    const { log, onFlush } = this.#options;
    onFlush?.({ errors, durationMs: this.#clock.now() - startMs });
    const current = new Map(errors.map(({ key, message }) => [key, message]));
    for (const [key, message] of current)
      if (this.#reported.get(key) !== message)
        log.error(`Cannot program "${key}": ${message}; what is programmed keeps serving`);
    for (const key of this.#reported.keys())
      if (!current.has(key)) log.info(`Programmed "${key}" after all`);
    this.#reported = current;
  }

  #guard(action: () => void): void {
    try {
      action();
    } catch (error) {
      this.stop();
      this.#options.onFatal(error);
    }
  }
}
