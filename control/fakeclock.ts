// Time for tests: it passes when it is told to, and what is due is called then, in order. Knows
// nothing of what is called.
import type { Clock } from "./pace.ts";

interface Due {
  atMs: number;
  action: () => void;
}

export class FakeClock implements Clock {
  #nowMs = 0;
  #waiting: Due[] = [];

  now(): number {
    return this.#nowMs;
  }

  after(milliseconds: number, action: () => void): () => void {
    const due = { atMs: this.#nowMs + Math.max(0, milliseconds), action };
    this.#waiting.push(due);
    return () => {
      this.#waiting = this.#waiting.filter((each) => each !== due);
    };
  }

  /** Lets time pass, and calls what falls due on the way; that may let time pass, too. */
  pass(milliseconds: number): void {
    const end = this.#nowMs + milliseconds;
    for (let due = this.#next(end); due !== undefined; due = this.#next(end)) {
      this.#nowMs = Math.max(this.#nowMs, due.atMs);
      due.action();
    }
    this.#nowMs = Math.max(this.#nowMs, end);
  }

  /** Takes out what is due first, if it is by then. */
  #next(end: number): Due | undefined {
    const first = this.#waiting.reduce<Due | undefined>(
      (earliest, due) => (earliest && earliest.atMs <= due.atMs ? earliest : due),
      undefined,
    );
    if (first === undefined || first.atMs > Math.max(end, this.#nowMs)) return undefined;
    this.#waiting = this.#waiting.filter((each) => each !== first);
    return first;
  }
}
