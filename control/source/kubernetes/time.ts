// Time and chance as arguments, and how long to wait before the next attempt. Knows nothing of what
// is attempted.
import { setTimeout as sleep } from "node:timers/promises";

/** The clock of a machine, or a test's. */
export interface Clock {
  /** Milliseconds since some beginning; never goes back. */
  now(): number;
  /** Waits; rejects when the signal aborts. */
  sleep(milliseconds: number, signal: AbortSignal): Promise<void>;
  /** At least 0, below 1. */
  random(): number;
}

export const machineClock: Clock = {
  now: () => performance.now(),
  sleep: (milliseconds, signal) => sleep(milliseconds, undefined, { signal }),
  random: () => Math.random(),
};

export interface BackoffOptions {
  firstMs: number;
  lastMs: number;
}

/** Waits that double up to a limit, each shortened by chance to between its half and its whole. */
export class Backoff {
  readonly #options: BackoffOptions;
  readonly #random: () => number;
  #nextMs: number;

  constructor(options: BackoffOptions, random: () => number) {
    this.#options = options;
    this.#random = random;
    this.#nextMs = options.firstMs;
  }

  /** How long to wait this time, in ms. */
  next(): number {
    const milliseconds = this.#nextMs * (0.5 + this.#random() / 2);
    this.#nextMs = Math.min(this.#nextMs * 2, this.#options.lastMs);
    return milliseconds;
  }

  /** Something succeeded: the next wait is a short one. */
  reset(): void {
    this.#nextMs = this.#options.firstMs;
  }
}
