// Tells traffic of pods from other traffic (§10.8), in the four modes of kube-proxy. Knows nothing
// of what hangs on it: short-circuits (§6.3) and rewritten sources (§10).
import { type AddressRange, addressFamily, isInRange } from "./address.ts";
import type { ProxyConfig } from "./config.ts";
import type { Family } from "./rows.ts";

/** Where a packet comes from. */
export interface PacketSource {
  /** Canonical. */
  source: string;
  /** The device it came in by; absent if a process of this node sent it. */
  device?: string;
}

export interface LocalDetector {
  /** Whether pods of a family can be told from others at all (§6.4, §10.3). */
  isUsable(family: Family): boolean;
  /** Where pods are, at most one range of a family; none where their devices tell them. */
  readonly ranges: readonly AddressRange[];
  /** Whether their devices tell pods. */
  readonly isByDevice: boolean;
  /** Whether a pod sent this; always false where the detector is not usable. */
  isPod(packet: PacketSource): boolean;
}

/** By address: the first range of each family, so pods of other nodes may count too. */
function byRange(ranges: readonly AddressRange[]): LocalDetector {
  const ofFamily = (family: Family) => ranges.find((range) => range.family === family);
  return {
    ranges: [ofFamily(4), ofFamily(6)].filter((range) => range !== undefined),
    isByDevice: false,
    isUsable: (family) => ofFamily(family) !== undefined,
    isPod: ({ source }) => {
      const range = ofFamily(addressFamily(source));
      return range !== undefined && isInRange(source, range);
    },
  };
}

function byDevice(isPodDevice: (name: string) => boolean): LocalDetector {
  return {
    ranges: [],
    isByDevice: true,
    isUsable: () => true,
    isPod: ({ device }) => device !== undefined && isPodDevice(device),
  };
}

/** The detector of a configuration on a node with these spec.podCIDRs. */
export function makeDetector(
  config: ProxyConfig,
  { podRanges }: { podRanges: readonly AddressRange[] },
): LocalDetector {
  const { detectLocalMode, clusterCIDRs, bridgeInterface, interfaceNamePrefix } = config;
  switch (detectLocalMode) {
    case "ClusterCIDR":
      return byRange(clusterCIDRs);
    case "NodeCIDR":
      return byRange(podRanges);
    case "BridgeInterface":
      return byDevice((name) => name === bridgeInterface);
    case "InterfaceNamePrefix":
      return byDevice((name) => name.startsWith(interfaceNamePrefix));
  }
}
