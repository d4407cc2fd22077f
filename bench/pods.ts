// Nodes of the lab with a pod that asks and a pod that has every endpoint's address, and the rules
// of a rival on some of them. Knows no clock.
import { servicePrefixes } from "../lab/addresses.ts";
import type { Host } from "../lab/host.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import { type Loaded, loadRules, type Rival, rulesOf } from "./rivals/rivals.ts";
import type { RuleNode } from "./rivals/shape.ts";
import { ENDPOINT_PREFIX, makeRows, type Shape } from "./services.ts";

const POD_PREFIX = "10.244.0.0/16";
const SERVICE_PREFIX = servicePrefixes.ipv4;

/** A node with a pod "client-NAME" and a pod "server-NAME". */
export interface Place {
  node: LabNode;
  client: Host;
  /** Every endpoint's address is its own. */
  server: Host;
}

/** A lab of such nodes. Their names have at most 10 characters. */
export async function makePlaces<Name extends string>(
  lab: string,
  names: readonly Name[],
): Promise<{ lab: Lab; places: Record<Name, Place> }> {
  const topology = Object.fromEntries(names.map((name) => [name, [`c-${name}`, `s-${name}`]]));
  const made = await Lab.create({ name: lab, topology });
  const places: Partial<Record<Name, Place>> = {};
  for (const name of names) {
    const node = made.nodes[name]!;
    const [client, server] = [node.pods[`c-${name}`]!, node.pods[`s-${name}`]!];
    await server.ip(`route add local ${ENDPOINT_PREFIX} dev lo`);
    const via = `via ${server.addresses.ipv4} dev ${server.name} onlink`;
    await node.ip(`route add ${ENDPOINT_PREFIX} ${via}`);
    places[name] = { node, client, server };
  }
  return { lab: made, places: places as Record<Name, Place> };
}

/** The rules that such a node would have of kube-proxy. */
export function ruleNode({ node }: Place): RuleNode {
  return {
    clusterCidr: POD_PREFIX,
    serviceCidr: SERVICE_PREFIX,
    addresses: [node.addresses.ipv4],
  };
}

/** Has a node serve Services by the rules of a rival, in as many transactions as it takes. */
export async function serveByRules(
  place: Place,
  { rival, shape, services }: { rival: Rival; shape: Shape; services?: number },
): Promise<Loaded> {
  // The lab's hosts prohibit Service addresses; rules translate packets that have been routed.
  for (const host of [place.client, place.node]) await host.ip(`route del ${SERVICE_PREFIX}`);
  const rows = makeRows(shape);
  const options = { rows, node: ruleNode(place), ...(services === undefined ? {} : { services }) };
  return await loadRules(place.node, rival, rulesOf(rival, options));
}
