// Reads back from pinned maps what an earlier agent wrote: the same bookkeeping as if this agent
// had written it. Writes nothing.
import { serviceName } from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import { isWildcard } from "./addresses.ts";
import { backendName, extentsOf, type Held, newHeld, serviceKey } from "./held.ts";
import { decodeSource, type Maps, TABLE_COUNT } from "./maps.ts";
import type { Pools } from "./plan.ts";
import { type Table, textToBytes } from "./table.ts";
import { PROTOCOL_WORDS } from "./words.ts";

export interface Restored {
  /** By key, what the model can claim again. */
  held: Map<string, Held>;
  /** Rows that nobody can name, or that lost their name to another: to be removed. */
  closing: Held[];
  /** Backend ids that were on their way out. */
  leaving: { id: number; service: number }[];
}

/** The service id in a value of svc_frontends, or in a key of svc_names. */
export function serviceIdOf(text: string): number {
  return new DataView(textToBytes(text).buffer).getUint32(0, true);
}

/** Rebuilds the bookkeeping and reserves every id and extent that is in use. */
export function restore({
  maps,
  pools,
  frontends,
  names,
  sources,
}: {
  maps: Maps;
  pools: Pools;
  frontends: Table;
  names: Table;
  sources: Table;
}): Restored {
  const byId = new Map<number, Held>();
  const result: Restored = { held: new Map(), closing: [], leaving: [] };
  for (const [key, value] of names.actual) {
    const held = newHeld(decodeKey(value), serviceIdOf(key));
    byId.set(held.id, held);
  }
  const heldOf = (id: number): Held => {
    const held = byId.get(id) ?? newHeld(`unnamed service ${id}`, id);
    byId.set(id, held);
    return held;
  };
  for (const [key, value] of frontends.actual)
    if (!isWildcard(value)) heldOf(serviceIdOf(value)).frontends.add(key);
  for (const key of sources.actual.keys())
    heldOf(decodeSource(textToBytes(key)).service).sources.add(key);
  for (const held of byId.values()) {
    pools.services.reserve(held.id);
    held.tables = Array.from({ length: TABLE_COUNT }, (_, which) => maps.readTable(held.id, which));
    sortIn(held, result);
  }
  pools.extents.restore([...byId.values()].flatMap((held) => extentsOf(held.tables)));
  restoreBackends(byId, { maps, pools, result });
  return result;
}

/** Of two rows of one name, the one that frontends lead to stays. */
function sortIn(held: Held, result: Restored): void {
  const rival = result.held.get(held.key);
  if (held.key.startsWith("unnamed ")) result.closing.push(held);
  else if (!rival) result.held.set(held.key, held);
  else if (rival.frontends.size >= held.frontends.size) result.closing.push(held);
  else {
    result.held.set(held.key, held);
    result.closing.push(rival);
  }
}

function restoreBackends(
  byId: Map<number, Held>,
  { maps, pools, result }: { maps: Maps; pools: Pools; result: Restored },
): void {
  for (const id of maps.usedBackends()) {
    const entry = maps.readBackend(id);
    pools.backends.reserve(id);
    const held = byId.get(entry.service);
    const name = backendName({ address: formatAddress(entry.address), port: entry.port });
    if (held && entry.listed !== 0 && !held.backends.has(name)) held.backends.set(name, id);
    else result.leaving.push({ id, service: entry.service });
  }
}

function decodeKey(value: string): string {
  const view = new DataView(textToBytes(value).buffer);
  const name = serviceName.read(view, 0);
  return serviceKey({
    namespace: decodeText(name.namespace),
    name: decodeText(name.name),
    port: decodeText(name.port),
    protocol: PROTOCOL_WORDS.get(name.protocol) ?? "TCP",
    family: name.family === 6 ? 6 : 4,
  });
}

const decoder = new TextDecoder();

/** The text at `at`, which ends at a zero or is `length` bytes long. */
export function decodeText(bytes: Uint8Array, at = 0, length = bytes.length): string {
  const zero = bytes.indexOf(0, at);
  const end = zero < 0 ? at + length : Math.min(zero, at + length);
  return decoder.decode(bytes.subarray(at, end));
}
