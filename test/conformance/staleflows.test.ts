// udp-stale-flows of the vectors on the running dataplane's own bookkeeping: by it flows through
// the node are forgotten, and by the same rows connected sockets are broken.
import test from "ava";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { Maps } from "../../control/dataplane/maps.ts";
import { memoryStorage } from "../../control/dataplane/memory.ts";
import { canonicalAddress } from "../../control/model/address.ts";
import { Cluster } from "../../control/model/cluster.ts";
import { readObject } from "../../control/model/read.ts";
import type { FrontendRow, Protocol, ServiceRow } from "../../control/model/rows.ts";
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

interface StaleCase {
  id: string;
  title: string;
  services: ClusterObject[];
  endpointSlices: ClusterObject[];
  flows: GivenFlow[];
  expect: { deleted: string[]; upstreamDeleted?: string[] };
}

const NODE_ADDRESSES = ["192.168.50.2", "2001:db8:50::2"];

/**
 * The frontend that a flow has asked, undefined if it is none of ours. A node port counts on
 * whatever address (§14.1): the node may have had others.
 */
function askedBy(flow: GivenFlow, rows: readonly ServiceRow[]): FrontendRow | undefined {
  const address = canonicalAddress(flow.origDst);
  const family = address?.includes(":") ? 6 : 4;
  const frontends = rows
    .filter((row) => row.protocol === flow.protocol && row.family === family)
    .flatMap((row) => row.frontends)
    .filter(({ port }) => port === flow.origDstPort);
  return (
    frontends.find((frontend) => frontend.address === address) ??
    frontends.find(({ kind }) => kind === "nodePort")
  );
}

/** The same slice while all of its endpoints were ready: then they got the flows. */
function before(slice: ClusterObject): ClusterObject {
  const endpoints = (slice.endpoints as object[]).map((each) => ({ ...each, conditions: {} }));
  return { ...slice, endpoints };
}

function apply(cluster: Cluster, values: readonly ClusterObject[]): void {
  for (const value of values) {
    const { object } = readObject(value);
    if (object !== undefined) cluster.apply(object);
  }
}

for (const given of readVectors<StaleCase>("udp-stale-flows.json"))
  test(`${given.id}: ${given.title}`, (t) => {
    const { services, endpointSlices } = given;
    const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: NODE_ADDRESSES });
    const dataplane = new Dataplane(new Maps(memoryStorage()));
    for (const slices of [endpointSlices.map(before), endpointSlices]) {
      apply(cluster, [...slices, ...services]);
      const { changed, removed } = cluster.takeDirty();
      dataplane.replace(changed);
      dataplane.remove(removed);
      t.deepEqual(dataplane.flush(), []);
    }
    const serves = dataplane.servesFlows();
    const rows = cluster.rows();
    const stale = given.flows.filter((flow) => {
      // Of TCP and SCTP nobody asks: Flows.sweep() looks at UDP alone.
      const frontend = flow.protocol === "UDP" ? askedBy(flow, rows) : undefined;
      const backend = { address: canonicalAddress(flow.replySrc)!, port: flow.replySrcPort };
      return frontend && !serves({ protocol: flow.protocol, frontend, backend });
    });
    const { deleted, reason } = staleFlowsOf(given);
    if (reason !== undefined) t.log(`meant to differ: ${reason}`);
    t.deepEqual(stale.map(({ id }) => id).sort(), [...deleted].sort());
  });
