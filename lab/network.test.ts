// The three networks as they are without a proxy: who reaches whom, with segments and datagrams of
// any size, as whom they are seen, and that their rules are real.
import test from "ava";
import { type Addresses, families, memberOf, nodeAddresses, podPrefixesOf } from "./addresses.ts";
import type { Network } from "./cni.ts";
import type { Answer } from "./helper.ts";
import type { Helper, Host } from "./host.ts";
import { Lab } from "./lab.ts";
import { needsLab } from "./needs.ts";
import { Packets } from "./packets.ts";
import { CLOSED_PORT } from "./rules.ts";
import type { NetworkOptions } from "./topology.ts";
import { waitFor } from "./wait.ts";

const labTest = needsLab(test.serial);

interface Bed extends Required<NetworkOptions> {
  title: string;
}

const beds: readonly Bed[] = [
  { title: "routed", network: "routed", rules: false, rpFilter: 0 },
  { title: "routed with rules", network: "routed", rules: true, rpFilter: 1 },
  { title: "bridge", network: "bridge", rules: true, rpFilter: 2 },
  { title: "vxlan", network: "vxlan", rules: true, rpFilter: 1 },
];

const ECHO = 80;
const UDP = 53;
/** Does not fit a packet. */
const BIG = "x".repeat(4000);

/** The hosts of a lab by name, and what serves and asks there. */
interface Place {
  host(name: string): Host;
  helper(name: string): Helper;
  packets(name: string): Promise<Packets>;
}

const labs: Lab[] = [];
test.after.always(() => Promise.all(labs.map((lab) => lab.close())));

async function open(bed: Bed): Promise<Place> {
  const lab = await Lab.create({ name: bed.network, ...bed });
  labs.push(lab);
  const hosts = [lab.outside, ...Object.values(lab.nodes), ...Object.values(lab.pods)];
  const helpers = new Map<string, Helper>();
  await Promise.all(
    hosts.map(async (host) => {
      const helper = await host.helper();
      helpers.set(host.name, helper);
      for (const address of Object.values(host.addresses)) {
        const identity = host.name;
        await helper.serveEcho({ identity, address, port: ECHO });
        await helper.serveUdp({ identity, address, port: UDP });
        await helper.serveTcp({ identity, address, port: CLOSED_PORT });
      }
    }),
  );
  const host = (name: string) => [...hosts, lab.router].find((each) => each.name === name)!;
  const started = new Map<string, Promise<Packets>>();
  return {
    host,
    helper: (name) => helpers.get(name)!,
    packets: (name) => {
      const packets = started.get(name) ?? Packets.start(host(name));
      started.set(name, packets);
      return packets;
    },
  };
}

const nodeA = nodeAddresses(0);
const bridgeA = memberOf(podPrefixesOf(0), 1);
const tunnelA = memberOf(podPrefixesOf(0), 0);
const nowhere = undefined;

/**
 * Who asks whom, and as whom it is seen in which bed: as itself, unless told; "nowhere" when it
 * does not get there.
 */
const journeys: readonly {
  from: string;
  to: string;
  seenAs?: Partial<Record<Network | "routed with rules", Addresses | typeof nowhere>>;
}[] = [
  { from: "pod-a1", to: "pod-a2" },
  { from: "pod-a1", to: "pod-b1" },
  {
    from: "pod-a1",
    to: "outside",
    seenAs: { "routed with rules": nodeA, bridge: nodeA, vxlan: nodeA },
  },
  { from: "pod-a1", to: "node-a" },
  { from: "pod-a1", to: "node-b", seenAs: { vxlan: nodeA } },
  { from: "node-a", to: "pod-a1", seenAs: { bridge: bridgeA, vxlan: bridgeA } },
  { from: "node-a", to: "pod-b1", seenAs: { vxlan: tunnelA } },
  { from: "outside", to: "node-b" },
  { from: "outside", to: "pod-b1", seenAs: { bridge: nowhere, vxlan: nowhere } },
];

/** Sends a datagram and gives the client that the server saw, or the errno. */
async function seenBy(client: Helper, address: string, payload: string): Promise<string> {
  const family = address.includes(":") ? 6 : 4;
  const datagrams = [{ address, port: UDP, payload }];
  const result = await client.udp({ family, datagrams, timeoutSeconds: 1 });
  if ("error" in result) return result.error;
  const [reply] = result.replies;
  if (reply === undefined) return result.errors[0] ?? "nothing";
  const answer = JSON.parse(reply.payload) as Answer;
  return answer.payload === payload ? answer.client.address : "another payload";
}

for (const bed of beds) {
  let place: Promise<Place> | undefined;
  const opened = () => {
    place ??= open(bed);
    return place;
  };

  for (const { from, to, seenAs = {} } of journeys)
    labTest(`${bed.title}: ${from} reaches ${to} as it should`, async (t) => {
      const { host, helper } = await opened();
      const seen = bed.title in seenAs ? seenAs[bed.title as Network] : host(from).addresses;
      for (const family of families) {
        const address = host(to).addresses[family];
        const client = helper(from);
        if (seen === nowhere) {
          t.like(await client.tcp({ address, port: ECHO }), { error: "ENETUNREACH" });
          continue;
        }
        t.is(await seenBy(client, address, "small"), seen[family], family);
        // The first one may find out how big a packet may be.
        await waitFor(async () => (await seenBy(client, address, BIG)) === seen[family], {
          what: `a big datagram over ${family} from ${from} to ${to}`,
        });
        const flow = await client.startFlow({
          protocol: "TCP",
          address,
          port: ECHO,
          bytes: 200_000,
        });
        await waitFor(async () => (await client.reportFlow(flow)).rounds > 0, {
          what: `200 kB over TCP and ${family} from ${from} to ${to}, and back`,
        });
        t.like(await client.stopFlow(flow), { identities: [to], wrong: 0, broken: undefined });
      }
    });

  labTest(
    `${bed.title}: connections are tracked on nodes with rules and nowhere else`,
    async (t) => {
      const { host } = await opened();
      for (const name of ["node-a", "outside", "router"]) {
        const { stdout } = await host(name).run(["conntrack", "-C"]);
        t.is(Number(stdout) > 0, bed.rules && name === "node-a", name);
      }
    },
  );

  if (bed.rules) {
    labTest(
      `${bed.title}: a NetworkPolicy closes a port of pods, on their own node too`,
      async (t) => {
        const { host, helper } = await opened();
        for (const to of ["pod-a2", "pod-b1"])
          for (const address of Object.values(host(to).addresses)) {
            const answer = await helper("pod-a1").tcp({ address, port: CLOSED_PORT });
            t.deepEqual(answer, { error: "ECONNREFUSED" }, `${to} ${address}`);
          }
      },
    );

    labTest(`${bed.title}: connection tracking drops what belongs to no connection`, async (t) => {
      const { host, packets: packetsOf } = await opened();
      const packets = await packetsOf("pod-a1");
      const dropped = async (program: string) => {
        const { stdout } = await host("node-a").run([`${program}-nft-save`, "-c", "-t", "filter"]);
        return Number(/^\[(\d+):.*INVALID -j DROP$/m.exec(stdout)?.[1]);
      };
      for (const family of families) {
        const program = family === "ipv4" ? "iptables" : "ip6tables";
        const before = await dropped(program);
        const [source, destination] = [host("pod-a1"), host("pod-b1")].map(
          ({ addresses }) => addresses[family],
        );
        const ip = `${family === "ipv4" ? "IP" : "IPv6"}(src="${source}", dst="${destination}")`;
        await packets.send(`${ip}/TCP(sport=1000, dport=2000, flags="SA")`);
        t.is(await dropped(program), before + 1, program);
      }
    });
  }

  labTest(`${bed.title}: the kernel's own packets have checksums to be completed`, async (t) => {
    const { host, helper, packets } = await opened();
    const capture = await (await packets("pod-a1")).capture({ match: "TCP in p", outgoing: true });
    await helper("pod-a1").tcp({ address: host("pod-b1").addresses.ipv4, port: ECHO });
    const [sent, received] = await capture.take({ count: 2 });
    t.like(sent, { isPartial: true, isOutgoing: true, problems: [] });
    t.like(received, { isPartial: true, isOutgoing: false, problems: [] });
  });

  if (bed.network !== "routed") {
    labTest(`${bed.title}: what is underneath carries no packet of a pod as it is`, async (t) => {
      const { host, packets } = await opened();
      const to = bed.network === "vxlan" ? "node-b" : "outside";
      const [sender, receiver] = await Promise.all([packets("node-a"), packets(to)]);
      const capture = await receiver.capture({ match: "UDP in p and p[UDP].dport == 999" });
      const pod = host("pod-a1").addresses;
      const { ipv4, ipv6 } = host(to).addresses;
      await sender.send(`IP(src="${pod.ipv4}", dst="${ipv4}")/UDP(dport=999)`);
      await sender.send(`IPv6(src="${pod.ipv6}", dst="${ipv6}")/UDP(dport=999)`);
      await sender.send(`IP(src="${nodeA.ipv4}", dst="${ipv4}")/UDP(dport=999)/b"from a node"`);
      const seen = await capture.take();
      t.like(
        seen[0]?.layers.find(({ layer }) => layer === "IP"),
        { src: nodeA.ipv4 },
      );
    });
  }
}
