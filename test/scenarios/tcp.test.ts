// TCP through the socket path: every kind of frontend, from a pod and from a node process.
import test from "ava";
import { service as serviceLayout, table } from "../../bindings/layout.ts";
import { BpfMap } from "../../bindings/map.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Helper, Host } from "../../lab/host.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { makeService, makeSlices } from "./objects.ts";
import { askTcp, POD_PORT, Stage, whoTcp } from "./stage.ts";

const labTest = needsLab(test);
let stage: Stage;

const HTTP = [{ name: "http", port: 80 }];
const PORTS = [{ name: "http", port: 80, nodePort: 30080 }];
const POD_PORTS = [{ name: "http", port: POD_PORT }];

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  stage = await Stage.open(["client", "pod-b", "pod-c"]);
  const [b, c] = [stage.pod("pod-b").addresses, stage.pod("pod-c").addresses];
  await stage.apply("web", [
    makeService({
      name: "web",
      addresses: ["10.96.0.10", "fd00:10:96::10"],
      ports: PORTS,
      spec: { type: "LoadBalancer", externalIPs: ["192.0.2.10", "2001:db8:e::10"] },
      status: {
        loadBalancer: {
          ingress: [
            { ip: "198.51.100.10" },
            { ip: "2001:db8:f::10", ipMode: "VIP" },
            { ip: "198.51.100.99", ipMode: "Proxy" },
          ],
        },
      },
    }),
    ...makeSlices({
      service: "web",
      ports: POD_PORTS,
      endpoints: [b.ipv4, b.ipv6, c.ipv4, c.ipv6],
    }),
  ]);
  await stage.apply("empty", [
    makeService({ name: "empty", addresses: ["10.96.0.11", "fd00:10:96::11"], ports: HTTP }),
  ]);
  await stage.apply("one", [
    makeService({ name: "one", addresses: ["10.96.0.12", "fd00:10:96::12"], ports: HTTP }),
    ...makeSlices({ service: "one", ports: POD_PORTS, endpoints: [b.ipv4, b.ipv6] }),
  ]);
  await stage.apply("counted", [
    makeService({ name: "counted", addresses: ["10.96.0.18"], ports: HTTP }),
    ...makeSlices({ service: "counted", ports: POD_PORTS, endpoints: [b.ipv4] }),
  ]);
  await stage.apply("self", [
    makeService({ name: "self", addresses: ["10.96.0.13", "fd00:10:96::13"], ports: HTTP }),
    ...makeSlices({
      service: "self",
      ports: POD_PORTS,
      endpoints: Object.values(stage.pod("client").addresses),
    }),
  ]);
  await stage.apply("dropping", [
    makeService({ name: "dropping", addresses: ["10.96.0.14"], ports: HTTP }),
  ]);
  await stage.apply("ignored", [
    makeService({ name: "headless", addresses: [], ports: HTTP, spec: { clusterIP: "None" } }),
    makeService({
      name: "external-name",
      addresses: ["10.96.0.15"],
      ports: HTTP,
      spec: { type: "ExternalName", externalName: "example.com" },
    }),
    makeService({
      name: "of-another-proxy",
      addresses: ["10.96.0.16"],
      ports: HTTP,
      metadata: { labels: { "service.kubernetes.io/service-proxy-name": "other" } },
    }),
  ]);
  await stage.startAgent();
});

test.after.always(async () => {
  await stage?.close();
});

/** Where clients sit: in a pod, or on the node itself. */
const PLACES: Readonly<Record<string, () => Host>> = {
  pod: () => stage.pod("client"),
  node: () => stage.node,
};

function clientIn(place: string): Promise<Helper> {
  return stage.client(PLACES[place]!());
}

const FRONTENDS = [
  ["a cluster IP", "10.96.0.10", 80],
  ["an IPv6 cluster IP", "fd00:10:96::10", 80],
  ["a cluster IP, asked as an IPv4-mapped IPv6 address", "::ffff:10.96.0.10", 80],
  ["an external IP", "192.0.2.10", 80],
  ["an IPv6 external IP", "2001:db8:e::10", 80],
  ["a load balancer's VIP", "198.51.100.10", 80],
  ["an IPv6 load balancer's VIP", "2001:db8:f::10", 80],
  ["a node port", "192.168.50.2", 30080],
  ["an IPv6 node port", "2001:db8:50::2", 30080],
  ["a node port, asked as an IPv4-mapped IPv6 address", "::ffff:192.168.50.2", 30080],
] as const;

for (const place of Object.keys(PLACES))
  for (const [kind, address, port] of FRONTENDS)
    labTest(`from the ${place}, ${kind} leads to an endpoint`, async (t) => {
      const identity = await whoTcp(await clientIn(place), { address, port });
      t.true(["pod-b", "pod-c"].includes(identity), identity);
    });

for (const place of Object.keys(PLACES))
  for (const address of ["10.96.0.11", "fd00:10:96::11", "::ffff:10.96.0.11"])
    labTest(`from the ${place}, ${address} without endpoints is refused at once`, async (t) => {
      const before = await refused("empty");
      t.is(await whoTcp(await clientIn(place), { address, port: 80 }), "ECONNREFUSED");
      t.true((await refused("empty")) > before);
    });

async function refused(name: string): Promise<number> {
  const rows = await stage.programmed(name);
  return rows.reduce((sum, row) => sum + row.refused, 0);
}

labTest("a row that says drop gives EHOSTUNREACH and is counted", async (t) => {
  const [row] = await stage.programmed("dropping");
  const map = BpfMap.openPinned(new Pins(stage.node.pins).mapPath("svc_services"));
  const view = new DataView(map.mmap().buffer);
  const word =
    row!.id * serviceLayout.bytes + serviceLayout.offset.table + table.TABLE_INTERNAL * 8;
  view.setBigUint64(word, 1n << 56n, true);
  const client = await clientIn("pod");
  t.is(await whoTcp(client, { address: "10.96.0.14", port: 80 }), "EHOSTUNREACH");
  const [after] = await stage.programmed("dropping");
  t.is(after!.dropped, 1);
  t.is(after!.tables.internal.whenEmpty, "drop");
  map.close();
});

labTest("new connections spread over all endpoints", async (t) => {
  const client = await clientIn("pod");
  const counts = { "pod-b": 0, "pod-c": 0 } as Record<string, number>;
  for (let index = 0; index < 40; index++)
    counts[await whoTcp(client, { address: "10.96.0.10", port: 80 })]! += 1;
  // A fair draw fails this once in 2^39 runs.
  t.true(counts["pod-b"]! > 0 && counts["pod-c"]! > 0, JSON.stringify(counts));
  t.is(counts["pod-b"]! + counts["pod-c"]!, 40);
});

labTest("connections are counted for the endpoint and for the service port", async (t) => {
  const client = await clientIn("pod");
  for (let index = 0; index < 3; index++)
    t.is(await whoTcp(client, { address: "10.96.0.18", port: 80 }), "pod-b");
  const [row] = await stage.programmed("counted");
  t.is(row!.connections, 3);
  t.is(row!.endpoints[0]!.connections, 3);
});

labTest("the endpoint sees the pod's own address, not the node's", async (t) => {
  const asked = await askTcp(await clientIn("pod"), { address: "10.96.0.12", port: 80 });
  t.false("error" in asked);
  if ("client" in asked) t.is(asked.client.address, stage.pod("client").addresses.ipv4);
});

labTest("a socket bound to an address and port is translated and keeps its binding", async (t) => {
  const { ipv4, ipv6 } = stage.pod("client").addresses;
  const client = await clientIn("pod");
  for (const [address, local] of [
    ["10.96.0.12", { address: ipv4, port: 45001 }],
    ["fd00:10:96::12", { address: ipv6, port: 45002 }],
  ] as const) {
    const asked = await askTcp(client, { address, port: 80, local });
    t.like(asked, { identity: "pod-b", client: local });
  }
});

labTest("a socket bound to an interface is translated", async (t) => {
  const { sockets } = await clientIn("pod");
  const fd = await sockets.open({ family: 4, protocol: "TCP" });
  await sockets.bindToDevice(fd, "eth0");
  await sockets.connect(fd, { address: "10.96.0.12", port: 80 });
  await sockets.send(fd, "hello\n");
  t.regex((await sockets.receive(fd)).payload, /"identity":"pod-b"/);
  await sockets.close(fd);
});

labTest("a connect straight to an endpoint is untouched", async (t) => {
  const { ipv4 } = stage.pod("pod-b").addresses;
  const asked = await askTcp(await clientIn("pod"), { address: ipv4, port: POD_PORT });
  t.like(asked, { identity: "pod-b", peerAddress: ipv4 });
});

labTest("a pod reaches itself through its own Service", async (t) => {
  const client = await clientIn("pod");
  for (const address of ["10.96.0.13", "fd00:10:96::13"])
    t.is(await whoTcp(client, { address, port: 80 }), "client");
});

labTest("getpeername shows the endpoint for TCP by default", async (t) => {
  const asked = await askTcp(await clientIn("pod"), { address: "10.96.0.12", port: 80 });
  t.like(asked, { peerAddress: stage.pod("pod-b").addresses.ipv4 });
});

labTest("a process outside the cgroup is not touched", async (t) => {
  const client = await stage.client(stage.node.bystander);
  for (const address of ["10.96.0.10", "fd00:10:96::10"])
    t.is(await whoTcp(client, { address, port: 80 }), "EACCES");
  t.is(await whoTcp(client, { address: "192.168.50.2", port: 30080 }), "ECONNREFUSED");
});

labTest("another port of a cluster IP refuses, from the pod and from the node", async (t) => {
  for (const place of ["pod", "node"] as const)
    for (const address of ["10.96.0.10", "fd00:10:96::10"])
      t.is(await whoTcp(await clientIn(place), { address, port: 81 }), "ECONNREFUSED");
});

labTest("what is not a Service's frontend is left alone", async (t) => {
  const client = await clientIn("pod");
  const untouched = [
    ["a VIP of ipMode Proxy", "198.51.100.99", 80],
    ["an ExternalName Service with a cluster IP left in it", "10.96.0.15", 80],
    ["a Service labelled for another proxy", "10.96.0.16", 80],
  ] as const;
  for (const [what, address, port] of untouched) {
    const answer = await whoTcp(client, { address, port });
    t.false(["pod-b", "pod-c", "client", "ECONNREFUSED"].includes(answer), `${what}: ${answer}`);
  }
  const { services } = await stage.dump();
  const names = services.map(({ name }) => name);
  for (const name of ["headless", "external-name", "of-another-proxy"])
    t.false(names.includes(name), name);
});
