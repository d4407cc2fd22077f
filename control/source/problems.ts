// Remembers which faults stand, so that each is reported once and its healing too. Knows nothing
// of what the faults are about.
import { formatProblem, type Sink, type SourceProblem } from "./source.ts";

/** A fault stays the same when only its line moves. */
function problemKey({ file, kind, namespace, name, field, message }: SourceProblem): string {
  return JSON.stringify([file, kind, namespace, name, field, message]);
}

/** The standing problems of a source, in groups that are replaced as a whole. */
export class StandingProblems {
  readonly #groups = new Map<string, Map<string, SourceProblem>>();
  readonly #sink: Pick<Sink, "problem" | "resolved">;

  constructor(sink: Pick<Sink, "problem" | "resolved">) {
    this.#sink = sink;
  }

  /** Replaces a group (say, a file's problems), reporting what is new and what is resolved. */
  replace(group: string, problems: readonly SourceProblem[]): void {
    const before = this.#groups.get(group);
    const after = new Map<string, SourceProblem>();
    for (const problem of problems) {
      const key = problemKey(problem);
      // What stood before stays as it was reported: its end is told in the same words.
      after.set(key, before?.get(key) ?? problem);
    }
    for (const [key, problem] of after) {
      if (!before?.has(key)) this.#sink.problem(formatProblem(problem));
    }
    for (const [key, problem] of before ?? []) {
      if (!after.has(key)) this.#sink.resolved(`No longer: ${formatProblem(problem)}`);
    }
    if (after.size > 0) this.#groups.set(group, after);
    else this.#groups.delete(group);
  }
}
