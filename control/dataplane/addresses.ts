// Wildcards: what becomes of an address's ports that no service row captures. They are frontends
// of no service, in the same table, and give way where room is short. Does not know whose address
// it is.
import { frontendKey, frontendKind } from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import type { AddressRow } from "../model/rows.ts";
import { CapacityError, type RowError } from "./errors.ts";
import { addressBytes, encodeFrontend, encodeFrontendKey } from "./maps.ts";
import { bytesToText, type Table, textToBytes } from "./table.ts";
import { ADDRESS_ACTIONS } from "./words.ts";

const KIND_AT = 4;

/** True for the value of a wildcard, false for that of a service's frontend. */
export function isWildcard(value: string): boolean {
  return value.charCodeAt(KIND_AT) >= frontendKind.FRONTEND_REFUSE;
}

/** The address of a key of svc_frontends. */
export function addressOf(key: string): string {
  return formatAddress(textToBytes(key).subarray(0, frontendKey.offset.port));
}

export class Addresses {
  readonly #frontends: Table;
  /** The addresses that have a wildcard in the table. */
  readonly #held = new Set<string>();
  /** Those to be written, or to be removed (undefined). */
  readonly #dirty = new Map<string, AddressRow["action"] | undefined>();

  /** Takes over what the table holds. */
  constructor(frontends: Table) {
    this.#frontends = frontends;
    for (const [key, value] of frontends.actual)
      if (isWildcard(value)) this.#held.add(addressOf(key));
  }

  /** True while something waits for room. */
  get isPending(): boolean {
    return this.#dirty.size > 0;
  }

  replace(rows: Iterable<AddressRow>): void {
    for (const { address, action } of rows) this.#dirty.set(address, action);
  }

  remove(addresses: Iterable<string>): void {
    for (const address of addresses) this.#dirty.set(address, undefined);
  }

  /** No longer wants any but those replaced since the start. */
  removeOthers(): void {
    for (const address of this.#held)
      if (!this.#dirty.has(address)) this.#dirty.set(address, undefined);
  }

  /** Puts into the table what has room there; returns what has none, which stays pending. */
  plan(): RowError[] {
    const errors: RowError[] = [];
    for (const [address, action] of this.#dirty) if (action === undefined) this.#remove(address);
    for (const [address, action] of this.#dirty) {
      const { desiredSize, maxEntries } = this.#frontends;
      if (!this.#held.has(address) && desiredSize >= maxEntries) {
        const { message } = new CapacityError("svc_frontends", maxEntries);
        errors.push({ key: address, message });
      } else this.#set(address, action!);
    }
    return errors;
  }

  #set(address: string, action: AddressRow["action"]): void {
    const key = wildcardKey(address);
    const value = encodeFrontend(key, { service: 0, kind: ADDRESS_ACTIONS[action] });
    this.#frontends.set(bytesToText(key), bytesToText(value));
    this.#held.add(address);
    this.#dirty.delete(address);
  }

  #remove(address: string): void {
    this.#frontends.remove(bytesToText(wildcardKey(address)));
    this.#held.delete(address);
    this.#dirty.delete(address);
  }
}

function wildcardKey(address: string): Uint8Array {
  return encodeFrontendKey({ address: addressBytes(address), port: 0, protocol: 0 });
}
