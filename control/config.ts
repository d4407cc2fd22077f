// From kube-proxy's flags or a KubeProxyConfiguration to a checked configuration. Every fault is an
// error at the start that names the flag or field, its value and what would be right; whatever is
// accepted without effect is told in a line of its own. Opens no file and decides nothing.

import { FIELD_LIST, FIELDS, type FieldName, fieldsOfFlag, type Values } from "./config/fields.ts";
import { type ConfigFile, type RawValues, readConfigFile } from "./config/file.ts";
import { type BindAddress, Wrong } from "./config/kinds.ts";
import { ExitCode, UserError } from "./exit.ts";
import type { LogFormat, LogLevel } from "./levels.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "./model/config.ts";

/** Flags of the table of settings as they were typed, by name without dashes. */
export type Flags = Readonly<Record<string, string>>;

/** What a command was given. */
export interface Given {
  flags: Flags;
  /** A file instead of most flags (§19). */
  file?: ConfigFile | undefined;
  manifests?: string | undefined;
  master?: string | undefined;
  logLevel?: LogLevel | undefined;
}

/** Where objects come from; a Kubernetes API without a kubeconfig is that of the own pod. */
export type SourceConfig =
  | { manifests: string }
  | { kubeconfig: string | undefined; master: string | undefined };

export interface Config {
  proxy: ProxyConfig;
  /** Undefined: the host name is the node's. */
  nodeName: string | undefined;
  source: SourceConfig;
  /** Between the end of one update and the beginning of the next (§17.1). */
  minSyncPeriodMs: number;
  /** What could not be written is tried again at least this often (§17.2). */
  syncPeriodMs: number;
  /** Where to serve health checks and metrics; undefined: nowhere (§13.1, §18). */
  healthz: BindAddress | undefined;
  metrics: BindAddress | undefined;
  bindAddressHardFail: boolean;
  logLevel: LogLevel;
  logFormat: LogFormat;
}

export interface ReadConfig {
  config: Config;
  /** One line for each setting that was given and has no effect. */
  notes: readonly string[];
}

/** A value and what gave it, in words: "--cluster-cidr", or "clusterCIDR in "FILE"". */
interface Setting {
  subject: string;
  value: unknown;
}

type Settings = Map<FieldName, Setting>;

/** From this verbosity of klog on, kube-proxy tells what we tell at level debug. */
const DEBUG_VERBOSITY = 4;
const EXTERNAL_IPS_GATE = "AllowServiceExternalIPs";

function refuse(message: string): never {
  throw new UserError(message, ExitCode.usage);
}

function settingsOfFlags(flags: Flags): Settings {
  const settings: Settings = new Map();
  for (const [flag, text] of Object.entries(flags))
    for (const [name, { kind }] of fieldsOfFlag(flag)) {
      const value = kind.fromText(text);
      if (value === undefined) continue;
      const before = settings.get(name);
      const subject = `--${flag}`;
      if (before !== undefined && JSON.stringify(before.value) !== JSON.stringify(value))
        refuse(
          `${before.subject} is ${JSON.stringify(before.value)}, but ${subject} is ` +
            `${JSON.stringify(value)}, and they mean the same: give one of them`,
        );
      settings.set(name, { subject, value });
    }
  return settings;
}

function settingsOfFile(file: ConfigFile): Settings {
  const entries = [...readConfigFile(file)].map(
    ([name, value]) => [name, { subject: `${name} in "${file.path}"`, value }] as const,
  );
  return new Map(entries);
}

/** Flags that count beside a file, as for kube-proxy: logging, and the node's name. */
function countsBesideFile(name: FieldName): boolean {
  return name.startsWith("logging.") || name === "hostnameOverride";
}

/** What is set, by the file if there is one, and which flags are ignored for it. */
function gatherSettings({ flags, file }: Given): { settings: Settings; ignored: string[] } {
  const fromFlags = settingsOfFlags(flags);
  if (file === undefined) return { settings: fromFlags, ignored: [] };
  const settings = settingsOfFile(file);
  const ignored = new Set<string>();
  for (const [name, setting] of fromFlags) {
    if (countsBesideFile(name)) settings.set(name, setting);
    else ignored.add(setting.subject);
  }
  return { settings, ignored: [...ignored] };
}

/**
 * kube-proxy's default of a field; servers listen on the family of the node's address, and edits of
 * manifests take effect at once.
 */
function initialValue(
  name: FieldName,
  { settings, manifests }: { settings: Settings; manifests: string | undefined },
): unknown {
  const bindAddress = settings.get("bindAddress")?.value;
  const isIPv6 = typeof bindAddress === "string" && bindAddress.includes(":");
  const { initial } = FIELDS[name];
  const isLeast = name === "iptables.minSyncPeriod" || name === "nftables.minSyncPeriod";
  if (isLeast && manifests !== undefined) return "0s";
  if (isIPv6 && name === "healthzBindAddress") return String(initial).replace("0.0.0.0", "[::]");
  if (isIPv6 && name === "metricsBindAddress") return String(initial).replace("127.0.0.1", "[::1]");
  return initial;
}

function rawValues(settings: Settings, { manifests }: Given): RawValues {
  return new Map(
    FIELD_LIST.map(([name]) => {
      const setting = settings.get(name);
      const value = setting ? setting.value : initialValue(name, { settings, manifests });
      return [name, value];
    }),
  );
}

/** The checked value of every field. Throws UserError at the first that means nothing. */
function readValues(settings: Settings, given: Given): Values {
  const values: Partial<Record<FieldName, unknown>> = {};
  for (const [name, value] of rawValues(settings, given))
    try {
      values[name] = FIELDS[name].kind.read(value);
    } catch (error) {
      if (!(error instanceof Wrong)) throw error;
      refuse(`${settings.get(name)?.subject ?? name} ${error.message}`);
    }
  return values as Values;
}

/** How the user would call a field: by the flag that is typed, or as the file has it. */
function nameField(name: FieldName, { file }: Pick<Given, "file">): string {
  return file === undefined ? `--${FIELDS[name].flags[0]}` : `${name} in "${file.path}"`;
}

function checkLocalMode(values: Values, given: Given): void {
  const needed = {
    BridgeInterface: "detectLocal.bridgeInterface",
    InterfaceNamePrefix: "detectLocal.interfaceNamePrefix",
  } as const;
  const { detectLocalMode: mode } = values;
  if (mode !== "BridgeInterface" && mode !== "InterfaceNamePrefix") return;
  if (values[needed[mode]] !== "") return;
  const missing = nameField(needed[mode], given);
  refuse(
    `${nameField("detectLocalMode", given)} is "${mode}", but ${missing} is not given: ` +
      "name the device there",
  );
}

function checkSources({ manifests, master, flags }: Given): void {
  const other = master !== undefined ? "--master" : flags.kubeconfig ? "--kubeconfig" : undefined;
  if (manifests === undefined || other === undefined) return;
  refuse(`--manifests and ${other} are both given, and objects come from one place: give one`);
}

function checkLogLevel({ logLevel, flags }: Given): void {
  if (logLevel === undefined || flags.v === undefined) return;
  refuse(`--log-level is "${logLevel}" and -v is "${flags.v}": give one of them`);
}

/** The section of a kube-proxy mode that counts, as kube-proxy chooses it. */
function sectionOf({ mode }: Values): "iptables" | "nftables" {
  return mode === "nftables" ? "nftables" : "iptables";
}

function checkPeriods(values: Values, settings: Settings): void {
  const section = sectionOf(values);
  const [least, most] = [`${section}.minSyncPeriod`, `${section}.syncPeriod`] as const;
  if (values[least] <= values[most]) return;
  const describe = (name: FieldName) => {
    const { subject, value } = settings.get(name) ?? { subject: name, value: FIELDS[name].initial };
    return `${subject}, ${JSON.stringify(value)}`;
  };
  refuse(`${describe(least)}, is longer than ${describe(most)}: shorten it, or lengthen the other`);
}

function proxyConfig(values: Values): ProxyConfig {
  const { bindAddress, detectLocalMode } = values;
  return {
    nodePortAddresses: values.nodePortAddresses,
    detectLocalMode: detectLocalMode === "" ? DEFAULT_CONFIG.detectLocalMode : detectLocalMode,
    clusterCIDRs: values.clusterCIDR,
    bridgeInterface: values["detectLocal.bridgeInterface"],
    interfaceNamePrefix: values["detectLocal.interfaceNamePrefix"],
    masqueradeAll: values[`${sectionOf(values)}.masqueradeAll`],
    localhostNodePorts: values["iptables.localhostNodePorts"],
    primaryAddress: bindAddress === "0.0.0.0" || bindAddress === "::" ? "" : bindAddress,
    externalIPs: values.featureGates.get(EXTERNAL_IPS_GATE) ?? true,
  };
}

function makeConfig(values: Values, { manifests, master, logLevel }: Given) {
  const section = sectionOf(values);
  const isVerbose = values["logging.verbosity"] >= DEBUG_VERBOSITY;
  const kubeconfig = values["clientConnection.kubeconfig"] || undefined;
  const config: Config = {
    proxy: proxyConfig(values),
    nodeName: values.hostnameOverride || undefined,
    source: manifests === undefined ? { kubeconfig, master } : { manifests },
    minSyncPeriodMs: values[`${section}.minSyncPeriod`],
    syncPeriodMs: values[`${section}.syncPeriod`],
    healthz: values.healthzBindAddress,
    metrics: values.metricsBindAddress,
    bindAddressHardFail: values.bindAddressHardFail,
    logLevel: logLevel ?? (isVerbose ? "debug" : "info"),
    logFormat: values["logging.format"],
  };
  return config;
}

/** Why a field has no effect here, or undefined if it has one. */
function whyInert(name: FieldName, { values, given }: { values: Values; given: Given }) {
  const { duty } = FIELDS[name];
  if (typeof duty === "object") return duty.inert;
  if (duty === "kubernetes" && given.manifests !== undefined)
    return "objects come from --manifests";
  const [section] = name.split(".");
  if (section !== "iptables" && section !== "nftables") return undefined;
  const inForce = sectionOf(values);
  if (section === inForce) return undefined;
  return `with mode "${values.mode}" those of ${inForce} count`;
}

function inertLines(settings: Settings, context: { values: Values; given: Given }): string[] {
  const lines = new Set<string>();
  for (const [name, { kind }] of FIELD_LIST) {
    const setting = settings.get(name);
    // One flag sets a field of either section, and has an effect by one of them.
    const isShared = setting?.subject.startsWith("--") && typeof FIELDS[name].duty !== "object";
    if (setting === undefined || isShared || kind.isZero(setting.value)) continue;
    const why = whyInert(name, context);
    if (why !== undefined) lines.add(`${setting.subject} has no effect: ${why}`);
  }
  return [...lines];
}

function gateLines(settings: Settings, { featureGates }: Values): string[] {
  const others = [...featureGates.keys()].filter((name) => name !== EXTERNAL_IPS_GATE);
  if (others.length === 0) return [];
  const { subject } = settings.get("featureGates")!;
  return [`${subject} has no effect as to ${others.join(", ")}: bpfsvc has no such choice`];
}

/**
 * The configuration that flags or a file mean, and a line for each setting without effect. Throws
 * UserError (wrong usage) at the first fault.
 */
export function readConfig(given: Given): ReadConfig {
  checkSources(given);
  checkLogLevel(given);
  const { settings, ignored } = gatherSettings(given);
  const values = readValues(settings, given);
  checkLocalMode(values, given);
  checkPeriods(values, settings);
  const notes = inertLines(settings, { values, given });
  notes.push(...gateLines(settings, values));
  if (ignored.length > 0) notes.push(`Flags without effect beside --config: ${ignored.join(", ")}`);
  return { config: makeConfig(values, given), notes };
}

/** All fields of a KubeProxyConfiguration as these flags and this file set them. */
export function effectiveValues(given: Given): RawValues {
  const { settings } = gatherSettings(given);
  readValues(settings, given);
  return rawValues(settings, given);
}
