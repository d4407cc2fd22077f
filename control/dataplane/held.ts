// What one service row holds in the maps: its id, its backends' ids, its extents, its frontends.
// Plain bookkeeping, rebuilt from the pinned maps at a start.
import type { BackendRow, ServiceRow } from "../model/rows.ts";
import type { Extent } from "./extents.ts";
import type { TableWord } from "./maps.ts";

export interface Held {
  readonly key: string;
  readonly id: number;
  /** Backend ids by backendName(). */
  readonly backends: Map<string, number>;
  /** The three table words in the kernel, in the order of enum table; undefined in a new row. */
  tables: readonly (TableWord | undefined)[];
  /** Keys of svc_frontends that lead to this row, as text. */
  frontends: Set<string>;
  /** Keys of svc_sources that let clients ask this row, as text. */
  sources: Set<string>;
}

/** Names a backend within its service row. */
export function backendName(backend: Pick<BackendRow, "address" | "port">): string {
  return `${backend.address}|${backend.port}`;
}

export function newHeld(key: string, id: number): Held {
  return {
    key,
    id,
    backends: new Map(),
    tables: [undefined, undefined, undefined],
    frontends: new Set(),
    sources: new Set(),
  };
}

/** The extents that a row's tables lie in; tables may share one. */
export function extentsOf(tables: readonly (TableWord | undefined)[]): Extent[] {
  const extents = new Map<number, Extent>();
  for (const word of tables)
    if (word && word.length > 0)
      extents.set(word.offset, { offset: word.offset, length: word.length });
  return [...extents.values()];
}

/** The identity of a service row, as the model writes it in ServiceRow.key. */
export function serviceKey(
  row: Pick<ServiceRow, "namespace" | "name" | "port" | "protocol" | "family">,
): string {
  return `${row.namespace}/${row.name}:${row.port}/${row.protocol}/${row.family}`;
}

/** The protocol in a serviceKey(). */
export function protocolOf(key: string): string | undefined {
  return key.split("/").at(-2);
}
