// Services and EndpointSlices as an API server holds them in a cluster: with everything that the
// controllers of Kubernetes write there, wanted or not. Pure; knows no server and no bytes.
import { ENDPOINT_PORT, endpointAddress, SERVICE_PORT, serviceAddress } from "./services.ts";

const CREATED = "2026-01-31T12:00:00Z";
const NODES = 200;

/** The JSON form of an object, without kind and apiVersion, as in a list. */
export interface ListedObject {
  metadata: { name: string; namespace: string; [field: string]: unknown };
  [field: string]: unknown;
}

/** A version 4 UUID that follows from two numbers. */
function uid(kind: number, number: number): string {
  const tail = (kind * 2 ** 40 + number).toString(16).padStart(12, "0");
  return `5e0d1c2b-7a3f-4e9d-8b6c-${tail}`;
}

function managedFields(manager: string, apiVersion: string, fieldsV1: object): object[] {
  const common = { operation: "Update", time: CREATED, fieldsType: "FieldsV1" };
  return [{ manager, ...common, apiVersion, fieldsV1 }];
}

function namespaceOf(service: number): string {
  return `team-${service % 100}`;
}

/** The Service of this number, as kubectl applied it. */
export function makeService(service: number): ListedObject {
  const address = serviceAddress(service);
  const name = `service-${service}`;
  return {
    metadata: {
      name,
      namespace: namespaceOf(service),
      uid: uid(1, service),
      resourceVersion: String(1000 + service),
      creationTimestamp: CREATED,
      labels: { "app.kubernetes.io/name": name, "app.kubernetes.io/managed-by": "Helm" },
      managedFields: managedFields("helm", "v1", {
        "f:metadata": { "f:labels": { ".": {}, "f:app.kubernetes.io/name": {} } },
        "f:spec": {
          "f:internalTrafficPolicy": {},
          "f:ports": {
            ".": {},
            'k:{"port":80,"protocol":"TCP"}': { ".": {}, "f:name": {}, "f:port": {} },
          },
          "f:selector": {},
          "f:type": {},
        },
      }),
    },
    spec: {
      ports: [{ name: "http", protocol: "TCP", port: SERVICE_PORT, targetPort: ENDPOINT_PORT }],
      selector: { "app.kubernetes.io/name": name },
      clusterIP: address,
      clusterIPs: [address],
      type: "ClusterIP",
      sessionAffinity: "None",
      ipFamilies: ["IPv4"],
      ipFamilyPolicy: "SingleStack",
      internalTrafficPolicy: "Cluster",
    },
    status: { loadBalancer: {} },
  };
}

/** The slice of this Service, as the EndpointSlice controller wrote it. */
export function makeSlice(service: number, { endpoints }: { endpoints: number }): ListedObject {
  const owner = `service-${service}`;
  const namespace = namespaceOf(service);
  return {
    metadata: {
      name: `${owner}-x7k2p`,
      generateName: `${owner}-`,
      namespace,
      uid: uid(2, service),
      resourceVersion: String(100_000 + service),
      generation: 4,
      creationTimestamp: CREATED,
      labels: {
        "app.kubernetes.io/name": owner,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "kubernetes.io/service-name": owner,
      },
      annotations: { "endpoints.kubernetes.io/last-change-trigger-time": CREATED },
      ownerReferences: [
        {
          apiVersion: "v1",
          kind: "Service",
          name: owner,
          uid: uid(1, service),
          controller: true,
          blockOwnerDeletion: true,
        },
      ],
      managedFields: managedFields("kube-controller-manager", "discovery.k8s.io/v1", {
        "f:addressType": {},
        "f:endpoints": {},
        "f:metadata": { "f:labels": { ".": {}, "f:kubernetes.io/service-name": {} } },
        "f:ports": {},
      }),
    },
    addressType: "IPv4",
    endpoints: Array.from({ length: endpoints }, (_, index) => {
      const number = service * endpoints + index;
      return {
        addresses: [endpointAddress(number)],
        conditions: { ready: true, serving: true, terminating: false },
        targetRef: {
          kind: "Pod",
          namespace,
          name: `${owner}-6d4cf56db6-${number.toString(36).padStart(5, "0")}`,
          uid: uid(3, number),
        },
        nodeName: `node-${number % NODES}.cluster.example`,
        zone: `zone-${number % 3}`,
        hints: { forZones: [{ name: `zone-${number % 3}` }] },
      };
    }),
    ports: [{ name: "http", protocol: "TCP", port: ENDPOINT_PORT }],
  };
}
