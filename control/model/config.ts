// The settings that decide about Services, as kube-proxy has them (§8–§10), checked and canonical.
// Where they come from and what is said of wrong ones is control/config.ts' business.
import type { AddressRange } from "./address.ts";

export type DetectLocalMode =
  | "ClusterCIDR"
  | "NodeCIDR"
  | "BridgeInterface"
  | "InterfaceNamePrefix";

/** What an operator may set. */
export interface ProxyConfig {
  /** Where node ports are served; no ranges of a family: on all its local addresses (§9.1). */
  nodePortAddresses: "primary" | readonly AddressRange[];
  /** Whether loopback is among these, for processes of the node (§9.5). */
  localhostNodePorts: boolean;
  /** How traffic of pods is told from other traffic (§10.8). */
  detectLocalMode: DetectLocalMode;
  /** For mode ClusterCIDR: of each family the first counts, without one there is no detector. */
  clusterCIDRs: readonly AddressRange[];
  /** For mode BridgeInterface: the device that pods are attached to. */
  bridgeInterface: string;
  /** For mode InterfaceNamePrefix: how the names of pods' devices begin. */
  interfaceNamePrefix: string;
  /** Rewrite the source of all traffic to cluster IPs (§10.4). */
  masqueradeAll: boolean;
  /** Stands for what the Node object says of its family (§9.6); canonical, "" for none. */
  primaryAddress: string;
  /** Whether external IPs of Services are served at all (§3.7). */
  externalIPs: boolean;
}

/** What kube-proxy in nftables mode does unless told otherwise (§9.3). */
export const DEFAULT_CONFIG: ProxyConfig = {
  nodePortAddresses: "primary",
  localhostNodePorts: false,
  detectLocalMode: "ClusterCIDR",
  clusterCIDRs: [],
  bridgeInterface: "",
  interfaceNamePrefix: "",
  masqueradeAll: false,
  primaryAddress: "",
  externalIPs: true,
};
