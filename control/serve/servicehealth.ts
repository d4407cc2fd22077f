// The health-check node ports (§12): a server for each Service that load balancers ask this node
// about, and family. Knows who is asked about, not how they are counted.
import type { Logger } from "../log.ts";
import { answerServiceHealth, type HealthCheck } from "../model/health.ts";
import type { NodePortAddresses } from "../model/nodeaddresses.ts";
import type { Clock } from "../pace.ts";
import type { Listen } from "./http.ts";
import { explainRefusal, formatPlace, RETRY_SECONDS, Standing } from "./standing.ts";

/** Load balancers ask from a few addresses, every few seconds. */
const MOST_CONNECTIONS = 128;

export interface ServiceHealthOptions {
  listen: Listen;
  clock: Clock;
  log: Logger;
  isProxyHealthy: () => boolean;
  /** A Service's port cannot be listened on; called once until the reason is another (§12.2). */
  onRefused?: (service: { namespace: string; name: string }, message: string) => void;
}

/** What is to be answered of one family of one Service. */
interface Wanted {
  check: HealthCheck;
  addresses: readonly string[];
  localEndpoints: number;
}

/** What is answered. */
interface Port {
  /** What it listens on: another needs another server. */
  where: string;
  localEndpoints: number;
  standing: Standing;
  /** The machine lacks the family: nobody can ask. */
  isMoot: boolean;
}

function whereOf({ check, addresses }: Wanted): string {
  return [...addresses, check.port].join(" ");
}

function nameOf({ namespace, name }: HealthCheck): string {
  return `${namespace}/${name}`;
}

/** Every family of every Service that has a port, by "namespace/name/family". */
function findWanted(
  checks: readonly HealthCheck[],
  { ipv4, ipv6 }: NodePortAddresses,
): Map<string, Wanted> {
  const wanted = new Map<string, Wanted>();
  for (const check of checks)
    for (const [family, localEndpoints] of check.localEndpoints) {
      const addresses = family === 4 ? ipv4 : ipv6;
      if (check.port === 0 || addresses.length === 0) continue;
      wanted.set(`${nameOf(check)}/${family}`, { check, addresses, localEndpoints });
    }
  return wanted;
}

export class ServiceHealth {
  readonly #options: ServiceHealthOptions;
  readonly #ports = new Map<string, Port>();
  /** Services without a port, as told already. */
  #portless = new Set<string>();

  constructor(options: ServiceHealthOptions) {
    this.#options = options;
  }

  /** Whether each server listens. */
  *states(): Generator<{ isListening: boolean }> {
    for (const { standing, isMoot } of this.#ports.values()) if (!isMoot) yield standing;
  }

  /** Makes the servers those of just these Services, at these addresses. */
  update(checks: readonly HealthCheck[], addresses: NodePortAddresses): void {
    this.#tellPortless(checks.filter(({ port }) => port === 0).map(nameOf));
    const wanted = findWanted(checks, addresses);
    // What is gone first: another Service may have its port now.
    for (const [key, { where, standing }] of this.#ports) {
      const next = wanted.get(key);
      if (next !== undefined && whereOf(next) === where) continue;
      standing.stop();
      this.#ports.delete(key);
    }
    for (const [key, each] of wanted) {
      const port = this.#ports.get(key) ?? this.#open(each);
      port.localEndpoints = each.localEndpoints;
      this.#ports.set(key, port);
    }
  }

  /** Ends all servers at once. */
  stop(): void {
    for (const { standing } of this.#ports.values()) standing.stop();
    this.#ports.clear();
  }

  #open(wanted: Wanted): Port {
    const { check, addresses } = wanted;
    const { namespace, name } = check;
    const { listen, clock, log, isProxyHealthy, onRefused } = this.#options;
    const subject = `health checks of Service "${namespace}/${name}"`;
    const standing = new Standing({
      listen,
      clock,
      places: addresses.map((address) => ({ address, port: check.port })),
      isIPv6Only: true,
      maxConnections: MOST_CONNECTIONS,
      answer: () => {
        const { localEndpoints } = port;
        const state = { localEndpoints, isProxyHealthy: isProxyHealthy() };
        return answerServiceHealth({ namespace, name }, state);
      },
      onError: ({ message }) => log.debug(`Cannot answer ${subject}: ${message}`),
      onListening: (places, { wasRefused }) =>
        log[wasRefused ? "info" : "debug"](`Answers ${subject} at ${places.map(formatPlace)}`),
      onRefused: (place, error) => {
        port.isMoot = error.code === "EAFNOSUPPORT";
        if (port.isMoot) return;
        const message =
          `Cannot answer ${subject} at ${formatPlace(place)}: ${explainRefusal(place, error)}; ` +
          `load balancers take this node for out of order, it is tried every ${RETRY_SECONDS} s`;
        log.warn(message);
        onRefused?.({ namespace, name }, message);
      },
    });
    const port: Port = { where: whereOf(wanted), localEndpoints: 0, standing, isMoot: false };
    void standing.start();
    return port;
  }

  #tellPortless(names: readonly string[]): void {
    for (const name of names)
      if (!this.#portless.has(name))
        this.#options.log.error(
          `Service "${name}" has type LoadBalancer and external policy Local, but no port where ` +
            "load balancers can ask for its endpoints: set spec.healthCheckNodePort",
        );
    this.#portless = new Set(names);
  }
}
