// The generators against the text that kube-proxy's own tests expect of such Services, and the
// kernel's opinion of it.
import test from "ava";
import type { ServiceRow } from "../../control/model/rows.ts";
import { iptablesRules } from "./iptables.ts";
import { nftablesRules } from "./nftables.ts";
import { hashName, type RuleNode, toRuleService } from "./shape.ts";

const node: RuleNode = {
  clusterCidr: "10.0.0.0/8",
  serviceCidr: "172.30.0.0/16",
  addresses: ["192.168.0.2"],
};

function row(options: {
  name: string;
  clusterIp: string;
  endpoints: readonly string[];
  nodePort?: number;
}): ServiceRow {
  const { name, clusterIp, endpoints, nodePort } = options;
  const members = endpoints.map((_, index) => index);
  const all = { kind: "uniform", members, whenEmpty: "refuse" } as const;
  const ports = nodePort === undefined ? [] : [nodePort];
  return {
    key: `${name}:p80/TCP/4`,
    namespace: name.split("/")[0]!,
    name: name.split("/")[1]!,
    port: "p80",
    protocol: "TCP",
    family: 4,
    type: "ClusterIP",
    externalPolicy: "Cluster",
    affinitySeconds: 0,
    sources: undefined,
    frontends: [
      { kind: "clusterIP", address: clusterIp, port: 80 },
      ...ports.map((port) => ({ kind: "nodePort", address: "192.168.0.2", port }) as const),
    ],
    backends: endpoints.map((address) => ({
      address,
      port: 80,
      state: "ready",
      weight: 1,
      local: false,
    })),
    internal: all,
    inside: all,
    outside: all,
  };
}

const plain = row({ name: "ns1/svc1", clusterIp: "172.30.0.41", endpoints: ["10.180.0.1"] });
const ported = row({
  name: "ns3/svc3",
  clusterIp: "172.30.0.43",
  endpoints: ["10.180.0.3", "10.180.0.4"],
  nodePort: 3003,
});
const empty = row({ name: "ns6/svc6", clusterIp: "172.30.0.46", endpoints: [] });

/** Lines about one Service, without "add … ip kube-proxy". */
function linesOf(text: string, pattern: RegExp): string[] {
  return text.split("\n").filter((line) => pattern.test(line));
}

test("names carry the hashes that kube-proxy gives them", (t) => {
  t.is(hashName("ns1/svc1/tcp/p80", 8), "ULMVA6XW");
  t.is(hashName("ns1/svc1/tcp/p80__10.180.0.1/80", 8), "5OJB2KTY");
  t.is(hashName("ns1/svc1:p80tcp", 16), "XPGD46QRK7WJZT7O");
});

test("nftables: a Service has a chain, an endpoint has one, and a map leads there", (t) => {
  const [text] = [...nftablesRules([plain], node)];
  const service = "service-ULMVA6XW-ns1/svc1/tcp/p80";
  const endpoint = "endpoint-5OJB2KTY-ns1/svc1/tcp/p80__10.180.0.1/80";
  t.deepEqual(
    linesOf(text!, /svc1|172\.30\.0\.41/).map((line) => line.replace("ip kube-proxy ", "")),
    [
      `add chain ${endpoint}`,
      `add chain ${service}`,
      `add rule ${service} ip daddr 172.30.0.41 tcp dport 80 ip saddr != 10.0.0.0/8 ` +
        "jump mark-for-masquerade",
      `add rule ${service} numgen random mod 1 vmap { 0 : goto ${endpoint} }`,
      `add rule ${endpoint} ip saddr 10.180.0.1 jump mark-for-masquerade`,
      `add rule ${endpoint} meta l4proto tcp dnat to 10.180.0.1:80`,
      "add element cluster-ips { 172.30.0.41 }",
      `add element service-ips { 172.30.0.41 . tcp . 80 : goto ${service} }`,
    ],
  );
});

test("nftables: a node port is masqueraded, and a Service without endpoints rejects", (t) => {
  const [text] = [...nftablesRules([ported, empty], node)];
  const external = "external-4AT6LBPK-ns3/svc3/tcp/p80";
  for (const line of [
    `add rule ip kube-proxy ${external} jump mark-for-masquerade`,
    `add rule ip kube-proxy ${external} goto service-4AT6LBPK-ns3/svc3/tcp/p80`,
    `add element ip kube-proxy service-nodeports { tcp . 3003 : goto ${external} }`,
    "add element ip kube-proxy no-endpoint-services { 172.30.0.46 . tcp . 80 : goto reject-chain }",
  ])
    t.true(text!.split("\n").includes(line), line);
});

test("nftables: transactions of so many Services together have every line once", (t) => {
  const rows = [plain, ported, empty];
  const [whole] = [...nftablesRules(rows, node)];
  const parts = [...nftablesRules(rows, node, { services: 1 })];
  t.is(parts.length, 3);
  t.is(parts.join(""), whole!);
});

test("iptables: a Service is drawn by chance, an endpoint is the end of it", (t) => {
  const text = iptablesRules([ported], node);
  const hash = "X27LE4BHSL4DOUIK";
  t.deepEqual(linesOf(text, /^-A .*(svc3|X27LE4BHSL4DOUIK)/), [
    '-A KUBE-SERVICES -m comment --comment "ns3/svc3:p80 cluster IP" -m tcp -p tcp ' +
      `-d 172.30.0.43 --dport 80 -j KUBE-SVC-${hash}`,
    `-A KUBE-NODEPORTS -m comment --comment "ns3/svc3:p80" -m tcp -p tcp --dport 3003 ` +
      `-j KUBE-EXT-${hash}`,
    `-A KUBE-SVC-${hash} -m comment --comment "ns3/svc3:p80 cluster IP" -m tcp -p tcp ` +
      "-d 172.30.0.43 --dport 80 ! -s 10.0.0.0/8 -j KUBE-MARK-MASQ",
    `-A KUBE-EXT-${hash} -m comment --comment ` +
      '"masquerade traffic for ns3/svc3:p80 external destinations" -j KUBE-MARK-MASQ',
    `-A KUBE-EXT-${hash} -j KUBE-SVC-${hash}`,
    `-A KUBE-SVC-${hash} -m comment --comment "ns3/svc3:p80 -> 10.180.0.3:80" ` +
      "-m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-OYPFS5VJICHGATKP",
    `-A KUBE-SVC-${hash} -m comment --comment "ns3/svc3:p80 -> 10.180.0.4:80" ` +
      "-j KUBE-SEP-QWDKEFUM2O5ZNFM4",
    '-A KUBE-SEP-OYPFS5VJICHGATKP -m comment --comment "ns3/svc3:p80" -s 10.180.0.3 ' +
      "-j KUBE-MARK-MASQ",
    '-A KUBE-SEP-OYPFS5VJICHGATKP -m comment --comment "ns3/svc3:p80" -m tcp -p tcp -j DNAT ' +
      "--to-destination 10.180.0.3:80",
    '-A KUBE-SEP-QWDKEFUM2O5ZNFM4 -m comment --comment "ns3/svc3:p80" -s 10.180.0.4 ' +
      "-j KUBE-MARK-MASQ",
    '-A KUBE-SEP-QWDKEFUM2O5ZNFM4 -m comment --comment "ns3/svc3:p80" -m tcp -p tcp -j DNAT ' +
      "--to-destination 10.180.0.4:80",
  ]);
});

test("iptables: a large cluster's endpoints have no comments", (t) => {
  const endpoints = Array.from({ length: 1001 }, (_, index) => `10.1.${index >> 8}.${index & 255}`);
  const large = row({ name: "ns1/svc1", clusterIp: "172.30.0.41", endpoints });
  const lines = linesOf(iptablesRules([large], node), /^-A KUBE-S(VC|EP)/);
  t.is(lines.filter((line) => line.includes("--comment")).length, 1);
});

test("what generators do not write is refused: no rival is flattered or spared", (t) => {
  t.throws(() => toRuleService({ ...plain, affinitySeconds: 10 }), { message: /affinity/ });
  t.throws(() => toRuleService({ ...plain, externalPolicy: "Local" }), { message: /Local/ });
  t.throws(() => toRuleService({ ...plain, family: 6 }), { message: /IPv6/ });
});
