// udp-stale-flows of the vectors against rows: a connected socket is broken unless its endpoint is
// among its row's backends, so a row must have just those that serve.
import test from "ava";
import { canonicalAddress } from "../../control/model/address.ts";
import { Cluster } from "../../control/model/cluster.ts";
import { readObject } from "../../control/model/read.ts";
import type { ServiceRow } from "../../control/model/rows.ts";
import { staleFlowsOf } from "./exceptions.ts";
import type { StaleCase } from "./staleflows.test.ts";
import { readVectors } from "./vectors.ts";

type Flow = StaleCase["flows"][number];

/** Whether a flow asks a frontend of the row; a node port on any address (§14.1). */
function isOf({ protocol, frontends }: ServiceRow, flow: Flow): boolean {
  const asked = canonicalAddress(flow.origDst);
  return (
    protocol === flow.protocol &&
    frontends.some(
      ({ kind, address, port }) =>
        port === flow.origDstPort && (kind === "nodePort" || address === asked),
    )
  );
}

function isStale(rows: readonly ServiceRow[], flow: Flow): boolean {
  if (flow.protocol !== "UDP") return false;
  const endpoint = canonicalAddress(flow.replySrc);
  const owners = rows.filter((row) => isOf(row, flow));
  const isServing = ({ backends }: ServiceRow) =>
    backends.some(({ address, port }) => address === endpoint && port === flow.replySrcPort);
  return owners.length > 0 && !owners.some(isServing);
}

for (const given of readVectors<StaleCase>("udp-stale-flows.json"))
  test(`${given.id} as rows: ${given.title}`, (t) => {
    const fallbackNodeAddresses = ["192.168.50.2", "2001:db8:50::2"];
    const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses });
    for (const value of [...given.endpointSlices, ...given.services]) {
      const { object } = readObject(value);
      if (object !== undefined) cluster.apply(object);
    }
    cluster.takeDirty();
    const rows = [...cluster.rows()];
    const stale = given.flows.filter((flow) => isStale(rows, flow)).map(({ id }) => id);
    const { deleted, reason } = staleFlowsOf(given);
    if (reason !== undefined) t.log(`meant to differ: ${reason}`);
    t.deepEqual(stale.sort(), [...deleted].sort());
  });
