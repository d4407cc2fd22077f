// From EndpointSlices to the endpoints of one service port (§4). Knows nothing of readiness
// policies or nodes: topology.ts chooses among what is found here.
import type { SliceEndpoint, SliceObject, SlicePort } from "./objects.ts";
import { compareBackends, type Family, type Protocol } from "./rows.ts";

/** One address and port behind a service port, with what decides whether it is used. */
export type Endpoint = SliceEndpoint;

/** What a slice port must match to serve a service port: name and protocol, not number (§4.3). */
export interface EndpointQuery {
  name: string;
  protocol: Protocol;
  family: Family;
}

/** Why a slice has no part in anything. */
export type SliceUnused = "headless" | "noService" | "noFamily";

/** Why a slice does not count: the watch filter (§1.2), its label (§4.1) or its type (§4.2). */
export function whySliceUnused(slice: SliceObject): SliceUnused | undefined {
  if (slice.headless) return "headless";
  if (slice.serviceName === "") return "noService";
  return slice.family === undefined ? "noFamily" : undefined;
}

/** True if a slice takes part. */
export function isSliceUsed(slice: SliceObject): boolean {
  return whySliceUnused(slice) === undefined;
}

/** True if a slice's port serves the service port that is asked for (§4.3). */
export function isPortOf({ name, protocol }: SlicePort, query: EndpointQuery): boolean {
  return name === query.name && protocol === query.protocol;
}

function isSorted(endpoints: readonly Endpoint[]): boolean {
  for (let i = 1; i < endpoints.length; i++) {
    if (compareBackends(endpoints[i - 1]!, endpoints[i]!) >= 0) return false;
  }
  return true;
}

/**
 * Makes endpoints distinct by address and port: a non-terminating one replaces what came before,
 * a terminating one never does (§4.8). `sorted` is stably sorted, so that slice order decides.
 */
function dropDuplicates(sorted: readonly Endpoint[]): Endpoint[] {
  const distinct: Endpoint[] = [];
  for (const endpoint of sorted) {
    const last = distinct.at(-1);
    if (last === undefined || compareBackends(last, endpoint) !== 0) distinct.push(endpoint);
    else if (!endpoint.terminating) distinct[distinct.length - 1] = endpoint;
  }
  return distinct;
}

/**
 * The distinct endpoints of one service port, ordered by address and port. `slices` are those of
 * its Service, ordered by name, so that the result does not depend on their arrival (§4.11).
 */
export function findEndpoints(
  slices: readonly SliceObject[],
  query: EndpointQuery,
): readonly Endpoint[] {
  const lists: (readonly Endpoint[])[] = [];
  for (const slice of slices) {
    if (slice.family !== query.family) continue;
    for (const slicePort of slice.ports) {
      if (isPortOf(slicePort, query)) lists.push(endpointsAt(slicePort, slice));
    }
  }
  const found = lists.length === 1 ? lists[0]! : lists.flat();
  if (isSorted(found)) return found;
  return dropDuplicates(found.toSorted(compareBackends));
}

/** A slice's endpoints at one of its ports: most slices have one, and then nothing is copied. */
function endpointsAt({ port }: SlicePort, { ports, endpoints }: SliceObject): readonly Endpoint[] {
  if (port === ports[0]!.port) return endpoints;
  return endpoints.map((endpoint) => ({ ...endpoint, port }));
}
