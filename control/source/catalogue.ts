// Which file's version of an object counts, and what changes when a file does. Pure; knows nothing
// of how files are read or watched.
import { showObject } from "../model/fields.ts";
import type { KubernetesObject } from "../model/objects.ts";
import { sameData } from "../model/same.ts";
import type { Manifest } from "./manifest.ts";
import type { StandingProblems } from "./problems.ts";
import type { Sink, SourceProblem } from "./source.ts";

type Objects = ReadonlyMap<string, KubernetesObject>;

const NOTHING: Objects = new Map();

/** The objects of all files. Changes are collected until `settle`. */
export class Catalogue {
  readonly #files = new Map<string, Objects>();
  /** Paths of the files that hold an object, in order: the first one counts. */
  readonly #holders = new Map<string, string[]>();
  readonly #served = new Map<string, KubernetesObject>();
  readonly #touched = new Set<string>();

  /** Paths of the files that hold objects. */
  paths(): string[] {
    return [...this.#files.keys()];
  }

  /** Takes a file's new content; what it could not read keeps its last good version. */
  replace(path: string, { objects, unreadable, isWhole }: Manifest): void {
    const next = new Map(objects);
    for (const [key, object] of this.#files.get(path) ?? NOTHING) {
      if (!next.has(key) && (!isWhole || unreadable.has(key))) next.set(key, object);
    }
    this.#set(path, next);
  }

  /** Forgets a file and withdraws its objects. */
  remove(path: string): void {
    this.#set(path, NOTHING);
    this.#files.delete(path);
  }

  #set(path: string, next: Objects): void {
    const before = this.#files.get(path) ?? NOTHING;
    for (const [key, object] of next) {
      if (before.get(key) !== object) this.#touched.add(key);
      if (!before.has(key))
        this.#holders.set(key, [...(this.#holders.get(key) ?? []), path].sort());
    }
    for (const key of before.keys()) {
      if (next.has(key)) continue;
      this.#touched.add(key);
      const left = this.#holders.get(key)!.filter((holder) => holder !== path);
      if (left.length > 0) this.#holders.set(key, left);
      else this.#holders.delete(key);
    }
    this.#files.set(path, next);
  }

  /** Tells the sink what changed since the last time; true if anything did. */
  settle(sink: Pick<Sink, "apply" | "remove">, problems: StandingProblems): boolean {
    let changed = false;
    for (const key of this.#touched) {
      const holders = this.#holders.get(key) ?? [];
      const [first, ...others] = holders;
      const object = first === undefined ? undefined : this.#files.get(first)!.get(key);
      const before = this.#served.get(key);
      if (object !== undefined && !sameData(before, object)) {
        this.#served.set(key, object);
        sink.apply(object);
        changed = true;
      } else if (object === undefined && before !== undefined) {
        this.#served.delete(key);
        const { kind, namespace, name } = before;
        sink.remove({ kind, namespace, name });
        changed = true;
      }
      const repeated = object === undefined ? [] : others;
      problems.replace(
        `object ${key}`,
        repeated.map((path) => describeRepeated(object!, { path, first: first! })),
      );
    }
    this.#touched.clear();
    return changed;
  }
}

function describeRepeated(
  object: KubernetesObject,
  { path, first }: { path: string; first: string },
): SourceProblem {
  const { kind, namespace, name } = object;
  const subject = showObject(object);
  const message = `${subject} is in "${first}" too, and that one is used; remove it from one file`;
  return { kind, namespace, name, field: "", message, file: path, line: 0, column: 0 };
}
