// packet-flows of the vectors as real packets through the packet path: from clients outside, and
// from pods and node processes that no socket hook sees. In both masquerade settings, once with XDP
// on the uplink and once with TC alone.
import test, { type ExecutionContext } from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { expectedOf, type FlowState, isRewrittenFor, whyNoPacket } from "./exceptions.ts";
import {
  ask,
  expectedOutcome,
  flagsOf,
  furtherAddresses,
  isSticky,
  outcomeOf,
  targetsOf,
} from "./play.ts";
import {
  type FlowCase,
  type FlowPacket,
  localEndpoints,
  objectsOf,
  readVectors,
  stepsOf,
} from "./vectors.ts";
import { type Reply, World } from "./world.ts";

const labTest = needsLab(test.serial as typeof test);

/** Ways to run the agent: all semantics in both, each on one of the two kinds of program. */
const SETTINGS = [
  { title: "XDP, clients kept", masquerade: "auto", flags: ["--device", "eth0=xdp"] },
  { title: "TC, kube-proxy's masquerade", masquerade: "always", flags: ["--device", "eth0=tc"] },
] as const;
type Setting = (typeof SETTINGS)[number];

/** What is counted when a packet is dropped by rule. */
const DROPS = ["dropped", "unowned_address", "source_range"] as const;

const cases = readVectors<FlowCase>("packet-flows.json");
const packets = cases.flatMap((flowCase) => stepsOf(flowCase).flatMap((step) => step.packets));
let world: World | undefined;
let agentFlags: string | undefined;

test.before(async () => {
  if (whyNoLab() !== undefined || cases.length === 0) return;
  const from = (place: FlowPacket["from"]) => packets.filter((packet) => packet.from === place);
  const sources = (place: FlowPacket["from"]) => new Set(from(place).map(({ src }) => src));
  const slices = cases.flatMap((flowCase) => stepsOf(flowCase).flatMap(({ objects }) => objects));
  world = await World.open({
    pods: [...sources("pod")],
    nodeAddresses: furtherAddresses(cases, sources("node")),
    servers: targetsOf(packets),
    unseen: {
      outsiders: [...sources("external")],
      asked: [...new Set(from("external").map(({ dst }) => dst))],
      local: [...localEndpoints(slices)],
      sctp: targetsOf(packets.filter(({ protocol }) => protocol === "SCTP")),
    },
  });
});

test.after.always(() => world?.close());

async function countDrops(): Promise<number> {
  const reasons = await world!.reasons();
  return DROPS.reduce((sum, reason) => sum + reasons[reason]!, 0);
}

/** Whether the endpoint was to see the client itself, or the node, and what it saw. */
function checkClient(
  t: ExecutionContext,
  reply: Reply,
  { packet, what, isRewritten }: { packet: FlowPacket; what: string; isRewritten: boolean },
): void {
  if ("error" in reply || reply.client === undefined) return;
  if (packet.from === "node" || isRewritten)
    t.true(world!.nodeAddresses.has(reply.client), `${what} is seen as ${reply.client}`);
  else t.is(reply.client, packet.src, what);
}

async function checkPacket(
  t: ExecutionContext,
  packet: FlowPacket,
  { what, state, setting }: { what: string; state: FlowState; setting: Setting },
): Promise<void> {
  const sticky = isSticky(state.objects);
  const before = await countDrops();
  const replies = await ask(world!, packet, { isSticky: sticky });
  const outcome = outcomeOf(replies, packet);
  const { expect } = packet;
  if (sticky && expect.outcome === "endpoints")
    t.true(expect.endpoints?.includes(outcome), `${what}: ${outcome}`);
  else t.is(outcome, expectedOutcome(expect, { drop: "ETIMEDOUT" }), what);
  if (expect.outcome === "drop") t.true((await countDrops()) > before, `${what} is counted`);
  const { masquerade } = setting;
  for (const reply of replies) {
    const isRewritten =
      expect.outcome === "endpoints" &&
      "server" in reply &&
      isRewrittenFor(reply.server, { packet, state, masquerade });
    checkClient(t, reply, { packet, what, isRewritten });
  }
}

for (const setting of SETTINGS) {
  // An agent serves all cases of one configuration.
  const flagsFor = ({ config }: FlowCase) => flagsOf(config).join(" ");
  const inOrder = [...cases].sort((a, b) => (flagsFor(a) < flagsFor(b) ? -1 : 1));
  for (const flowCase of inOrder) {
    const { id, title, config } = flowCase;
    labTest(`${id}, as packets (${setting.title}): ${title}`, async (t) => {
      const flags = [...flagsOf(config), ...setting.flags, "--masquerade", setting.masquerade];
      for (const [index, { objects, packets: own }] of stepsOf(flowCase).entries()) {
        await world!.apply(objectsOf(flowCase, objects));
        if (agentFlags !== flags.join(" ")) await world!.startAgent(flags);
        agentFlags = flags.join(" ");
        const state = { objects, config, serviceCIDRs: flowCase.serviceCIDRs };
        for (const packet of own) {
          const what = `step ${index} ${packet.id}`;
          const whyNot = whyNoPacket(packet, world!.nodeAddresses);
          const { expect, reason } = expectedOf(packet, objects);
          if (whyNot ?? reason) t.log(`${what}: ${whyNot ?? reason}`);
          if (!whyNot) await checkPacket(t, { ...packet, expect }, { what, state, setting });
        }
      }
      t.pass();
    });
  }
}
