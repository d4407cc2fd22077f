// The words of the model and the numbers of the kernel for the same things, in both directions.
// What they mean is the model's business.
import { backendState, frontendKind, serviceType } from "../../bindings/layout.ts";
import {
  type BackendState,
  type FrontendKind,
  PROTOCOLS,
  type Protocol,
  type ServiceType,
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

export const STATE_WORDS: ReadonlyMap<number, BackendState> = inverse(BACKEND_STATES);
export const KIND_WORDS: ReadonlyMap<number, FrontendKind> = inverse(FRONTEND_KINDS);
export const TYPE_WORDS: ReadonlyMap<number, ServiceType> = inverse(SERVICE_TYPES);
export const PROTOCOL_WORDS: ReadonlyMap<number, Protocol> = inverse(PROTOCOLS);

function inverse<Word extends string>(numbers: Readonly<Record<Word, number>>): Map<number, Word> {
  return new Map((Object.keys(numbers) as Word[]).map((word) => [numbers[word], word]));
}
