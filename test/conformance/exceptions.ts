// Where bpfsvc is meant to differ from what the vectors expect, each with its reason: the one list
// of the suites that compare decisions. docs/semantics.md says the same by rule. Nothing is in it
// because it is not done.
import type { ClusterObject, FlowExpectation, FlowPacket } from "./vectors.ts";

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

/** A case that is not compared as it stands; the reason is logged with it. */
export interface Exception {
  id: string;
  reason: string;
}

/** Cases of endpoint-selection that need a feature gate at a value it cannot have any more. */
export function whyNoGate(featureGates: Readonly<Record<string, boolean>>): string | undefined {
  return featureGates.PreferSameTrafficDistribution === false
    ? "the gate PreferSameTrafficDistribution is locked on since Kubernetes 1.35 (§5.9)"
    : undefined;
}
