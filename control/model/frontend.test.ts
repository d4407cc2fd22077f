// Which endpoints a row has: for UDP also those that serve without being in a table, since flows to
// them are not stale (§14.2).
import test from "ava";
import { Cluster } from "./cluster.ts";
import { readObject } from "./read.ts";

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
