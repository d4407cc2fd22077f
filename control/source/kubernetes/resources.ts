// What is watched at the API server, and by which selectors (§1.1 to §1.4). Knows no connection
// and no object.
import type { WatchedKind } from "./decode.ts";

const PROXY_NAME = "service.kubernetes.io/service-proxy-name";
const HEADLESS = "service.kubernetes.io/headless";

/** What a request is about. */
export interface Place {
  /** Tells resources apart, in messages too: "services". */
  title: string;
  /** As RBAC names it. */
  plural: string;
  /** Empty for the core group. */
  group: string;
  path: string;
  selectors: Readonly<Record<string, string>>;
}

/** Objects of one kind that are listed and watched together. */
export interface Resource extends Place {
  kind: WatchedKind;
  /** Nothing is known as a whole without it. The others may be absent or forbidden. */
  isRequired: boolean;
}

/** Everything that the agent of a node watches. */
export function watchedResources(nodeName: string): Resource[] {
  const core = { group: "" };
  const services = { ...core, kind: "Service", plural: "services" } as const;
  return [
    {
      ...services,
      title: "services",
      path: "/api/v1/services",
      selectors: { labelSelector: `!${PROXY_NAME}`, fieldSelector: "spec.clusterIP!=None" },
      isRequired: true,
    },
    {
      title: "endpointslices",
      kind: "EndpointSlice",
      plural: "endpointslices",
      group: "discovery.k8s.io",
      path: "/apis/discovery.k8s.io/v1/endpointslices",
      selectors: { labelSelector: `!${HEADLESS}` },
      isRequired: true,
    },
    {
      ...core,
      title: "nodes",
      kind: "Node",
      plural: "nodes",
      path: "/api/v1/nodes",
      selectors: { fieldSelector: `metadata.name=${nodeName}` },
      isRequired: false,
    },
    {
      ...services,
      title: "services of other proxies",
      path: "/api/v1/services",
      selectors: { labelSelector: PROXY_NAME, fieldSelector: "spec.clusterIP!=None" },
      isRequired: false,
    },
    {
      title: "servicecidrs",
      kind: "ServiceCIDR",
      plural: "servicecidrs",
      group: "networking.k8s.io",
      path: "/apis/networking.k8s.io/v1/servicecidrs",
      selectors: {},
      isRequired: false,
    },
  ];
}
