// Flags and files as they are written: what they mean together, and the sentence for each that
// means nothing. Field by field: config/fields.test.ts.
import test from "ava";
import type { ConfigFile } from "./config/file.ts";
import { effectiveValues, type Flags, type Given, readConfig } from "./config.ts";
import { UserError } from "./exit.ts";
import { formatRange } from "./model/address.ts";
import { DEFAULT_CONFIG } from "./model/config.ts";

function file(text: string): ConfigFile {
  const head = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";
  return { path: "kp.yaml", text: head + text };
}

/** What kubeadm writes: every field, as Go's zeros. */
const KUBEADM = file(`bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal:
  bridgeInterface: ""
  interfaceNamePrefix: ""
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables:
  localhostNodePorts: null
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
ipvs:
  excludeCIDRs: null
  minSyncPeriod: 0s
  scheduler: ""
  strictARP: false
  syncPeriod: 0s
  tcpFinTimeout: 0s
  tcpTimeout: 0s
  udpTimeout: 0s
logging:
  flushFrequency: 0
  options:
    json:
      infoBufferSize: "0"
    text:
      infoBufferSize: "0"
  verbosity: 0
metricsBindAddress: ""
mode: ""
nftables:
  masqueradeAll: false
  masqueradeBit: null
  minSyncPeriod: 0s
  syncPeriod: 0s
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel:
  enableDSR: false
  forwardHealthCheckVip: false
  networkName: ""
  rootHnsEndpointName: ""
  sourceVip: ""
`);

test("without anything set everything is as kube-proxy in nftables mode has it", (t) => {
  const { config, notes } = readConfig({ flags: {} });
  t.deepEqual(config, {
    proxy: DEFAULT_CONFIG,
    nodeName: undefined,
    source: { kubeconfig: undefined, master: undefined },
    minSyncPeriodMs: 1000,
    syncPeriodMs: 30_000,
    healthz: { address: "0.0.0.0", port: 10256 },
    metrics: { address: "127.0.0.1", port: 10249 },
    bindAddressHardFail: false,
    logLevel: "info",
    logFormat: "text",
  });
  t.deepEqual(notes, []);
});

test("manifests take effect at once unless a period is given", (t) => {
  const period = (given: Given) => readConfig({ ...given, manifests: "x" }).config.minSyncPeriodMs;
  t.is(period({ flags: {} }), 0);
  t.is(period({ flags: {}, file: KUBEADM }), 0);
  t.is(period({ flags: { "iptables-min-sync-period": "1500ms" } }), 1500);
  t.is(period({ flags: {}, file: file("iptables: {minSyncPeriod: 1s}") }), 1000);
  t.is(period({ flags: { "iptables-sync-period": "500ms" } }), 0);
  const inForce = effectiveValues({ flags: {}, manifests: "x" });
  t.is(inForce.get("iptables.minSyncPeriod"), "0s");
});

test("a period of 0 is meant in a flag, and nothing said in a file", (t) => {
  const flags = { "nftables-min-sync-period": "0" };
  t.is(readConfig({ flags }).config.minSyncPeriodMs, 0);
  const zero = file("iptables: {minSyncPeriod: 0s}");
  t.is(readConfig({ flags: {}, file: zero }).config.minSyncPeriodMs, 1000);
});

test("flags are read as kube-proxy reads them", (t) => {
  const { config } = readConfig({
    flags: {
      "nodeport-addresses": "192.168.50.9/24, 2001:db8::/64",
      "detect-local-mode": "BridgeInterface",
      "cluster-cidr": "10.244.0.0/16,fd00:10:244::/56",
      "pod-bridge-interface": "cni0",
      "masquerade-all": "true",
      "hostname-override": " Node-A ",
      "bind-address": "2001:db8::2",
      v: "=5",
    },
  });
  t.like(config, { nodeName: "node-a", logLevel: "debug" });
  t.like(config.proxy, {
    bridgeInterface: "cni0",
    interfaceNamePrefix: "",
    masqueradeAll: true,
    primaryAddress: "2001:db8::2",
  });
  const { nodePortAddresses, clusterCIDRs } = config.proxy;
  t.deepEqual(Array.from(nodePortAddresses === "primary" ? [] : nodePortAddresses, formatRange), [
    "192.168.50.0/24",
    "2001:db8::/64",
  ]);
  t.deepEqual(clusterCIDRs.map(formatRange), ["10.244.0.0/16", "fd00:10:244::/56"]);
});

test("primary is a word of its own, and an empty flag is every local address", (t) => {
  const wanted = (flags: Flags) => readConfig({ flags }).config.proxy.nodePortAddresses;
  t.is(wanted({ "nodeport-addresses": "primary" }), "primary");
  const ranges = wanted({ "nodeport-addresses": "" });
  t.deepEqual(Array.from(ranges === "primary" ? [] : ranges, formatRange), ["0.0.0.0/0", "::/0"]);
});

test("the file that kubeadm writes is taken without a word", (t) => {
  const { config, notes } = readConfig({ flags: {}, file: KUBEADM });
  t.deepEqual(notes, []);
  t.deepEqual(config.proxy.clusterCIDRs.map(formatRange), ["10.244.0.0/16"]);
  t.deepEqual(config.source, {
    kubeconfig: "/var/lib/kube-proxy/kubeconfig.conf",
    master: undefined,
  });
});

test("with manifests the kubeconfig of a file has no effect, and that is told", (t) => {
  const { config, notes } = readConfig({ flags: {}, file: KUBEADM, manifests: "folder" });
  t.deepEqual(config.source, { manifests: "folder" });
  t.deepEqual(notes, [
    'clientConnection.kubeconfig in "kp.yaml" has no effect: objects come from --manifests',
  ]);
});

test("a server without a port gets its own, on the family of the node's address", (t) => {
  const both = (text: string) => {
    const { healthz, metrics } = readConfig({ flags: {}, file: file(text) }).config;
    return [healthz, metrics];
  };
  t.deepEqual(both('healthzBindAddress: 127.0.0.1\nmetricsBindAddress: "::"'), [
    { address: "127.0.0.1", port: 10256 },
    { address: "::", port: 10249 },
  ]);
  t.deepEqual(both('bindAddress: "2001:db8::2"'), [
    { address: "::", port: 10256 },
    { address: "::1", port: 10249 },
  ]);
  t.deepEqual(both("healthzBindAddress: 127.0.0.1:0")[0], { address: "127.0.0.1", port: 0 });
  const flags = { "healthz-bind-address": "", "metrics-bind-address": "" };
  t.like(readConfig({ flags }).config, { healthz: undefined, metrics: undefined });
});

test("an unspecified bind address leaves the node's primary address alone", (t) => {
  for (const address of ["0.0.0.0", "::"])
    t.is(readConfig({ flags: { "bind-address": address } }).config.proxy.primaryAddress, "");
});

test("with a file, flags for logging and the node's name count, the others do not", (t) => {
  const flags = { v: "4", node: "b", "cluster-cidr": "10.1.0.0/16", "oom-score-adj": "1" };
  const given = { flags, file: file("hostnameOverride: a\nclusterCIDR: 10.2.0.0/16") };
  const { config, notes } = readConfig(given);
  t.like(config, { nodeName: "b", logLevel: "debug" });
  t.deepEqual(config.proxy.clusterCIDRs.map(formatRange), ["10.2.0.0/16"]);
  t.deepEqual(notes, ["Flags without effect beside --config: --cluster-cidr, --oom-score-adj"]);
});

test("the section of the mode counts, and what is in the other is told", (t) => {
  const text = "iptables: {masqueradeAll: true, syncPeriod: 2m}\nnftables: {minSyncPeriod: 3s}\n";
  const iptables = readConfig({ flags: {}, file: file(text) });
  t.like(iptables.config, { minSyncPeriodMs: 1000, syncPeriodMs: 120_000 });
  t.true(iptables.config.proxy.masqueradeAll);
  t.deepEqual(iptables.notes, [
    'nftables.minSyncPeriod in "kp.yaml" has no effect: with mode "" those of iptables count',
  ]);
  const nftables = readConfig({ flags: {}, file: file(`${text}mode: nftables`) });
  t.like(nftables.config, { minSyncPeriodMs: 3000, syncPeriodMs: 30_000 });
  t.false(nftables.config.proxy.masqueradeAll);
  t.is(nftables.notes.length, 3);
});

test("flags count whatever the mode is", (t) => {
  const flags = { "proxy-mode": "nftables", "masquerade-all": "1", "iptables-sync-period": "1m" };
  const { config, notes } = readConfig({ flags });
  t.true(config.proxy.masqueradeAll);
  t.is(config.syncPeriodMs, 60_000);
  t.is(notes.length, 1);
});

test("a gate that is none of ours is told once, one of ours is honoured", (t) => {
  const flags = { "feature-gates": "AllowServiceExternalIPs=false,NodeSwap=true,WinDSR=false" };
  const { config, notes } = readConfig({ flags });
  t.false(config.proxy.externalIPs);
  t.deepEqual(notes, [
    "--feature-gates has no effect as to NodeSwap, WinDSR: bpfsvc has no such choice",
  ]);
});

test("what asks for nothing is not told: a 0, or loopback node ports that are not wanted", (t) => {
  const text = "conntrack: {maxPerCore: 0}\niptables: {localhostNodePorts: false}";
  t.deepEqual(readConfig({ flags: {}, file: file(text) }).notes, []);
});

const FAULTS: readonly (readonly [Partial<Given>, RegExp])[] = [
  [
    { flags: { "nodeport-addresses": "10.0.0.2" } },
    /^--nodeport-addresses holds "10.0.0.2", which/,
  ],
  [{ flags: { "nodeport-addresses": "primary,10.0.0.0/8" } }, /"primary" alone, or ranges alone/],
  [{ flags: { "cluster-cidr": "10.244.0.0/33" } }, /^--cluster-cidr holds "10.244.0.0\/33"/],
  [{ flags: { "cluster-cidr": "10.1.0.0/16,10.2.0.0/16" } }, /with two IPv4 ranges: name the one/],
  [
    { flags: { "detect-local-mode": "x" } },
    /^--detect-local-mode is "x": write one of ClusterCIDR/,
  ],
  [
    { flags: { "detect-local-mode": "BridgeInterface" } },
    /but --pod-bridge-interface is not given: name/,
  ],
  [
    { file: file("detectLocalMode: InterfaceNamePrefix") },
    /^detectLocalMode in "kp.yaml" is .*, but detectLocal.interfaceNamePrefix in "kp.yaml" is not/,
  ],
  [{ flags: { "pod-bridge-interface": "sixteencharacter" } }, /has more than 15 characters/],
  [
    { flags: { "iptables-min-sync-period": "2m" } },
    /^--iptables-min-sync-period, "2m", is longer than iptables.syncPeriod, "30s": shorten/,
  ],
  [{ flags: { "config-sync-period": "0s" } }, /^--config-sync-period is "0s": .* more than 0s/],
  [{ flags: { "masquerade-all": "yes" } }, /^--masquerade-all is "yes": write true or false/],
  [
    { flags: { "feature-gates": "NodeSwap" } },
    /^--feature-gates has "" for "NodeSwap": write true/,
  ],
  [{ flags: { node: "a", "hostname-override": "b" } }, /is "a", but .* mean the same: give one/],
  [
    { flags: { "iptables-sync-period": "1m", "nftables-sync-period": "2m" } },
    /--iptables-sync-period is "1m", but --nftables-sync-period is "2m"/,
  ],
  [{ manifests: "x", master: "https://k" }, /--manifests and --master are both given/],
  [{ manifests: "x", flags: { kubeconfig: "k" } }, /--manifests and --kubeconfig are both given/],
  [{ logLevel: "warn", flags: { v: "9" } }, /--log-level is "warn" and -v is "9": give one/],
];

for (const [given, message] of FAULTS) {
  test(`${JSON.stringify(given)} is refused with what would be right`, (t) => {
    t.throws(() => readConfig({ flags: {}, ...given }), { instanceOf: UserError, message });
  });
}
