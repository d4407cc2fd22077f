// Plays packets of packet-flows as connections in a world (world.ts), and says in the vectors'
// words what became of them. Knows neither the ways into a world nor what is meant to differ.
import type { Address } from "../../lab/sockets.ts";
import {
  authority,
  type ClusterObject,
  type FlowCase,
  type FlowConfig,
  type FlowExpectation,
  type FlowPacket,
  parseAuthority,
} from "./vectors.ts";
import type { Reply, World } from "./world.ts";

/** Attempts to see an endpoint that is not meant: one of two is missed once in 65,536 runs. */
const ATTEMPTS_LEAST = 16;
/** Attempts to see every endpoint that is: one of four is missed once in 10^7 runs. */
const ATTEMPTS_MOST = 64;

/** How long an answer may take, and one that must not come. */
const ANSWER_SECONDS = 5;
const SILENCE_SECONDS = 0.5;

/** The addresses of a case's node that a world gives it besides its own two. */
export function furtherAddresses(cases: readonly FlowCase[], sources: Iterable<string>): string[] {
  const primary = cases.flatMap(({ node }) => {
    const { addresses } = node.status as { addresses: { type: string; address: string }[] };
    return addresses.filter(({ type }) => type === "InternalIP").map(({ address }) => address);
  });
  const all = new Set([...cases.flatMap(({ localAddresses }) => localAddresses), ...sources]);
  for (const address of ["::1", ...primary]) all.delete(address);
  return [...all].filter((address) => !address.startsWith("127."));
}

/** Where a packet may arrive: at one of its endpoints, or untranslated. */
export function targetsOf(packets: readonly FlowPacket[]): Address[] {
  const targets = packets.flatMap(({ dst, dstPort, expect: { endpoints = [] } }) => [
    { address: dst, port: dstPort },
    ...endpoints.map(parseAuthority),
  ]);
  return [...new Map(targets.map((address) => [authority(address), address])).values()];
}

/** The agent's flags for a case's configuration. */
export function flagsOf({ nodePortAddresses, clusterCIDRs, masqueradeAll }: FlowConfig): string[] {
  const addresses = nodePortAddresses.length > 0 ? nodePortAddresses : ["0.0.0.0/0", "::/0"];
  const flags = ["--nodeport-addresses", addresses.join(",")];
  if (clusterCIDRs.length > 0) flags.push("--cluster-cidr", clusterCIDRs.join(","));
  if (masqueradeAll) flags.push("--masquerade-all");
  return flags;
}

/** Whether clients stay with the endpoint that they got, so that one is all that can be seen. */
export function isSticky(objects: readonly ClusterObject[]): boolean {
  return objects.some(
    ({ spec }) =>
      (spec as { sessionAffinity?: string } | undefined)?.sessionAffinity === "ClientIP",
  );
}

/**
 * Asks until every endpoint was seen and others would have been, once if it is sticky. Anything but
 * an endpoint ends it.
 */
export async function ask(
  world: World,
  packet: FlowPacket,
  options: { isSticky: boolean },
): Promise<Reply[]> {
  const { from, src: source, protocol, dst: address, dstPort: port, expect } = packet;
  const timeoutSeconds = expect.outcome === "drop" ? SILENCE_SECONDS : ANSWER_SECONDS;
  const question = { protocol, address, port, timeoutSeconds };
  const askMany = (count: number) => world.askMany({ from, source }, { ...question, count });
  const isEndpoint = (reply: Reply) =>
    !("error" in reply) && expect.endpoints?.includes(reply.server) === true;
  const replies = await askMany(1);
  if (options.isSticky || !replies.every(isEndpoint)) return replies;
  const unseen = () => {
    const seen = replies.map((reply) => ("error" in reply ? reply.error : reply.server));
    return expect.endpoints?.some((endpoint) => !seen.includes(endpoint));
  };
  do replies.push(...(await askMany(ATTEMPTS_LEAST)));
  while (unseen() && replies.length < ATTEMPTS_MOST && replies.every(isEndpoint));
  return replies;
}

/** What was seen, as expectedOutcome() has it; of sticky clients the one endpoint that they got. */
export function outcomeOf(replies: readonly Reply[], packet: FlowPacket): string {
  const untouched = authority({ address: packet.dst, port: packet.dstPort });
  const isEndpoint = packet.expect.endpoints?.includes(untouched);
  const seen = replies.map((reply) => {
    if ("error" in reply) return reply.error;
    return reply.server === untouched && !isEndpoint ? "untouched" : reply.server;
  });
  return [...new Set(seen)].sort().join(" ");
}

/** An expectation as outcomeOf() tells what was seen; `drop` is the errno of a dropped connect. */
export function expectedOutcome(
  { outcome, endpoints = [] }: FlowExpectation,
  { drop }: { drop: string },
): string {
  if (outcome === "endpoints") return [...endpoints].sort().join(" ");
  return outcome === "untouched" ? outcome : { reject: "ECONNREFUSED", drop }[outcome];
}
