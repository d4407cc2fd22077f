// packet-flows of the vectors as real connections through the sockets' hooks: every packet that
// starts on the node, from pods and from node processes, through a running agent. Those from
// outside, and those whose sockets no hook sees, are played by unseen.test.ts.
import test, { type ExecutionContext } from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { expectedOf, NO_MASQUERADE, whyNoConnection } from "./exceptions.ts";
import {
  ask,
  expectedOutcome,
  flagsOf,
  furtherAddresses,
  isSticky,
  outcomeOf,
  targetsOf,
} from "./play.ts";
import { type FlowCase, type FlowPacket, objectsOf, readVectors, stepsOf } from "./vectors.ts";
import { World } from "./world.ts";

const labTest = needsLab(test.serial as typeof test);

const cases = readVectors<FlowCase>("packet-flows.json");
let world: World | undefined;
let agentConfig: string | undefined;

test.before(async () => {
  if (whyNoLab() !== undefined || cases.length === 0) return;
  const packets = cases.flatMap((flowCase) => stepsOf(flowCase).flatMap(packetsFromHere));
  const sources = (from: string) =>
    new Set(packets.filter((packet) => packet.from === from).map(({ src }) => src));
  world = await World.open({
    pods: [...sources("pod")],
    nodeAddresses: furtherAddresses(cases, sources("node")),
    servers: targetsOf(packets),
  });
});

test.after.always(() => world?.close());

function packetsFromHere({ packets }: { packets: FlowPacket[] }): FlowPacket[] {
  return packets.filter(({ from }) => from !== "external");
}

async function checkPacket(
  t: ExecutionContext,
  packet: FlowPacket,
  options: { what: string; isSticky: boolean },
): Promise<void> {
  const { what } = options;
  const replies = await ask(world!, packet, options);
  const outcome = outcomeOf(replies, packet);
  const { endpoints = [] } = packet.expect;
  if (options.isSticky && endpoints.length > 0)
    t.true(endpoints.includes(outcome), `${what}: ${outcome}`);
  else t.is(outcome, expectedOutcome(packet.expect, { drop: "EHOSTUNREACH" }), what);
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
      for (const packet of packetsFromHere({ packets })) {
        const what = `step ${index} ${packet.id}`;
        const whyNot = whyNoConnection(packet);
        const { expect, reason } = expectedOf(packet, objects);
        if (whyNot ?? reason) t.log(`${what}: ${whyNot ?? reason}`);
        if (whyNot) continue;
        await checkPacket(t, { ...packet, expect }, { what, isSticky: isSticky(objects) });
      }
    }
    t.pass();
  });
}
