// The values that kube-apiserver fills into objects that lack them, so that clients see whole
// objects however short a manifest is. Allocates nothing: cluster IPs and node ports stay as given.
import net from "node:net";
import type { ApiObject } from "./objects.ts";

type Fields = Record<string, unknown>;

const AFFINITY_SECONDS = 10_800;

function withDefaults(values: Fields, defaults: Fields): Fields {
  const missing = Object.entries(defaults).filter(([name, value]) => {
    return value !== undefined && (values[name] === undefined || values[name] === null);
  });
  return missing.length === 0 ? values : { ...values, ...Object.fromEntries(missing) };
}

function listOf(value: unknown): Fields[] {
  return Array.isArray(value) ? value : [];
}

function defaultAddresses(spec: Fields): Fields {
  const { clusterIP, clusterIPs } = spec;
  const addresses = (clusterIPs ?? (clusterIP ? [clusterIP] : [])) as string[];
  const families = addresses.filter((address) => net.isIP(address) > 0);
  return {
    clusterIP: addresses[0],
    clusterIPs: addresses.length > 0 ? addresses : undefined,
    ipFamilies: families.length > 0 ? families.map((each) => `IPv${net.isIP(each)}`) : undefined,
    ipFamilyPolicy: families.length === 2 ? "RequireDualStack" : "SingleStack",
  };
}

function defaultServiceSpec(given: Fields): Fields {
  const ports = listOf(given.ports).map((port) =>
    withDefaults(port, { protocol: "TCP", targetPort: port.port }),
  );
  const spec = withDefaults(given.ports ? { ...given, ports } : given, {
    type: "ClusterIP",
    sessionAffinity: "None",
  });
  if (spec.type === "ExternalName") return spec;
  const isBalanced = spec.type === "LoadBalancer";
  const isExternal = isBalanced || spec.type === "NodePort" || listOf(spec.externalIPs).length > 0;
  return withDefaults(spec, {
    ...defaultAddresses(spec),
    internalTrafficPolicy: "Cluster",
    externalTrafficPolicy: isExternal ? "Cluster" : undefined,
    allocateLoadBalancerNodePorts: isBalanced ? true : undefined,
    sessionAffinityConfig:
      spec.sessionAffinity === "ClientIP"
        ? { clientIP: { timeoutSeconds: AFFINITY_SECONDS } }
        : undefined,
  });
}

function defaultService(object: ApiObject): ApiObject {
  const status = withDefaults((object.status ?? {}) as Fields, { loadBalancer: {} });
  const balancer = status.loadBalancer as Fields;
  const ingress = listOf(balancer.ingress).map((entry) =>
    entry.ip ? withDefaults(entry, { ipMode: "VIP" }) : entry,
  );
  return {
    ...object,
    spec: defaultServiceSpec((object.spec ?? {}) as Fields),
    status: { ...status, loadBalancer: balancer.ingress ? { ...balancer, ingress } : balancer },
  };
}

/** The object with its defaults; the one given is not changed. */
export function fillDefaults(object: ApiObject): ApiObject {
  if (object.kind === "Service") return defaultService(object);
  if (object.kind !== "EndpointSlice" || !object.ports) return object;
  const ports = listOf(object.ports).map((port) =>
    withDefaults(port, { name: "", protocol: "TCP" }),
  );
  return { ...object, ports };
}
