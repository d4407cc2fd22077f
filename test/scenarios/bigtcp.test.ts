// BIG TCP: where a user has let devices take packets of more than 64 KiB, they are translated as
// all others are, both ways, over IPv4 and IPv6: between programs and devices that take them, into
// what takes smaller ones, and into tunnels to endpoints.
import test, { type ExecutionContext } from "ava";
import { needsLab } from "../../lab/needs.ts";
import { Packets, type Seen } from "../../lab/packets.ts";
import { waitFor } from "../../lab/wait.ts";
import { letTake } from "./devices.ts";
import { type Client, Place, type Services } from "./journeys.ts";
import { agentOptions, type Bed, ECHO_PORT, FAMILIES, type Family, UNSEEN_POD } from "./outside.ts";

const labTest = needsLab(test.serial);

/** What devices are let take, and what they take unless they are. */
const TAKEN = 150_000;
const USUAL = 65_536;
/** More than an IP header can say. */
const BIG = 66_000;
/** What is sent before it must have come back: many packets, whatever their size. */
const ROUND_BYTES = 2_000_000;
const ROUNDS = 4;
/** Of what is sent over TCP in a test: it is half or more of it where large packets are lost. */
const MOST_SENT_AGAIN = 0.05;

const SERVICES: Services = {
  far: { endpoints: ["pod-b1"] },
  near: { endpoints: ["pod-a1"] },
  itself: { endpoints: [UNSEEN_POD] },
};

/** Who talks to which Service; and the device of node-a where its packets are watched. */
type Talk = readonly [from: Client, service: string, device: string];

/**
 * What the ends of a network send at most, 10 bytes less than its paths take. Up to Linux 6.18 who
 * routes IPv6 counts the option that says such a packet's length for a part of each segment, and
 * drops those that fill a path.
 */
const MTUS = { routed: 1490, vxlan: 1420 } as const;

interface BigBed extends Bed {
  network: keyof typeof MTUS;
  title: string;
  talks: readonly Talk[];
  /** Whether large packets leave by the devices that are watched too. */
  leaves: boolean;
}

const BEDS: readonly BigBed[] = [
  {
    title: "routed",
    network: "routed",
    mode: "tc",
    rpFilter: 1,
    rules: true,
    leaves: true,
    talks: [
      ["outside", "far", "eth0"],
      ["outside", "near", "eth0"],
      [UNSEEN_POD, "far", UNSEEN_POD],
      [UNSEEN_POD, "near", UNSEEN_POD],
      [UNSEEN_POD, "itself", UNSEEN_POD],
      ["node process", "far", "eth0"],
    ],
  },
  {
    title: "vxlan, which takes smaller ones",
    network: "vxlan",
    mode: "tc",
    rpFilter: 1,
    leaves: false,
    talks: [["outside", "far", "eth0"]],
  },
  {
    title: "direct server return by an uplink that takes smaller ones",
    network: "routed",
    mode: "tc",
    arguments: ["--forwarding", "dsr"],
    leaves: false,
    talks: [["outside", "far", "eth0"]],
  },
];

const places: Promise<BigPlace>[] = [];
test.after.always(async () => {
  for (const opened of places) {
    const { place, watcher } = await opened;
    await watcher.close();
    await place.stage.close();
  }
});

/** A place whose devices take large packets, and who watches those of node-a. */
interface BigPlace {
  place: Place;
  watcher: Packets;
}

async function openPlace(bed: BigBed): Promise<BigPlace> {
  const place = await Place.open(bed, SERVICES);
  const { lab, node } = place.stage;
  const ends = [lab.outside, ...Object.values(lab.pods)];
  for (const host of [lab.router, ...Object.values(lab.nodes), ...ends]) letTake(host, TAKEN);
  if (bed.arguments) {
    await place.stage.startAgent({ ...agentOptions(bed), node: lab.nodes["node-b"]! });
    letTake(node, USUAL, ["eth0"]);
  }
  for (const host of ends) await host.ip(`link set eth0 mtu ${MTUS[bed.network]}`);
  return { place, watcher: await Packets.start(node) };
}

/** TCP segments that all hosts have sent, and those of them that were sent again. */
async function tcpSegments({ stage: { lab } }: Place): Promise<{ sent: number; again: number }> {
  const hosts = [lab.outside, ...Object.values(lab.nodes), ...Object.values(lab.pods)];
  let [sent, again] = [0, 0];
  for (const host of hosts) {
    const { stdout } = await host.run(["cat", "/proc/net/snmp"]);
    const [names = [], values = []] = [...stdout.matchAll(/^Tcp: (.*)$/gm)].map(([, line = ""]) =>
      line.split(" "),
    );
    const countOf = (name: string) => Number(values[names.indexOf(name)]);
    sent += countOf("OutSegs");
    again += countOf("RetransSegs");
  }
  return { sent, again };
}

async function talk(
  t: ExecutionContext,
  { place, watcher }: BigPlace,
  {
    talk: [from, service, device],
    family,
    leaves,
  }: { talk: Talk; family: Family; leaves: boolean },
): Promise<void> {
  const { helper } = place.client(from);
  const { address } = place.target(service, { frontend: "vip", family });
  const match = `len(p) > ${BIG} and TCP in p`;
  const capture = await watcher.capture({ device, match, outgoing: true });
  const before = await tcpSegments(place);
  const flow = await helper.startFlow({
    protocol: "TCP",
    address,
    port: ECHO_PORT,
    bytes: ROUND_BYTES,
    pauseMs: 0,
  });
  const seen: Seen[] = [];
  const isDone = async () => {
    seen.push(...(await capture.take({ count: 8, timeoutSeconds: 0.2 })));
    const { rounds, broken } = await helper.reportFlow(flow);
    const isSeen = (isOutgoing: boolean) => seen.some((each) => each.isOutgoing === isOutgoing);
    return broken || (rounds >= ROUNDS && isSeen(false) && (!leaves || isSeen(true)));
  };
  await waitFor(isDone, { what: `large packets over ${family}`, timeoutSeconds: 30 });
  await capture.close();
  const report = await helper.stopFlow(flow);
  t.like(report, { identities: SERVICES[service]!.endpoints, wrong: 0, broken: undefined });
  const after = await tcpSegments(place);
  const sentAgain = (after.again - before.again) / (after.sent - before.sent);
  t.true(sentAgain < MOST_SENT_AGAIN, `${sentAgain} of the segments were sent again`);
  t.deepEqual([...new Set(seen.flatMap(({ problems }) => problems))], []);
}

for (const bed of BEDS) {
  let opened: Promise<BigPlace> | undefined;
  for (const each of bed.talks)
    for (const family of FAMILIES)
      labTest(`${bed.title}: ${each[0]} ⇄ ${each[1]} over ${family}`, async (t) => {
        if (opened === undefined) {
          opened = openPlace(bed);
          places.push(opened);
        }
        await talk(t, await opened, { talk: each, family, leaves: bed.leaves });
      });
}
