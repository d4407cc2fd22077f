// What the API server of the lab holds: objects, one counter of resource versions, and the history
// of changes back to the last compaction. Knows no encoding, no request.
import { randomUUID } from "node:crypto";
import { fillDefaults } from "./defaults.ts";
import { type ApiObject, type Identity, type ObjectMeta, resourceOf, Version } from "./objects.ts";
import { type Resource, resourceOfKind } from "./resources.ts";
import { messageOf } from "./schema.ts";

const HISTORY_LIMIT = 20_000;

/** One change of one object. */
export interface Change {
  resourceVersion: number;
  type: "ADDED" | "MODIFIED" | "DELETED";
  /** The state after the change; of a deleted object its last, with the change's version. */
  current: Version;
  /** The state before; undefined for a new object. */
  previous: Version | undefined;
}

export interface StoreOptions {
  /** Objects that are there from the start; a resource version that they carry stays. */
  objects?: Iterable<ApiObject>;
  /** The counter's first value, if no object carries a higher one. */
  resourceVersion?: number;
  /** Events up to this version are gone; if not given, all before the first change. */
  compacted?: number;
  /** Changes that are kept; older ones are compacted by themselves. */
  historyLimit?: number;
}

interface Held {
  objects: Map<string, Version>;
  /** By key; undefined after a change. */
  sorted: readonly Version[] | undefined;
}

function byKey(a: Version, b: Version): number {
  return a.key < b.key ? -1 : a.key > b.key ? 1 : 0;
}

export class Store {
  #resourceVersion: number;
  #compacted: number;
  readonly #historyLimit: number;
  #history: Change[] = [];
  readonly #held = new Map<Resource, Held>();
  readonly #listeners = new Set<(change: Change) => void>();

  /** Throws if an object is refused. */
  constructor(options: StoreOptions = {}) {
    const { objects = [], resourceVersion = 1, compacted, historyLimit = HISTORY_LIMIT } = options;
    this.#resourceVersion = resourceVersion;
    for (const object of objects) this.#load(object);
    this.#compacted = compacted ?? this.#resourceVersion;
    this.#historyLimit = historyLimit;
  }

  /** The version of the last change of anything. */
  get resourceVersion(): number {
    return this.#resourceVersion;
  }

  /** Events after this version are still there. */
  get compacted(): number {
    return this.#compacted;
  }

  #of(resource: Resource): Held {
    let held = this.#held.get(resource);
    if (!held) {
      held = { objects: new Map(), sorted: undefined };
      this.#held.set(resource, held);
    }
    return held;
  }

  #load(given: ApiObject): void {
    const resource = resourceOf(given);
    const object = fillDefaults(given);
    const isVersioned = object.metadata.resourceVersion !== undefined;
    const resourceVersion = this.#resourceVersion + 1;
    const whole = isVersioned ? object : complete(object, { previous: undefined, resourceVersion });
    const version = new Version(resource, whole);
    this.#resourceVersion = Math.max(this.#resourceVersion, version.resourceVersion);
    this.#of(resource).objects.set(version.key, version);
  }

  /** Creates or replaces an object; a change even if nothing differs. Throws if it is refused. */
  apply(given: ApiObject): Change {
    const resource = resourceOf(given);
    const object = fillDefaults(given);
    const held = this.#of(resource);
    const { namespace, name } = object.metadata;
    const previous = held.objects.get(resource.isNamespaced ? `${namespace}/${name}` : name);
    const resourceVersion = this.#resourceVersion + 1;
    const current = new Version(resource, complete(object, { previous, resourceVersion }));
    this.#resourceVersion = resourceVersion;
    held.objects.set(current.key, current);
    held.sorted = undefined;
    const type = previous ? "MODIFIED" : "ADDED";
    return this.#record({ resourceVersion, type, current, previous });
  }

  /** Deletes an object; undefined if it is not there. */
  delete({ kind, namespace = "", name }: Identity): Change | undefined {
    const held = this.#of(resourceOfKind(kind));
    const key = namespace === "" ? name : `${namespace}/${name}`;
    const previous = held.objects.get(key);
    if (!previous) return undefined;
    const resourceVersion = ++this.#resourceVersion;
    held.objects.delete(key);
    held.sorted = undefined;
    const current = previous.withResourceVersion(resourceVersion);
    return this.#record({ resourceVersion, type: "DELETED", current, previous });
  }

  /** Forgets the history up to a version, the present one if not given. */
  compact(resourceVersion = this.#resourceVersion): void {
    this.#compacted = Math.max(this.#compacted, resourceVersion);
    this.#history = this.#history.filter((change) => change.resourceVersion > this.#compacted);
  }

  #record(change: Change): Change {
    this.#history.push(change);
    // Half at a time, so that this costs little per change.
    if (this.#history.length > this.#historyLimit)
      this.compact(this.#history[this.#history.length >> 1]!.resourceVersion);
    for (const listener of this.#listeners) listener(change);
    return change;
  }

  /** All objects of a resource by key. */
  list(resource: Resource): readonly Version[] {
    const held = this.#of(resource);
    held.sorted ??= [...held.objects.values()].sort(byKey);
    return held.sorted;
  }

  get(resource: Resource, key: string): Version | undefined {
    return this.#of(resource).objects.get(key);
  }

  /** The list as it was at a version; undefined if that is compacted. */
  listAt(resource: Resource, resourceVersion: number): readonly Version[] | undefined {
    if (resourceVersion < this.#compacted) return undefined;
    const undone = this.changesAfter(resource, resourceVersion).reverse();
    if (undone.length === 0) return this.list(resource);
    const objects = new Map(this.#of(resource).objects);
    for (const { current, previous } of undone) {
      if (previous) objects.set(current.key, previous);
      else objects.delete(current.key);
    }
    return [...objects.values()].sort(byKey);
  }

  /** Changes of a resource after a version that is not compacted, oldest first. */
  changesAfter(resource: Resource, resourceVersion: number): Change[] {
    const first = this.#history.findIndex((change) => change.resourceVersion > resourceVersion);
    if (first < 0) return [];
    return this.#history.slice(first).filter(({ current }) => current.resource === resource);
  }

  /** Calls back after each change, until the function that it returns is called. */
  listen(listener: (change: Change) => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }
}

/** The fields of metadata in the order in which Go writes them. */
const METADATA_ORDER = messageOf("ObjectMeta")
  .fields.map(({ name }) => name)
  .reverse();

/** What the server fills in: the identity of a new object stays through its changes. */
function complete(
  object: ApiObject,
  given: { previous: Version | undefined; resourceVersion: number },
): ApiObject {
  const before = given.previous?.object.metadata;
  const metadata: ObjectMeta = {
    ...object.metadata,
    uid: object.metadata.uid ?? before?.uid ?? randomUUID(),
    creationTimestamp: object.metadata.creationTimestamp ?? before?.creationTimestamp ?? now(),
    resourceVersion: String(given.resourceVersion),
  };
  const place = (name: string) => METADATA_ORDER.indexOf(name);
  const sorted = Object.entries(metadata).sort(([a], [b]) => place(a) - place(b));
  return { ...object, metadata: Object.fromEntries(sorted) as ObjectMeta };
}

/** The present time in whole seconds, as Kubernetes writes it. */
function now(): string {
  return new Date().toISOString().replace(/\.\d+Z$/, "Z");
}
