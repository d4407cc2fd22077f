// Which remembered UDP flows must be forgotten because their endpoint serves no more (§14.1–14.3).
// Stricter than kube-proxy: a service port without any serving endpoint forgets its flows too, and
// so does one that is gone. Knows nothing of where flows are kept.
import type { Endpoint } from "./endpoint.ts";
import type { Protocol } from "./rows.ts";
import type { ServicePort } from "./service.ts";

/** A flow as it is remembered: what was asked, and who answers. Addresses are canonical. */
export interface Flow {
  protocol: Protocol;
  destination: string;
  destinationPort: number;
  /** The recorded endpoint; the destination itself if the flow was never translated. */
  endpoint: string;
  endpointPort: number;
}

/** A service port as it is now, or as it was before it was deleted: then without endpoints. */
export interface FlowOwner {
  servicePort: ServicePort;
  /** All of them, as findEndpoints gives them: what is serving decides, not what is listed. */
  endpoints: readonly Pick<Endpoint, "address" | "port" | "serving">[];
}

type Authorities = Set<string>;

function authority(address: string, port: number): string {
  return `${address} ${port}`;
}

/**
 * A test for flows that must be forgotten, given every service port of one family whose endpoints
 * may have changed. Flows of other protocols and of other destinations are never stale. A node
 * port is meant on whatever address (§14.1), unless an exact frontend is (§3.5).
 */
export function staleFlowTest(owners: readonly FlowOwner[]): (flow: Flow) => boolean {
  const exact = new Map<string, Authorities>();
  const nodePorts = new Map<number, Authorities>();
  for (const { servicePort, endpoints } of owners) {
    const { port, clusterIP, externalIPs, loadBalancerIPs } = servicePort;
    if (port.protocol !== "UDP") continue;
    const serving = new Set(
      endpoints.filter((each) => each.serving).map((each) => authority(each.address, each.port)),
    );
    for (const address of [clusterIP, ...externalIPs, ...loadBalancerIPs]) {
      exact.set(authority(address, port.port), serving);
    }
    if (port.nodePort !== 0) nodePorts.set(port.nodePort, serving);
  }
  return ({ protocol, destination, destinationPort, endpoint, endpointPort }) => {
    if (protocol !== "UDP") return false;
    const asked = authority(destination, destinationPort);
    const serving = exact.get(asked) ?? nodePorts.get(destinationPort);
    return serving !== undefined && !serving.has(authority(endpoint, endpointPort));
  };
}
