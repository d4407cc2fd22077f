// From flags, named as kube-proxy names them, to a checked configuration. Every fault is an error
// at the start that names the flag, its value and what would be right. Decides nothing.
import { ExitCode, UserError } from "./exit.ts";
import { type AddressRange, parseRange } from "./model/address.ts";
import { DEFAULT_CONFIG, type DetectLocalMode, type ProxyConfig } from "./model/config.ts";

export const DETECT_LOCAL_MODES: readonly DetectLocalMode[] = [
  "ClusterCIDR",
  "NodeCIDR",
  "BridgeInterface",
  "InterfaceNamePrefix",
];
/** The kernel's limit, IFNAMSIZ less the byte that ends it. */
const MAX_DEVICE_NAME = 15;

/** The flags that `run` and `plan` share, as they were typed; absent ones have their defaults. */
export interface ProxyFlags {
  nodeportAddresses?: string;
  detectLocalMode?: string;
  clusterCidr?: string;
  podBridgeInterface?: string;
  podInterfaceNamePrefix?: string;
  masqueradeAll?: boolean;
}

function refuse(message: string): never {
  throw new UserError(message, ExitCode.usage);
}

function splitList(text: string): string[] {
  const entries = text.split(",").map((entry) => entry.trim());
  return entries.filter((entry) => entry !== "");
}

function readRange(text: string, flag: string): AddressRange {
  const range = parseRange(text);
  if (range !== undefined) return range;
  const fix = 'write an address and a length, such as "192.168.50.0/24" or "2001:db8::/64"';
  return refuse(`${flag} holds ${JSON.stringify(text)}, which is no range: ${fix}`);
}

function readNodePortAddresses(text: string | undefined): ProxyConfig["nodePortAddresses"] {
  if (text === undefined) return DEFAULT_CONFIG.nodePortAddresses;
  const flag = "--nodeport-addresses";
  const entries = splitList(text);
  if (!entries.includes("primary")) return entries.map((entry) => readRange(entry, flag));
  if (entries.length === 1) return "primary";
  const fix = 'write "primary" alone, or ranges alone';
  return refuse(`${flag} is ${JSON.stringify(text)}, "primary" and more: ${fix}`);
}

function readClusterCIDRs(text: string | undefined): readonly AddressRange[] {
  const flag = "--cluster-cidr";
  const ranges = splitList(text ?? "").map((entry) => readRange(entry, flag));
  for (const family of [4, 6]) {
    if (ranges.filter((range) => range.family === family).length < 2) continue;
    const fix = "name the one that covers all pods";
    refuse(`${flag} is ${JSON.stringify(text)}, with two IPv${family} ranges: ${fix}`);
  }
  return ranges;
}

function readMode(text: string | undefined): DetectLocalMode {
  if (text === undefined) return DEFAULT_CONFIG.detectLocalMode;
  const mode = DETECT_LOCAL_MODES.find((known) => known === text);
  const fix = `write one of ${DETECT_LOCAL_MODES.join(", ")}`;
  return mode ?? refuse(`--detect-local-mode is ${JSON.stringify(text)}: ${fix}`);
}

/** What goes with a mode: the flag that it needs, with the value that was given. */
function readDevice(
  text: string | undefined,
  { flag, isNeeded, mode }: { flag: string; isNeeded: boolean; mode: string },
): string {
  if (isNeeded && (text ?? "") === "") {
    refuse(`--detect-local-mode is "${mode}", but ${flag} is not given: name the device there`);
  }
  if (text !== undefined && text.length > MAX_DEVICE_NAME) {
    const limit = `no device's name has more than ${MAX_DEVICE_NAME} characters`;
    refuse(`${flag} is ${JSON.stringify(text)}: ${limit}; correct it`);
  }
  return text ?? "";
}

/** The configuration that these flags mean. Throws UserError (wrong usage) at the first fault. */
export function readProxyConfig(flags: ProxyFlags): ProxyConfig {
  const mode = readMode(flags.detectLocalMode);
  return {
    nodePortAddresses: readNodePortAddresses(flags.nodeportAddresses),
    detectLocalMode: mode,
    clusterCIDRs: readClusterCIDRs(flags.clusterCidr),
    bridgeInterface: readDevice(flags.podBridgeInterface, {
      flag: "--pod-bridge-interface",
      isNeeded: mode === "BridgeInterface",
      mode,
    }),
    interfaceNamePrefix: readDevice(flags.podInterfaceNamePrefix, {
      flag: "--pod-interface-name-prefix",
      isNeeded: mode === "InterfaceNamePrefix",
      mode,
    }),
    masqueradeAll: flags.masqueradeAll ?? DEFAULT_CONFIG.masqueradeAll,
  };
}
