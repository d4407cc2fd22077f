// What becomes of the ports that nobody captures, address by address (§7.5–§7.7): of a cluster IP
// of ours they are refused, what belongs to somebody else is left alone although it may lie in a
// ServiceCIDR. Every claim is kept, so that the next in line takes over when the first goes.
import type { ServiceObject } from "./objects.ts";
import type { AddressRow } from "./rows.ts";
import { isHandled, whyNotHandled } from "./service.ts";

/** What a Service says about an address. */
interface Claim {
  service: Pick<ServiceObject, "namespace" | "name" | "createdMs">;
  row: AddressRow;
  /** Cluster IPs are allotted by the API server; anybody can write the others. */
  isClusterIP: boolean;
}

/** All that is said about one address, the claim that counts first. */
interface Contest {
  address: string;
  claims: Claim[];
  settled: AddressRow | undefined;
}

export interface AddressChanges {
  changed: AddressRow[];
  /** Addresses that are nobody's any more. */
  removed: string[];
}

/**
 * What a Service says about its addresses. One of another proxy is left alone wherever a
 * ServiceCIDR would eat its traffic (§7.6), and so is a load balancer of ours that is to be
 * reached as it is (ipMode Proxy, §3.3). Load balancers of ours answer pings; of an external IP
 * those that no host would.
 */
export function addressClaims(service: ServiceObject): readonly Claim[] {
  const isOurs = isHandled(service);
  if (!isOurs && whyNotHandled(service) !== "otherProxy") return NONE;
  const { namespace, name, createdMs, clusterIPs, externalIPs, ingress } = service;
  const claimant = { namespace, name, createdMs };
  const action = isOurs ? "refuse" : "leave";
  const claims: Claim[] = clusterIPs
    .filter((address) => address !== "")
    .map((address) => ({ service: claimant, row: { address, action }, isClusterIP: true }));
  const add = (address: string, action: AddressRow["action"]) => {
    if (claims.some(({ row }) => row.address === address)) return;
    claims.push({ service: claimant, row: { address, action }, isClusterIP: false });
  };
  for (const { address, ipMode } of ingress)
    add(address, isOurs && ipMode === "VIP" ? "answer" : "leave");
  for (const address of externalIPs) add(address, isOurs ? "host" : "leave");
  return claims;
}

const NONE: readonly never[] = [];

/** A cluster IP first, then the older Service, then by namespace and name. */
function precedes(left: Claim, right: Claim): boolean {
  if (left.isClusterIP !== right.isClusterIP) return left.isClusterIP;
  const a = left.service;
  const b = right.service;
  if (a.createdMs !== b.createdMs) return a.createdMs < b.createdMs;
  if (a.namespace !== b.namespace) return a.namespace < b.namespace;
  return a.name < b.name;
}

function isSame(left: Claim, right: Claim): boolean {
  if (left.row.address !== right.row.address || left.row.action !== right.row.action) return false;
  return left.service.createdMs === right.service.createdMs;
}

/** All claims to addresses. Changes are collected until `settle`. */
export class AddressBook {
  readonly #contests = new Map<string, Contest>();
  readonly #claimed = new Map<string, readonly Claim[]>();
  readonly #touched = new Set<Contest>();

  /** Replaces what the Service of this key says: `addressClaims`, or nothing once it is gone. */
  replace(key: string, claims: readonly Claim[]): void {
    const before = this.#claimed.get(key);
    const count = before?.length ?? 0;
    if (count === claims.length && claims.every((claim, at) => isSame(claim, before![at]!))) return;
    for (const claim of before ?? []) this.#withdraw(claim);
    for (const claim of claims) this.#add(claim);
    if (claims.length > 0) this.#claimed.set(key, claims);
    else this.#claimed.delete(key);
  }

  /** Every row as of the last settlement, one for each address. */
  rows(): AddressRow[] {
    return Array.from(this.#contests.values(), ({ settled }) => settled).filter(
      (row) => row !== undefined,
    );
  }

  /** Decides all addresses whose claims changed since the last settlement. */
  settle(): AddressChanges {
    const changes: AddressChanges = { changed: [], removed: [] };
    for (const contest of this.#touched) {
      const { address, claims, settled } = contest;
      const first = claims[0]?.row;
      contest.settled = first;
      if (first !== undefined && settled?.action !== first.action) changes.changed.push(first);
      if (first === undefined && settled !== undefined) changes.removed.push(address);
      if (first === undefined) this.#contests.delete(address);
    }
    this.#touched.clear();
    return changes;
  }

  #withdraw(claim: Claim): void {
    const contest = this.#contests.get(claim.row.address)!;
    contest.claims.splice(contest.claims.indexOf(claim), 1);
    this.#touched.add(contest);
  }

  #add(claim: Claim): void {
    const { address } = claim.row;
    const contest = this.#contests.get(address);
    if (contest === undefined) {
      const first = { address, claims: [claim], settled: undefined };
      this.#contests.set(address, first);
      this.#touched.add(first);
      return;
    }
    const at = contest.claims.findIndex((other) => precedes(claim, other));
    contest.claims.splice(at < 0 ? contest.claims.length : at, 0, claim);
    this.#touched.add(contest);
  }
}
