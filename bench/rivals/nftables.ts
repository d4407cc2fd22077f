// The table that kube-proxy 1.36 keeps in nftables mode, for given Services, as one transaction for
// `nft -f`: what its pkg/proxy/nftables/proxier.go writes in a full sync, for IPv4. Pure; loads
// nothing.
import type { ServiceRow } from "../../control/model/rows.ts";
import { hashName, type RuleNode, type RuleService, toRuleService } from "./shape.ts";

const TABLE = "ip kube-proxy";
const MASQUERADE = "0x4000";
const KEY = "ip daddr . meta l4proto . th dport";
const PORT_KEY = "meta l4proto . th dport";

const BASE_CHAINS = [
  ["filter-prerouting", "filter hook prerouting priority -110"],
  ["filter-input", "filter hook input priority -110"],
  ["filter-forward", "filter hook forward priority -110"],
  ["filter-output", "filter hook output priority -110"],
  ["filter-output-post-dnat", "filter hook output priority -90"],
  ["nat-prerouting", "nat hook prerouting priority -100"],
  ["nat-output", "nat hook output priority -100"],
  ["nat-postrouting", "nat hook postrouting priority 100"],
] as const;

const CHAINS = [
  "nodeport-endpoints-check",
  "service-endpoints-check",
  "firewall-check",
  "services",
  "masquerading",
  "cluster-ips-check",
  "mark-for-masquerade",
  "reject-chain",
] as const;

const JUMPS = [
  ["filter-input", "ct state new jump nodeport-endpoints-check"],
  ["filter-input", "ct state new jump service-endpoints-check"],
  ["filter-forward", "ct state new jump service-endpoints-check"],
  ["filter-output", "ct state new jump service-endpoints-check"],
  ["filter-prerouting", "ct state new jump firewall-check"],
  ["filter-output", "ct state new jump firewall-check"],
  ["nat-output", "jump services"],
  ["nat-prerouting", "jump services"],
  ["nat-postrouting", "jump masquerading"],
  ["filter-forward", "ct state new jump cluster-ips-check"],
  ["filter-output-post-dnat", "ct state new jump cluster-ips-check"],
] as const;

const ADDRESS_MAP = "{ type ipv4_addr . inet_proto . inet_service : verdict ; }";
const PORT_MAP = "{ type inet_proto . inet_service : verdict ; }";

function rule(chain: string, text: string): string {
  return `add rule ${TABLE} ${chain} ${text}`;
}

/** Everything that is there whatever the Services are. */
function* base({ serviceCidr, addresses }: RuleNode): Generator<string> {
  yield `add table ${TABLE}`;
  for (const [name, hook] of BASE_CHAINS) yield `add chain ${TABLE} ${name} { type ${hook} ; }`;
  for (const name of CHAINS) yield `add chain ${TABLE} ${name}`;
  yield `add set ${TABLE} cluster-ips { type ipv4_addr ; }`;
  yield `add set ${TABLE} nodeport-ips { type ipv4_addr ; }`;
  for (const name of ["no-endpoint-services", "firewall-ips", "service-ips"])
    yield `add map ${TABLE} ${name} ${ADDRESS_MAP}`;
  for (const name of ["no-endpoint-nodeports", "service-nodeports"])
    yield `add map ${TABLE} ${name} ${PORT_MAP}`;
  for (const [chain, text] of JUMPS) yield rule(chain, text);
  yield rule("mark-for-masquerade", `mark set mark or ${MASQUERADE}`);
  yield rule("masquerading", `mark and ${MASQUERADE} == 0 return`);
  yield rule("masquerading", `mark set mark xor ${MASQUERADE}`);
  yield rule("masquerading", "masquerade fully-random");
  yield rule("cluster-ips-check", "ip daddr @cluster-ips reject");
  yield rule("cluster-ips-check", `ip daddr { ${serviceCidr} } drop`);
  yield rule("reject-chain", "reject");
  yield rule("service-endpoints-check", `${KEY} vmap @no-endpoint-services`);
  const onNode = `ip daddr @nodeport-ips ${PORT_KEY} vmap`;
  yield rule("nodeport-endpoints-check", `${onNode} @no-endpoint-nodeports`);
  yield rule("firewall-check", `${KEY} vmap @firewall-ips`);
  yield rule("services", `${KEY} vmap @service-ips`);
  yield rule("services", `${onNode} @service-nodeports`);
  for (const address of addresses) yield `add element ${TABLE} nodeport-ips { ${address} }`;
}

function chainName(prefix: string, name: string): string {
  return `${prefix}-${hashName(name, 8)}-${name}`;
}

interface Chains {
  internal: string;
  external: string;
  /** One for each endpoint of the Service. */
  endpoints: string[];
}

function chainsOf({ name, protocol, endpoints }: RuleService): Chains {
  const [whole, port = ""] = name.split(":");
  const base = `${whole}/${protocol}/${port}`;
  return {
    internal: chainName("service", base),
    external: chainName("external", base),
    endpoints: endpoints.map((endpoint) =>
      chainName("endpoint", `${base}__${endpoint.address}/${endpoint.port}`),
    ),
  };
}

/** Where a Service's addresses and node port lead, or that nothing answers there. */
function* elements(service: RuleService, chains: Chains): Generator<string> {
  const { clusterIps, external, nodePort, endpoints, protocol } = service;
  const isEmpty = endpoints.length === 0;
  const map = isEmpty ? "no-endpoint-services" : "service-ips";
  const verdict = (chain: string) => (isEmpty ? "goto reject-chain" : `goto ${chain}`);
  for (const { address, port } of clusterIps) {
    yield `add element ${TABLE} cluster-ips { ${address} }`;
    const key = `${address} . ${protocol} . ${port}`;
    yield `add element ${TABLE} ${map} { ${key} : ${verdict(chains.internal)} }`;
  }
  for (const { address, port } of external) {
    const key = `${address} . ${protocol} . ${port}`;
    yield `add element ${TABLE} ${map} { ${key} : ${verdict(chains.external)} }`;
  }
  if (nodePort === undefined) return;
  const ports = isEmpty ? "no-endpoint-nodeports" : "service-nodeports";
  const to = verdict(chains.external);
  yield `add element ${TABLE} ${ports} { ${protocol} . ${nodePort} : ${to} }`;
}

/** The chains of a Service that has endpoints. */
function* choice(
  service: RuleService,
  { chains, node }: { chains: Chains; node: RuleNode },
): Generator<string> {
  const { protocol, endpoints, clusterIps } = service;
  const { internal, external } = chains;
  for (const chain of chains.endpoints) yield `add chain ${TABLE} ${chain}`;
  yield `add chain ${TABLE} ${internal}`;
  for (const { address, port } of clusterIps) {
    const asked = `ip daddr ${address} ${protocol} dport ${port}`;
    yield rule(internal, `${asked} ip saddr != ${node.clusterCidr} jump mark-for-masquerade`);
  }
  if (service.external.length > 0 || service.nodePort !== undefined) {
    yield `add chain ${TABLE} ${external}`;
    yield rule(external, "jump mark-for-masquerade");
    yield rule(external, `goto ${internal}`);
  }
  const turns = chains.endpoints.map((chain, turn) => `${turn} : goto ${chain}`);
  yield rule(internal, `numgen random mod ${turns.length} vmap { ${turns.join(" , ")} }`);
  for (const [index, { address, port }] of endpoints.entries()) {
    const chain = chains.endpoints[index]!;
    yield rule(chain, `ip saddr ${address} jump mark-for-masquerade`);
    yield rule(chain, `meta l4proto ${protocol} dnat to ${address}:${port}`);
  }
}

function* serviceRules(service: RuleService, node: RuleNode): Generator<string> {
  const chains = chainsOf(service);
  if (service.endpoints.length > 0) yield* choice(service, { chains, node });
  yield* elements(service, chains);
}

/**
 * Inputs of `nft -f -` that make the whole table in a namespace that has none, one transaction for
 * each `services` of them (all).
 */
export function* nftablesRules(
  rows: Iterable<ServiceRow>,
  node: RuleNode,
  { services = Number.POSITIVE_INFINITY }: { services?: number } = {},
): Generator<string> {
  let lines = [...base(node)];
  let count = 0;
  for (const row of rows) {
    if (count === services) {
      yield `${lines.join("\n")}\n`;
      lines = [];
      count = 0;
    }
    count += 1;
    lines.push(...serviceRules(toRuleService(row), node));
  }
  yield `${lines.join("\n")}\n`;
}
