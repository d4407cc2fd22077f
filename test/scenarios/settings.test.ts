// What the settings of the packet path change for who asks from outside, from pods and from the
// node: --forwarding, --masquerade, --masquerade-all and --device none, one after the other on the
// same nodes, as an operator changes them while connections last.
import test, { type ExecutionContext } from "ava";
import type { Running } from "../../lab/host.ts";
import { narrowBetween, narrowToClient } from "../../lab/links.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { attachments, dumpDevices } from "./devices.ts";
import {
  type Journey,
  Place,
  REFUSED,
  type Services,
  SILENCE,
  type Talk,
  wordsOf,
} from "./journeys.ts";
import {
  agentOptions,
  type Bed,
  CLUSTER_FLAGS,
  ECHO_PORT,
  FAMILIES,
  PROTOCOLS,
  type Protocol,
  UNSEEN_POD,
} from "./outside.ts";
import type { AgentOptions } from "./stage.ts";

const labTest = needsLab(test.serial);

/** `only`: the flag whose settings are tried there, if not all. */
const BEDS: readonly (Bed & { title: string; only?: string })[] = [
  { title: "routed, XDP", network: "routed", mode: "xdp", rpFilter: 1, rules: true },
  { title: "vxlan, TC", network: "vxlan", mode: "tc", rpFilter: 1 },
  { title: "bridge, TC", network: "bridge", mode: "tc", rpFilter: 1, only: "--forwarding" },
];

const SERVICES: Services = {
  far: { endpoints: ["pod-b1"] },
  near: { endpoints: ["pod-a1"] },
  host: { endpoints: ["node-a"] },
  "far-host": { endpoints: ["node-b"] },
  none: { endpoints: [] },
  local: { endpoints: ["pod-a1", "pod-b1"], spec: { externalTrafficPolicy: "Local" } },
};

const ALL = ["vip", "externalIP", "clusterIP", "nodePort"] as const;
const EXTERNAL = ["vip", "externalIP", "nodePort"] as const;
/** Of no node: an endpoint's node may answer from there. */
const FLOATING = ["vip", "externalIP", "clusterIP"] as const;

interface Setting {
  flags: readonly string[];
  journeys: readonly Journey[];
  /** Those of one protocol alone. */
  tcp?: readonly Journey[];
  udp?: readonly Journey[];
  talks?: readonly Talk[];
  /** Those that go on where ways have become narrow. */
  narrowed?: readonly Talk[];
}

/** Who is served by sockets alone. */
const BY_SOCKETS: readonly Journey[] = [
  ["seen pod", "far", ALL, "pod-b1", "itself"],
  ["seen pod", "host", ALL, "node-a", "itself"],
  ["seen pod", "none", ALL, REFUSED],
  ["seen process", "far", ALL, "pod-b1", "node"],
  ["seen process", "near", ALL, "pod-a1", "node"],
];
/** Who is left alone then: the network's own errors come, or nothing. */
const BY_PACKETS: readonly Journey[] = [
  ["outside", "near", ALL, SILENCE],
  ["outside", "far", ALL, SILENCE],
  [UNSEEN_POD, "near", ALL, SILENCE],
  ["node process", "far", FLOATING, SILENCE],
];

const SETTINGS: readonly Setting[] = [
  {
    flags: ["--forwarding", "dsr"],
    journeys: [
      ["outside", "far", FLOATING, "pod-b1", "itself"],
      ["stranger", "far", FLOATING, "pod-b1", "itself"],
      ["outside", "far-host", FLOATING, "node-b", "itself"],
      // An answer from another node would not be from the address that was asked.
      ["outside", "far", ["nodePort"], "pod-b1", "node"],
      ["outside", "near", ALL, "pod-a1", "itself"],
      ["outside", "none", ALL, REFUSED],
      [UNSEEN_POD, "far", ALL, "pod-b1", "itself"],
      ["node process", "far", FLOATING, "pod-b1", "node"],
    ],
    talks: [["outside", "far", "pod-b1"]],
    narrowed: [["outside", "far", "pod-b1"]],
  },
  {
    flags: ["--forwarding", "hybrid"],
    journeys: [
      ["outside", "far", ["nodePort"], "pod-b1", "node"],
      ["outside", "near", ALL, "pod-a1", "itself"],
    ],
    tcp: [["outside", "far", FLOATING, "pod-b1", "itself"]],
    udp: [["outside", "far", FLOATING, "pod-b1", "node"]],
    talks: [["outside", "far", "pod-b1"]],
  },
  {
    flags: ["--masquerade", "always"],
    journeys: [
      ["outside", "far", ALL, "pod-b1", "node"],
      ["outside", "near", ALL, "pod-a1", "node"],
      ["outside", "local", EXTERNAL, "pod-a1", "itself"],
      ["outside", "host", ALL, "node-a", "itself"],
      [UNSEEN_POD, "near", EXTERNAL, "pod-a1", "node"],
      [UNSEEN_POD, "far", EXTERNAL, "pod-b1", "node"],
      [UNSEEN_POD, "near", ["clusterIP"], "pod-a1", "itself"],
    ],
    talks: [["outside", "near", "pod-a1"]],
  },
  {
    flags: ["--masquerade-all"],
    journeys: [
      ["outside", "far", ALL, "pod-b1", "node"],
      ["outside", "near", ["clusterIP"], "pod-a1", "node"],
      ["outside", "near", EXTERNAL, "pod-a1", "itself"],
      [UNSEEN_POD, "near", ["clusterIP"], "pod-a1", "node"],
      [UNSEEN_POD, "far", ["clusterIP"], "pod-b1", "node"],
      [UNSEEN_POD, "far", EXTERNAL, "pod-b1", "itself"],
    ],
  },
];

const places: Promise<Place>[] = [];
test.after.always(async () => {
  for (const place of places) await (await place).stage.close();
});

/** Of node-b, by place. */
const others = new Map<Place, Running>();

/** Both nodes have an agent. That of node-b needs no flag for what node-a does. */
async function openPlace(bed: Bed): Promise<Place> {
  const place = await Place.open(bed, SERVICES);
  await startOther(place, agentOptions(bed));
  return place;
}

async function startOther(place: Place, options: AgentOptions): Promise<void> {
  const { stage } = place;
  await others.get(place)?.stop();
  const agent = await stage.startAgent({ ...options, node: stage.lab.nodes["node-b"]! });
  others.set(place, agent);
}

/** Starts the agent of node-a again, with other flags. */
async function restart({ stage }: Place, flags: readonly string[]): Promise<void> {
  await stage.agent.stop();
  await stage.startAgent({ arguments: [...CLUSTER_FLAGS, ...flags] });
}

async function makeJourneys(
  t: ExecutionContext,
  place: Place,
  { journeys, protocols }: { journeys: readonly Journey[]; protocols: readonly Protocol[] },
): Promise<void> {
  for (const journey of journeys)
    for (const [way, told] of await place.ask(journey, { protocols }))
      t.is(told, wordsOf(journey), `${journey[0]} → ${journey[1]} by ${way}`);
}

/** Each direction must learn from routers alone how large its packets may be. */
async function talkNarrowly(
  t: ExecutionContext,
  { place, bed, talks }: { place: Place; bed: Bed; talks: readonly Talk[] },
): Promise<void> {
  const { lab } = place.stage;
  const { "node-a": from, "node-b": to } = lab.nodes;
  await narrowToClient(lab, 1300);
  if (bed.network === "routed") await narrowBetween(lab, { from: from!, to: to!, mtu: 1400 });
  for (const talk of talks) await place.talk(t, talk);
  // What pods on a bridge have cut for a way beyond another node, br_netfilter would cut larger.
  await narrowToClient(lab, 1500);
}

/** Connections that are to last: one of each family from outside to the endpoint elsewhere. */
class Lasting {
  readonly #place: Place;
  readonly #flows: readonly number[];

  private constructor(place: Place, flows: readonly number[]) {
    this.#place = place;
    this.#flows = flows;
  }

  static async start(place: Place): Promise<Lasting> {
    const { helper } = place.client("outside");
    const targets = FAMILIES.map((family) => place.target("far", { frontend: "vip", family }));
    const starts = targets.map(({ address }) =>
      helper.startFlow({ protocol: "TCP", address, port: ECHO_PORT }),
    );
    return new Lasting(place, await Promise.all(starts));
  }

  /** Waits until each has been answered again, and ends them. */
  async end(t: ExecutionContext): Promise<void> {
    const { helper } = this.#place.client("outside");
    for (const flow of this.#flows) {
      const { rounds } = await helper.reportFlow(flow);
      const goesOn = async () => {
        const { rounds: now, broken } = await helper.reportFlow(flow);
        return broken !== undefined || now > rounds + 1;
      };
      await waitFor(goesOn, { what: "a connection to go on" });
      t.like(await helper.stopFlow(flow), { identities: ["pod-b1"], wrong: 0, broken: undefined });
    }
  }
}

for (const bed of BEDS) {
  let lasting: Lasting | undefined;
  let place: Promise<Place> | undefined;
  const opened = () => {
    if (place === undefined) {
      place = openPlace(bed);
      places.push(place);
    }
    return place;
  };

  const isTried = (flags: readonly string[]) => (bed.only ?? flags[0]) === flags[0];
  const triedTest = isTried(["--device"]) ? labTest : undefined;

  triedTest?.(
    `${bed.title}: --device none takes programs off devices and leaves sockets`,
    async (t) => {
      const place = await opened();
      const { stage } = place;
      t.not(Object.keys(attachments(stage.node)).length, 0);
      await restart(place, ["--device", "none"]);
      const { reasons } = await stage.dump();
      for (const journey of BY_PACKETS)
        for (const [way, told] of await place.ask(journey))
          t.regex(told, /^E[A-Z]+$/, `${journey[0]} → ${journey[1]} by ${way}`);
      t.deepEqual((await stage.dump()).reasons, reasons, "packets of others are not counted");
      await makeJourneys(t, place, { journeys: BY_SOCKETS, protocols: PROTOCOLS });
      t.deepEqual(attachments(stage.node), {});
      t.deepEqual(await dumpDevices(stage.node), []);
      const { stdout } = await stage.command("dump", "devices", "--pins", stage.node.pins);
      t.is(stdout, "No devices.\n");
      const links = await stage.node.run(["ip", "-details", "link"]);
      t.notRegex(links.stdout, /xdp/);
    },
  );

  for (const { flags, journeys, tcp = [], udp = [], ...rest } of SETTINGS) {
    const { talks = [], narrowed = [] } = rest;
    if (!isTried(flags)) continue;
    labTest(`${bed.title}: ${flags.join(" ")}`, async (t) => {
      const place = await opened();
      await restart(place, ["--device", `eth0=${bed.mode}`, ...flags]);
      await lasting?.end(t);
      await makeJourneys(t, place, { journeys, protocols: PROTOCOLS });
      await makeJourneys(t, place, { journeys: tcp, protocols: ["TCP"] });
      await makeJourneys(t, place, { journeys: udp, protocols: ["UDP"] });
      for (const talk of talks) await place.talk(t, talk);
      if (narrowed.length > 0) await talkNarrowly(t, { place, bed, talks: narrowed });
      lasting = await Lasting.start(place);
    });
  }

  const refusalTest = bed.network === "bridge" ? labTest : undefined;
  refusalTest?.(`${bed.title}: a node that opens no tunnels is told of`, async (t) => {
    const place = await opened();
    await lasting?.end(t);
    await startOther(place, { arguments: [...CLUSTER_FLAGS, "--device", "none"] });
    await restart(place, ["--device", `eth0=${bed.mode}`, "--forwarding", "dsr"]);
    // One at a time: the pod's kernel says so to a node about once a second.
    const journey: Journey = ["outside", "far", ["vip"], "EHOSTUNREACH"];
    await makeJourneys(t, place, { journeys: [journey], protocols: ["TCP"] });
    t.true((await place.stage.dump()).reasons.tunnel_refused! > 0);
  });
}
