// What the agent knows of its node besides objects, looked at again as long as it runs: the
// network namespaces that sockets are in, and the node's own addresses. Decides nothing.
import type { Clients } from "../dataplane/clients.ts";
import { findClients, whatHides } from "../dataplane/namespaces.ts";
import type { Logger } from "../log.ts";
import type { Cluster } from "../model/cluster.ts";
import type { ProxyConfig } from "../model/config.ts";
import type { Family } from "../model/rows.ts";
import { localAddresses } from "../source/host.ts";

/** How often is looked whether there is anything to look at. */
const TICK_MS = 1000;
/** The longest time that a namespace's new addresses are not known. */
const RESCAN_MS = 30_000;
/**
 * Of so much time one part is spent on looking for clients, at most: whoever is not to be found
 * may ask again and again, and a node may have thousands of processes to look at.
 */
const LEAST_REST = 50;

export interface SurroundingsOptions {
  cluster: Cluster;
  config: ProxyConfig;
  cgroup: string;
  clients: Clients;
  /** How often programs have met a client that they had to know and did not. */
  unknownClients: () => bigint;
  /** Called after addresses changed in a way that may change rows. */
  onChange: () => void;
  log: Logger;
}

export class Surroundings {
  readonly #options: SurroundingsOptions;
  #timer: NodeJS.Timeout | undefined;
  #scannedAt = 0;
  #restsUntil = 0;
  #unknown = 0n;
  /** What could not be done, as told already. */
  readonly #told = new Set<string>();

  constructor(options: SurroundingsOptions) {
    this.#options = options;
  }

  /** Looks at everything now, so that the first rows are made of it. */
  look(): void {
    const { cluster } = this.#options;
    if (this.#needsAddresses) cluster.setLocalAddresses(localAddresses());
    this.#scan();
  }

  /** Looks again from time to time. */
  start(): void {
    this.#timer = setInterval(() => this.#tick(), TICK_MS);
  }

  stop(): void {
    clearInterval(this.#timer);
  }

  /** The addresses of the Node object suffice for "primary". */
  get #needsAddresses(): boolean {
    return this.#options.config.nodePortAddresses !== "primary";
  }

  #tick(): void {
    const { cluster, onChange, unknownClients } = this.#options;
    if (this.#needsAddresses) {
      cluster.setLocalAddresses(localAddresses());
      if (cluster.isDirty) onChange();
    }
    const now = performance.now();
    const isLate = now - this.#scannedAt >= RESCAN_MS;
    const isAsked = unknownClients() !== this.#unknown && now >= this.#restsUntil;
    if (isAsked || isLate) this.#scan();
  }

  /** Finds out who asks from where, for source ranges (§8) and the short-circuit of pods (§6.3). */
  #scan(): void {
    const { cgroup, clients, unknownClients } = this.#options;
    this.#scannedAt = performance.now();
    this.#unknown = unknownClients();
    try {
      const { clients: found } = findClients(
        { cgroup, onHidden: (why) => this.#tell(whatHides(why)) },
        { isInside: (address) => this.#isPod(address) },
      );
      for (const { key, message } of clients.replace(found)) this.#tell(`${key}: ${message}`);
    } catch (error) {
      this.#tell((error as Error).message);
    }
    const now = performance.now();
    this.#restsUntil = now + (now - this.#scannedAt) * LEAST_REST;
  }

  /** Where pods are told by their devices, every other namespace of the cgroup is a pod's. */
  #isPod(source: string): boolean {
    const { cluster, config } = this.#options;
    if (config.detectLocalMode === "BridgeInterface") return true;
    if (config.detectLocalMode === "InterfaceNamePrefix") return true;
    return cluster.detector.isPod({ source });
  }

  #tell(what: string): void {
    if (this.#told.has(what)) return;
    this.#told.add(what);
    this.#options.log.warn(
      "Not every client on this node is known, and for those that are not VIPs with source " +
        `ranges are left to the network: ${what}`,
    );
  }
}

/**
 * Whether clients that are not known yet count as pods: not where nothing tells pods of a family
 * (§6.4).
 */
export function arePodsInside(config: ProxyConfig, family: Family): boolean {
  const { detectLocalMode, clusterCIDRs } = config;
  return detectLocalMode !== "ClusterCIDR" || clusterCIDRs.some((range) => range.family === family);
}
