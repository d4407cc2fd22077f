// What the API server has of one resource, as far as it is known, and which of it reaches the sink:
// a newer version always counts, whatever the order in which versions arrive. Knows no connection.
import type { KubernetesObject, Problem } from "../../model/objects.ts";
import { sameData } from "../../model/same.ts";
import type { StandingProblems } from "../problems.ts";
import type { Sink } from "../source.ts";
import type { Version, WatchedKind } from "./decode.ts";

/** A listing, by key: what there is at one resourceVersion. */
export type Listing = Map<string, Version>;

interface Entry {
  /** NaN if it cannot be compared. */
  version: number;
  /** The last one that could be used. */
  object: KubernetesObject | undefined;
  problems: readonly Problem[];
}

const NO_PROBLEMS: readonly Problem[] = [];

/** The resourceVersion as a number to compare by; NaN if it is none. */
export function versionNumber(resourceVersion: string): number {
  return /^\d{1,15}$/.test(resourceVersion) ? Number(resourceVersion) : Number.NaN;
}

function keyOf({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

/** Adds a version to a listing, unless that has a newer one of the object. */
export function addTo(listing: Listing, version: Version): void {
  const key = keyOf(version);
  const known = listing.get(key);
  const isOlder =
    known !== undefined &&
    versionNumber(version.resourceVersion) < versionNumber(known.resourceVersion);
  if (!isOlder) listing.set(key, version);
}

/** Takes an object out of a listing. */
export function removeFrom(listing: Listing, version: Version): void {
  listing.delete(keyOf(version));
}

/** Where objects of all replicas go: the newest version, if several replicas have the object. */
export class Delivery {
  readonly #sink: Pick<Sink, "apply" | "remove">;
  readonly #problems: StandingProblems;
  readonly #replicas = new Map<WatchedKind, Replica[]>();
  #hasChanged = false;

  constructor(sink: Pick<Sink, "apply" | "remove">, problems: StandingProblems) {
    this.#sink = sink;
    this.#problems = problems;
  }

  /** A new replica of objects of a kind. Two of one kind never have the same object for long. */
  addReplica(kind: WatchedKind): Replica {
    const siblings = this.#replicas.get(kind) ?? [];
    const replica = new Replica(kind, (key, step) => this.#settle(siblings, key, step));
    siblings.push(replica);
    this.#replicas.set(kind, siblings);
    return replica;
  }

  /** Whether the sink has heard of anything since this was asked last. */
  takeChanged(): boolean {
    const hasChanged = this.#hasChanged;
    this.#hasChanged = false;
    return hasChanged;
  }

  /** Makes a change to one object, and tells the sink what comes of it. */
  #settle(siblings: readonly Replica[], key: string, { change, triggeredMs }: Step): void {
    const before = newest(siblings, key);
    change();
    const after = newest(siblings, key);
    const [had, has] = [before?.problems ?? NO_PROBLEMS, after?.problems ?? NO_PROBLEMS];
    if (had !== has) this.#report(`${siblings[0]!.kind} ${key}`, has);
    const [old, object] = [before?.object, after?.object];
    if (object === old) return;
    if (object !== undefined) this.#sink.apply(object, triggeredMs);
    else if (old !== undefined) {
      const { kind, namespace, name } = old;
      this.#sink.remove({ kind, namespace, name });
    }
    this.#hasChanged = true;
  }

  #report(subject: string, problems: readonly Problem[]): void {
    const nowhere = { file: "", line: 0, column: 0 };
    const found = problems.map((problem) => ({ ...problem, ...nowhere }));
    this.#problems.replace(`object ${subject}`, found);
  }
}

function newest(replicas: readonly Replica[], key: string): Entry | undefined {
  let best: Entry | undefined;
  for (const replica of replicas) {
    const entry = replica.get(key);
    if (entry !== undefined && !(best !== undefined && entry.version < best.version)) best = entry;
  }
  return best;
}

/** What changes of one object, and when that came about, if it is known. */
interface Step {
  change: () => void;
  triggeredMs?: number;
}

type Settle = (key: string, step: Step) => void;

/** The objects of one resource. */
export class Replica {
  readonly kind: WatchedKind;
  readonly #settle: Settle;
  #entries = new Map<string, Entry>();

  constructor(kind: WatchedKind, settle: Settle) {
    this.kind = kind;
    this.#settle = settle;
  }

  get size(): number {
    return this.#entries.size;
  }

  get(key: string): Entry | undefined {
    return this.#entries.get(key);
  }

  /** The objects that can be used. */
  *objects(): Generator<KubernetesObject> {
    for (const { object } of this.#entries.values()) if (object !== undefined) yield object;
  }

  /** Takes a version that was added or modified, unless it is older than the known one. */
  apply(version: Version): void {
    const key = keyOf(version);
    const number = versionNumber(version.resourceVersion);
    const known = this.#entries.get(key);
    if (known !== undefined && number <= known.version) return;
    this.#set(key, version, number);
  }

  /** Takes the last version of what is no more, unless it was there again since. */
  remove(version: Version): void {
    const key = keyOf(version);
    const known = this.#entries.get(key);
    if (known === undefined || versionNumber(version.resourceVersion) < known.version) return;
    this.#delete(key);
  }

  /**
   * Takes a whole listing: what is not in it is no more. `isSetBack`: the server's state is an
   * older one than it was, so that equal versions may be of different objects.
   */
  replace(listing: Listing, { isSetBack = false } = {}): void {
    for (const key of this.#entries.keys()) if (!listing.has(key)) this.#delete(key);
    for (const [key, version] of listing) {
      const number = versionNumber(version.resourceVersion);
      const isKnown = this.#entries.get(key)?.version === number && !isSetBack;
      if (!isKnown) this.#set(key, version, number);
    }
  }

  #delete(key: string): void {
    this.#settle(key, { change: () => this.#entries.delete(key) });
  }

  #set(key: string, { object, problems, triggeredMs }: Version, version: number): void {
    const change = () => {
      const before = this.#entries.get(key)?.object;
      // What cannot be used as a whole leaves the last good version in force.
      const isSame = object === undefined || sameData(before, object);
      this.#entries.set(key, {
        version,
        object: isSame ? before : object,
        problems: problems.length === 0 ? NO_PROBLEMS : problems,
      });
    };
    this.#settle(key, { change, triggeredMs });
  }
}
