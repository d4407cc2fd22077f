// The few fields of Kubernetes objects that bpfsvc decides by, checked and canonical. What is not
// here has no influence. Knows nothing of how the objects arrive or what is made of them.
import type { AddressRange } from "./address.ts";
import type { Family, Protocol, ServiceType, TrafficPolicy } from "./rows.ts";

export type ObjectKind = "Service" | "EndpointSlice" | "Node" | "ServiceCIDR";

/** What tells objects apart; a Node and a ServiceCIDR have the namespace "". */
export interface ObjectIdentity {
  kind: ObjectKind;
  namespace: string;
  name: string;
}

/** Something in an object that cannot be used; the rest of the object works. */
export interface Problem {
  /** Kind, namespace and name as far as they could be read, else empty. */
  kind: string;
  namespace: string;
  name: string;
  /** Where in the object: "spec.ports[1].port"; empty for the object as a whole. */
  field: string;
  /** A whole sentence that names the object, the field, its value and the consequence. */
  message: string;
}

export interface ServicePortObject {
  /** Empty if the port has no name. */
  name: string;
  protocol: Protocol;
  port: number;
  /** 0 for none. */
  nodePort: number;
}

export interface LoadBalancerIngress {
  address: string;
  ipMode: "VIP" | "Proxy";
}

/** A Service. All addresses are canonical text. */
export interface ServiceObject {
  kind: "Service";
  namespace: string;
  name: string;
  /** creationTimestamp in ms since the epoch; Number.MAX_SAFE_INTEGER if there is none. */
  createdMs: number;
  /** Whether the label service.kubernetes.io/service-proxy-name is present, whatever its value. */
  otherProxy: boolean;
  type: ServiceType | "ExternalName";
  /** An address, "None", or "" if not allocated. */
  clusterIP: string;
  /** Parallel to `ipFamilies`; "" where an entry is no address of that family. */
  clusterIPs: readonly string[];
  ipFamilies: readonly Family[];
  ports: readonly ServicePortObject[];
  externalIPs: readonly string[];
  /** Entries of status.loadBalancer.ingress that have an address. */
  ingress: readonly LoadBalancerIngress[];
  /** spec.loadBalancerSourceRanges (§8). */
  sourceRanges: readonly AddressRange[];
  internalTrafficPolicy: TrafficPolicy;
  externalTrafficPolicy: TrafficPolicy;
  /** Timeout of ClientIP affinity in seconds, 0 for none (§11.3). */
  affinitySeconds: number;
  /** 0 for none (§12.1). */
  healthCheckNodePort: number;
}

export interface SlicePort {
  name: string;
  protocol: Protocol;
  port: number;
}

/** One endpoint of a slice; conditions have their defaults filled in (§4.6). */
export interface SliceEndpoint {
  /** The first address, canonical (§4.5). */
  address: string;
  /** The number of the slice's first port, 0 without any: with it this is an Endpoint already. */
  port: number;
  /** Empty if absent: then never local (§4.7). */
  nodeName: string;
  ready: boolean;
  serving: boolean;
  terminating: boolean;
  zoneHints: readonly string[];
  nodeHints: readonly string[];
}

/** An EndpointSlice. */
export interface SliceObject {
  kind: "EndpointSlice";
  namespace: string;
  name: string;
  /** Label kubernetes.io/service-name; empty if the slice belongs to no Service (§4.1). */
  serviceName: string;
  /** Whether the label service.kubernetes.io/headless is present (§1.2). */
  headless: boolean;
  /** Undefined for addressType FQDN: such a slice has no endpoints for us (§4.2). */
  family: Family | undefined;
  ports: readonly SlicePort[];
  endpoints: readonly SliceEndpoint[];
}

export interface NodeAddress {
  type: "InternalIP" | "ExternalIP";
  address: string;
}

/** A Node. */
export interface NodeObject {
  kind: "Node";
  namespace: "";
  name: string;
  /** Label topology.kubernetes.io/zone; empty if absent (§5.7). */
  zone: string;
  addresses: readonly NodeAddress[];
  podRanges: readonly AddressRange[];
  /** Whether it has a deletionTimestamp (§13.3). */
  isDeleted: boolean;
  /** The keys of its taints (§13.3). */
  taints: readonly string[];
}

/** A ServiceCIDR: ranges that cluster IPs are taken from (§1.4). */
export interface ServiceRangesObject {
  kind: "ServiceCIDR";
  namespace: "";
  name: string;
  ranges: readonly AddressRange[];
}

export type KubernetesObject = ServiceObject | SliceObject | NodeObject | ServiceRangesObject;

/** How people call an object: namespace/name, or the name alone if it has no namespace. */
export function objectName(identity: { namespace: string; name: string }): string {
  return identity.namespace === "" ? identity.name : `${identity.namespace}/${identity.name}`;
}

/** A key that tells objects apart: "Service default/web". */
export function objectKey(identity: { kind: string; namespace: string; name: string }): string {
  return `${identity.kind} ${objectName(identity)}`;
}
