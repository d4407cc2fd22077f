// What becomes of the ports that nobody captures, address by address (§7.5–§7.7): of a cluster IP
// of ours they are refused, what belongs to somebody else is left alone although it may lie in a
// ServiceCIDR. Every claim is kept, so that the next in line takes over when the first goes.
import type { ServiceObject } from "./objects.ts";
import type { AddressRow } from "./rows.ts";
import { isHandled, whyNotHandled } from "./service.ts";

/** Which Service says what about an address. */
interface Claim {
  service: Pick<ServiceObject, "namespace" | "name" | "createdMs">;
  row: AddressRow;
  /** Cluster IPs are allotted by the API server; anybody can write the others. */
  isClusterIP: boolean;
}

export interface AddressChanges {
  changed: AddressRow[];
  /** Addresses that are nobody's any more. */
  removed: string[];
}

/**
 * What a Service says about its addresses. One of another proxy is left alone wherever a
 * ServiceCIDR would eat its traffic (§7.6), and so is a load balancer of ours that is to be
 * reached as it is (ipMode Proxy, §3.3).
 */
export function addressClaims(service: ServiceObject): Claim[] {
  const claims: Claim[] = [];
  const isOurs = isHandled(service);
  if (!isOurs && whyNotHandled(service) !== "otherProxy") return claims;
  const add = (address: string, action: AddressRow["action"], isClusterIP: boolean) => {
    if (address === "" || claims.some(({ row }) => row.address === address)) return;
    claims.push({ service, row: { address, action }, isClusterIP });
  };
  for (const address of service.clusterIPs) add(address, isOurs ? "refuse" : "leave", true);
  if (!isOurs) for (const address of service.externalIPs) add(address, "leave", false);
  for (const { address, ipMode } of service.ingress) {
    if (!isOurs || ipMode === "Proxy") add(address, "leave", false);
  }
  return claims;
}

/** A cluster IP first, then the older Service, then by namespace and name. */
function precedes(left: Claim, right: Claim): boolean {
  if (left.isClusterIP !== right.isClusterIP) return left.isClusterIP;
  const a = left.service;
  const b = right.service;
  if (a.createdMs !== b.createdMs) return a.createdMs < b.createdMs;
  if (a.namespace !== b.namespace) return a.namespace < b.namespace;
  return a.name < b.name;
}

/** All claims to addresses. Changes are collected until `settle`. */
export class AddressBook {
  readonly #claims = new Map<string, Claim[]>();
  readonly #claimed = new Map<string, readonly Claim[]>();
  readonly #settled = new Map<string, AddressRow>();
  readonly #touched = new Set<string>();

  /** Replaces what the Service of this key says: `addressClaims`, or nothing once it is gone. */
  replace(key: string, claims: readonly Claim[]): void {
    const before = this.#claimed.get(key) ?? [];
    const unchanged =
      before.length === claims.length &&
      before.every(({ row, service }, index) => {
        const next = claims[index]!;
        const isSame = row.address === next.row.address && row.action === next.row.action;
        return isSame && service.createdMs === next.service.createdMs;
      });
    if (unchanged) return;
    for (const claim of before) this.#withdraw(claim);
    for (const claim of claims) this.#add(claim);
    if (claims.length > 0) this.#claimed.set(key, claims);
    else this.#claimed.delete(key);
  }

  /** Every row, one for each address. */
  rows(): AddressRow[] {
    return [...this.#settled.values()];
  }

  /** Whether a Service said something new since the last settlement. */
  get isTouched(): boolean {
    return this.#touched.size > 0;
  }

  /** Decides all addresses whose claims changed since the last settlement. */
  settle(): AddressChanges {
    const changes: AddressChanges = { changed: [], removed: [] };
    for (const address of this.#touched) {
      const first = this.#claims.get(address)?.[0]?.row;
      const before = this.#settled.get(address);
      if (first === undefined) {
        if (this.#settled.delete(address)) changes.removed.push(address);
      } else if (before?.action !== first.action) {
        this.#settled.set(address, first);
        changes.changed.push(first);
      }
    }
    this.#touched.clear();
    return changes;
  }

  #withdraw(claim: Claim): void {
    const { address } = claim.row;
    const left = this.#claims.get(address)!.filter((other) => other !== claim);
    if (left.length > 0) this.#claims.set(address, left);
    else this.#claims.delete(address);
    this.#touched.add(address);
  }

  #add(claim: Claim): void {
    const { address } = claim.row;
    const claims = this.#claims.get(address) ?? [];
    const at = claims.findIndex((other) => precedes(claim, other));
    claims.splice(at < 0 ? claims.length : at, 0, claim);
    this.#claims.set(address, claims);
    this.#touched.add(address);
  }
}
