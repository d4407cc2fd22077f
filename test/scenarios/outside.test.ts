// Who reaches what by packets alone: clients outside, pods and node processes that no socket hook
// sees, in every network, with XDP and with TC, over TCP and UDP and both families.
import test, { type ExecutionContext } from "ava";
import type { Answer } from "../../lab/helper.ts";
import type { Helper, Host } from "../../lab/host.ts";
import { needsLab } from "../../lab/needs.ts";
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
  type Seen,
  UNSEEN_POD,
} from "./outside.ts";
import { POD_PORT, type Stage } from "./stage.ts";

const labTest = needsLab(test.serial);

const BEDS: readonly (Bed & { title: string })[] = [
  { title: "routed, XDP", network: "routed", mode: "xdp", rpFilter: 0 },
  { title: "routed, TC", network: "routed", mode: "tc", rpFilter: 1, rules: true },
  { title: "bridge, XDP", network: "bridge", mode: "xdp", rpFilter: 1 },
  { title: "bridge, TC", network: "bridge", mode: "tc", rpFilter: 2 },
  { title: "vxlan, XDP", network: "vxlan", mode: "xdp", rpFilter: 2 },
  { title: "vxlan, TC", network: "vxlan", mode: "tc", rpFilter: 1 },
];

/** What must not be answered is waited for so long. */
const SILENCE_SECONDS = 0.5;
/** Does not fit a packet, and its answer does not. */
const BIG = "x".repeat(4000);
/** Further addresses of the client outside. */
const STRANGERS = { ipv4: "203.0.113.200", ipv6: "2001:db8:ffff:1::5" } as const;

const LOCAL = { externalTrafficPolicy: "Local" };
/** Of the Services with that policy, the ports where load balancers ask for endpoints. */
const HEALTH_PORT = 32_000;
/** Services by name: what is behind them, and how they differ from plain ones. */
const SERVICES: Readonly<Record<string, { endpoints: readonly string[]; spec?: Manifest }>> = {
  far: { endpoints: ["pod-b1"] },
  near: { endpoints: ["pod-a1"] },
  itself: { endpoints: [UNSEEN_POD] },
  none: { endpoints: [] },
  local: { endpoints: ["pod-a1", "pod-b1"], spec: LOCAL },
  elsewhere: { endpoints: ["pod-b1"], spec: LOCAL },
  guarded: {
    endpoints: ["pod-b1"],
    spec: { loadBalancerSourceRanges: ["203.0.113.10/32", "2001:db8:ffff::10/128"] },
  },
  inner: { endpoints: ["pod-b1"], spec: { internalTrafficPolicy: "Local" } },
  host: { endpoints: ["node-a"] },
  "far-host": { endpoints: ["node-b"] },
  spread: { endpoints: ["pod-a1", UNSEEN_POD, "pod-b1"] },
  sticky: { endpoints: ["pod-a1", "pod-b1"], spec: { sessionAffinity: "ClientIP" } },
};
const NAMES = Object.keys(SERVICES);
const FIRST_NUMBER = 11;

type Client = "outside" | "stranger" | typeof UNSEEN_POD | "node process" | "seen pod";

const ALL = ["vip", "externalIP", "clusterIP", "nodePort"] as const;
const EXTERNAL = ["vip", "externalIP", "nodePort"] as const;
/** What a node's process sends to the node itself passes no device. */
const AWAY = ["vip", "externalIP", "clusterIP"] as const;
const REFUSED = "ECONNREFUSED";
const SILENCE = "ETIMEDOUT";

/**
 * Who asks which Service, how, who answers or what the client gets instead, and as whom it is seen:
 * as itself, or as the node that it comes through.
 */
type Journey = readonly [
  from: Client,
  service: string,
  by: readonly Frontend[],
  answer: string,
  seenAs?: "itself" | "node",
];

const JOURNEYS: readonly Journey[] = [
  ["outside", "far", ALL, "pod-b1", "node"],
  ["outside", "near", ALL, "pod-a1", "itself"],
  ["outside", "itself", ["vip", "nodePort"], UNSEEN_POD, "itself"],
  ["outside", "host", ALL, "node-a", "itself"],
  ["outside", "far-host", ALL, "node-b", "node"],
  ["outside", "none", ALL, REFUSED],
  ["outside", "local", EXTERNAL, "pod-a1", "itself"],
  ["outside", "elsewhere", EXTERNAL, SILENCE],
  ["outside", "guarded", ALL, "pod-b1", "node"],
  ["stranger", "guarded", ["vip"], SILENCE],
  ["stranger", "guarded", ["externalIP", "clusterIP", "nodePort"], "pod-b1", "node"],
  ["outside", "inner", ["clusterIP"], SILENCE],
  ["outside", "inner", EXTERNAL, "pod-b1", "node"],
  [UNSEEN_POD, "far", ALL, "pod-b1", "itself"],
  [UNSEEN_POD, "near", ALL, "pod-a1", "itself"],
  [UNSEEN_POD, "itself", ALL, UNSEEN_POD, "node"],
  [UNSEEN_POD, "host", ALL, "node-a", "itself"],
  [UNSEEN_POD, "far-host", ALL, "node-b"],
  [UNSEEN_POD, "none", ALL, REFUSED],
  [UNSEEN_POD, "elsewhere", EXTERNAL, "pod-b1", "itself"],
  [UNSEEN_POD, "guarded", ["vip"], SILENCE],
  [UNSEEN_POD, "inner", ["clusterIP"], SILENCE],
  ["node process", "far", AWAY, "pod-b1", "node"],
  ["node process", "near", AWAY, "pod-a1", "node"],
  ["node process", "far-host", AWAY, "node-b", "node"],
  ["node process", "none", AWAY, REFUSED],
  ["node process", "elsewhere", ["vip", "externalIP"], "pod-b1", "node"],
  ["node process", "inner", ["clusterIP"], SILENCE],
  ["seen pod", "far", ALL, "pod-b1", "itself"],
  ["seen pod", "itself", ALL, UNSEEN_POD, "itself"],
];

/** Who talks long and large to whom. */
const TALKS: readonly (readonly [from: Client, service: string, by: string])[] = [
  ["outside", "far", "pod-b1"],
  ["outside", "near", "pod-a1"],
  [UNSEEN_POD, "far", "pod-b1"],
  [UNSEEN_POD, "near", "pod-a1"],
  [UNSEEN_POD, "itself", UNSEEN_POD],
  ["node process", "far", "pod-b1"],
  ["node process", "near", "pod-a1"],
];

class Place {
  readonly stage: Stage;
  readonly #clients = new Map<Client, { host: Host; helper: Helper; local?: typeof STRANGERS }>();
  /** Every address of the node. */
  #nodeAddresses: ReadonlySet<string> = new Set();

  private constructor(stage: Stage) {
    this.stage = stage;
  }

  static async open(bed: Bed): Promise<Place> {
    const stage = await openOutside(bed);
    const place = new Place(stage);
    const { lab, node } = stage;
    const hosts = { ...lab.pods, ...lab.nodes };
    for (const each of Object.values(lab.nodes)) await serve(each);
    for (const [index, name] of NAMES.entries()) {
      const { endpoints, spec } = SERVICES[name]!;
      const placed = endpointsOf(
        stage,
        endpoints.map((each) => hosts[each]!),
      );
      const health = spec === LOCAL && { healthCheckNodePort: HEALTH_PORT + index };
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
    const number = FIRST_NUMBER + NAMES.indexOf(service);
    return frontendOf(number, { ...by, node: this.stage.node });
  }

  /** Asks in every way at once; each answer by the way, as a line. */
  async ask([from, service, frontends, answer, seenAs]: Journey): Promise<[string, string][]> {
    const { helper, host, local } = this.#clients.get(from)!;
    const timeoutSeconds = answer === SILENCE ? SILENCE_SECONDS : 5;
    const asked = frontends.flatMap((frontend) =>
      FAMILIES.flatMap((family) =>
        PROTOCOLS.map(async (protocol): Promise<[string, string]> => {
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

const places: Promise<Place>[] = [];
test.after.always(async () => {
  for (const place of places) await (await place).stage.close();
});

function play(bed: (typeof BEDS)[number]): void {
  let place: Promise<Place> | undefined;
  const opened = () => {
    if (place === undefined) {
      place = Place.open(bed);
      places.push(place);
    }
    return place;
  };

  for (const journey of JOURNEYS) {
    const [from, service, by, answer, seenAs] = journey;
    const title = `${bed.title}: ${from} → ${service} by ${by.join(", ")}: ${answer}`;
    labTest(seenAs === undefined ? title : `${title} sees ${seenAs}`, async (t) => {
      const expected = seenAs === undefined ? answer : `${answer} sees ${seenAs}`;
      for (const [way, told] of await (await opened()).ask(journey)) t.is(told, expected, way);
    });
  }

  for (const [from, service, by] of TALKS)
    labTest(
      `${bed.title}: ${from} ⇄ ${service}: large datagrams, and 200 kB both ways`,
      async (t) => {
        await talk(t, await opened(), [from, service, by]);
      },
    );

  labTest(`${bed.title}: connections from outside spread over all endpoints`, async (t) => {
    const place = await opened();
    const { endpoints } = SERVICES.spread!;
    for (const family of FAMILIES) {
      const target = place.target("spread", { frontend: "vip", family });
      const questions = Array.from({ length: 64 }, () => ({ ...target, reset: true }));
      const seen = (await place.client("outside").helper.tcpMany(questions)).map((result) =>
        "error" in result ? result.error : (JSON.parse(result.reply) as Answer).identity,
      );
      // One of three is missed once in 10^11 runs.
      t.deepEqual([...new Set(seen)].sort(), [...endpoints].sort(), family);
    }
  });

  labTest(`${bed.title}: with ClientIP affinity a client stays, whatever it asks`, async (t) => {
    const place = await opened();
    for (const family of FAMILIES) {
      const { helper } = place.client("outside");
      const asked = ALL.flatMap((frontend) => {
        const target = place.target("sticky", { frontend, family });
        return Array.from({ length: 8 }, () => askFrom(helper, target, { protocol: "TCP" }));
      });
      const seen = await Promise.all(asked);
      const by = seen.map((each) => ("error" in each ? each.error : each.identity));
      // The first ones come at once: of those each may have chosen before the others were known.
      t.is(new Set(by.slice(8)).size, 1, by.join());
    }
  });

  labTest(`${bed.title}: Service addresses answer pings`, async (t) => {
    const place = await opened();
    const pings = (["outside", UNSEEN_POD] as const).flatMap((from) =>
      AWAY.flatMap((frontend) =>
        ["far", "none"].flatMap((service) =>
          FAMILIES.map((family) => ({ from, ...place.target(service, { frontend, family }) })),
        ),
      ),
    );
    await Promise.all(
      pings.map(async ({ from, address }) => {
        const ping = ["ping", "-n", "-c", "1", "-W", "5", "-s", "1200", address];
        const { code, stdout } = await place.client(from).host.run(ping);
        t.is(code, 0, `${from}: ${stdout}`);
      }),
    );
  });

  labTest(`${bed.title}: nothing was lost, wrong or disowned by anybody meanwhile`, async (t) => {
    const place = await opened();
    const { reasons } = await place.stage.dump();
    for (const reason of NEVER) t.is(reasons[reason], 0, reason);
    t.notRegex(place.stage.agentOutput(), / (warn|error) /);
    await checkCounters(t, place.stage);
  });
}

/** What none of these tests gives a reason for. */
const NEVER = [
  "inconsistent",
  "no_route",
  "ports_exhausted",
  "flow_lost",
  "flow_evicted",
  "fragment_lost",
  "ttl_exceeded",
  "answer_limit",
] as const;

/** Wrong checksums anywhere, and what connection tracking knows no connection of. */
async function checkCounters(t: ExecutionContext, { lab }: Stage): Promise<void> {
  const hosts = [lab.outside, ...Object.values(lab.nodes), ...Object.values(lab.pods)];
  for (const host of hosts) {
    const { stdout } = await host.run(["cat", "/proc/net/snmp", "/proc/net/snmp6"]);
    const names = /^(?:Tcp|Udp|Icmp): .*InCsumErrors.*$/gm;
    for (const [line] of stdout.matchAll(names)) {
      const values = stdout
        .slice(stdout.indexOf(line) + line.length)
        .trim()
        .split("\n")[0]!;
      const at = line.split(" ").indexOf("InCsumErrors");
      t.is(values.split(" ")[at], "0", `${host.name}: ${line.split(":")[0]} checksums`);
    }
    for (const [, name, count] of stdout.matchAll(/^(\w+InCsumErrors)\s+(\d+)$/gm))
      t.is(count, "0", `${host.name}: ${name}`);
  }
  for (const node of Object.values(lab.nodes))
    for (const program of ["iptables", "ip6tables"]) {
      const { stdout } = await node.run([`${program}-nft-save`, "-c", "-t", "filter"]);
      const [, dropped = "0"] = /^\[(\d+):.*INVALID -j DROP$/m.exec(stdout) ?? [];
      t.is(dropped, "0", `${node.name}: ${program}`);
    }
}

/** Datagrams that do not fit a packet, and more than a window of TCP, there and back. */
async function talk(
  t: ExecutionContext,
  place: Place,
  [from, service, by]: (typeof TALKS)[number],
): Promise<void> {
  const { helper } = place.client(from);
  for (const family of FAMILIES) {
    const { address } = place.target(service, { frontend: "vip", family });
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

for (const bed of BEDS) play(bed);
