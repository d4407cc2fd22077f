// THE TABLE of settings: every field of KubeProxyConfiguration v1alpha1 with its default, the flags
// of kube-proxy for it, and what becomes of it here (§19). Plain data: the command makes its flags
// of it, file.ts finds its fields in it, config.ts gives it a meaning.
import { LOG_FORMATS } from "../levels.ts";
import type { DetectLocalMode } from "../model/config.ts";
import {
  ADDRESS,
  BOOLEAN,
  bindAddress,
  CLUSTER_RANGES,
  DEVICE,
  duration,
  FILE_LEVELS,
  FREQUENCY,
  GATES,
  integer,
  type Kind,
  NODE_NAME,
  NODE_PORT_ADDRESSES,
  NUMBER,
  PATH,
  QUANTITY,
  RANGES,
  TEXT,
  word,
} from "./kinds.ts";

/**
 * What becomes of a setting: it is honoured, it is honoured if objects come from a Kubernetes API,
 * or it is accepted and has no effect, for the reason given.
 */
export type Duty = "honoured" | "kubernetes" | { inert: string };

export interface Field<T> {
  kind: Kind<T>;
  /** kube-proxy's default, as a file has it. */
  initial: unknown;
  duty: Duty;
  /** Flags that set it, without dashes; a flag may set several fields. */
  flags: readonly string[];
  /** For --help; what has none is accepted without being shown. */
  help: string;
  /** A 0, false or "" in a file is meant, and not the same as saying nothing. */
  keepsZero: boolean;
}

const LOCAL_MODES: readonly (DetectLocalMode | "")[] = [
  "",
  "ClusterCIDR",
  "NodeCIDR",
  "BridgeInterface",
  "InterfaceNamePrefix",
];
const HEALTHZ_PORT = 10256;
const METRICS_PORT = 10249;

const NO_PROFILING = { inert: "there is no profile to be had over HTTP" };
const NO_CONNTRACK = { inert: "bpfsvc neither uses connection tracking nor sets its limits" };
const NO_MARK = { inert: "bpfsvc marks no packets" };
const NO_IPVS = { inert: "bpfsvc replaces IPVS" };
const NO_WINDOWS = { inert: "bpfsvc runs on Linux" };
const NO_REFRESH = { inert: "changes arrive by watch, and nothing needs to be refreshed" };
const NO_RATE = { inert: "each resource is listed once and watched, with back-off after errors" };
const NO_CONTENT = { inert: "protobuf is asked for, and JSON is understood" };
const NO_LOG_OPTION = { inert: "lines go to standard error at once" };
const NO_MODE = {
  inert: 'Services are served as in mode "nftables"; it only names the section that counts',
};

const SYNC_FLAGS = ["iptables-sync-period", "nftables-sync-period"];
const MIN_SYNC_FLAGS = ["iptables-min-sync-period", "nftables-min-sync-period"];
const SYNC = {
  initial: "30s",
  flags: SYNC_FLAGS,
  help: "the longest time until what could not be written is tried again (default: 30s)",
};
const MIN_SYNC = {
  initial: "1s",
  flags: MIN_SYNC_FLAGS,
  help: "the shortest time between two updates (default: 0s for manifests, else 1s)",
};
const MASQUERADE = {
  initial: false,
  flags: ["masquerade-all"],
  help: "rewrite the source of all traffic to cluster IPs",
};

function field<T>(
  kind: Kind<T>,
  options: { initial: unknown; duty?: Duty } & Partial<Field<T>>,
): Field<T> {
  return { kind, duty: "honoured", flags: [], help: "", keepsZero: false, ...options };
}

const period = () => duration({ isPeriod: true });

/** By path: the fields in the order that --write-config-to writes them in. */
export const FIELDS = {
  featureGates: field(GATES, {
    initial: {},
    flags: ["feature-gates"],
    help: "AllowServiceExternalIPs=false serves no external IPs; others have no effect",
  }),
  "clientConnection.kubeconfig": field(PATH, {
    initial: "",
    duty: "kubernetes",
    flags: ["kubeconfig"],
    help: "credentials for the Kubernetes API (default: the pod's service account)",
  }),
  "clientConnection.acceptContentTypes": field(TEXT, { initial: "", duty: NO_CONTENT }),
  "clientConnection.contentType": field(TEXT, {
    initial: "application/vnd.kubernetes.protobuf",
    duty: NO_CONTENT,
    flags: ["kube-api-content-type"],
  }),
  "clientConnection.qps": field(NUMBER, { initial: 5, duty: NO_RATE, flags: ["kube-api-qps"] }),
  "clientConnection.burst": field(integer(), {
    initial: 10,
    duty: NO_RATE,
    flags: ["kube-api-burst"],
  }),
  "logging.format": field(word(LOG_FORMATS), {
    initial: "text",
    flags: ["logging-format", "log-format"],
    help: "how to write log lines (default: text)",
  }),
  "logging.flushFrequency": field(FREQUENCY, {
    initial: "5s",
    duty: NO_LOG_OPTION,
    flags: ["log-flush-frequency"],
  }),
  "logging.verbosity": field(integer(), {
    initial: 0,
    flags: ["v"],
    help: "from 4 on, --log-level debug",
  }),
  "logging.vmodule": field(FILE_LEVELS, { initial: null, duty: NO_LOG_OPTION, flags: ["vmodule"] }),
  "logging.options.json.infoBufferSize": field(QUANTITY, {
    initial: "0",
    duty: NO_LOG_OPTION,
    flags: ["log-json-info-buffer-size"],
  }),
  "logging.options.json.splitStream": field(BOOLEAN, {
    initial: false,
    duty: NO_LOG_OPTION,
    flags: ["log-json-split-stream"],
  }),
  "logging.options.text.infoBufferSize": field(QUANTITY, {
    initial: "0",
    duty: NO_LOG_OPTION,
    flags: ["log-text-info-buffer-size"],
  }),
  "logging.options.text.splitStream": field(BOOLEAN, {
    initial: false,
    duty: NO_LOG_OPTION,
    flags: ["log-text-split-stream"],
  }),
  hostnameOverride: field(NODE_NAME, {
    initial: "",
    flags: ["hostname-override", "node"],
    help: "the name of this node (default: the host name)",
  }),
  bindAddress: field(ADDRESS, {
    initial: "0.0.0.0",
    flags: ["bind-address"],
    help: "this node's primary address, unless 0.0.0.0 or ::",
  }),
  healthzBindAddress: field(bindAddress(HEALTHZ_PORT), {
    initial: `0.0.0.0:${HEALTHZ_PORT}`,
    flags: ["healthz-bind-address"],
    help: `where /healthz and /livez are answered, "": nowhere (default: 0.0.0.0:${HEALTHZ_PORT})`,
  }),
  metricsBindAddress: field(bindAddress(METRICS_PORT), {
    initial: `127.0.0.1:${METRICS_PORT}`,
    flags: ["metrics-bind-address"],
    help: `where /metrics is served, "": nowhere (default: 127.0.0.1:${METRICS_PORT})`,
  }),
  bindAddressHardFail: field(BOOLEAN, {
    initial: false,
    flags: ["bind-address-hard-fail"],
    help: "end if one of them cannot be listened on, instead of trying every 5 s",
  }),
  enableProfiling: field(BOOLEAN, {
    initial: false,
    duty: NO_PROFILING,
    flags: ["profiling"],
  }),
  showHiddenMetricsForVersion: field(TEXT, {
    initial: "",
    duty: { inert: "no metric is hidden" },
    flags: ["show-hidden-metrics-for-version"],
  }),
  mode: field(word(["", "iptables", "ipvs", "nftables"]), {
    initial: "",
    duty: NO_MODE,
    flags: ["proxy-mode"],
  }),
  "iptables.masqueradeBit": field(integer({ most: 31 }), {
    initial: 14,
    duty: NO_MARK,
    flags: ["iptables-masquerade-bit"],
    keepsZero: true,
  }),
  "iptables.masqueradeAll": field(BOOLEAN, MASQUERADE),
  "iptables.localhostNodePorts": field(BOOLEAN, {
    // kube-proxy has true, of which its mode nftables, which is followed here, knows nothing.
    initial: false,
    flags: ["iptables-localhost-nodeports"],
    help: "serve node ports at 127.0.0.1 and [::1] too, to the node's own processes",
  }),
  "iptables.syncPeriod": field(period(), SYNC),
  "iptables.minSyncPeriod": field(duration(), MIN_SYNC),
  "ipvs.syncPeriod": field(period(), {
    initial: "30s",
    duty: NO_IPVS,
    flags: ["ipvs-sync-period"],
  }),
  "ipvs.minSyncPeriod": field(duration(), {
    initial: "0s",
    duty: NO_IPVS,
    flags: ["ipvs-min-sync-period"],
  }),
  "ipvs.scheduler": field(TEXT, { initial: "", duty: NO_IPVS, flags: ["ipvs-scheduler"] }),
  "ipvs.excludeCIDRs": field(RANGES, {
    initial: null,
    duty: NO_IPVS,
    flags: ["ipvs-exclude-cidrs"],
  }),
  "ipvs.strictARP": field(BOOLEAN, { initial: false, duty: NO_IPVS, flags: ["ipvs-strict-arp"] }),
  "ipvs.tcpTimeout": field(duration(), {
    initial: "0s",
    duty: NO_IPVS,
    flags: ["ipvs-tcp-timeout"],
  }),
  "ipvs.tcpFinTimeout": field(duration(), {
    initial: "0s",
    duty: NO_IPVS,
    flags: ["ipvs-tcpfin-timeout"],
  }),
  "ipvs.udpTimeout": field(duration(), {
    initial: "0s",
    duty: NO_IPVS,
    flags: ["ipvs-udp-timeout"],
  }),
  "nftables.masqueradeBit": field(integer({ most: 31 }), {
    initial: 14,
    duty: NO_MARK,
    keepsZero: true,
  }),
  "nftables.masqueradeAll": field(BOOLEAN, MASQUERADE),
  "nftables.syncPeriod": field(period(), SYNC),
  "nftables.minSyncPeriod": field(duration(), MIN_SYNC),
  "winkernel.networkName": field(TEXT, { initial: "", duty: NO_WINDOWS }),
  "winkernel.sourceVip": field(TEXT, { initial: "", duty: NO_WINDOWS }),
  "winkernel.enableDSR": field(BOOLEAN, { initial: false, duty: NO_WINDOWS }),
  "winkernel.rootHnsEndpointName": field(TEXT, { initial: "", duty: NO_WINDOWS }),
  "winkernel.forwardHealthCheckVip": field(BOOLEAN, { initial: false, duty: NO_WINDOWS }),
  detectLocalMode: field(word(LOCAL_MODES), {
    initial: "",
    flags: ["detect-local-mode"],
    help: `how pods are told from others (default: ClusterCIDR): ${LOCAL_MODES.join(" ").trim()}`,
  }),
  "detectLocal.bridgeInterface": field(DEVICE, {
    initial: "",
    flags: ["pod-bridge-interface"],
    help: "for mode BridgeInterface",
  }),
  "detectLocal.interfaceNamePrefix": field(DEVICE, {
    initial: "",
    flags: ["pod-interface-name-prefix"],
    help: "for mode InterfaceNamePrefix",
  }),
  clusterCIDR: field(CLUSTER_RANGES, {
    initial: "",
    flags: ["cluster-cidr"],
    help: "for mode ClusterCIDR: the pods' range, one of each family",
  }),
  nodePortAddresses: field(NODE_PORT_ADDRESSES, {
    initial: null,
    flags: ["nodeport-addresses"],
    help: 'where node ports are served: "primary" (default), ranges, or "": everywhere',
  }),
  oomScoreAdj: field(integer({ least: -1000, most: 1000 }), {
    initial: -999,
    duty: { inert: "that is for the supervisor to set" },
    flags: ["oom-score-adj"],
    keepsZero: true,
  }),
  "conntrack.maxPerCore": field(integer(), {
    initial: 32768,
    duty: NO_CONNTRACK,
    flags: ["conntrack-max-per-core"],
    keepsZero: true,
  }),
  "conntrack.min": field(integer(), {
    initial: 131072,
    duty: NO_CONNTRACK,
    flags: ["conntrack-min"],
    keepsZero: true,
  }),
  "conntrack.tcpEstablishedTimeout": field(duration(), {
    initial: "24h0m0s",
    duty: NO_CONNTRACK,
    flags: ["conntrack-tcp-timeout-established"],
    keepsZero: true,
  }),
  "conntrack.tcpCloseWaitTimeout": field(duration(), {
    initial: "1h0m0s",
    duty: NO_CONNTRACK,
    flags: ["conntrack-tcp-timeout-close-wait"],
    keepsZero: true,
  }),
  "conntrack.tcpBeLiberal": field(BOOLEAN, {
    initial: false,
    duty: NO_CONNTRACK,
    flags: ["conntrack-tcp-be-liberal"],
  }),
  "conntrack.udpTimeout": field(duration(), {
    initial: "0s",
    duty: NO_CONNTRACK,
    flags: ["conntrack-udp-timeout"],
  }),
  "conntrack.udpStreamTimeout": field(duration(), {
    initial: "0s",
    duty: NO_CONNTRACK,
    flags: ["conntrack-udp-timeout-stream"],
  }),
  configSyncPeriod: field(period(), {
    initial: "15m0s",
    duty: NO_REFRESH,
    flags: ["config-sync-period"],
  }),
  portRange: field(TEXT, { initial: "", duty: { inert: "kube-proxy does not use it either" } }),
  windowsRunAsService: field(BOOLEAN, { initial: false, duty: NO_WINDOWS }),
};

export type FieldName = keyof typeof FIELDS;

/** The checked value of each field. */
export type Values = {
  [Name in FieldName]: (typeof FIELDS)[Name] extends Field<infer Value> ? Value : never;
};

/** Every field with its name, in order. */
export const FIELD_LIST = Object.entries(FIELDS) as readonly (readonly [
  FieldName,
  Field<unknown>,
])[];

/** The fields that a flag sets; none if there is no such flag. */
export function fieldsOfFlag(flag: string): (readonly [FieldName, Field<unknown>])[] {
  return FIELD_LIST.filter(([, { flags }]) => flags.includes(flag));
}

/** Whether a value in a file is the same as saying nothing, as it is for kube-proxy. */
export function isUnset(value: unknown, { keepsZero, kind }: Field<unknown>): boolean {
  return value === null || (!keepsZero && kind.isZero(value));
}
