// Which UDP flows are stale, as far as rows say it: the conformance cases of udp-stale-flows.json.
// A row's backends are all that serve; a flow of its frontend to another endpoint is over.
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import { existsSync, readFileSync } from "node:fs";
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import path from "node:path";
import test from "ava";
import { canonicalAddress } from "./address.ts";
import { Cluster } from "./cluster.ts";
import { readObject } from "./read.ts";
import type { ServiceRow } from "./rows.ts";

interface Flow {
  id: string;
  protocol: string;
  origDst: string;
  origDstPort: number;
  /** The endpoint that the flow leads to. */
  replySrc: string;
  replySrcPort: number;
}

interface Case {
  id: string;
  title: string;
  services: unknown[];
  endpointSlices: unknown[];
  flows: Flow[];
  expect: { deleted: string[] };
}

/**
 * The cases give kube-proxy's answer for a Service that never had an endpoint: it skips those, and
 * so keeps even flows to somebody else's endpoint. Here they are over, as where all are gone.
 */
const STRICTER: Readonly<Record<string, string[]>> = { "ct-08": ["f1", "f2"] };

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

function isStale(rows: Iterable<ServiceRow>, flow: Flow): boolean {
  if (flow.protocol !== "UDP") return false;
  const endpoint = canonicalAddress(flow.replySrc);
  const owners = [...rows].filter((row) => isOf(row, flow));
  const isServing = ({ backends }: ServiceRow) =>
    backends.some(({ address, port }) => address === endpoint && port === flow.replySrcPort);
  return owners.length > 0 && !owners.some(isServing);
}

const root = path.resolve(import.meta.dirname, "../../..");
const folder = path.resolve(root, process.env.BPFSVC_VECTORS ?? "../shared/vectors");
const file = path.join(folder, "udp-stale-flows.json");

if (existsSync(file)) {
  const cases: Case[] = JSON.parse(readFileSync(file, "utf8")).cases;
  for (const { id, title, services, endpointSlices, flows, expect } of cases) {
    test(`${id}: ${title}`, (t) => {
      const fallbackNodeAddresses = ["192.168.50.2", "2001:db8:50::2"];
      const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses });
      for (const value of [...endpointSlices, ...services]) {
        const { object } = readObject(value);
        if (object !== undefined) cluster.apply(object);
      }
      cluster.takeDirty();
      const rows = [...cluster.rows()];
      const deleted = flows.filter((flow) => isStale(rows, flow)).map((flow) => flow.id);
      if (STRICTER[id]) t.log(`stricter than the case: ${STRICTER[id]} are over`);
      t.deepEqual(deleted.sort(), (STRICTER[id] ?? expect.deleted).toSorted());
    });
  }
} else {
  test("the conformance cases for stale flows are there", (t) => {
    t.log(`LEFT OUT: "${file}" does not exist; set BPFSVC_VECTORS to the folder of the cases`);
    t.falsy(process.env.CI, "on CI nothing may be left out");
  });
}

for (const protocol of ["UDP", "TCP"] as const)
  test(`a ${protocol} row has ${protocol === "UDP" ? "all" : "not all"} that serve`, (t) => {
    const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
    const port = { name: "dns", port: 53, protocol };
    const metadata = { namespace: "shop", name: "dns" };
    const labels = { "kubernetes.io/service-name": "dns" };
    const conditions = (ready: boolean, serving: boolean) => ({
      conditions: { ready, serving, terminating: !ready },
    });
    for (const value of [
      {
        apiVersion: "v1",
        kind: "Service",
        metadata,
        spec: { clusterIP: "10.96.0.1", externalIPs: ["192.0.2.1"], ports: [port] },
      },
      {
        apiVersion: "discovery.k8s.io/v1",
        kind: "EndpointSlice",
        metadata: { ...metadata, labels },
        addressType: "IPv4",
        ports: [port],
        endpoints: [
          { addresses: ["10.244.1.1"], ...conditions(false, true) },
          { addresses: ["10.244.1.2"], ...conditions(true, true) },
          { addresses: ["10.244.1.3"], ...conditions(false, false) },
        ],
      },
    ])
      cluster.apply(readObject(value).object!);
    const [row] = cluster.takeDirty().changed;
    const { backends, internal, inside, outside } = row!;
    const states = backends.map(({ address, state }) => `${address} ${state}`);
    const used = protocol === "UDP" ? 1 : 0;
    t.deepEqual(states, ["10.244.1.1 terminating", "10.244.1.2 ready"].slice(1 - used));
    for (const { members } of [internal, inside, outside]) t.deepEqual(members, [used]);
  });
