// Which service port owns a frontend that several claim. Every claim is kept, so that the next in
// line takes over when the owner goes; what a change costs follows the frontends it touches.
// Knows nothing of endpoints or tables.
import { addressFamily } from "./address.ts";
import { objectName, type Problem } from "./objects.ts";
import { compareText, type FrontendKind, type FrontendRow, type ServiceRow } from "./rows.ts";
import { sameData } from "./same.ts";

/** A service port's wish to own a frontend. */
interface Claim {
  row: Pick<ServiceRow, "key" | "namespace" | "name" | "port" | "protocol">;
  frontend: FrontendRow;
  createdMs: number;
  contest: Contest;
}

/** All claims to one frontend. */
interface Contest {
  key: string;
  /** In order of precedence: the first owns the frontend. */
  claims: Claim[];
  owner: string | undefined;
  /** What was reported, by the losing row's key. */
  problems: Map<string, Problem> | undefined;
}

/** What settling changed. */
export interface Settlement {
  /** Keys of the rows that gained or lost a frontend. */
  rows: Set<string>;
  /** Conflicts that are new, and those that no longer hold. */
  problems: Problem[];
  resolved: Problem[];
}

const FIELDS: Record<FrontendKind, string> = {
  clusterIP: "spec.clusterIPs",
  externalIP: "spec.externalIPs",
  loadBalancer: "status.loadBalancer.ingress",
  nodePort: "spec.ports.nodePort",
};

function frontendKey(protocol: string, { address, port }: FrontendRow): string {
  return `${protocol} ${address} ${port}`;
}

/**
 * Cluster IPs are allotted by the API server, while anybody can write an external IP: no Service
 * takes the traffic of another by naming its cluster IP. Node ports come last (§3.5).
 */
const RANKS: Record<FrontendKind, number> = {
  clusterIP: 0,
  externalIP: 1,
  loadBalancer: 1,
  nodePort: 2,
};

/**
 * By kind, then the older Service, then by namespace and name, so that the order of arrival has no
 * part in it.
 */
function compareClaims(left: Claim, right: Claim): number {
  return (
    RANKS[left.frontend.kind] - RANKS[right.frontend.kind] ||
    left.createdMs - right.createdMs ||
    compareText(left.row.namespace, right.row.namespace) ||
    compareText(left.row.name, right.row.name) ||
    compareText(left.row.key, right.row.key)
  );
}

function whyOwner(owner: Claim, loser: Claim): string {
  if (RANKS[owner.frontend.kind] < RANKS[loser.frontend.kind])
    return loser.frontend.kind === "nodePort"
      ? "exact addresses come before node ports"
      : "cluster IPs come before other addresses";
  return owner.createdMs < loser.createdMs ? "it is older" : "its name comes first";
}

function describe(owner: Claim, loser: Claim): Problem {
  const { namespace, name, protocol } = loser.row;
  const { address, port, kind } = loser.frontend;
  const shown = addressFamily(address) === 6 ? `[${address}]` : address;
  const subject = `Service ${JSON.stringify(objectName(loser.row))}`;
  const same = owner.row.namespace === namespace && owner.row.name === name;
  const other = same
    ? `its own port ${JSON.stringify(owner.row.port)}`
    : `Service ${JSON.stringify(objectName(owner.row))}`;
  const reason = same ? "" : `, for ${whyOwner(owner, loser)}`;
  const what = `${shown}:${port}/${protocol} (${kind})`;
  const message =
    `${subject}: port ${JSON.stringify(loser.row.port)} does not get ${what}: ${other} ` +
    `has it${reason}; give one of them another address or port`;
  return { kind: "Service", namespace, name, field: FIELDS[kind], message };
}

/** All claims to frontends. Changes are collected until `settle`. */
export class Claims {
  readonly #contests = new Map<string, Contest>();
  readonly #claimed = new Map<string, readonly Claim[]>();
  readonly #touched = new Set<Contest>();

  /** Replaces what a row claims: all its frontends, for a Service of that age. */
  replace(row: ServiceRow, { createdMs }: { createdMs: number }): void {
    const before = this.#claimed.get(row.key);
    const unchanged =
      before !== undefined &&
      before[0]?.createdMs === createdMs &&
      before.length === row.frontends.length &&
      before.every((claim, index) => sameData(claim.frontend, row.frontends[index]));
    if (unchanged) return;
    if (before !== undefined) this.withdraw(row.key);
    const { key, namespace, name, port, protocol } = row;
    const claimant = { key, namespace, name, port, protocol };
    this.#claimed.set(
      key,
      row.frontends.map((frontend) => this.#add({ row: claimant, frontend, createdMs })),
    );
  }

  /** Gives up all that a row claims. */
  withdraw(rowKey: string): void {
    for (const claim of this.#claimed.get(rowKey) ?? []) {
      const { contest } = claim;
      contest.claims.splice(contest.claims.indexOf(claim), 1);
      this.#touched.add(contest);
    }
    this.#claimed.delete(rowKey);
  }

  /**
   * The frontends of a row that it owns as of the last settlement; the row's own list if it owns
   * all of them. The row must be the one that was given to `replace` last.
   */
  owned({ key, frontends }: ServiceRow): readonly FrontendRow[] {
    const claims = this.#claimed.get(key) ?? [];
    const isOwner = ({ contest }: Claim) => contest.owner === key;
    if (claims.every(isOwner)) return frontends;
    return frontends.filter((_, index) => isOwner(claims[index]!));
  }

  /** Decides all frontends whose claims changed since the last settlement. */
  settle(): Settlement {
    const settlement: Settlement = { rows: new Set(), problems: [], resolved: [] };
    for (const contest of this.#touched) {
      const owner = contest.claims[0]?.row.key;
      if (owner !== contest.owner) {
        if (contest.owner !== undefined) settlement.rows.add(contest.owner);
        if (owner !== undefined) settlement.rows.add(owner);
        contest.owner = owner;
      }
      this.#report(contest, settlement);
      if (owner === undefined) this.#contests.delete(contest.key);
    }
    this.#touched.clear();
    return settlement;
  }

  #contest(key: string): Contest {
    const known = this.#contests.get(key);
    if (known !== undefined) return known;
    const contest: Contest = { key, claims: [], owner: undefined, problems: undefined };
    this.#contests.set(key, contest);
    return contest;
  }

  #add({ row, frontend, createdMs }: Omit<Claim, "contest">): Claim {
    const contest = this.#contest(frontendKey(row.protocol, frontend));
    const claim = { row, frontend, createdMs, contest };
    const at = contest.claims.findIndex((other) => compareClaims(claim, other) < 0);
    // Of most there is one claim: a list of its own, where push would make room for more.
    if (contest.claims.length === 0) contest.claims = [claim];
    else contest.claims.splice(at < 0 ? contest.claims.length : at, 0, claim);
    this.#touched.add(contest);
    return claim;
  }

  #report(contest: Contest, { problems, resolved }: Settlement): void {
    if (contest.claims.length < 2 && contest.problems === undefined) return;
    const [owner, ...losers] = contest.claims;
    const before = contest.problems ?? new Map<string, Problem>();
    const after = new Map(losers.map((loser) => [loser.row.key, describe(owner!, loser)]));
    for (const [key, problem] of after) {
      if (!sameData(before.get(key), problem)) problems.push(problem);
    }
    for (const [key, problem] of before) {
      if (!sameData(after.get(key), problem)) resolved.push(problem);
    }
    contest.problems = after.size > 0 ? after : undefined;
  }
}
