// packet-flows of the vectors as decisions of the model: every packet, wherever it starts, with the
// endpoints it may get and whether they see its source. connections.test.ts makes real connections.
import test, { type ExecutionContext } from "ava";
import { canonicalAddress, parseRange } from "../../control/model/address.ts";
import { Cluster } from "../../control/model/cluster.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "../../control/model/config.ts";
import { decide, type Packet } from "../../control/model/decision.ts";
import type { ObjectIdentity, ObjectKind } from "../../control/model/objects.ts";
import { readObject } from "../../control/model/read.ts";
import { expectedOf } from "./exceptions.ts";
import {
  authority,
  type ClusterObject,
  type FlowCase,
  type FlowConfig,
  type FlowExpectation,
  type FlowPacket,
  objectsOf,
  readVectors,
  stepsOf,
} from "./vectors.ts";

function range(text: string) {
  const parsed = parseRange(text);
  if (parsed === undefined) throw new Error(`"${text}" is no range`);
  return parsed;
}

/** A case's settings; "None" is the default mode without a range, which is no detector. */
function configOf({ nodePortAddresses, clusterCIDRs, masqueradeAll }: FlowConfig): ProxyConfig {
  return {
    ...DEFAULT_CONFIG,
    nodePortAddresses:
      nodePortAddresses.join() === "primary" ? "primary" : nodePortAddresses.map(range),
    clusterCIDRs: clusterCIDRs.map(range),
    masqueradeAll,
  };
}

function identityOf({ kind, metadata }: ClusterObject): ObjectIdentity {
  const { namespace = "", name } = metadata;
  return { kind: kind as ObjectKind, namespace, name };
}

function keyOf(object: ClusterObject): string {
  const { kind, namespace, name } = identityOf(object);
  return `${kind} ${namespace}/${name}`;
}

/** Makes a cluster hold these objects alone, given those that it held before. */
function applyStep(cluster: Cluster, before: readonly ClusterObject[], after: ClusterObject[]) {
  const kept = new Set(after.map(keyOf));
  for (const object of after) {
    const { object: read } = readObject(object);
    if (read !== undefined) cluster.apply(read);
  }
  for (const object of before) if (!kept.has(keyOf(object))) cluster.remove(identityOf(object));
  cluster.takeDirty();
}

function packetOf({ src, protocol, dst, dstPort }: FlowPacket): Packet {
  const source = canonicalAddress(src)!;
  return { source, protocol, destination: canonicalAddress(dst)!, port: dstPort };
}

/** A decision in the words of the vectors. */
function outcomeOf(cluster: Cluster, packet: FlowPacket): FlowExpectation {
  const decision = decide(packetOf(packet), cluster.serving());
  if (decision.outcome === "refuse") return { outcome: "reject" };
  if (decision.outcome !== "endpoints") return { outcome: decision.outcome };
  const endpoints = decision.endpoints.map(authority).sort();
  const rewritten = decision.endpoints.filter(({ masquerade }) => masquerade).map(authority);
  if (rewritten.length === 0 || rewritten.length === endpoints.length) {
    return { outcome: "endpoints", endpoints, masqueraded: rewritten.length > 0 };
  }
  const masqueradedFor = rewritten.sort();
  return { outcome: "endpoints", endpoints, masqueraded: "by-endpoint", masqueradedFor };
}

function sorted({ outcome, ...rest }: FlowExpectation): FlowExpectation {
  const { endpoints, masqueraded, masqueradedFor } = rest;
  return {
    outcome,
    ...(endpoints && { endpoints: [...endpoints].sort() }),
    ...(masqueraded !== undefined && { masqueraded }),
    ...(masqueradedFor && { masqueradedFor: [...masqueradedFor].sort() }),
  };
}

function checkCase(t: ExecutionContext, flowCase: FlowCase): void {
  const { node, config, localAddresses } = flowCase;
  const nodeName = node.metadata.name;
  const cluster = new Cluster({ nodeName, fallbackNodeAddresses: [], config: configOf(config) });
  cluster.setLocalAddresses(localAddresses);
  let before: ClusterObject[] = [];
  for (const [index, step] of stepsOf(flowCase).entries()) {
    // Slices before Services, against the order of the files: it must not matter (§4.11).
    const objects = objectsOf(flowCase, step.objects).reverse();
    applyStep(cluster, before, objects);
    before = objects;
    for (const packet of step.packets) {
      const { expect, reason } = expectedOf(packet, objects);
      const what = `step ${index} ${packet.id}`;
      if (reason !== undefined) t.log(`${what} is meant to differ: ${reason}`);
      t.deepEqual(outcomeOf(cluster, packet), sorted(expect), what);
    }
  }
  t.pass();
}

for (const flowCase of readVectors<FlowCase>("packet-flows.json")) {
  test(`${flowCase.id}, decided: ${flowCase.title}`, (t) => checkCase(t, flowCase));
}
