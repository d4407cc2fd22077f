// What becomes of the first packet of a flow: the reference that the packet path and the hooks are
// compared with, and that people are told by. Reads rows alone, as the kernel does, and knows no
// memory: affinity narrows what it gives (§11.4), and established flows never ask (§7.4).
import { addressFamily, isLoopback } from "./address.ts";
import type { LocalDetector, PacketSource } from "./detector.ts";
import type {
  AddressRow,
  BackendRow,
  FrontendKind,
  FrontendRow,
  Protocol,
  ServiceRow,
  TableRow,
} from "./rows.ts";
import { isInAny } from "./sources.ts";

/** All that decides about a packet on one node. */
export interface Serving {
  rows: readonly ServiceRow[];
  addresses: readonly AddressRow[];
  /** "address/length" ranges of the ServiceCIDRs. */
  serviceRanges: readonly string[];
  /** Addresses of this host; loopback is meant even if it is not listed. */
  localAddresses: readonly string[];
  detector: LocalDetector;
  masqueradeAll: boolean;
}

/** The first packet of a flow; addresses are canonical. */
export interface Packet extends PacketSource {
  protocol: Protocol;
  destination: string;
  port: number;
}

/** An endpoint that a packet may get, each as likely as the other. */
export interface Choice {
  address: string;
  port: number;
  /** Whether the endpoint sees an address of this node in place of the source (§10). */
  masquerade: boolean;
}

/** Why a packet is not sent to an endpoint. */
export type DecisionReason =
  | "noEndpoints"
  | "noLocalEndpoints"
  | "sourceRange"
  | "otherPort"
  | "otherProxy"
  | "unownedAddress"
  | "noService";

export type Decision =
  | { outcome: "endpoints"; row: ServiceRow; frontend: FrontendRow; endpoints: Choice[] }
  | { outcome: "refuse" | "drop" | "untouched"; reason: DecisionReason };

interface Hit {
  row: ServiceRow;
  frontend: FrontendRow;
}

/** Who sends: decides the table and the source address (§6.3, §10). */
type Sender = "pod" | "node" | "outside";

/** The frontend that captures a packet. Exact addresses come before node ports (§3.5). */
function findFrontend(
  rows: readonly ServiceRow[],
  { protocol, destination, port }: Pick<Packet, "protocol" | "destination" | "port">,
): Hit | undefined {
  let nodePort: Hit | undefined;
  for (const row of rows) {
    if (row.protocol !== protocol) continue;
    for (const frontend of row.frontends) {
      if (frontend.address !== destination || frontend.port !== port) continue;
      if (frontend.kind !== "nodePort") return { row, frontend };
      nodePort = { row, frontend };
    }
  }
  return nodePort;
}

/** Pods come before the node's own addresses, as a bridge's address may be in the pods' range. */
function senderOf(packet: Packet, { detector, localAddresses }: Serving): Sender {
  if (detector.isPod(packet)) return "pod";
  const { source } = packet;
  return isLoopback(source) || localAddresses.includes(source) ? "node" : "outside";
}

/** The table that a packet gets its endpoint from (§6.1–6.3). */
function tableFor(row: ServiceRow, to: { kind: FrontendKind; isInside: boolean }): TableRow {
  if (to.kind === "clusterIP") return row.internal;
  return to.isInside ? row.inside : row.outside;
}

/** Whether the rules rewrite the source, whichever endpoint is drawn (§10.1–10.4). */
function masqueradesAll(sender: Sender, { row, frontend }: Hit, serving: Serving): boolean {
  if (frontend.kind === "clusterIP") {
    if (serving.masqueradeAll) return true;
    return sender !== "pod" && serving.detector.isUsable(row.family);
  }
  return row.externalPolicy === "Cluster" || sender === "node";
}

function choose(
  { address, port, local }: BackendRow,
  { packet, sender, always, serving }: Flow,
): Choice {
  const isHairpin = local && address === packet.source;
  // To this host's own network nothing leaves, so nothing is rewritten (§10.6).
  const staysHere = sender !== "node" && serving.localAddresses.includes(address);
  return { address, port, masquerade: isHairpin || (always && !staysHere) };
}

interface Flow {
  packet: Packet;
  sender: Sender;
  always: boolean;
  serving: Serving;
}

/** What happens to a packet that no frontend captures (§7.5–7.7). */
function decideUncaptured({ destination }: Packet, serving: Serving): Decision {
  const row = serving.addresses.find(({ address }) => address === destination);
  if (row?.action === "refuse") return { outcome: "refuse", reason: "otherPort" };
  if (row?.action === "leave") return { outcome: "untouched", reason: "otherProxy" };
  return isInAny(destination, serving.serviceRanges)
    ? { outcome: "drop", reason: "unownedAddress" }
    : { outcome: "untouched", reason: "noService" };
}

/** Decides about the first packet of a flow (§3.5, §6–§8, §10). */
export function decide(packet: Packet, serving: Serving): Decision {
  if (addressFamily(packet.source) !== addressFamily(packet.destination)) {
    return { outcome: "untouched", reason: "noService" };
  }
  const hit = findFrontend(serving.rows, packet);
  if (hit === undefined) return decideUncaptured(packet, serving);
  const { row, frontend } = hit;
  const sender = senderOf(packet, serving);
  // Loopback is each network namespace's own, and a packet of another's a martian (§9.5).
  if (isLoopback(packet.destination) && sender !== "node")
    return { outcome: "untouched", reason: "noService" };
  const isGuarded = frontend.kind === "loadBalancer" && row.sources !== undefined;
  // Before the endpoints are looked at: a stranger learns nothing of them (§8.3, §8.5).
  if (isGuarded && !isInAny(packet.source, row.sources!.ranges)) {
    return { outcome: "drop", reason: "sourceRange" };
  }
  const { kind } = frontend;
  const { members, whenEmpty } = tableFor(row, { kind, isInside: sender !== "outside" });
  if (members.length === 0) {
    const refused = whenEmpty === "refuse";
    return refused
      ? { outcome: "refuse", reason: "noEndpoints" }
      : { outcome: "drop", reason: "noLocalEndpoints" };
  }
  const flow = { packet, sender, always: masqueradesAll(sender, hit, serving), serving };
  const endpoints = members.map((member) => choose(row.backends[member]!, flow));
  return { outcome: "endpoints", row, frontend, endpoints };
}
