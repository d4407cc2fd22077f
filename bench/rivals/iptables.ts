// The chains that kube-proxy 1.36 keeps in iptables mode, for given Services, as one input for
// `iptables-restore`: what its pkg/proxy/iptables/proxier.go writes in a full sync, for IPv4. Pure;
// loads nothing.
import type { ServiceRow } from "../../control/model/rows.ts";
import { hashName, type RuleNode, type RuleService, toRuleService } from "./shape.ts";

/** From so many endpoints on kube-proxy leaves out the comments of their rules. */
const LARGE_CLUSTER_ENDPOINTS = 1000;
const MARK = "0x4000";
const NEW = "-m conntrack --ctstate NEW";

function comment(text: string): string {
  return `-m comment --comment "${text}"`;
}

const FILTER = [
  ":INPUT ACCEPT [0:0]",
  ":FORWARD ACCEPT [0:0]",
  ":OUTPUT ACCEPT [0:0]",
  ":KUBE-NODEPORTS - [0:0]",
  ":KUBE-SERVICES - [0:0]",
  ":KUBE-EXTERNAL-SERVICES - [0:0]",
  ":KUBE-FIREWALL - [0:0]",
  ":KUBE-FORWARD - [0:0]",
  ":KUBE-PROXY-FIREWALL - [0:0]",
  `-A INPUT ${NEW} ${comment("kubernetes load balancer firewall")} -j KUBE-PROXY-FIREWALL`,
  `-A INPUT ${comment("kubernetes health check service ports")} -j KUBE-NODEPORTS`,
  `-A INPUT ${NEW} ${comment("kubernetes externally-visible service portals")} ` +
    "-j KUBE-EXTERNAL-SERVICES",
  "-A INPUT -j KUBE-FIREWALL",
  `-A FORWARD ${NEW} ${comment("kubernetes load balancer firewall")} -j KUBE-PROXY-FIREWALL`,
  `-A FORWARD ${comment("kubernetes forwarding rules")} -j KUBE-FORWARD`,
  `-A FORWARD ${NEW} ${comment("kubernetes service portals")} -j KUBE-SERVICES`,
  `-A FORWARD ${NEW} ${comment("kubernetes externally-visible service portals")} ` +
    "-j KUBE-EXTERNAL-SERVICES",
  `-A OUTPUT ${NEW} ${comment("kubernetes load balancer firewall")} -j KUBE-PROXY-FIREWALL`,
  `-A OUTPUT ${NEW} ${comment("kubernetes service portals")} -j KUBE-SERVICES`,
  "-A OUTPUT -j KUBE-FIREWALL",
  `-A KUBE-FIREWALL ! -s 127.0.0.0/8 -d 127.0.0.0/8 ` +
    `${comment("block incoming localnet connections")} ` +
    "-m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",
  "-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP",
  `-A KUBE-FORWARD ${comment("kubernetes forwarding rules")} ` +
    `-m mark --mark ${MARK}/${MARK} -j ACCEPT`,
  `-A KUBE-FORWARD ${comment("kubernetes forwarding conntrack rule")} ` +
    "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
] as const;

const NAT_CHAINS = [
  ":PREROUTING ACCEPT [0:0]",
  ":INPUT ACCEPT [0:0]",
  ":OUTPUT ACCEPT [0:0]",
  ":POSTROUTING ACCEPT [0:0]",
  ":KUBE-SERVICES - [0:0]",
  ":KUBE-NODEPORTS - [0:0]",
  ":KUBE-POSTROUTING - [0:0]",
  ":KUBE-MARK-MASQ - [0:0]",
] as const;

const NAT = [
  `-A PREROUTING ${comment("kubernetes service portals")} -j KUBE-SERVICES`,
  `-A OUTPUT ${comment("kubernetes service portals")} -j KUBE-SERVICES`,
  `-A POSTROUTING ${comment("kubernetes postrouting rules")} -j KUBE-POSTROUTING`,
  `-A KUBE-POSTROUTING -m mark ! --mark ${MARK}/${MARK} -j RETURN`,
  `-A KUBE-POSTROUTING -j MARK --xor-mark ${MARK}`,
  `-A KUBE-POSTROUTING ${comment("kubernetes service traffic requiring SNAT")} ` +
    "-j MASQUERADE --random-fully",
  `-A KUBE-MARK-MASQ -j MARK --or-mark ${MARK}`,
] as const;

interface Chains {
  service: string;
  external: string;
  /** One for each endpoint of the Service. */
  endpoints: string[];
}

/** The chains of a Service, by the hashes that kube-proxy names them with. */
function chainsOf({ name, protocol, endpoints }: RuleService): Chains {
  const hash = hashName(name + protocol, 16);
  return {
    service: `KUBE-SVC-${hash}`,
    external: `KUBE-EXT-${hash}`,
    endpoints: endpoints.map(
      ({ address, port }) => `KUBE-SEP-${hashName(`${name}${protocol}${address}:${port}`, 16)}`,
    ),
  };
}

function isExternal({ external, nodePort }: RuleService): boolean {
  return external.length > 0 || nodePort !== undefined;
}

/** Matches an address and port of a Service. */
function asked(protocol: string, { address, port }: { address: string; port: number }): string {
  return `-m ${protocol} -p ${protocol} -d ${address} --dport ${port}`;
}

/** The rules of the filter table: a Service without endpoints refuses. */
function* refusals(service: RuleService): Generator<string> {
  const { name, protocol, clusterIps, external, nodePort, endpoints } = service;
  if (endpoints.length > 0) return;
  const why = comment(`${name} has no endpoints`);
  for (const frontend of clusterIps)
    yield `-A KUBE-SERVICES ${why} ${asked(protocol, frontend)} -j REJECT`;
  for (const frontend of external)
    yield `-A KUBE-EXTERNAL-SERVICES ${why} ${asked(protocol, frontend)} -j REJECT`;
  if (nodePort !== undefined)
    yield `-A KUBE-EXTERNAL-SERVICES ${why} -m addrtype --dst-type LOCAL ` +
      `-m ${protocol} -p ${protocol} --dport ${nodePort} -j REJECT`;
}

/** A Service that has endpoints, with its chains. */
interface Named {
  service: RuleService;
  chains: Chains;
}

/** The rules of KUBE-SERVICES and KUBE-NODEPORTS: every packet of a new connection walks these. */
function* dispatch({ service, chains }: Named): Generator<string> {
  const { name, protocol, clusterIps, external, nodePort } = service;
  for (const frontend of clusterIps)
    yield `-A KUBE-SERVICES ${comment(`${name} cluster IP`)} ${asked(protocol, frontend)} ` +
      `-j ${chains.service}`;
  for (const frontend of external)
    yield `-A KUBE-SERVICES ${comment(`${name} ${words[frontend.kind]} IP`)} ` +
      `${asked(protocol, frontend)} -j ${chains.external}`;
  if (nodePort !== undefined)
    yield `-A KUBE-NODEPORTS ${comment(name)} -m ${protocol} -p ${protocol} --dport ${nodePort} ` +
      `-j ${chains.external}`;
}

const words: Readonly<Record<string, string>> = {
  externalIP: "external",
  loadBalancer: "loadbalancer",
};

/** The rules of the chains of a Service and of its endpoints. */
function* choice(
  { service, chains }: Named,
  { node, isLarge }: { node: RuleNode; isLarge: boolean },
): Generator<string> {
  const { name, protocol, clusterIps, endpoints } = service;
  const note = (text: string) => (isLarge ? "" : `${comment(text)} `);
  for (const frontend of clusterIps)
    yield `-A ${chains.service} ${comment(`${name} cluster IP`)} ${asked(protocol, frontend)} ` +
      `! -s ${node.clusterCidr} -j KUBE-MARK-MASQ`;
  if (isExternal(service)) {
    const why = comment(`masquerade traffic for ${name} external destinations`);
    yield `-A ${chains.external} ${why} -j KUBE-MARK-MASQ`;
    yield `-A ${chains.external} -j ${chains.service}`;
  }
  for (const [index, { address, port }] of endpoints.entries()) {
    const left = endpoints.length - index;
    const chance = (1 / left).toFixed(10);
    const draw = left === 1 ? "" : `-m statistic --mode random --probability ${chance} `;
    yield `-A ${chains.service} ${note(`${name} -> ${address}:${port}`)}${draw}` +
      `-j ${chains.endpoints[index]}`;
  }
  for (const [index, { address, port }] of endpoints.entries()) {
    const rule = `-A ${chains.endpoints[index]} ${note(name)}`;
    yield `${rule}-s ${address} -j KUBE-MARK-MASQ`;
    yield `${rule}-m ${protocol} -p ${protocol} -j DNAT --to-destination ${address}:${port}`;
  }
}

/** The nat table, where all Services with endpoints are. */
function* nat(named: readonly Named[], options: { node: RuleNode; isLarge: boolean }) {
  yield "*nat";
  yield* NAT_CHAINS;
  for (const { service, chains } of named) {
    yield `:${chains.service} - [0:0]`;
    if (isExternal(service)) yield `:${chains.external} - [0:0]`;
    for (const chain of chains.endpoints) yield `:${chain} - [0:0]`;
  }
  yield* NAT;
  for (const one of named) yield* dispatch(one);
  const last = "kubernetes service nodeports; NOTE: this must be the last rule in this chain";
  yield `-A KUBE-SERVICES ${comment(last)} -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS`;
  for (const one of named) yield* choice(one, options);
  yield "COMMIT";
}

/** The input of `iptables-restore` that makes all chains in a namespace that has none. */
export function iptablesRules(rows: Iterable<ServiceRow>, node: RuleNode): string {
  const services = Array.from(rows, toRuleService);
  const endpoints = services.reduce((sum, service) => sum + service.endpoints.length, 0);
  const isLarge = endpoints > LARGE_CLUSTER_ENDPOINTS;
  const lines = ["*filter", ...FILTER];
  for (const service of services) lines.push(...refusals(service));
  lines.push("COMMIT");
  const named = services
    .filter((service) => service.endpoints.length > 0)
    .map((service) => ({ service, chains: chainsOf(service) }));
  for (const line of nat(named, { node, isLarge })) lines.push(line);
  return `${lines.join("\n")}\n`;
}
