// Sees objects go by on their way to the agent, and keeps what is to be told of changes: how many,
// when, and which wait for an update of the maps. Decides nothing, and holds nothing up.
import type { Cluster } from "../model/cluster.ts";
import type { KubernetesObject, ObjectKind, SliceObject } from "../model/objects.ts";
import type { Family } from "../model/rows.ts";
import type { Sink } from "../source/source.ts";
import { type Backlog, FAMILIES } from "./backlog.ts";

/** Of one slice that is written in vain again and again, more is not kept. */
const MOST_TRIGGERS = 100;

/** Changes of objects of one kind. */
export interface Count {
  /** Those that no update has taken yet. */
  pending: number;
  total: number;
}

export interface ChangesOptions {
  cluster: Pick<Cluster, "isDirty">;
  backlog: Backlog;
  /** The time in ms since the epoch. */
  epochMs: () => number;
}

/** When changes of a slice came about that are not in the maps. */
interface Triggers {
  /** As keys of its rows name it. */
  service: string;
  family: Family;
  timesMs: number[];
}

/** A change of a slice that has come to be in the maps. */
export interface Programmed {
  family: Family;
  triggeredMs: number;
}

function nameOf({ namespace, name }: { namespace: string; name: string }): string {
  return `${namespace}/${name}`;
}

function familiesOf(object: KubernetesObject): readonly Family[] {
  if (object.kind === "Service") return object.ipFamilies;
  if (object.kind !== "EndpointSlice") return FAMILIES;
  return object.family === undefined ? [] : [object.family];
}

export class Changes {
  readonly endpoints: Count = { pending: 0, total: 0 };
  readonly services: Count = { pending: 0, total: 0 };
  /** When a change came last, in ms since the epoch. */
  readonly lastQueuedMs = new Map<Family, number>();
  readonly #options: ChangesOptions;
  readonly #startMs: number;
  /** By slice. */
  readonly #triggers = new Map<string, Triggers>();

  constructor(options: ChangesOptions) {
    this.#options = options;
    this.#startMs = options.epochMs();
  }

  /** A sink that hands on what it gets, once it has been seen here. */
  watch(sink: Sink): Sink {
    return {
      apply: (object, triggeredMs) => {
        sink.apply(object);
        this.#note(object.kind, familiesOf(object));
        if (object.kind === "EndpointSlice") this.#addTrigger(object, triggeredMs);
      },
      remove: (identity) => {
        sink.remove(identity);
        this.#note(identity.kind, FAMILIES);
        if (identity.kind === "EndpointSlice") this.#triggers.delete(nameOf(identity));
      },
      changed: () => sink.changed(),
      synced: () => sink.synced(),
      problem: (message) => sink.problem(message),
      resolved: (message) => sink.resolved(message),
    };
  }

  /**
   * An update has taken all changes, and could not write these rows. Returns the changes of slices
   * that are in the maps since; those of rows that are not wait on.
   */
  taken(pendingKeys: readonly string[]): Programmed[] {
    this.endpoints.pending = 0;
    this.services.pending = 0;
    const programmed: Programmed[] = [];
    const pending = new Set(pendingKeys.map((key) => key.slice(0, key.indexOf(":"))));
    for (const [slice, { service, family, timesMs }] of this.#triggers) {
      if (pending.has(service)) continue;
      for (const triggeredMs of timesMs) programmed.push({ family, triggeredMs });
      this.#triggers.delete(slice);
    }
    return programmed;
  }

  #note(kind: ObjectKind, families: readonly Family[]): void {
    const { cluster, backlog, epochMs } = this.#options;
    if (kind === "EndpointSlice") count(this.endpoints);
    else if (kind === "Service") count(this.services);
    if (!cluster.isDirty) return;
    backlog.queue(families);
    const nowMs = epochMs();
    for (const family of families) this.lastQueuedMs.set(family, nowMs);
  }

  #addTrigger(slice: SliceObject, triggeredMs = 0): void {
    const { namespace, serviceName, family } = slice;
    // What came about before the start says nothing of how fast this agent is (§18.2).
    if (family === undefined || triggeredMs <= this.#startMs) return;
    const key = nameOf(slice);
    const known = this.#triggers.get(key)?.timesMs ?? [];
    const timesMs = [...known.slice(1 - MOST_TRIGGERS), triggeredMs];
    const service = nameOf({ namespace, name: serviceName });
    this.#triggers.set(key, { service, family, timesMs });
  }
}

function count(counts: Count): void {
  counts.pending++;
  counts.total++;
}
