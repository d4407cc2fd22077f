// Kubernetes objects in the form of manifests, with all that a test does not care about filled in.
// Knows nothing of the lab.

export type Manifest = Record<string, unknown>;

export interface ServicePort {
  name?: string;
  protocol?: "TCP" | "UDP";
  port: number;
  nodePort?: number;
}

/** A Service. The first of `addresses` is its cluster IP; families follow from the addresses. */
export function makeService(options: {
  name: string;
  addresses: readonly string[];
  ports: readonly ServicePort[];
  spec?: Manifest;
  metadata?: Manifest;
  status?: Manifest;
}): Manifest {
  const { name, addresses, ports, spec, metadata, status } = options;
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name, namespace: "test", ...metadata },
    spec: {
      type: "ClusterIP",
      clusterIP: addresses[0],
      clusterIPs: addresses,
      ipFamilies: addresses.map((address) => (address.includes(":") ? "IPv6" : "IPv4")),
      ports,
      ...spec,
    },
    ...(status === undefined ? {} : { status }),
  };
}

export interface SliceEndpoint {
  address: string;
  /** Ready, unless given. */
  conditions?: Manifest;
  nodeName?: string;
}

/** One slice for each family among the endpoints, with the given ports on each endpoint. */
export function makeSlices(options: {
  service: string;
  ports: readonly ServicePort[];
  endpoints: readonly (string | SliceEndpoint)[];
}): Manifest[] {
  const { service, ports } = options;
  const endpoints = options.endpoints.map((endpoint) =>
    typeof endpoint === "string" ? { address: endpoint } : endpoint,
  );
  return (["IPv4", "IPv6"] as const).flatMap((addressType) => {
    const own = endpoints.filter(
      ({ address }) => address.includes(":") === (addressType === "IPv6"),
    );
    if (own.length === 0) return [];
    return [
      {
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: {
          name: `${service}-${addressType.toLowerCase()}`,
          namespace: "test",
          labels: { "kubernetes.io/service-name": service },
        },
        addressType,
        ports: ports.map(({ name = "", protocol = "TCP", port }) => ({ name, protocol, port })),
        endpoints: own.map(({ address, conditions = { ready: true }, nodeName }) => ({
          addresses: [address],
          conditions,
          ...(nodeName === undefined ? {} : { nodeName }),
        })),
      },
    ];
  });
}

/** A Node with these internal addresses. */
export function makeNode(name: string, addresses: readonly string[]): Manifest {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name },
    status: { addresses: addresses.map((address) => ({ type: "InternalIP", address })) },
  };
}
