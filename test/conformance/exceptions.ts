// Where bpfsvc is meant to differ from what the vectors expect, each with its reason: the one list
// of the suites that compare decisions. docs/semantics.md says the same by rule. Nothing is in it
// because it is not done.
import { isInRange, isLoopback, parseRange } from "../../control/model/address.ts";
import {
  type ClusterObject,
  type FlowConfig,
  type FlowExpectation,
  type FlowPacket,
  localEndpoints,
  parseAuthority,
} from "./vectors.ts";

const LABEL_OTHER_PROXY = "service.kubernetes.io/service-proxy-name";

/** What a packet is to meet, and why that is not what its vector says. */
export interface Expected {
  expect: FlowExpectation;
  reason?: string;
}

interface AddressedService {
  spec?: { clusterIP?: string; clusterIPs?: string[]; externalIPs?: string[] };
  status?: { loadBalancer?: { ingress?: { ip?: string }[] } };
  metadata: { labels?: Record<string, string> };
}

function isOfOtherProxy(object: ClusterObject, address: string): boolean {
  if (object.kind !== "Service") return false;
  const { spec = {}, status, metadata } = object as ClusterObject & AddressedService;
  if (metadata.labels?.[LABEL_OTHER_PROXY] === undefined) return false;
  const ingress = status?.loadBalancer?.ingress?.map(({ ip }) => ip) ?? [];
  const { clusterIP, clusterIPs = [], externalIPs = [] } = spec;
  return [clusterIP, ...clusterIPs, ...externalIPs, ...ingress].includes(address);
}

/** What is expected of a packet while these objects exist. */
export function expectedOf(packet: FlowPacket, objects: readonly ClusterObject[]): Expected {
  const { expect, dst, iptablesModeDiffers } = packet;
  if (expect.outcome !== "drop" || iptablesModeDiffers?.outcome !== "untouched") return { expect };
  if (!objects.some((object) => isOfOtherProxy(object, dst))) return { expect };
  return {
    expect: { outcome: "untouched" },
    reason:
      "addresses of Services of another proxy are left to it; kube-proxy in nftables mode drops " +
      "them with all else in a ServiceCIDR that it does not serve (§7.6)",
  };
}

/** Why a packet that starts on the node is not played as a connection, if it is not. */
export function whyNoConnection({ protocol }: FlowPacket): string | undefined {
  return protocol === "SCTP"
    ? "SCTP sockets pass no cgroup hook: SCTP is the packet path's, and decided by the model (§15)"
    : undefined;
}

/** Why a connection from a pod shows its own address where the vectors say it is rewritten. */
export const NO_MASQUERADE =
  "a translated socket needs no rewritten source: the endpoint's reply finds the socket, " +
  "which knows what it asked, on whatever way it comes (§10)";

/** Why a packet is not played on the packet path, if it is not. */
export function whyNoPacket(
  { from, dst, expect }: FlowPacket,
  nodeAddresses: ReadonlySet<string>,
): string | undefined {
  const isOwn = (address: string) => nodeAddresses.has(address) || isLoopback(address);
  if (from !== "node") return undefined;
  if (isOwn(dst))
    return (
      "what a process of the node sends to the node's own addresses passes no device that has " +
      "programs: it is the sockets' hooks' alone (connections.test.ts)"
    );
  if (expect.endpoints?.some((endpoint) => isOwn(parseAuthority(endpoint).address)))
    return (
      "from the node to an endpoint on its own network a packet cannot be sent on, since it " +
      "would come in from outside with an address of the node: it is the sockets' hooks' alone"
    );
  return undefined;
}

/** What a packet meets: the objects and settings of its step. */
export interface FlowState {
  objects: readonly ClusterObject[];
  config: FlowConfig;
  serviceCIDRs: readonly string[];
}

/**
 * Whether this endpoint is to see an address of the node instead of a pod or a client outside: as
 * the vectors say with `--masquerade always`; else only where the vectors do and the endpoint is
 * the client itself, or its cluster IP was asked under masqueradeAll. And in any case where the
 * endpoint's answer would not come back through the node: of another node to somebody outside.
 */
export function isRewrittenFor(
  endpoint: string,
  options: { packet: FlowPacket; state: FlowState; masquerade: "auto" | "always" },
): boolean {
  const { packet, state, masquerade } = options;
  const { from, src, dst, expect } = packet;
  const { address } = parseAuthority(endpoint);
  if (from === "external" && !localEndpoints(state.objects).has(address)) return true;
  const isForKubeProxy = expect.masqueraded === true || expect.masqueradedFor?.includes(endpoint);
  if (masquerade === "always") return isForKubeProxy === true;
  const isClusterIP = state.serviceCIDRs.some((range) => isInRange(dst, parseRange(range)!));
  const isAsked = state.config.masqueradeAll && isClusterIP;
  return isForKubeProxy === true && (address === src || isAsked);
}

/** Why a case of endpoint-selection is left out: its feature gate has a value of the past. */
export function whyNoGate(featureGates: Readonly<Record<string, boolean>>): string | undefined {
  return featureGates.PreferSameTrafficDistribution === false
    ? "the gate PreferSameTrafficDistribution is locked on since Kubernetes 1.35 (§5.9)"
    : undefined;
}

/** Why loopback addresses are left out of what nodeport-addresses lists. */
export const NO_LOOPBACK_NODE_PORTS =
  "of loopback node ports are served on localhost alone, and only if asked for (§9.5), so other " +
  "addresses that the vectors list for iptables mode's sake are no candidates";

/** Why the proxy of health's timeline is taken for one that an agent before it left serving. */
export const NEW_NODE_IS_NOT_ELIGIBLE =
  "before its first sync a node on which nothing serves is not eligible: it would draw traffic " +
  "that it cannot serve; kube-proxy says 200 as soon as it knows its Node (§13.3)";

/** Flows that are to be forgotten in a case of udp-stale-flows, and why they differ from it. */
export function staleFlowsOf({ id, expect }: { id: string; expect: { deleted: string[] } }): {
  deleted: readonly string[];
  reason?: string;
} {
  if (id !== "ct-08") return expect;
  return {
    deleted: ["f1", "f2"],
    reason:
      "the Service has no serving endpoint, and then bpfsvc forgets its flows, as in ct-07 " +
      "(§14.3); this case still has what kube-proxy does",
  };
}
