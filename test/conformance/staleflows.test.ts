// udp-stale-flows of the vectors against the model: which flows must be forgotten.
import test from "ava";
import { canonicalAddress } from "../../control/model/address.ts";
import { Cluster } from "../../control/model/cluster.ts";
import { findEndpoints } from "../../control/model/endpoint.ts";
import { readObject } from "../../control/model/read.ts";
import type { Protocol } from "../../control/model/rows.ts";
import { servicePorts } from "../../control/model/service.ts";
import { type FlowOwner, staleFlowTest } from "../../control/model/staleflows.ts";
import { staleFlowsOf } from "./exceptions.ts";
import { type ClusterObject, readVectors } from "./vectors.ts";

interface GivenFlow {
  id: string;
  protocol: Protocol;
  origDst: string;
  origDstPort: number;
  replySrc: string;
  replySrcPort: number;
}

export interface StaleCase {
  id: string;
  title: string;
  ipFamily: "IPv4" | "IPv6";
  services: ClusterObject[];
  endpointSlices: ClusterObject[];
  flows: GivenFlow[];
  expect: { deleted: string[]; upstreamDeleted?: string[] };
}

/** Every service port of a family with its endpoints. */
function ownersOf(given: StaleCase): FlowOwner[] {
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
  for (const value of [...given.endpointSlices, ...given.services]) {
    const { object } = readObject(value);
    if (object !== undefined) cluster.apply(object);
  }
  const owners: FlowOwner[] = [];
  for (const { service, slices } of cluster.services()) {
    for (const servicePort of servicePorts(service)) {
      const { port, family } = servicePort;
      if (`IPv${family}` !== given.ipFamily) continue;
      const query = { name: port.name, protocol: port.protocol, family };
      owners.push({ servicePort, endpoints: findEndpoints(slices, query) });
    }
  }
  return owners;
}

for (const given of readVectors<StaleCase>("udp-stale-flows.json")) {
  test(`${given.id}: ${given.title}`, (t) => {
    const isStale = staleFlowTest(ownersOf(given));
    const stale = given.flows.filter((flow) =>
      isStale({
        protocol: flow.protocol,
        destination: canonicalAddress(flow.origDst)!,
        destinationPort: flow.origDstPort,
        endpoint: canonicalAddress(flow.replySrc)!,
        endpointPort: flow.replySrcPort,
      }),
    );
    const { deleted, reason } = staleFlowsOf(given);
    if (reason !== undefined) t.log(`meant to differ: ${reason}`);
    t.deepEqual(stale.map(({ id }) => id).sort(), [...deleted].sort());
  });
}
