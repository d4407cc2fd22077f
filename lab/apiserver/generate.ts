// Services and EndpointSlices in any number, with all that controllers write into real ones, so
// that their bytes weigh what they weigh in a cluster. Pure: equal numbers give equal objects.
import type { ApiObject } from "./objects.ts";

export const GENERATED_NAMESPACE = "load";
export const GENERATED_PORT = 80;
export const GENERATED_TARGET_PORT = 8080;
/** As many as the EndpointSlice controller puts into one slice. */
const SLICE_ENDPOINTS = 100;
const NODES = 100;
const ZONES = ["zone-a", "zone-b", "zone-c"];
const SERVICES_FROM = 0x0a600000; // 10.96.0.0
const ENDPOINTS_FROM = 0x0a800000; // 10.128.0.0
const CREATED = "2026-01-01T00:00:00Z";

export interface Amount {
  services: number;
  /** Endpoints of each Service. */
  endpoints: number;
}

function formatIpv4(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}

/** The cluster IP of a Service by its number, from 0. */
export function generatedClusterIp(service: number): string {
  return formatIpv4(SERVICES_FROM + 1 + service);
}

/** The address of an endpoint by its number, counted over all Services. */
export function generatedEndpoint(endpoint: number): string {
  return formatIpv4(ENDPOINTS_FROM + endpoint);
}

export function generatedName(service: number): string {
  return `service-${String(service).padStart(5, "0")}`;
}

function uid(kind: number, number: number): string {
  const hex = (value: number, digits: number) => value.toString(16).padStart(digits, "0");
  return `${hex(kind, 8)}-0000-4000-8000-${hex(number, 12)}`;
}

function managedFields(options: { manager: string; apiVersion: string; fieldsV1: object }) {
  const { manager, apiVersion, fieldsV1 } = options;
  const fixed = { operation: "Update", time: CREATED, fieldsType: "FieldsV1" };
  return [{ manager, apiVersion, ...fixed, fieldsV1 }];
}

const SERVICE_FIELDS = managedFields({
  manager: "kubectl-client-side-apply",
  apiVersion: "v1",
  fieldsV1: {
    "f:metadata": { "f:labels": { ".": {}, "f:app": {} } },
    "f:spec": {
      "f:internalTrafficPolicy": {},
      "f:ports": {
        ".": {},
        'k:{"port":80,"protocol":"TCP"}': {
          ".": {},
          "f:name": {},
          "f:port": {},
          "f:protocol": {},
          "f:targetPort": {},
        },
      },
      "f:selector": {},
      "f:sessionAffinity": {},
      "f:type": {},
    },
  },
});

const SLICE_FIELDS = managedFields({
  manager: "kube-controller-manager",
  apiVersion: "discovery.k8s.io/v1",
  fieldsV1: {
    "f:addressType": {},
    "f:endpoints": {},
    "f:metadata": {
      "f:annotations": { ".": {}, "f:endpoints.kubernetes.io/last-change-trigger-time": {} },
      "f:generateName": {},
      "f:labels": {
        ".": {},
        "f:app": {},
        "f:endpointslice.kubernetes.io/managed-by": {},
        "f:kubernetes.io/service-name": {},
      },
      "f:ownerReferences": { ".": {}, 'k:{"uid":"x"}': {} },
    },
    "f:ports": {},
  },
});

/** The Service of this number. */
export function generateService(service: number): ApiObject {
  const name = generatedName(service);
  const clusterIP = generatedClusterIp(service);
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: {
      name,
      namespace: GENERATED_NAMESPACE,
      uid: uid(1, service),
      creationTimestamp: CREATED,
      labels: { app: name },
      managedFields: SERVICE_FIELDS,
    },
    spec: {
      ports: [
        {
          name: "http",
          protocol: "TCP",
          port: GENERATED_PORT,
          targetPort: GENERATED_TARGET_PORT,
        },
      ],
      selector: { app: name },
      clusterIP,
      clusterIPs: [clusterIP],
      type: "ClusterIP",
      sessionAffinity: "None",
      ipFamilies: ["IPv4"],
      ipFamilyPolicy: "SingleStack",
      internalTrafficPolicy: "Cluster",
    },
    status: { loadBalancer: {} },
  };
}

function generateEndpoint(number: number): object {
  const node = number % NODES;
  const name = `pod-${number}`;
  return {
    addresses: [generatedEndpoint(number)],
    conditions: { ready: true, serving: true, terminating: false },
    targetRef: { kind: "Pod", namespace: GENERATED_NAMESPACE, name, uid: uid(3, number) },
    nodeName: `node-${node}`,
    zone: ZONES[node % ZONES.length],
  };
}

/** A slice of a Service: its `slice`th, with the endpoints of these numbers. */
export function generateSlice(
  service: number,
  { slice = 0, endpoints }: { slice?: number; endpoints: readonly number[] },
): ApiObject {
  const serviceName = generatedName(service);
  const owner = { apiVersion: "v1", kind: "Service", name: serviceName, uid: uid(1, service) };
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `${serviceName}-${String(slice).padStart(5, "x")}`,
      generateName: `${serviceName}-`,
      namespace: GENERATED_NAMESPACE,
      uid: uid(2, service * 1000 + slice),
      generation: 1,
      creationTimestamp: CREATED,
      labels: {
        app: serviceName,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": serviceName,
      },
      annotations: { "endpoints.kubernetes.io/last-change-trigger-time": CREATED },
      ownerReferences: [{ ...owner, controller: true, blockOwnerDeletion: true }],
      managedFields: SLICE_FIELDS,
    },
    addressType: "IPv4",
    endpoints: endpoints.map(generateEndpoint),
    ports: [{ name: "http", protocol: "TCP", port: GENERATED_TARGET_PORT }],
  };
}

/** So many Services, each with its slices of at most 100 endpoints. */
export function* generateObjects({ services, endpoints }: Amount): Generator<ApiObject> {
  for (let service = 0; service < services; service++) {
    yield generateService(service);
    for (let first = 0; first < endpoints; first += SLICE_ENDPOINTS) {
      const length = Math.min(SLICE_ENDPOINTS, endpoints - first);
      const from = service * endpoints + first;
      yield generateSlice(service, {
        slice: first / SLICE_ENDPOINTS,
        endpoints: Array.from({ length }, (_, index) => from + index),
      });
    }
  }
}
