// Tells of an outage and of its end, once each, and never more than once a minute. Knows nothing of
// what is out.
import type { Sink } from "../source.ts";
import type { Clock } from "./time.ts";

const QUIET_MS = 60_000;

export class Outage {
  readonly #clock: Pick<Clock, "now">;
  readonly #sink: Pick<Sink, "problem" | "resolved">;
  #told = "";
  #subject = "";
  #toldMs = Number.NEGATIVE_INFINITY;

  constructor(clock: Pick<Clock, "now">, sink: Pick<Sink, "problem" | "resolved">) {
    this.#clock = clock;
    this.#sink = sink;
  }

  /**
   * Something failed: told unless it is what was told last, or too soon after it. Messages about
   * one subject are one.
   */
  fail(message: string, subject = message): void {
    const now = this.#clock.now();
    if (subject === this.#subject || now - this.#toldMs < QUIET_MS) return;
    this.#told = message;
    this.#subject = subject;
    this.#toldMs = now;
    this.#sink.problem(message);
  }

  /** It works again; told if the outage was. */
  end(): void {
    if (this.#told === "") return;
    this.#sink.resolved(`No longer: ${this.#told}`);
    this.#told = this.#subject = "";
  }
}

/** An outage of what several use: begins with the first who suffers, ends with the last. */
export class SharedOutage {
  readonly #outage: Outage;
  readonly #suffering = new Set<object>();

  constructor(outage: Outage) {
    this.#outage = outage;
  }

  fail(who: object, { message, subject }: { message: string; subject: string }): void {
    this.#suffering.add(who);
    this.#outage.fail(message, subject);
  }

  end(who: object): void {
    if (this.#suffering.delete(who) && this.#suffering.size === 0) this.#outage.end();
  }
}
