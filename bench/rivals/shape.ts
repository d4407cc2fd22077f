// What both generators of kube-proxy's rules need to know of a Service, and what of it they cannot
// say. Pure; knows neither nftables nor iptables.
import { hash } from "node:crypto";
import type { BackendRow, FrontendRow, ServiceRow } from "../../control/model/rows.ts";

/** The node that rules are for. */
export interface RuleNode {
  /** Pods' addresses: traffic from elsewhere to a cluster IP is masqueraded. */
  clusterCidr: string;
  /** Cluster IPs: one of these that nobody has is dropped. */
  serviceCidr: string;
  /** Where node ports are served. */
  addresses: readonly string[];
}

/** A Service as rules see it. */
export interface RuleService {
  /** "namespace/name" with ":port" if the port has a name, as in kube-proxy's comments. */
  name: string;
  protocol: "tcp" | "udp" | "sctp";
  clusterIps: readonly FrontendRow[];
  /** Addresses that outside clients use. */
  external: readonly FrontendRow[];
  nodePort: number | undefined;
  endpoints: readonly BackendRow[];
}

/**
 * A service row as rules see it. Throws for what these generators do not write: affinity, source
 * ranges, the policy Local. A bench that leaves those out of its rival's work would flatter us.
 */
export function toRuleService(row: ServiceRow): RuleService {
  const unsupported = [
    row.family === 6 && "IPv6",
    row.affinitySeconds > 0 && "affinity",
    row.sources && "source ranges",
    row.externalPolicy === "Local" && "policy Local",
  ].find((what) => what);
  if (unsupported)
    throw new Error(`Rules for "${row.key}" would need ${unsupported}: extend bench/rivals first`);
  const of = (...kinds: readonly FrontendRow["kind"][]) =>
    row.frontends.filter(({ kind }) => kinds.includes(kind));
  return {
    name: `${row.namespace}/${row.name}${row.port === "" ? "" : `:${row.port}`}`,
    protocol: row.protocol.toLowerCase() as RuleService["protocol"],
    clusterIps: of("clusterIP"),
    external: of("externalIP", "loadBalancer"),
    nodePort: of("nodePort")[0]?.port,
    endpoints: row.internal.members.map((member) => row.backends[member]!),
  };
}

const BASE32 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

/** The first characters of the SHA-256 of a text in base 32, as chains are named. */
export function hashName(text: string, characters: number): string {
  const digest = hash("sha256", text, "buffer");
  let name = "";
  for (let bit = 0; name.length < characters; bit += 5) {
    // Five bits lie within two bytes, the first of which begins at most seven bits before them.
    name += BASE32[(digest.readUInt16BE(bit >> 3) >> (11 - (bit & 7))) & 31];
  }
  return name;
}
