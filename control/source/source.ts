// What the agent expects of every place that objects come from: files or an API server. Knows
// neither of them, and nothing of what happens to the objects.
import type { KubernetesObject, ObjectIdentity, Problem } from "../model/objects.ts";

/** A problem and where it was found; `file` is empty for objects that are in no file. */
export interface SourceProblem extends Problem {
  file: string;
  /** Counted from 1; 0 if unknown. */
  line: number;
  column: number;
}

/** Receives objects. Calls come one after the other, never from within `start`'s caller. */
export interface Sink {
  /**
   * The present version of an object; called only if it differs from the one before.
   * `triggeredMs`: when what an EndpointSlice tells of came about, in ms since the epoch, if known.
   */
  apply(object: KubernetesObject, triggeredMs?: number): void;
  /** An object that was applied is no more. */
  remove(identity: ObjectIdentity): void;
  /** A fault in one line, with the place where it is; reported once until it changes. */
  problem(message: string): void;
  /** A reported fault is no more; says so in one line. */
  resolved(message: string): void;
  /** The first full list has been applied; called once, before `start` resolves. */
  synced(): void;
  /** A batch of calls has ended: a good moment to act on it. */
  changed(): void;
}

/** What people are to find with an object, as an Event of Kubernetes. */
export interface Notice {
  type: "Normal" | "Warning";
  /** Why it is told, and what was done, each in one word. */
  reason: string;
  action: string;
  note: string;
  about: { kind: "Node" | "Service"; namespace: string; name: string };
}

/** What came of one kind of objects that are watched. */
export interface WatchStatistics {
  resource: string;
  /** Watches that took the place of one that had ended. */
  restarts: number;
  /** When anything of a watch came last, in ms since the epoch. */
  lastEventMs: number | undefined;
}

/** A place that objects come from. */
export interface Source {
  /**
   * Delivers all objects, then resolves and goes on delivering changes. Rejects with a message
   * that names the fix if there is nothing to read from. To be called once.
   */
  start(sink: Sink): Promise<void>;
  /** Puts a notice where people look for it, if there is such a place. Never throws. */
  tell?(notice: Notice): void;
  /** What has come of each resource so far, if it is watched. */
  statistics?(): WatchStatistics[];
  /** Ends delivery: no call of the sink comes after it resolved. Nothing is withdrawn. */
  close(): Promise<void>;
}

/** One line for a log: "file:line:column: message". */
export function formatProblem({ file, line, column, message }: SourceProblem): string {
  if (file === "") return message;
  return line === 0 ? `${file}: ${message}` : `${file}:${line}:${column}: ${message}`;
}
