// What the API server of the lab can be made to do wrong, and to whom. Decides which request is
// hit; body.ts, answers.ts and server.ts do the damage.
import type { Target, Verb } from "./request.ts";

/** Requests that a fault is for; what is not given means "any". */
export interface Aim {
  verb?: Verb;
  /** The plural: "services". */
  resource?: string;
}

/**
 * What happens to a connection or to a body. `afterBytes` counts bytes of the body, from now on for
 * an answer under way; if it is not given, it happens before the answer's head (garbage: after it).
 */
export type BodyEffect =
  /** The connection ends (cut: by FIN, reset: by RST). */
  | { kind: "cut" | "reset"; afterBytes?: number }
  /** Nothing more comes, and the connection stays. */
  | { kind: "stall"; afterBytes?: number }
  /** So many bytes of nonsense (default 64) come in between. */
  | { kind: "garbage"; afterBytes?: number; bytes?: number }
  | { kind: "slow"; bytesPerSecond: number };

/** What is answered instead. */
export type AnswerEffect =
  | { kind: "status"; code: 401 | 403 | 429 | 500 | 503; retryAfterSeconds?: number }
  /** A page of some proxy in between, with this status (default 200). */
  | { kind: "html"; code?: number };

/** What is wrong with a list, or with the initial events of a watch. */
export type ListEffect =
  /** Every object twice. */
  | { kind: "duplicate" }
  /** Last object first. */
  | { kind: "reorder" }
  /** The state of so many versions ago, with its resource version. */
  | { kind: "stale"; versions: number };

export type Effect = BodyEffect | AnswerEffect | ListEffect;

/** A fault for requests to come. */
export interface Fault extends Aim {
  effect: Effect;
  /** How many requests are hit; all until it is removed if not given. */
  count?: number;
}

interface Armed extends Fault {
  left: number;
}

/** Whether an effect is one of a body under way. */
export function isBodyEffect(effect: Effect): effect is BodyEffect {
  return ["cut", "reset", "stall", "garbage", "slow"].includes(effect.kind);
}

/** Whether an aim means this target. */
export function isAimedAt(aim: Aim, { verb, resource }: Target): boolean {
  return (aim.verb ?? verb) === verb && (aim.resource ?? resource.plural) === resource.plural;
}

/** The faults that are armed, first come first served. */
export class Faults {
  readonly #armed = new Set<Armed>();
  #hits = 0;

  /** Requests hit so far. */
  get hits(): number {
    return this.#hits;
  }

  /** Arms a fault; the function that it returns removes it. */
  add(fault: Fault): () => void {
    const armed = { ...fault, left: fault.count ?? Number.POSITIVE_INFINITY };
    this.#armed.add(armed);
    return () => this.#armed.delete(armed);
  }

  /** Removes all. */
  clear(): void {
    this.#armed.clear();
  }

  /** The effect that hits a request; counts it. */
  take(target: Target): Effect | undefined {
    for (const armed of this.#armed) {
      if (!isAimedAt(armed, target)) continue;
      this.#hits++;
      if (--armed.left <= 0) this.#armed.delete(armed);
      return armed.effect;
    }
    return undefined;
  }
}
