// The four resources that the API server of the lab serves, and how their paths, kinds and groups
// are called. Knows no object and no request.

/** A resource as discovery, paths and messages name it. */
export interface Resource {
  /** In paths and messages: "services". */
  plural: string;
  /** "" for the core group. */
  group: string;
  version: string;
  kind: string;
  isNamespaced: boolean;
  /** Fields that a field selector may name beside metadata.name and metadata.namespace. */
  selectable: readonly string[];
  shortNames: readonly string[];
  /** What an object without any content has in JSON beside its metadata, as in bookmarks. */
  empty: Readonly<Record<string, unknown>>;
}

export const RESOURCES: readonly Resource[] = [
  {
    plural: "services",
    group: "",
    version: "v1",
    kind: "Service",
    isNamespaced: true,
    selectable: ["spec.clusterIP", "spec.type"],
    shortNames: ["svc"],
    empty: { spec: {}, status: { loadBalancer: {} } },
  },
  {
    plural: "nodes",
    group: "",
    version: "v1",
    kind: "Node",
    isNamespaced: false,
    selectable: ["spec.unschedulable"],
    shortNames: ["no"],
    empty: {
      spec: {},
      status: {
        daemonEndpoints: { kubeletEndpoint: { Port: 0 } },
        nodeInfo: {
          machineID: "",
          systemUUID: "",
          bootID: "",
          kernelVersion: "",
          osImage: "",
          containerRuntimeVersion: "",
          kubeletVersion: "",
          kubeProxyVersion: "",
          operatingSystem: "",
          architecture: "",
        },
      },
    },
  },
  {
    plural: "endpointslices",
    group: "discovery.k8s.io",
    version: "v1",
    kind: "EndpointSlice",
    isNamespaced: true,
    selectable: [],
    shortNames: [],
    empty: { addressType: "", endpoints: null, ports: null },
  },
  {
    plural: "servicecidrs",
    group: "networking.k8s.io",
    version: "v1",
    kind: "ServiceCIDR",
    isNamespaced: false,
    selectable: [],
    shortNames: [],
    empty: { spec: {}, status: {} },
  },
];

/** "v1" or "discovery.k8s.io/v1". */
export function apiVersionOf({ group, version }: Resource): string {
  return group === "" ? version : `${group}/${version}`;
}

/** "services" or "endpointslices.discovery.k8s.io", as messages name a resource. */
export function qualifiedName({ plural, group }: Resource): string {
  return group === "" ? plural : `${plural}.${group}`;
}

/** The resource of objects of this kind; throws, naming those that there are. */
export function resourceOfKind(kind: string): Resource {
  const found = RESOURCES.find((resource) => resource.kind === kind);
  if (found) return found;
  const kinds = RESOURCES.map((resource) => resource.kind).join(", ");
  throw new Error(`The lab's API server has no kind '${kind}', only ${kinds}`);
}
