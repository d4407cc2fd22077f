// Which Services are ours to handle, and their service ports family by family. The API server's
// watch filters (§1.1, §1.2) are applied here and in endpoint.ts, and nowhere else: whatever
// source an object came from, one that they exclude behaves as if it were not there.
import { addressFamily } from "./address.ts";
import type { ServiceObject, ServicePortObject } from "./objects.ts";
import type { Family } from "./rows.ts";
import type { EndpointPolicy } from "./topology.ts";

/** One port of a Service in one family: what gets a row. All addresses are of that family. */
export interface ServicePort {
  service: ServiceObject;
  port: ServicePortObject;
  family: Family;
  clusterIP: string;
  externalIPs: readonly string[];
  /** Load-balancer addresses that are to be captured: ipMode VIP (§3.3). */
  loadBalancerIPs: readonly string[];
}

/** Why a Service is none of our business. */
export type NotHandled = "otherProxy" | "externalName" | "headless" | "noClusterIP";

/** Why a Service is not ours to handle (§1.1, §2.1); undefined if it is. */
export function whyNotHandled(service: ServiceObject): NotHandled | undefined {
  if (service.otherProxy) return "otherProxy";
  if (service.type === "ExternalName") return "externalName";
  if (service.clusterIP === "None") return "headless";
  return service.clusterIP === "" ? "noClusterIP" : undefined;
}

/** True if the Service is ours. */
export function isHandled(service: ServiceObject): boolean {
  return whyNotHandled(service) === undefined;
}

function ofFamily(addresses: readonly string[], family: Family): readonly string[] {
  return addresses.filter((address) => addressFamily(address) === family);
}

/** The service ports of a Service, none if it is not handled or has no cluster IP (§2.3). */
export function servicePorts(service: ServiceObject): ServicePort[] {
  const found: ServicePort[] = [];
  if (!isHandled(service)) return found;
  for (let index = 0; index < service.ipFamilies.length; index++) {
    const family = service.ipFamilies[index]!;
    const clusterIP = service.clusterIPs[index] ?? "";
    if (clusterIP === "") continue;
    const externalIPs = ofFamily(service.externalIPs, family);
    const captured = service.ingress.filter(({ ipMode }) => ipMode === "VIP");
    const vips = captured.map(({ address }) => address);
    const loadBalancerIPs = ofFamily(vips, family);
    for (const port of service.ports) {
      found.push({ service, port, family, clusterIP, externalIPs, loadBalancerIPs });
    }
  }
  return found;
}

/** True if it has a node port, external IP or captured load-balancer address (§5.1). */
export function hasExternalFrontend(servicePort: ServicePort): boolean {
  const { port, externalIPs, loadBalancerIPs } = servicePort;
  return port.nodePort !== 0 || externalIPs.length > 0 || loadBalancerIPs.length > 0;
}

/** True if traffic to the cluster IP must stay on the node. */
function isInternalLocal(service: ServiceObject): boolean {
  return service.internalTrafficPolicy === "Local";
}

/** True if external policy Local counts: only for types that can be asked from outside (§5.2). */
export function isExternalLocal(service: ServiceObject): boolean {
  if (service.externalTrafficPolicy !== "Local") return false;
  return service.type !== "ClusterIP" || service.externalIPs.length > 0;
}

/** What decides which lists of endpoints a service port uses (§5.1). */
export function endpointPolicy(servicePort: ServicePort): EndpointPolicy {
  const { service } = servicePort;
  return {
    internalLocal: isInternalLocal(service),
    externalLocal: isExternalLocal(service),
    hasExternalFrontend: hasExternalFrontend(servicePort),
  };
}

/** The key of a service port's row: "namespace/name:port/protocol/family". */
export function serviceRowKey({ service, port, family }: ServicePort): string {
  return `${service.namespace}/${service.name}:${port.name}/${port.protocol}/${family}`;
}
