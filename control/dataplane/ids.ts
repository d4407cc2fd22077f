// Hands out small numbers and takes them back. Knows nothing of what they number, nor of when it
// is safe to give one back: that is the caller's grace period.

/** Ids from 0 up to a capacity, the longest unused first, so that generations wrap late. */
export class Ids {
  readonly capacity: number;
  #next = 0;
  #used = 0;
  #end = 0;
  /** For each id whether it is in use. */
  readonly #isUsed: Uint8Array;
  #free: number[] = [];
  #freeHead = 0;

  constructor(capacity: number) {
    this.capacity = capacity;
    this.#isUsed = new Uint8Array(capacity);
  }

  /** How many ids are in use. */
  get used(): number {
    return this.#used;
  }

  /** No id from here on was ever in use, as far as is known. */
  get end(): number {
    return this.#end;
  }

  /** An id that is not in use, or undefined if all are. */
  take(): number | undefined {
    while (this.#next < this.capacity) {
      const id = this.#next++;
      if (this.#isUsed[id] === 0) return this.#hand(id);
    }
    const id = this.#free[this.#freeHead];
    if (id === undefined) return undefined;
    this.#freeHead++;
    if (this.#freeHead > 1024 && this.#freeHead * 2 > this.#free.length) {
      this.#free = this.#free.slice(this.#freeHead);
      this.#freeHead = 0;
    }
    return this.#hand(id);
  }

  /** Marks an id found in a pinned map as used. Call before the first take(). */
  reserve(id: number): void {
    this.#hand(id);
  }

  /** Gives an id back. Throws if it is not in use: two owners would share a row. */
  release(id: number): void {
    if (this.#isUsed[id] !== 1) throw new Error(`Id ${id} is released but not in use`);
    this.#isUsed[id] = 0;
    this.#used--;
    if (id < this.#next) this.#free.push(id);
  }

  #hand(id: number): number {
    this.#used += 1 - this.#isUsed[id]!;
    this.#isUsed[id] = 1;
    this.#end = Math.max(this.#end, id + 1);
    return id;
  }
}
