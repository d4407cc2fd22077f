// Reads back from pinned maps what an earlier agent wrote: the same bookkeeping as if this agent
// had written it. Writes nothing.
import { serviceName } from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import { compareBackends } from "../model/rows.ts";
import { isWildcard } from "./addresses.ts";
import type { Extent } from "./extents.ts";
import { extentsOf, type Held, newHeld, serviceKey } from "./held.ts";
import { decodeSource, type Maps } from "./maps.ts";
import type { Pools } from "./plan.ts";
import { type Table, textToBytes } from "./table.ts";
import { PROTOCOL_WORDS, TYPE_WORDS } from "./words.ts";

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
  for (const [key, value] of names.actual) byId.set(serviceIdOf(key), namedHeld(key, value));
  const heldOf = (id: number): Held => {
    const held = byId.get(id) ?? newHeld(`unnamed service ${id}`, id);
    byId.set(id, held);
    return held;
  };
  for (const [key, value] of frontends.actual)
    if (!isWildcard(value)) addKey(heldOf(serviceIdOf(value)), "frontends", key);
  for (const key of sources.actual.keys())
    addKey(heldOf(decodeSource(textToBytes(key)).service), "sources", key);
  const extents: Extent[] = [];
  for (const held of byId.values()) {
    pools.services.reserve(held.id);
    extents.push(...extentsOf(maps.readTables(held.id)));
    sortIn(held, result);
  }
  pools.extents.restore(extents);
  restoreBackends(byId, { maps, pools, result });
  return result;
}

function addKey(held: Held, field: "frontends" | "sources", key: string): void {
  if (held[field].length === 0) held[field] = [key];
  else (held[field] as string[]).push(key);
}

/** Of two rows of one name, the one that frontends lead to stays. */
function sortIn(held: Held, result: Restored): void {
  const rival = result.held.get(held.key);
  if (held.key.startsWith("unnamed ")) result.closing.push(held);
  else if (!rival) result.held.set(held.key, held);
  else if (rival.frontends.length >= held.frontends.length) result.closing.push(held);
  else {
    result.held.set(held.key, held);
    result.closing.push(rival);
  }
}

function restoreBackends(
  byId: Map<number, Held>,
  { maps, pools, result }: { maps: Maps; pools: Pools; result: Restored },
): void {
  const found = new Map<Held, { address: string; port: number; id: number }[]>();
  for (const id of maps.usedBackends()) {
    const { address, port, listed, service } = maps.readBackend(id);
    pools.backends.reserve(id);
    const held = byId.get(service);
    if (!held || listed === 0) {
      result.leaving.push({ id, service });
      continue;
    }
    const backend = { address: formatAddress(address), port, id };
    const others = found.get(held);
    if (others) others.push(backend);
    else found.set(held, [backend]);
  }
  for (const [held, backends] of found) {
    backends.sort((left, right) => compareBackends(left, right) || left.id - right.id);
    // Of two rows for one endpoint the first stays.
    const isFirst = backends.map(
      (backend, at) => at === 0 || compareBackends(backends[at - 1]!, backend) !== 0,
    );
    const kept = backends.filter((_, at) => isFirst[at]);
    for (const [at, { id }] of backends.entries())
      if (!isFirst[at]) result.leaving.push({ id, service: held.id });
    held.backends = kept.map(({ address, port }) => ({ address, port }));
    held.ids = kept.map(({ id }) => id);
  }
}

/** What is known of a row by its id and its name, as svc_names has them. */
function namedHeld(key: string, value: string): Held {
  const view = new DataView(textToBytes(value).buffer);
  const name = serviceName.read(view, 0);
  const held = newHeld(
    serviceKey({
      namespace: decodeText(name.namespace),
      name: decodeText(name.name),
      port: decodeText(name.port),
      protocol: PROTOCOL_WORDS.get(name.protocol) ?? "TCP",
      family: name.family === 6 ? 6 : 4,
    }),
    serviceIdOf(key),
  );
  held.type = TYPE_WORDS.get(name.type);
  return held;
}

const decoder = new TextDecoder();

/** The text at `at`, which ends at a zero or is `length` bytes long. */
export function decodeText(bytes: Uint8Array, at = 0, length = bytes.length): string {
  const zero = bytes.indexOf(0, at);
  const end = zero < 0 ? at + length : Math.min(zero, at + length);
  return decoder.decode(bytes.subarray(at, end));
}
