// svc_clients: what programs may know of the network namespaces on this node. Writes only what
// differs. Knows cookies and addresses, not how either was found out.
import { client } from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import type { Family } from "../model/rows.ts";
import { CapacityError, type RowError } from "./errors.ts";
import { addressBytes, type HashStore } from "./maps.ts";
import { bytesToText, type MapUsage, Table, textToBytes } from "./table.ts";

/** A network namespace: what it connects from, and over which families it is a pod (§6.3, §6.4). */
export interface ClientRow {
  cookie: bigint;
  ipv4?: string | undefined;
  ipv6?: string | undefined;
  inside: readonly Family[];
}

export class Clients {
  readonly #table: Table;

  /** Takes over what the map holds. */
  constructor(store: HashStore) {
    this.#table = new Table(store);
  }

  /** How full the map is, in network namespaces. */
  usage(): MapUsage {
    return this.#table.usage("svc_clients");
  }

  /** Makes the map hold just these. Returns those that it does not; the next call tries again. */
  replace(rows: Iterable<ClientRow>): RowError[] {
    const wanted = new Map<string, string>();
    const errors: RowError[] = [];
    const { maxEntries } = this.#table;
    for (const row of rows)
      if (wanted.size < maxEntries) wanted.set(cookieKey(row.cookie), encodeClient(row));
      else errors.push({ key: nameOf(row), message: fullMessage(maxEntries) });
    for (const key of this.#table.keys()) if (!wanted.has(key)) this.#table.remove(key);
    for (const [key, value] of wanted) this.#table.set(key, value);
    let failed = this.#table.writeAdditions();
    const removals = this.#table.writeRemovals();
    if (failed.length > 0) failed = this.#table.writeAdditions();
    for (const { key, error } of [...failed, ...removals])
      errors.push({ key: nameOf(decodeClient(key, wanted.get(key))), message: error.message });
    return errors;
  }
}

function cookieKey(cookie: bigint): string {
  return bytesToText(new Uint8Array(BigUint64Array.of(cookie).buffer));
}

function encodeClient({ cookie, ipv4, ipv6, inside }: ClientRow): string {
  const bytes = new Uint8Array(client.bytes);
  const bytesOf = (address?: string) => (address ? addressBytes(address) : new Uint8Array(16));
  client.write(new DataView(bytes.buffer), 0, {
    cookie,
    ipv4: bytesOf(ipv4),
    ipv6: bytesOf(ipv6),
    insideIpv4: inside.includes(4) ? 1 : 0,
    insideIpv6: inside.includes(6) ? 1 : 0,
  });
  return bytesToText(bytes);
}

/** Enough of a row to name it. */
function decodeClient(key: string, value: string | undefined): ClientRow {
  const cookie = new DataView(textToBytes(key).buffer).getBigUint64(0, true);
  if (value === undefined) return { cookie, inside: [] };
  const row = client.read(new DataView(textToBytes(value).buffer), 0);
  const { ipv4, ipv6 } = row;
  const known = (bytes: Uint8Array) => bytes.some((byte) => byte !== 0);
  return {
    cookie,
    ...(known(ipv4) ? { ipv4: formatAddress(ipv4) } : {}),
    ...(known(ipv6) ? { ipv6: formatAddress(ipv6) } : {}),
    inside: insideOf(row),
  };
}

/** The families of a row of the map over which it is a pod. */
export function insideOf(row: { insideIpv4: number; insideIpv6: number }): Family[] {
  return ([4, 6] as const).filter((family) => row[`insideIpv${family}`] !== 0);
}

function nameOf({ cookie, ipv4, ipv6 }: ClientRow): string {
  return ipv4 ?? ipv6 ?? `network namespace ${cookie}`;
}

function fullMessage(capacity: number): string {
  return new CapacityError("svc_clients", capacity).message;
}
