// Who asks which Service, how, and who answers: a stage for traffic from outside, Services and
// clients by name, an agent on node-a, and all that may be asked of it at once. Knows how to ask
// and how to tell an answer in words, not what is right.
import type { ExecutionContext } from "ava";
import type { Helper, Host } from "../../lab/host.ts";
import type { Address } from "../../lab/sockets.ts";
import { waitFor } from "../../lab/wait.ts";
import type { Manifest } from "./objects.ts";
import {
  agentOptions,
  askFrom,
  type Bed,
  ECHO_PORT,
  endpointsOf,
  FAMILIES,
  type Family,
  type Frontend,
  frontendOf,
  makeOutside,
  openOutside,
  PORT,
  PROTOCOLS,
  type Protocol,
  type Seen,
  UNSEEN_POD,
} from "./outside.ts";
import { POD_PORT, type Stage } from "./stage.ts";

/** What must not be answered is waited for so long. */
const SILENCE_SECONDS = 0.5;
/** Does not fit a packet, and its answer does not. */
const BIG = "x".repeat(4000);
/** Further addresses of the client outside. */
const STRANGERS = { ipv4: "203.0.113.200", ipv6: "2001:db8:ffff:1::5" } as const;
/** Of the Services with that policy, the ports where load balancers ask for endpoints. */
const HEALTH_PORT = 32_000;
const FIRST_NUMBER = 11;

/** Services by name: what is behind them, and how they differ from plain ones. At most 80. */
export type Services = Readonly<Record<string, { endpoints: readonly string[]; spec?: Manifest }>>;

/** A pod and a process of node-a are asked by no socket hook, unless they are said to be seen. */
export type Client =
  | "outside"
  | "stranger"
  | typeof UNSEEN_POD
  | "node process"
  | "seen pod"
  | "seen process";

/** What clients get who are refused, and those who are not answered. */
export const REFUSED = "ECONNREFUSED";
export const SILENCE = "ETIMEDOUT";

/**
 * Who asks which Service, how, who answers or what the client gets instead, and as whom it is seen:
 * as itself, or as the node that it comes through.
 */
export type Journey = readonly [
  from: Client,
  service: string,
  by: readonly Frontend[],
  answer: string,
  seenAs?: "itself" | "node",
];

/** Who talks long and large to whom. */
export type Talk = readonly [from: Client, service: string, by: string];

/** What must come of a journey, in words. */
export function wordsOf([, , , answer, seenAs]: Journey): string {
  return seenAs === undefined ? answer : `${answer} sees ${seenAs}`;
}

/** A stage where every journey can be made. */
export class Place {
  readonly stage: Stage;
  readonly #clients = new Map<Client, { host: Host; helper: Helper; local?: typeof STRANGERS }>();
  readonly #names: readonly string[];
  /** Every address of the node. */
  #nodeAddresses: ReadonlySet<string> = new Set();

  private constructor(stage: Stage, services: Services) {
    this.stage = stage;
    this.#names = Object.keys(services);
  }

  /** Opens a stage with these Services, and starts the agent of node-a. */
  static async open(bed: Bed, services: Services): Promise<Place> {
    const stage = await openOutside(bed);
    const place = new Place(stage, services);
    const { lab, node } = stage;
    const hosts = { ...lab.pods, ...lab.nodes };
    for (const each of Object.values(lab.nodes)) await serve(each);
    for (const [index, [name, { endpoints, spec }]] of Object.entries(services).entries()) {
      const placed = endpointsOf(
        stage,
        endpoints.map((each) => hosts[each]!),
      );
      const isLocal = spec?.externalTrafficPolicy === "Local";
      const health = isLocal && { healthCheckNodePort: HEALTH_PORT + index };
      const options = {
        number: FIRST_NUMBER + index,
        endpoints: placed,
        spec: { ...spec, ...health },
      };
      await stage.apply(name, makeOutside(name, options));
    }
    await stage.startAgent(agentOptions(bed));
    const outside = await lab.outside.helper();
    place.#clients.set("outside", { host: lab.outside, helper: outside });
    place.#clients.set("stranger", { host: lab.outside, helper: outside, local: STRANGERS });
    const others: [Client, Host][] = [
      [UNSEEN_POD, stage.pod(UNSEEN_POD)],
      ["node process", node.bystander],
      ["seen pod", stage.pod("pod-a1")],
      ["seen process", node],
    ];
    for (const [client, host] of others)
      place.#clients.set(client, { host, helper: await host.helper() });
    const { stdout } = await node.run(["ip", "-json", "address"]);
    const devices = JSON.parse(stdout) as { addr_info: { local: string }[] }[];
    place.#nodeAddresses = new Set(devices.flatMap((each) => each.addr_info.map((a) => a.local)));
    return place;
  }

  client(name: Client): { host: Host; helper: Helper } {
    return this.#clients.get(name)!;
  }

  target(service: string, by: { frontend: Frontend; family: Family }): Address {
    const number = FIRST_NUMBER + this.#names.indexOf(service);
    return frontendOf(number, { ...by, node: this.stage.node });
  }

  /** Asks in every way at once; each answer by the way, as a line. */
  async ask(
    [from, service, frontends, answer, seenAs]: Journey,
    { protocols = PROTOCOLS }: { protocols?: readonly Protocol[] } = {},
  ): Promise<[string, string][]> {
    const { helper, host, local } = this.#clients.get(from)!;
    const timeoutSeconds = answer === SILENCE ? SILENCE_SECONDS : 5;
    const asked = frontends.flatMap((frontend) =>
      FAMILIES.flatMap((family) =>
        protocols.map(async (protocol): Promise<[string, string]> => {
          const target = this.target(service, { frontend, family });
          const source = local && { local: { address: local[family] } };
          const seen = await askFrom(helper, target, { protocol, timeoutSeconds, ...source });
          const own = local?.[family] ?? host.addresses[family];
          return [`${frontend} ${protocol} ${family}`, this.#tell(seen, seenAs && own)];
        }),
      ),
    );
    return Promise.all(asked);
  }

  /** Datagrams that do not fit a packet, and more than a window of TCP, there and back. */
  async talk(t: ExecutionContext, [from, service, by]: Talk): Promise<void> {
    const { helper } = this.client(from);
    for (const family of FAMILIES) {
      const { address } = this.target(service, { frontend: "vip", family });
      // The first one may find out how large a packet may be.
      await waitFor(
        async () => {
          const options = { protocol: "UDP", payload: BIG, timeoutSeconds: 1 } as const;
          const seen = await askFrom(helper, { address, port: PORT }, options);
          return "identity" in seen && seen.identity === by;
        },
        { what: `a large datagram over ${family}` },
      );
      const protocol = "TCP";
      const flow = await helper.startFlow({ protocol, address, port: ECHO_PORT, bytes: 200_000 });
      await waitFor(async () => (await helper.reportFlow(flow)).rounds > 0, {
        what: `200 kB over ${family}`,
        timeoutSeconds: 30,
      });
      t.like(await helper.stopFlow(flow), { identities: [by], wrong: 0, broken: undefined });
    }
  }

  /** Who answered, or the error; given the client's own address, also whom that one saw. */
  #tell(seen: Seen, own: string | undefined): string {
    if ("error" in seen) return seen.error;
    if (own === undefined) return seen.identity;
    const { address } = seen.client;
    const whom = this.#nodeAddresses.has(address) ? "node" : address === own ? "itself" : address;
    return `${seen.identity} sees ${whom}`;
  }
}

/** Serves at a node's own addresses what stages serve in pods. */
async function serve(node: Host): Promise<void> {
  const helper = await node.helper();
  for (const address of Object.values(node.addresses)) {
    await helper.serveTcp({ identity: node.name, address, port: POD_PORT });
    await helper.serveUdp({ identity: node.name, address, port: POD_PORT });
  }
}
