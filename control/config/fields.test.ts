// The table of settings against what kube-proxy 1.36 has: which fields and flags there are, their
// defaults, and that each is honoured, told to be without effect, or refused (§19).
import test from "ava";
import { effectiveValues, type Given, readConfig } from "../config.ts";
import { UserError } from "../exit.ts";
import { FIELD_LIST, FIELDS, type FieldName, fieldsOfFlag } from "./fields.ts";
import { type ConfigFile, formatConfigFile } from "./file.ts";

/** What kube-proxy 1.36 takes where nothing is set, read in its v1alpha1/defaults.go. */
const DEFAULTS: Record<string, unknown> = {
  featureGates: {},
  clientConnection: {
    kubeconfig: "",
    acceptContentTypes: "",
    contentType: "application/vnd.kubernetes.protobuf",
    qps: 5,
    burst: 10,
  },
  logging: {
    format: "text",
    flushFrequency: "5s",
    verbosity: 0,
    vmodule: null,
    options: {
      json: { infoBufferSize: "0", splitStream: false },
      text: { infoBufferSize: "0", splitStream: false },
    },
  },
  hostnameOverride: "",
  bindAddress: "0.0.0.0",
  healthzBindAddress: "0.0.0.0:10256",
  metricsBindAddress: "127.0.0.1:10249",
  bindAddressHardFail: false,
  enableProfiling: false,
  showHiddenMetricsForVersion: "",
  mode: "",
  iptables: {
    masqueradeBit: 14,
    masqueradeAll: false,
    localhostNodePorts: false,
    syncPeriod: "30s",
    minSyncPeriod: "1s",
  },
  ipvs: {
    syncPeriod: "30s",
    minSyncPeriod: "0s",
    scheduler: "",
    excludeCIDRs: null,
    strictARP: false,
    tcpTimeout: "0s",
    tcpFinTimeout: "0s",
    udpTimeout: "0s",
  },
  nftables: { masqueradeBit: 14, masqueradeAll: false, syncPeriod: "30s", minSyncPeriod: "1s" },
  winkernel: {
    networkName: "",
    sourceVip: "",
    enableDSR: false,
    rootHnsEndpointName: "",
    forwardHealthCheckVip: false,
  },
  detectLocalMode: "",
  detectLocal: { bridgeInterface: "", interfaceNamePrefix: "" },
  clusterCIDR: "",
  nodePortAddresses: null,
  oomScoreAdj: -999,
  conntrack: {
    maxPerCore: 32768,
    min: 131072,
    tcpEstablishedTimeout: "24h0m0s",
    tcpCloseWaitTimeout: "1h0m0s",
    tcpBeLiberal: false,
    udpTimeout: "0s",
    udpStreamTimeout: "0s",
  },
  configSyncPeriod: "15m0s",
  portRange: "",
  windowsRunAsService: false,
};

/** The flags of kube-proxy 1.36 that set a field, less healthz-port and metrics-port. */
const KUBE_PROXY_FLAGS = `bind-address bind-address-hard-fail cluster-cidr config-sync-period
  conntrack-max-per-core conntrack-min conntrack-tcp-be-liberal conntrack-tcp-timeout-close-wait
  conntrack-tcp-timeout-established conntrack-udp-timeout conntrack-udp-timeout-stream
  detect-local-mode feature-gates healthz-bind-address hostname-override
  iptables-localhost-nodeports iptables-masquerade-bit iptables-min-sync-period
  iptables-sync-period ipvs-exclude-cidrs ipvs-min-sync-period ipvs-scheduler ipvs-strict-arp
  ipvs-sync-period ipvs-tcp-timeout ipvs-tcpfin-timeout ipvs-udp-timeout kube-api-burst
  kube-api-content-type kube-api-qps kubeconfig log-flush-frequency log-json-info-buffer-size
  log-json-split-stream log-text-info-buffer-size log-text-split-stream logging-format
  masquerade-all metrics-bind-address nodeport-addresses oom-score-adj pod-bridge-interface
  pod-interface-name-prefix profiling proxy-mode show-hidden-metrics-for-version v vmodule`;

/** For each field: a value other than the default, the same as a flag's text, and a wrong one. */
const SAMPLES: Record<FieldName, { good: unknown; text?: string; bad: unknown }> = {
  featureGates: {
    good: { AllowServiceExternalIPs: false },
    text: "AllowServiceExternalIPs=false",
    bad: { NoSuchGate: true },
  },
  "clientConnection.kubeconfig": { good: "/etc/kubeconfig", bad: 5 },
  "clientConnection.acceptContentTypes": { good: "application/json", bad: ["application/json"] },
  "clientConnection.contentType": { good: "application/json", bad: 1 },
  "clientConnection.qps": { good: 50.5, bad: "fast" },
  "clientConnection.burst": { good: 100, bad: -1 },
  "logging.format": { good: "json", bad: "xml" },
  "logging.flushFrequency": { good: "1s", bad: "often" },
  "logging.verbosity": { good: 4, bad: "high" },
  "logging.vmodule": {
    good: [{ filePattern: "proxier", verbosity: 9 }],
    text: "proxier=9",
    bad: 1,
  },
  "logging.options.json.infoBufferSize": { good: "64Ki", bad: 64 },
  "logging.options.json.splitStream": { good: true, bad: "yes" },
  "logging.options.text.infoBufferSize": { good: "64Ki", bad: 64 },
  "logging.options.text.splitStream": { good: true, bad: "yes" },
  hostnameOverride: { good: "node-x", bad: "node x" },
  bindAddress: { good: "192.168.50.2", bad: "192.168.50.2:80" },
  healthzBindAddress: { good: "127.0.0.1:1", bad: "127.0.0.1:65536" },
  metricsBindAddress: { good: "[::]:2", bad: "localhost:10249" },
  bindAddressHardFail: { good: true, bad: "yes" },
  enableProfiling: { good: true, bad: 1 },
  showHiddenMetricsForVersion: { good: "1.35", bad: 1.35 },
  mode: { good: "ipvs", bad: "userspace" },
  "iptables.masqueradeBit": { good: 5, bad: 32 },
  "iptables.masqueradeAll": { good: true, bad: "always" },
  "iptables.localhostNodePorts": { good: true, bad: "no" },
  "iptables.syncPeriod": { good: "1m", bad: "-1m" },
  "iptables.minSyncPeriod": { good: "2s", bad: "-2s" },
  "ipvs.syncPeriod": { good: "1m", bad: "1 minute" },
  "ipvs.minSyncPeriod": { good: "2s", bad: "-2s" },
  "ipvs.scheduler": { good: "lc", bad: 1 },
  "ipvs.excludeCIDRs": { good: ["10.0.0.0/8"], text: "10.0.0.0/8", bad: ["10.0.0.0"] },
  "ipvs.strictARP": { good: true, bad: "yes" },
  "ipvs.tcpTimeout": { good: "1s", bad: "-1s" },
  "ipvs.tcpFinTimeout": { good: "1s", bad: "-1s" },
  "ipvs.udpTimeout": { good: "1s", bad: "-1s" },
  "nftables.masqueradeBit": { good: 5, bad: -1 },
  "nftables.masqueradeAll": { good: true, bad: "always" },
  "nftables.syncPeriod": { good: "1m", bad: "-1m" },
  "nftables.minSyncPeriod": { good: "2s", bad: "soon" },
  "winkernel.networkName": { good: "net", bad: 1 },
  "winkernel.sourceVip": { good: "10.0.0.1", bad: 1 },
  "winkernel.enableDSR": { good: true, bad: 1 },
  "winkernel.rootHnsEndpointName": { good: "cbr0", bad: 1 },
  "winkernel.forwardHealthCheckVip": { good: true, bad: 1 },
  detectLocalMode: { good: "NodeCIDR", bad: "clustercidr" },
  "detectLocal.bridgeInterface": { good: "cni0", bad: "sixteencharacter" },
  "detectLocal.interfaceNamePrefix": { good: "veth", bad: "sixteencharacter" },
  clusterCIDR: { good: "10.244.0.0/16", bad: "10.244.0.0/33" },
  nodePortAddresses: { good: ["192.168.50.0/24"], text: "192.168.50.0/24", bad: ["192.168.50.2"] },
  oomScoreAdj: { good: -998, bad: -1001 },
  "conntrack.maxPerCore": { good: 1, bad: -1 },
  "conntrack.min": { good: 1, bad: 1.5 },
  "conntrack.tcpEstablishedTimeout": { good: "1h", bad: "-1h" },
  "conntrack.tcpCloseWaitTimeout": { good: "1m", bad: 60 },
  "conntrack.tcpBeLiberal": { good: true, bad: "yes" },
  "conntrack.udpTimeout": { good: "1s", bad: "-1s" },
  "conntrack.udpStreamTimeout": { good: "1s", bad: "-1s" },
  configSyncPeriod: { good: "1h", bad: "-1h" },
  portRange: { good: "1-2", bad: 1 },
  windowsRunAsService: { good: true, bad: "yes" },
};

/** A file with these fields, given by path. */
function fileOf(fields: Record<string, unknown>): ConfigFile {
  const entries = Object.entries(fields) as [FieldName, unknown][];
  return { path: "kp.yaml", text: formatConfigFile(new Map(entries)) };
}

/** Fields of nested sections by path. */
function flatten(section: Record<string, unknown>, prefix = ""): Map<string, unknown> {
  const found = new Map<string, unknown>();
  for (const [key, value] of Object.entries(section)) {
    const isSection = typeof value === "object" && value !== null && key !== "featureGates";
    if (!isSection) found.set(prefix + key, value);
    else
      for (const [path, each] of flatten(value as Record<string, unknown>, `${prefix}${key}.`))
        found.set(path, each);
  }
  return found;
}

/** What a field needs beside it to count. */
function context(name: FieldName): Record<string, unknown> {
  return name.startsWith("nftables.") ? { mode: "nftables" } : {};
}

test("the table has the fields of KubeProxyConfiguration v1alpha1 and their defaults", (t) => {
  t.deepEqual(
    [...effectiveValues({ flags: {} })].sort(),
    [...flatten(DEFAULTS)].sort() as [FieldName, unknown][],
  );
});

test("the table has every flag of kube-proxy that sets a field, and few more", (t) => {
  const flags = new Set(FIELD_LIST.flatMap(([, field]) => field.flags));
  const own = ["node", "log-format", "nftables-sync-period", "nftables-min-sync-period"];
  t.deepEqual([...flags].sort(), [...KUBE_PROXY_FLAGS.split(/\s+/), ...own].sort());
});

/** Checks that what was given has just the effect that its duty promises. */
function isTrueTo(name: FieldName, { given, before }: { given: Given; before: Given }): boolean {
  const { duty } = FIELDS[name];
  const [plain, set] = [readConfig(before), readConfig(given)];
  const hasEffect = JSON.stringify(plain.config) !== JSON.stringify(set.config);
  const told = set.notes.filter((note) => note.includes(" has no effect: ")).length;
  if (typeof duty === "object") return told > plain.notes.length;
  return told === plain.notes.length && hasEffect;
}

for (const [name, field] of FIELD_LIST) {
  const { good, bad, text = String(good) } = SAMPLES[name];

  const becomes = typeof field.duty === "object" ? "told to be inert" : "honoured";
  test(`field ${name} is ${becomes}`, (t) => {
    const before = { flags: {}, file: fileOf(context(name)) };
    const given = { flags: {}, file: fileOf({ ...context(name), [name]: good }) };
    t.true(isTrueTo(name, { given, before }));
  });

  test(`a wrong ${name} in a file is refused by name`, (t) => {
    const given = { flags: {}, file: fileOf({ ...context(name), [name]: bad }) };
    const error = t.throws(() => readConfig(given), { instanceOf: UserError });
    t.true(error.message.startsWith(`${name} in "kp.yaml" `), error.message);
    t.regex(error.message, /: (write|correct|no device)|correct or remove it/);
  });

  for (const flag of field.flags) {
    test(`flag --${flag} does for ${name} as the file does`, (t) => {
      t.true(fieldsOfFlag(flag).some(([each]) => each === name));
      t.true(isTrueTo(name, { given: { flags: { [flag]: text } }, before: { flags: {} } }));
    });
  }
}
