// What /healthz and /livez answer (§13), from what is not in the maps yet and what is known of the
// node. Knows no server.
import type { Cluster } from "../model/cluster.ts";
import { answerProxyHealth, isEligible, isProxyHealthy } from "../model/health.ts";
import type { Backlog } from "./backlog.ts";
import { type Reply, textReply } from "./http.ts";

export interface HealthOptions {
  backlog: Backlog;
  cluster: Pick<Cluster, "nodeObject">;
  /** How long a change may wait (§13.2). */
  timeoutMs: number;
  /** Whether this is a start anew: programs and maps of an agent before this one serve. */
  isServing: boolean;
  /** The time in ms since the epoch. */
  epochMs: () => number;
  onAnswer: (path: "/healthz" | "/livez", status: number) => void;
}

export class Health {
  readonly #options: HealthOptions;

  constructor(options: HealthOptions) {
    this.#options = options;
  }

  answer(path: string): Reply {
    if (path !== "/healthz" && path !== "/livez")
      return textReply(404, "Not found: here are /healthz and /livez\n");
    const nodeEligible = this.#isNodeEligible();
    const answer = answerProxyHealth({ ...this.#state(), nodeEligible }, { path });
    this.#options.onAnswer(path, answer.status);
    return answer;
  }

  /** Whether nothing waits too long, whatever becomes of the node (§12.3, §13.2). */
  get isHealthy(): boolean {
    return isProxyHealthy(this.#state());
  }

  #state() {
    const { backlog, epochMs, timeoutMs } = this.#options;
    const nowMs = epochMs();
    const families = Array.from(backlog.get(), ([family, { updatedMs, pendingMs }]) => {
      const pendingSinceMs = pendingMs === undefined ? undefined : nowMs - pendingMs;
      return [family, { updatedMs, pendingSinceMs }] as const;
    });
    return { families: new Map(families), nowMs, timeoutMs };
  }

  /**
   * Before the first sync a node is eligible only if an agent before this one serves on it: a
   * restart takes nothing away, and a new node gets no traffic that it cannot serve yet.
   */
  #isNodeEligible(): boolean {
    const { backlog, cluster, isServing } = this.#options;
    const { nodeObject } = cluster;
    if (backlog.hasSynced) return isEligible(nodeObject);
    return isServing && (nodeObject === undefined || isEligible(nodeObject));
  }
}
