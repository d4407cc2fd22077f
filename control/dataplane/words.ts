// The words of the model and the numbers of the kernel for the same things, in both directions.
// What they mean is the model's business.
import {
  backendState,
  deviceNote,
  frontendKind,
  guard,
  reason,
  serviceType,
} from "../../bindings/layout.ts";
import {
  type AddressRow,
  type BackendState,
  type FrontendKind,
  PROTOCOLS,
  type Protocol,
  type ServiceType,
  type SourceRow,
} from "../model/rows.ts";

export const BACKEND_STATES: Readonly<Record<BackendState, number>> = {
  ready: backendState.BACKEND_READY,
  terminating: backendState.BACKEND_TERMINATING,
};
export const FRONTEND_KINDS: Readonly<Record<FrontendKind, number>> = {
  clusterIP: frontendKind.FRONTEND_CLUSTER_IP,
  externalIP: frontendKind.FRONTEND_EXTERNAL_IP,
  loadBalancer: frontendKind.FRONTEND_LOAD_BALANCER,
  nodePort: frontendKind.FRONTEND_NODE_PORT,
};
export const SERVICE_TYPES: Readonly<Record<ServiceType, number>> = {
  ClusterIP: serviceType.TYPE_CLUSTER_IP,
  NodePort: serviceType.TYPE_NODE_PORT,
  LoadBalancer: serviceType.TYPE_LOAD_BALANCER,
};

/** What a wildcard does. */
export const ADDRESS_ACTIONS: Readonly<Record<AddressRow["action"], number>> = {
  refuse: frontendKind.FRONTEND_REFUSE,
  leave: frontendKind.FRONTEND_LEAVE,
  answer: frontendKind.FRONTEND_VIP,
  host: frontendKind.FRONTEND_HOST,
};

/** Who may ask the load balancer frontends of a row (semantics §8). */
export function guardOf(sources: SourceRow | undefined): number {
  if (sources === undefined) return guard.GUARD_OPEN;
  return sources.nodeAllowed ? guard.GUARD_NODE : guard.GUARD_SOURCES;
}

export const STATE_WORDS: ReadonlyMap<number, BackendState> = inverse(BACKEND_STATES);
export const KIND_WORDS: ReadonlyMap<number, FrontendKind> = inverse(FRONTEND_KINDS);
/** The words for reasons: the counter's name here, in metrics and in traces. */
export const REASON_WORDS: ReadonlyMap<string, number> = new Map(
  Object.entries(reason)
    .filter(([name]) => name !== "REASON_COUNT")
    .map(([name, index]) => [wordOf(name), index]),
);
/** The words for why a device is served as it is. */
export const NOTE_WORDS: ReadonlyMap<number, string> = new Map(
  Object.entries(deviceNote).map(([name, index]) => [index, wordOf(name)]),
);

export const ACTION_WORDS: ReadonlyMap<number, AddressRow["action"]> = inverse(ADDRESS_ACTIONS);
export const TYPE_WORDS: ReadonlyMap<number, ServiceType> = inverse(SERVICE_TYPES);
export const PROTOCOL_WORDS: ReadonlyMap<number, Protocol> = inverse(PROTOCOLS);

/** An enumerator without its first part, in lower case. */
function wordOf(name: string): string {
  return name.slice(name.indexOf("_") + 1).toLowerCase();
}

function inverse<Word extends string>(numbers: Readonly<Record<Word, number>>): Map<number, Word> {
  return new Map((Object.keys(numbers) as Word[]).map((word) => [numbers[word], word]));
}
