// What is not in the maps yet, and since when, family by family: changes that no sync has taken,
// and rows that one could not write. Knows times, not what the changes are.
import type { Family } from "../model/rows.ts";

export const FAMILIES: readonly Family[] = [4, 6];

/** One family as it stands. */
export interface FamilyState {
  /** When the last sync ended that wrote all there was of the family, in ms since the epoch. */
  updatedMs: number;
  /** How long the oldest change waits that is not in the maps; undefined: there is none. */
  pendingMs: number | undefined;
}

export interface BacklogOptions {
  /** Milliseconds of a clock that never goes back. */
  now: () => number;
  /** The time in ms since the epoch. */
  epochMs: () => number;
}

/** The family of a row's key, or of an address or range; both if it tells none. */
export function familiesOf(key: string): readonly Family[] {
  const suffix = /\/(?:TCP|UDP|SCTP)\/([46])$/.exec(key)?.[1];
  if (suffix !== undefined) return [Number(suffix) as Family];
  if (/^[\d./]+$/.test(key)) return [4];
  return key.includes(":") ? [6] : FAMILIES;
}

/** What of one family the last sync could not write. */
interface Pending {
  rows: number;
  /** When the oldest of their changes came. */
  since: number;
}

export class Backlog {
  readonly #options: BacklogOptions;
  readonly #updatedMs = new Map<Family, number>();
  /** When the oldest change came that no sync has taken. */
  readonly #queued = new Map<Family, number>();
  /** Since when each row is pending that the last sync could not write, by its key. */
  #rows: ReadonlyMap<string, number> = new Map();
  #pending: ReadonlyMap<Family, Pending> = new Map();
  /** Since when all is at fault that keeps the maps from being used, by what it is. */
  readonly #faults = new Map<string, number>();

  constructor(options: BacklogOptions) {
    this.#options = options;
  }

  get hasSynced(): boolean {
    return this.#updatedMs.size > 0;
  }

  /** How many rows of a family the last sync could not write. */
  countRows(family: Family): number {
    return this.#pending.get(family)?.rows ?? 0;
  }

  /** A change of these families came. What comes before the first sync is not late (§13.2). */
  queue(families: readonly Family[]): void {
    if (!this.hasSynced) return;
    const now = this.#options.now();
    for (const family of families) if (!this.#queued.has(family)) this.#queued.set(family, now);
  }

  /** Something makes the maps useless as long as it lasts. */
  setFault(what: string, isFaulty: boolean): void {
    if (!isFaulty) this.#faults.delete(what);
    else if (!this.#faults.has(what)) this.#faults.set(what, this.#options.now());
  }

  /**
   * A sync has ended that took all that was queued, and could not write these rows. Returns the
   * families that it was for: those of which something was queued or pending, at first both.
   */
  synced(keys: Iterable<string>): readonly Family[] {
    const isFirst = !this.hasSynced;
    const isWaiting = (family: Family) => this.#queued.has(family) || this.#pending.has(family);
    const families = isFirst ? FAMILIES : FAMILIES.filter(isWaiting);
    this.#setRows(keys);
    this.#queued.clear();
    for (const family of families)
      if (isFirst || !this.#pending.has(family))
        this.#updatedMs.set(family, this.#options.epochMs());
    return families;
  }

  /** Families that ever reported: none before the first sync. */
  get(): Map<Family, FamilyState> {
    const now = this.#options.now();
    const states = Array.from(this.#updatedMs, ([family, updatedMs]) => {
      const since = Math.min(
        this.#queued.get(family) ?? Number.POSITIVE_INFINITY,
        this.#pending.get(family)?.since ?? Number.POSITIVE_INFINITY,
        ...this.#faults.values(),
      );
      return [
        family,
        { updatedMs, pendingMs: Number.isFinite(since) ? now - since : undefined },
      ] as const;
    });
    return new Map(states);
  }

  #setRows(keys: Iterable<string>): void {
    const now = this.#options.now();
    const rows = new Map<string, number>();
    const pending = new Map<Family, Pending>();
    for (const key of keys) {
      const families = familiesOf(key);
      const queued = families.map((family) => this.#queued.get(family) ?? now);
      const since = this.#rows.get(key) ?? Math.min(...queued);
      rows.set(key, since);
      for (const family of families) {
        const known = pending.get(family) ?? { rows: 0, since };
        pending.set(family, { rows: known.rows + 1, since: Math.min(known.since, since) });
      }
    }
    this.#rows = rows;
    this.#pending = pending;
  }
}
