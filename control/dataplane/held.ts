// What one service row holds in the maps: its id, its backends' ids, its frontends. Plain
// bookkeeping, rebuilt from the pinned maps at a start. What the maps say themselves, such as
// where the tables are, is not kept again: there are many rows.
import type { BackendRow, ServiceRow, ServiceType } from "../model/rows.ts";
import type { Extent } from "./extents.ts";
import { isInRow, type TableWord } from "./maps.ts";

/** What tells the backends of one service row apart. */
export type BackendName = Pick<BackendRow, "address" | "port">;

/** Names a backend within its service row. */
export function backendName({ address, port }: BackendName): string {
  return `${address}|${port}`;
}

export interface Held {
  readonly key: string;
  readonly id: number;
  /** The type that svc_names has for it; undefined before anything was written there. */
  type: ServiceType | undefined;
  /** The backends that have a row, in the order of ServiceRow.backends, and the ids of those. */
  backends: readonly BackendName[];
  ids: readonly number[];
  /** Keys of svc_frontends that lead to this row, as text. */
  frontends: readonly string[];
  /** Keys of svc_sources that let clients ask this row, as text. */
  sources: readonly string[];
}

const NONE: readonly never[] = [];

export function newHeld(key: string, id: number): Held {
  return {
    key,
    id,
    type: undefined,
    backends: NONE,
    ids: NONE,
    frontends: NONE,
    sources: NONE,
  };
}

/** The extents of svc_slots that a row's tables lie in; tables may share one. */
export function extentsOf(tables: readonly TableWord[]): Extent[] {
  const extents: Extent[] = [];
  for (const { offset, length } of tables) {
    if (length === 0 || isInRow(offset)) continue;
    if (!extents.some((extent) => extent.offset === offset)) extents.push({ offset, length });
  }
  return extents;
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
