// Replies that come to a node port and are no requests: to what leaves the node with such a port as
// its source, because the CNI has masqueraded it. Connection tracking knows; so must we.
import test from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Place } from "./journeys.ts";
import { askFrom, FAMILIES, PROTOCOLS } from "./outside.ts";

const labTest = needsLab(test.serial);
const SERVER_PORT = 8443;

for (const mode of ["xdp", "tc"] as const)
  labTest(`${mode}: a pod gets replies at a node port that it is masqueraded to`, async (t) => {
    if (whyNoLab() !== undefined) return;
    const bed = { network: "routed", mode, rpFilter: 1, rules: true } as const;
    const place = await Place.open(bed, { web: { endpoints: ["pod-b1"] } });
    const { stage } = place;
    t.teardown(() => stage.close());
    const { outside } = stage.lab;
    const server = await outside.helper();
    const pod = await stage.pod("pod-a1").helper();
    for (const family of FAMILIES) {
      const target = { address: outside.addresses[family], port: SERVER_PORT };
      await server.serveTcp({ identity: "outside", ...target });
      await server.serveUdp({ identity: "outside", ...target });
      const web = place.target("web", { frontend: "nodePort", family });
      for (const protocol of PROTOCOLS) {
        const rule = `-t nat -I POSTROUTING -d ${target.address} -p ${protocol.toLowerCase()}`;
        const iptables = family === "ipv4" ? "iptables" : "ip6tables";
        const how = `-j MASQUERADE --to-ports ${web.port}`;
        await stage.node.run([iptables, ...`${rule} ${how}`.split(" ")]);
        const seen = await askFrom(pod, target, { protocol });
        // As if the node port had asked.
        t.deepEqual(seen, { identity: "outside", client: web }, `${protocol} over ${family}`);
        // And whoever asks the node port from there gets to the Service.
        const asked = await askFrom(server, web, { protocol });
        t.like(asked, { identity: "pod-b1" }, `${protocol} over ${family}`);
      }
    }
  });
