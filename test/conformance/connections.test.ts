// packet-flows of the vectors as real connections: every packet that starts on the node, from pods
// and from node processes, through a running agent. Those from outside are decisions of the model
// until there is a packet path (packetflows.test.ts).
import test, { type ExecutionContext } from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import type { Address } from "../../lab/sockets.ts";
import { expectedOf, NO_MASQUERADE, whyNoConnection } from "./exceptions.ts";
import {
  authority,
  type ClusterObject,
  type FlowCase,
  type FlowConfig,
  type FlowPacket,
  objectsOf,
  parseAuthority,
  readVectors,
  stepsOf,
} from "./vectors.ts";
import { type Client, type Reply, World } from "./world.ts";

const labTest = needsLab(test.serial as typeof test);
/** Attempts to see an endpoint that is not meant: one of two is missed once in 65,536 runs. */
const ATTEMPTS_LEAST = 16;
/** Attempts to see every endpoint that is: one of four is missed once in 10^7 runs. */
const ATTEMPTS_MOST = 64;

const cases = readVectors<FlowCase>("packet-flows.json");
let world: World | undefined;
let agentConfig: string | undefined;

test.before(async () => {
  if (whyNoLab() !== undefined || cases.length === 0) return;
  const packets = cases.flatMap((flowCase) => stepsOf(flowCase).flatMap(packetsFromHere));
  const pods = packets.filter(({ from }) => from === "pod").map(({ src }) => src);
  const own = packets.filter(({ from, src }) => from === "node" && !src.startsWith("127."));
  const local = cases.flatMap(({ localAddresses }) => localAddresses);
  const nodeAddresses = new Set([...local, ...own.map(({ src }) => src)]);
  for (const address of ["::1", ...cases.flatMap(({ node }) => addressesOf(node))])
    nodeAddresses.delete(address);
  world = await World.open({
    pods: [...new Set(pods)],
    nodeAddresses: [...nodeAddresses],
    servers: distinct(packets.flatMap(targetsOf)),
  });
});

test.after.always(() => world?.close());

function packetsFromHere({ packets }: { packets: FlowPacket[] }): FlowPacket[] {
  return packets.filter(({ from }) => from !== "external");
}

function addressesOf(node: ClusterObject): string[] {
  const { addresses } = node.status as { addresses: { type: string; address: string }[] };
  return addresses.filter(({ type }) => type === "InternalIP").map(({ address }) => address);
}

/** Where a packet may arrive: at one of its endpoints, or untranslated. */
function targetsOf({ dst, dstPort, expect: { endpoints = [] } }: FlowPacket): Address[] {
  return [{ address: dst, port: dstPort }, ...endpoints.map(parseAuthority)];
}

function distinct(addresses: readonly Address[]): Address[] {
  return [...new Map(addresses.map((address) => [authority(address), address])).values()];
}

/** The agent's flags for a case's configuration. */
function flagsOf({ nodePortAddresses, clusterCIDRs, masqueradeAll }: FlowConfig): string[] {
  const addresses = nodePortAddresses.length > 0 ? nodePortAddresses : ["0.0.0.0/0", "::/0"];
  const flags = ["--nodeport-addresses", addresses.join(",")];
  if (clusterCIDRs.length > 0) flags.push("--cluster-cidr", clusterCIDRs.join(","));
  if (masqueradeAll) flags.push("--masquerade-all");
  return flags;
}

/** Asks until every endpoint was seen and others would have been; anything else ends it at once. */
async function ask(packet: FlowPacket, isSticky: boolean): Promise<Reply[]> {
  const client: Client = { from: packet.from as "pod" | "node", source: packet.src };
  const target = { address: packet.dst, port: packet.dstPort };
  const unseen = new Set(packet.expect.endpoints);
  const replies: Reply[] = [];
  do {
    const reply = await world!.ask(client, packet.protocol as "TCP" | "UDP", target);
    replies.push(reply);
    if ("error" in reply || !packet.expect.endpoints?.includes(reply.server)) break;
    unseen.delete(reply.server);
    if (isSticky || replies.length === ATTEMPTS_MOST) break;
  } while (unseen.size > 0 || replies.length < ATTEMPTS_LEAST);
  return replies;
}

function hasAffinity({ spec }: ClusterObject): boolean {
  return (spec as { sessionAffinity?: string } | undefined)?.sessionAffinity === "ClientIP";
}

const ERRORS = { reject: "ECONNREFUSED", drop: "EHOSTUNREACH" } as const;

/** What was seen, in the words of the expectation. */
function outcomeOf(replies: readonly Reply[], packet: FlowPacket): string {
  const last = replies.at(-1)!;
  const untouched = authority({ address: packet.dst, port: packet.dstPort });
  if ("error" in last) return last.error;
  if (last.server === untouched && !packet.expect.endpoints?.includes(untouched))
    return "untouched";
  return [...new Set(replies.map((reply) => ("error" in reply ? reply.error : reply.server)))]
    .sort()
    .join(" ");
}

function expectedOutcome({ outcome, endpoints = [] }: FlowPacket["expect"]): string {
  if (outcome === "endpoints") return [...endpoints].sort().join(" ");
  return outcome === "untouched" ? outcome : ERRORS[outcome];
}

async function checkPacket(
  t: ExecutionContext,
  packet: FlowPacket,
  { what, isSticky }: { what: string; isSticky: boolean },
): Promise<void> {
  const replies = await ask(packet, isSticky);
  const outcome = outcomeOf(replies, packet);
  const { endpoints = [] } = packet.expect;
  if (isSticky && endpoints.length > 0) t.true(endpoints.includes(outcome), `${what}: ${outcome}`);
  else t.is(outcome, expectedOutcome(packet.expect), what);
  if (packet.from !== "pod") return;
  if (packet.expect.masqueraded) t.log(`${what}: ${NO_MASQUERADE}`);
  for (const reply of replies) if ("client" in reply) t.is(reply.client, packet.src, what);
}

for (const flowCase of cases) {
  const { id, title, config } = flowCase;
  labTest(`${id}, from here: ${title}`, async (t) => {
    const flags = flagsOf(config);
    for (const [index, { objects, packets }] of stepsOf(flowCase).entries()) {
      await world!.apply(objectsOf(flowCase, objects));
      if (agentConfig !== flags.join(" ")) await world!.startAgent(flags);
      agentConfig = flags.join(" ");
      const isSticky = objects.some(hasAffinity);
      for (const packet of packetsFromHere({ packets })) {
        const what = `step ${index} ${packet.id}`;
        const whyNot = whyNoConnection(packet);
        const { expect, reason } = expectedOf(packet, objects);
        if (whyNot ?? reason) t.log(`${what}: ${whyNot ?? reason}`);
        if (!whyNot) await checkPacket(t, { ...packet, expect }, { what, isSticky });
      }
    }
    t.pass();
  });
}
