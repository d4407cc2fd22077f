// Replies that come to a node port and are no requests: to what leaves the node with such a port as
// its source, because the CNI has masqueraded it. Connection tracking knows; so must we.
import test from "ava";
import type { Host } from "../../lab/host.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import type { Address } from "../../lab/sockets.ts";
import { waitFor } from "../../lab/wait.ts";
import { Place } from "./journeys.ts";
import { askFrom, type Bed, FAMILIES, PROTOCOLS, type Protocol, type Seen } from "./outside.ts";

const labTest = needsLab(test.serial);
const SERVER_PORT = 8443;

/** Beds whose node has rules, and so connection tracking, before the agent starts. */
const BEDS = (["xdp", "tc"] as const).map((mode): Bed => {
  return { network: "routed", mode, rpFilter: 1, rules: true };
});

/** Has connections of a protocol to an address leave with this port of the node as their source. */
async function masquerade(node: Host, target: Address, by: { protocol: Protocol; port: number }) {
  const iptables = target.address.includes(":") ? "ip6tables" : "iptables";
  const which = `-d ${target.address} -p ${by.protocol.toLowerCase()}`;
  const rule = `-t nat -I POSTROUTING ${which} -j MASQUERADE --to-ports ${by.port}`;
  await node.run([iptables, ...rule.split(" ")]);
}

/** A bed where a pod asks a server outside, and where that server asks a node port. */
async function openReplies(bed: Bed) {
  const place = await Place.open(bed, { web: { endpoints: ["pod-b1"] } });
  const { outside } = place.stage.lab;
  const server = await outside.helper();
  const pod = await place.stage.pod("pod-a1").helper();
  for (const family of FAMILIES) {
    const target = { identity: "outside", address: outside.addresses[family], port: SERVER_PORT };
    await server.serveTcp(target);
    await server.serveUdp(target);
  }
  const targets = FAMILIES.map((family) => ({
    family,
    target: { address: outside.addresses[family], port: SERVER_PORT },
    web: place.target("web", { frontend: "nodePort", family }),
  }));
  return { stage: place.stage, server, pod, targets };
}

// First: where connection tracking is a module it must not have been loaded yet.
labTest("replies are told from requests once connection tracking is loaded", async (t) => {
  if (whyNoLab() !== undefined) return;
  const bed = { network: "routed", mode: "xdp", rpFilter: 1, rules: false } as const;
  const { stage, server, pod, targets } = await openReplies(bed);
  t.teardown(() => stage.close());
  for (const { target, web } of targets) {
    await masquerade(stage.node, target, { protocol: "TCP", port: web.port });
    const next = { ...target };
    let seen: Seen | undefined;
    // A connection that was led astray stays so: each try is another one.
    const isReply = async () => {
      next.port++;
      await server.serveTcp({ identity: "outside", ...next });
      seen = await askFrom(pod, next, { protocol: "TCP", timeoutSeconds: 1 });
      return "identity" in seen;
    };
    await waitFor(isReply, { what: "an answer from outside", timeoutSeconds: 20 });
    t.deepEqual(seen, { identity: "outside", client: web });
  }
});

for (const bed of BEDS)
  labTest(`${bed.mode}: a pod gets replies at a node port that it is masqueraded to`, async (t) => {
    if (whyNoLab() !== undefined) return;
    const { stage, server, pod, targets } = await openReplies(bed);
    t.teardown(() => stage.close());
    for (const { family, target, web } of targets)
      for (const protocol of PROTOCOLS) {
        await masquerade(stage.node, target, { protocol, port: web.port });
        const seen = await askFrom(pod, target, { protocol });
        // As if the node port had asked.
        t.deepEqual(seen, { identity: "outside", client: web }, `${protocol} over ${family}`);
        // And whoever asks the node port from there gets to the Service.
        const asked = await askFrom(server, web, { protocol });
        t.like(asked, { identity: "pod-b1" }, `${protocol} over ${family}`);
      }
  });
