// When connections through the node are forgotten: UDP whose endpoint has left right after the
// flush that took it away (§14.1), or this node's address that it goes on from; and what is over
// from time to time. Knows neither flows nor Services.
import type { Flows, Works } from "../dataplane/flows.ts";
import type { Logger } from "../log.ts";

/** How often is looked for what is over: programs do without, but find free places sooner. */
const SWEEP_MS = 30_000;
/** The least time from one sweep for what has left to the next. */
const PAUSE_MS = 200;

export interface StaleFlowsOptions {
  flows: Flows;
  /** What can go on now, as far as is known. */
  works: () => Works;
  log: Logger;
}

export class StaleFlows {
  readonly #options: StaleFlowsOptions;
  #timer: NodeJS.Timeout | undefined;
  #pause: NodeJS.Timeout | undefined;
  #isSweeping = false;
  #isWanted = false;

  constructor(options: StaleFlowsOptions) {
    this.#options = options;
  }

  /** Forgets what is stale from before, and from now on what gets so. */
  start(): void {
    this.#timer = setInterval(() => void this.#options.flows.sweep(), SWEEP_MS);
    this.trigger();
  }

  /** Endpoints of UDP have left, the maps say so; or addresses of this node. */
  trigger(): void {
    this.#isWanted = true;
    if (!this.#isSweeping && this.#pause === undefined) void this.#sweep();
  }

  stop(): void {
    clearInterval(this.#timer);
    clearTimeout(this.#pause);
    this.#isWanted = false;
  }

  async #sweep(): Promise<void> {
    const { flows, works, log } = this.#options;
    this.#isSweeping = true;
    this.#isWanted = false;
    const { stale } = await flows.sweep(works());
    this.#isSweeping = false;
    if (stale > 0) log.info(`Forgot ${stale} UDP flows whose endpoint or source has left`);
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      if (this.#isWanted) void this.#sweep();
    }, PAUSE_MS);
  }
}
