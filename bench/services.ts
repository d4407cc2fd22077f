// Services in any number, as rows and as manifests: addresses follow from the number of a Service
// and of its endpoint, so that a client needs no list. Pure; knows no kernel.
import type { BackendRow, Protocol, ServiceRow, TableRow } from "../control/model/rows.ts";

/** Every frontend's port, and that of all endpoints. */
export const SERVICE_PORT = 80;
export const ENDPOINT_PORT = 8080;
const SERVICES_FROM = (10 << 24) | (96 << 16);
const ENDPOINTS_FROM = (10 << 24) | (128 << 16);
/** All endpoints lie in here: make it a local route to have them answer. */
export const ENDPOINT_PREFIX = "10.128.0.0/10";

function formatIpv4(value: number): string {
  return [24, 16, 8, 0].map((shift) => (value >>> shift) & 255).join(".");
}

/** The cluster IP of a Service by its number, from 0. */
export function serviceAddress(service: number): string {
  return formatIpv4(SERVICES_FROM + service);
}

/** The address of the endpoint of this number, counted over all Services. */
export function endpointAddress(endpoint: number): string {
  return formatIpv4(ENDPOINTS_FROM + endpoint);
}

export function serviceName(service: number): string {
  return `service-${String(service).padStart(5, "0")}`;
}

/** TCP and UDP in turn: even Services are of TCP. */
export function alternating(service: number): Protocol {
  return service % 2 === 0 ? "TCP" : "UDP";
}

export interface Shape {
  services: number;
  /** Endpoints of each Service. */
  endpoints: number;
  protocolOf: (service: number) => Protocol;
  /** Where each is served beside its cluster IP; nowhere if left out. */
  nodePortOf?: (service: number) => { address: string; port: number };
  /** The node that all endpoints are on; by default that is not told, and they are elsewhere. */
  endpointsOn?: string;
}

/** The rows of such Services, each with a cluster IP. */
export function* makeRows(shape: Shape): Generator<ServiceRow> {
  const { services, endpoints, protocolOf, nodePortOf } = shape;
  for (let service = 0; service < services; service++) {
    const backends = Array.from({ length: endpoints }, (_, index): BackendRow => {
      const address = endpointAddress(service * endpoints + index);
      return { address, port: ENDPOINT_PORT, state: "ready", weight: 1, local: false };
    });
    const all: TableRow = {
      kind: "uniform",
      members: backends.map((_, index) => index),
      whenEmpty: "refuse",
    };
    const protocol = protocolOf(service);
    const name = serviceName(service);
    yield {
      key: `bench/${name}:/${protocol}/4`,
      namespace: "bench",
      name,
      port: "",
      protocol,
      family: 4,
      type: nodePortOf ? "NodePort" : "ClusterIP",
      externalPolicy: "Cluster",
      affinitySeconds: 0,
      sources: undefined,
      frontends: [
        { kind: "clusterIP", address: serviceAddress(service), port: SERVICE_PORT },
        ...(nodePortOf ? [{ kind: "nodePort" as const, ...nodePortOf(service) }] : []),
      ],
      backends,
      internal: all,
      inside: all,
      outside: all,
    };
  }
}

export interface Manifested {
  protocol: Protocol;
  endpoints: readonly string[];
  /** Its port on every node; by default it has none. */
  nodePort?: number | undefined;
  /** The node that its endpoints are on; by default that is not told. */
  endpointsOn?: string | undefined;
}

/** The Service and EndpointSlice of this number as a manifest in JSON, with these endpoints. */
export function makeManifest(
  service: number,
  { protocol, endpoints, nodePort, endpointsOn }: Manifested,
): string {
  const name = serviceName(service);
  const port = { protocol, port: SERVICE_PORT, targetPort: ENDPOINT_PORT };
  const objects = [
    {
      apiVersion: "v1",
      kind: "Service",
      metadata: { name, namespace: "bench", uid: name },
      spec: {
        type: nodePort === undefined ? "ClusterIP" : "NodePort",
        clusterIP: serviceAddress(service),
        clusterIPs: [serviceAddress(service)],
        ipFamilies: ["IPv4"],
        ports: [nodePort === undefined ? port : { ...port, nodePort }],
      },
    },
    {
      apiVersion: "discovery.k8s.io/v1",
      kind: "EndpointSlice",
      metadata: { name, namespace: "bench", labels: { "kubernetes.io/service-name": name } },
      addressType: "IPv4",
      ports: [{ name: "", protocol, port: ENDPOINT_PORT }],
      endpoints: endpoints.map((address) => ({
        addresses: [address],
        nodeName: endpointsOn,
        conditions: { ready: true },
      })),
    },
  ];
  return JSON.stringify({ apiVersion: "v1", kind: "List", items: objects });
}

/** A Node with this address as a manifest in JSON. */
export function makeNodeManifest({ name, address }: { name: string; address: string }): string {
  const status = { addresses: [{ type: "InternalIP", address }] };
  return JSON.stringify({ apiVersion: "v1", kind: "Node", metadata: { name }, status });
}
