// Divides the slot array into extents, one a table that lies there. Knows offsets and lengths only;
// when an extent may be used again is the caller's grace period.

export interface Extent {
  offset: number;
  length: number;
}

/** Extents are whole multiples of this many slots, so that neighbours in size can be exchanged. */
const GRAIN = 4;

function rounded(length: number): number {
  return Math.ceil(length / GRAIN) * GRAIN;
}

/**
 * Extents of one array. A freed extent serves the next table of its size; when the untouched rest
 * is used up, neighbouring free extents are joined and the smallest that fits is divided.
 */
export class Extents {
  readonly capacity: number;
  #top = 0;
  #used = 0;
  /** Free extents by rounded length. */
  #free = new Map<number, number[]>();

  constructor(capacity: number) {
    this.capacity = capacity - (capacity % GRAIN);
  }

  /** Slots in use, the rounding included. */
  get used(): number {
    return this.#used;
  }

  /** The offset of a free extent of at least this length, 1 or more; undefined if none is left. */
  take(length: number): number | undefined {
    const size = rounded(length);
    const offset = this.#exact(size) ?? this.#fresh(size) ?? this.#divide(size);
    if (offset !== undefined) this.#used += size;
    return offset;
  }

  release(extent: Extent): void {
    const size = rounded(extent.length);
    this.#used -= size;
    this.#add(extent.offset, size);
  }

  /** Takes over the extents found in a pinned map: what lies between them is free. */
  restore(extents: readonly Extent[]): void {
    this.#free.clear();
    this.#top = 0;
    this.#used = 0;
    for (const { offset, length } of [...extents].sort((a, b) => a.offset - b.offset)) {
      if (offset > this.#top) this.#add(this.#top, offset - this.#top);
      const end = offset + rounded(length);
      if (end > this.#top) this.#top = end;
      this.#used += rounded(length);
    }
  }

  #exact(size: number): number | undefined {
    return this.#free.get(size)?.pop();
  }

  #fresh(size: number): number | undefined {
    if (this.#top + size > this.capacity) return undefined;
    const offset = this.#top;
    this.#top += size;
    return offset;
  }

  #divide(size: number): number | undefined {
    this.#join();
    let best: number | undefined;
    for (const [candidate, offsets] of this.#free)
      if (candidate >= size && offsets.length > 0 && (best === undefined || candidate < best))
        best = candidate;
    if (best === undefined) return this.#fresh(size);
    const offset = this.#free.get(best)!.pop()!;
    if (best > size) this.#add(offset + size, best - size);
    return offset;
  }

  /** Joins neighbouring free extents, and gives the last back to the untouched rest. */
  #join(): void {
    const all: Extent[] = [];
    for (const [length, offsets] of this.#free)
      for (const offset of offsets) all.push({ offset, length });
    all.sort((a, b) => a.offset - b.offset);
    const joined: Extent[] = [];
    for (const extent of all) {
      const last = joined.at(-1);
      if (last && last.offset + last.length === extent.offset) last.length += extent.length;
      else joined.push(extent);
    }
    const last = joined.at(-1);
    if (last && last.offset + last.length === this.#top) {
      this.#top = last.offset;
      joined.pop();
    }
    this.#free.clear();
    for (const { offset, length } of joined) this.#add(offset, length);
  }

  #add(offset: number, size: number): void {
    const offsets = this.#free.get(size);
    if (offsets) offsets.push(offset);
    else this.#free.set(size, [offset]);
  }
}
