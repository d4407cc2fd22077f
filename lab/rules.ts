// The netfilter rules that a node has from its CNI, its firewall and its NetworkPolicies, as input
// of iptables-restore and ip6tables-restore; with them comes connection tracking. Re-expressed from
// what ip-masq-agent and flannel install. Makes nothing.
import {
  type Addresses,
  type Family,
  nodePrefixes,
  podPrefixes,
  podPrefixesOf,
} from "./addresses.ts";
import type { Network } from "./cni.ts";

/** TCP and UDP port of pods that a NetworkPolicy closes on every node with rules (REJECT). */
export const CLOSED_PORT = 9;

const linkLocal: Addresses = { ipv4: "169.254.0.0/16", ipv6: "fe80::/10" };
const multicast: Addresses = { ipv4: "224.0.0.0/4", ipv6: "ff00::/8" };
/** What kube-proxy marks to be masqueraded, and flannel therefore leaves alone. */
const kubeProxyMark = "0x4000/0x4000";

/** Pods are masqueraded towards all that is neither pod nor node. */
function masqueradeAgent(family: Family): string[] {
  const exempt = [linkLocal, podPrefixes, nodePrefixes()].map((prefixes) => prefixes[family]);
  return [
    ":IP-MASQ-AGENT - [0:0]",
    "-A POSTROUTING -m addrtype ! --dst-type LOCAL -j IP-MASQ-AGENT",
    ...exempt.map((prefix) => `-A IP-MASQ-AGENT -d ${prefix} -j RETURN`),
    "-A IP-MASQ-AGENT -j MASQUERADE --random-fully",
  ];
}

/** Pods are masqueraded towards what is no pod, and what is no pod towards other nodes' pods. */
function flannelMasquerade(family: Family, node: number): string[] {
  const cluster = podPrefixes[family];
  const own = podPrefixesOf(node)[family];
  return [
    ":FLANNEL-POSTRTG - [0:0]",
    "-A POSTROUTING -j FLANNEL-POSTRTG",
    `-A FLANNEL-POSTRTG -m mark --mark ${kubeProxyMark} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${own} -d ${cluster} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${cluster} -d ${own} -j RETURN`,
    `-A FLANNEL-POSTRTG ! -s ${cluster} -d ${own} -j RETURN`,
    `-A FLANNEL-POSTRTG -s ${cluster} ! -d ${multicast[family]} -j MASQUERADE --random-fully`,
    `-A FLANNEL-POSTRTG ! -s ${cluster} -d ${cluster} -j MASQUERADE --random-fully`,
  ];
}

/** Forwards from and to pods and nothing else, and nothing that connection tracking disowns. */
function forward(family: Family, accept: string): string[] {
  const pods = podPrefixes[family];
  return [
    `:${accept} - [0:0]`,
    ":NETWORK-POLICY - [0:0]",
    "-A FORWARD -m conntrack --ctstate INVALID -j DROP",
    "-A FORWARD -j NETWORK-POLICY",
    "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
    `-A FORWARD -j ${accept}`,
    `-A ${accept} -s ${pods} -j ACCEPT`,
    `-A ${accept} -d ${pods} -j ACCEPT`,
    "-A NETWORK-POLICY -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
    `-A NETWORK-POLICY -d ${pods} -p tcp --dport ${CLOSED_PORT} -j REJECT --reject-with tcp-reset`,
    `-A NETWORK-POLICY -d ${pods} -p udp --dport ${CLOSED_PORT} -j REJECT`,
  ];
}

/** The rules of the node with this index, from 0. */
export function planRules(network: Network, node: number): Addresses {
  const isFlannel = network === "vxlan";
  const tables = (family: Family) => {
    const nat = isFlannel ? flannelMasquerade(family, node) : masqueradeAgent(family);
    const filter = forward(family, isFlannel ? "FLANNEL-FWD" : "CNI-FORWARD");
    const lines = ["*nat", ...nat, "COMMIT", "*filter", ":FORWARD DROP [0:0]", ...filter, "COMMIT"];
    return `${lines.join("\n")}\n`;
  };
  return { ipv4: tables("ipv4"), ipv6: tables("ipv6") };
}

/**
 * Input of `nft -f` for the router: like a provider's network it carries no packet from or to a
 * pod that is not in a tunnel (`everywhere`, also between nodes), or leads none outside.
 */
export function planAntiSpoofing({ everywhere }: { everywhere: boolean }): string {
  const hook = everywhere ? "prerouting" : "input";
  const { ipv4, ipv6 } = podPrefixes;
  return `table bridge lab {
  chain pods {
    type filter hook ${hook} priority 0; policy accept;
    ip saddr ${ipv4} drop
    ip daddr ${ipv4} drop
    ip6 saddr ${ipv6} drop
    ip6 daddr ${ipv6} drop
  }
}
`;
}
