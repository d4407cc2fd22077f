// Manifests that change without pause: endpoints of Services that always have one, and Services
// that come and go beside them. Knows files, not what becomes of them.
import { setTimeout as delay } from "node:timers/promises";
import { type Manifest, makeService, makeSlices } from "../scenarios/objects.ts";
import type { Stage } from "../scenarios/stage.ts";
import type { Question } from "./load.ts";

/** Services under load, each with a port of its own on every endpoint. */
const STEADY = 6;
const COMERS = 8;
const SERVICE_PORT = 80;
const FIRST_PORT = 9001;
/** Nobody listens there: no connection may ever go to one of these. */
const COMERS_PORT = 9900;
const PAUSE_MILLISECONDS = 10;

/** IPv4 and IPv6 addresses of the pods that serve. */
export interface Pod {
  ipv4: string;
  ipv6: string;
}

function pick<T>(values: readonly T[]): T {
  return values[Math.floor(Math.random() * values.length)]!;
}

/** At least one of the values. */
function some<T>(values: readonly T[]): T[] {
  const first = pick(values);
  return values.filter((value) => value === first || Math.random() < 0.5);
}

export class Edits {
  readonly #stage: Stage;
  readonly #pods: readonly Pod[];
  readonly #present = new Set<number>();
  #going = false;
  #loop: Promise<void> | undefined;
  /** Files written or removed. */
  count = 0;

  constructor(stage: Stage, pods: readonly Pod[]) {
    this.#stage = stage;
    this.#pods = pods;
  }

  /** The ports that every serving pod listens on. */
  static get ports(): number[] {
    return Array.from({ length: STEADY }, (_, index) => FIRST_PORT + index);
  }

  /** The frontends of the Services that always have an endpoint, with all they ever have. */
  get questions(): Question[] {
    return Edits.ports.flatMap((port, index) =>
      (["ipv4", "ipv6"] as const).map((family) => ({
        address: addressesOf({ net: 1, host: index + 1 })[family === "ipv4" ? 0 : 1],
        port: SERVICE_PORT,
        endpoints: this.#pods.map((pod) => `${pod[family]}|${port}`),
      })),
    );
  }

  /** Writes the first manifests. */
  async begin(): Promise<void> {
    for (let index = 0; index < STEADY; index++) await this.#editSteady(index);
  }

  /** Goes on editing until pause(). */
  resume(): void {
    this.#going = true;
    this.#loop ??= this.#run();
  }

  /** Ends after the edit under way. */
  async pause(): Promise<void> {
    this.#going = false;
    await this.#loop;
    this.#loop = undefined;
  }

  async #run(): Promise<void> {
    while (this.#going) {
      if (Math.random() < 0.5) await this.#editSteady(Math.floor(Math.random() * STEADY));
      else await this.#editComer(Math.floor(Math.random() * COMERS));
      await delay(PAUSE_MILLISECONDS);
    }
  }

  async #editSteady(index: number): Promise<void> {
    const endpoints = (["ipv4", "ipv6"] as const).flatMap((family) =>
      some(this.#pods).map((pod) => pod[family]),
    );
    const port = FIRST_PORT + index;
    const affinity = index % 3 === 0 ? { sessionAffinity: "ClientIP" } : {};
    const spec = { externalIPs: [`198.51.100.${index + 1}`], ...affinity };
    await this.#write({ name: `steady-${index}`, net: 1, host: index + 1, port, endpoints, spec });
  }

  async #editComer(index: number): Promise<void> {
    const name = `comer-${index}`;
    if (this.#present.has(index) && Math.random() < 0.5) {
      this.#present.delete(index);
      this.count++;
      await this.#stage.withdraw(name);
      return;
    }
    this.#present.add(index);
    const hosts = Array.from({ length: Math.floor(Math.random() * 6) }, (_, host) => host + 20);
    const endpoints = hosts.flatMap((host) => [`10.244.1.${host}`, `fd00:10:244:1::${host}`]);
    await this.#write({ name, net: 2, host: index + 1, port: COMERS_PORT, endpoints });
  }

  async #write({
    name,
    net,
    host,
    port,
    endpoints,
    spec,
  }: {
    name: string;
    net: number;
    host: number;
    port: number;
    endpoints: readonly string[];
    spec?: Manifest;
  }): Promise<void> {
    const service = makeService({
      name,
      addresses: addressesOf({ net, host }),
      ports: [{ port: SERVICE_PORT }],
      ...(spec === undefined ? {} : { spec }),
    });
    const slices = makeSlices({ service: name, ports: [{ port }], endpoints });
    this.count++;
    await this.#stage.apply(name, [service, ...slices]);
  }
}

/** The cluster IPs of a Service. */
function addressesOf({ net, host }: { net: number; host: number }): [string, string] {
  return [`10.96.${net}.${host}`, `fd00:10:96::${net}:${host}`];
}
