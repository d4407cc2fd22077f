// Tells of an outage and of its end, once each, and never more than once a minute. Knows nothing of
// what is out.
import type { Sink } from "../source.ts";
import type { Clock } from "./time.ts";

const QUIET_MS = 60_000;

export class Outage {
  readonly #clock: Pick<Clock, "now">;
  readonly #sink: Pick<Sink, "problem" | "resolved">;
  #told = "";
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Pick<Clock, "now">, sink: Pick<Sink, "problem" | "resolved">) {
    this.#clock = clock;
    this.#sink = sink;
  }

  /** Something failed: told unless it is what was told last, or too soon after it. */
  fail(message: string): void {
    const now = this.#clock.now();
    if (message === this.#told || now - this.#toldMs < QUIET_MS) return;
    this.#told = message;
    this.#toldMs = now;
    this.#sink.problem(message);
  }

  /** It works again; told if the outage was. */
  end(): void {
    if (this.#told === "") return;
    this.#sink.resolved(`No longer: ${this.#told}`);
    this.#told = "";
  }
}
