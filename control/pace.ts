// When the next update may begin: the first one asked for after a quiet spell at once, the others
// together, some time after the end of the last. Knows nothing of what an update is.

/** The time of a machine, or a test's. */
export interface Clock {
  /** Milliseconds since some beginning; never goes back. */
  now(): number;
  /** Calls later, never from within; returns how to call it off. */
  after(milliseconds: number, action: () => void): () => void;
}

export const machineClock: Clock = {
  now: () => performance.now(),
  after: (milliseconds, action) => {
    if (milliseconds <= 0) {
      const immediate = setImmediate(action);
      return () => clearImmediate(immediate);
    }
    const timer = setTimeout(action, milliseconds);
    return () => clearTimeout(timer);
  },
};

export interface PaceOptions {
  /** The least time between the end of one update and the beginning of the next (§17.1). */
  minPeriodMs: number;
  clock: Clock;
  update: () => void;
}

export class Pace {
  readonly #options: PaceOptions;
  #callOff: (() => void) | undefined;
  #notBefore = Number.NEGATIVE_INFINITY;

  constructor(options: PaceOptions) {
    this.#options = options;
  }

  /** Asks for an update. Whoever asks until it begins is served by the same one. */
  request(): void {
    const { clock, update } = this.#options;
    this.#callOff ??= clock.after(this.#notBefore - clock.now(), () => {
      this.#callOff = undefined;
      update();
    });
  }

  /** To be told at the end of every update, asked for or not. */
  ended(): void {
    const { clock, minPeriodMs } = this.#options;
    this.#notBefore = clock.now() + minPeriodMs;
  }

  /** Calls off what was asked for. */
  stop(): void {
    this.#callOff?.();
    this.#callOff = undefined;
  }
}
