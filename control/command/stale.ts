// When connected UDP sockets of endpoints that left are broken: right after the flush that took the
// endpoints away, in every network namespace of the cgroup. Knows neither sockets nor Services.
import { setImmediate as nextTurn } from "node:timers/promises";
import type { OpenMaps } from "../dataplane/kernel.ts";
import { eachNamespace, type Namespace, whatHides } from "../dataplane/namespaces.ts";
import { SocketBreaker } from "../dataplane/sockets.ts";
import type { Logger } from "../log.ts";

/** The least time from one pass over all sockets to the next. */
const PAUSE_MS = 500;
/**
 * Passes after a flush: a connect that had chosen its endpoint before the flush may be connected
 * only after the first of them.
 */
const PASSES = 2;

export interface StaleSocketsOptions {
  maps: OpenMaps;
  cgroup: string;
  log: Logger;
}

export class StaleSockets {
  readonly #options: StaleSocketsOptions;
  #breaker: SocketBreaker | undefined;
  #wanted = 0;
  #walking = false;
  #pause: NodeJS.Timeout | undefined;
  #broken = 0;
  /** What could not be looked at, as told already. */
  readonly #told = new Set<string>();

  constructor(options: StaleSocketsOptions) {
    this.#options = options;
  }

  /** How many sockets were broken so far. */
  get brokenCount(): number {
    return this.#broken;
  }

  /** Breaks what is stale from before; or says once that this kernel cannot. */
  start(): void {
    const { maps, log } = this.#options;
    try {
      this.#breaker = SocketBreaker.open(maps);
      this.trigger();
    } catch (error) {
      log.warn(
        "Connected UDP sockets are not broken when their endpoint leaves: that takes Linux " +
          `6.5 or later, CAP_SYS_ADMIN and CAP_PERFMON. ${(error as Error).message}`,
      );
    }
  }

  /** Endpoints of UDP have left, the maps say so: breaks the sockets that are connected to them. */
  trigger(): void {
    if (!this.#breaker) return;
    this.#wanted = PASSES;
    if (!this.#walking && this.#pause === undefined) void this.#pass(this.#breaker);
  }

  /** Breaks nothing any more. */
  stop(): void {
    clearTimeout(this.#pause);
    this.#breaker?.close();
    this.#breaker = undefined;
  }

  async #pass(breaker: SocketBreaker): Promise<void> {
    const { cgroup, log } = this.#options;
    const onHidden = (why: string) => this.#tell(whatHides(why));
    this.#walking = true;
    this.#wanted--;
    let broken = 0;
    try {
      for (const namespace of eachNamespace({ cgroup, onHidden })) {
        broken += this.#break(breaker, namespace);
        await nextTurn();
        if (this.#breaker !== breaker) return;
      }
    } catch (error) {
      this.#tell((error as Error).message);
    }
    this.#broken += broken;
    if (broken > 0) log.info(`Broke ${broken} UDP sockets whose endpoint has left`);
    this.#walking = false;
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#wanted > 0) void this.#pass(breaker);
    }, PAUSE_MS);
  }

  #break(breaker: SocketBreaker, namespace: Namespace): number {
    try {
      return namespace.run(() => breaker.run());
    } catch (error) {
      this.#tell((error as Error).message);
      return 0;
    }
  }

  #tell(why: string): void {
    if (this.#told.has(why)) return;
    this.#told.add(why);
    this.#options.log.warn(`Not all UDP sockets of endpoints that leave are broken: ${why}`);
  }
}
