// What `bpfsvc run` was given beside kube-proxy's settings, and what of it programs are told.
// Decides nothing.
import type { Flags } from "../config.ts";
import type { Rodata } from "../dataplane/kernel.ts";
import { ownNamespace } from "../dataplane/namespaces.ts";
import type { LogLevel } from "../levels.ts";
import type { ProxyConfig } from "../model/config.ts";
import type { SeriesChoice } from "../serve/metrics/series.ts";
import { type DeviceChoice, FORWARDING, type MASQUERADE } from "./deviceoptions.ts";
import { arePodsInside } from "./surroundings.ts";

export interface RunOptions {
  /** Of this program. */
  version: string;
  /** kube-proxy's (config/fields.ts). */
  flags: Flags;
  config?: string;
  initOnly?: boolean;
  manifests?: string;
  master?: string;
  stateFile?: string;
  cgroup?: string;
  pins: string;
  rememberTcp: boolean;
  /** The uplinks; absent: found by their routes. */
  device?: DeviceChoice;
  masquerade: (typeof MASQUERADE)[number];
  forwarding: (typeof FORWARDING)[number];
  maxFrontends?: number;
  maxServices?: number;
  maxBackends?: number;
  maxSlots?: number;
  maxFlows?: number;
  metricsServices?: SeriesChoice;
  logLevel?: LogLevel;
}

/** The settings of programs on cgroups, by variable. */
export function socketRodata({ rememberTcp }: RunOptions, config: ProxyConfig): Rodata {
  return {
    remember_tcp: rememberTcp ? 1 : 0,
    node_netns: ownNamespace(),
    pods_inside_ipv4: arePodsInside(config, 4) ? 1 : 0,
    pods_inside_ipv6: arePodsInside(config, 6) ? 1 : 0,
  };
}

/** The settings of programs on devices, by variable; those that a program lacks are ignored. */
export function deviceRodata(
  { masquerade, forwarding }: RunOptions,
  { masqueradeAll }: ProxyConfig,
): Rodata {
  return {
    masquerade_always: masquerade === "always" ? 1 : 0,
    masquerade_all: masqueradeAll ? 1 : 0,
    forwarding: FORWARDING.indexOf(forwarding),
  };
}
