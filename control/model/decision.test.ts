// First packets where the vectors have no case: detection by device, overlapping kinds of
// addresses, and words for people.
import test from "ava";
import { parseRange } from "./address.ts";
import { Cluster } from "./cluster.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "./config.ts";
import { decide, type Packet } from "./decision.ts";
import { readObject } from "./read.ts";

const SERVICE = {
  kind: "Service",
  metadata: { namespace: "shop", name: "web" },
  spec: {
    type: "LoadBalancer",
    clusterIP: "10.96.0.1",
    externalTrafficPolicy: "Local",
    externalIPs: ["10.96.0.200"],
    ports: [{ name: "http", port: 80, nodePort: 30080 }],
  },
  status: { loadBalancer: { ingress: [{ ip: "198.51.100.1" }] } },
};
const SLICE = {
  kind: "EndpointSlice",
  metadata: {
    namespace: "shop",
    name: "web-a",
    labels: { "kubernetes.io/service-name": "web" },
  },
  addressType: "IPv4",
  ports: [{ name: "http", port: 8080 }],
  endpoints: [
    { addresses: ["10.244.1.1"], nodeName: "node-a" },
    { addresses: ["10.244.2.2"], nodeName: "node-b" },
  ],
};
const NODE = {
  kind: "Node",
  metadata: { name: "node-a" },
  status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
};
const RANGES = {
  kind: "ServiceCIDR",
  metadata: { name: "kubernetes" },
  spec: { cidrs: ["10.96.0.0/16"] },
};

function decideFor(packet: Partial<Packet>, config: Partial<ProxyConfig> = {}) {
  const cluster = new Cluster({
    nodeName: "node-a",
    fallbackNodeAddresses: [],
    config: { ...DEFAULT_CONFIG, ...config },
  });
  for (const value of [SERVICE, SLICE, NODE, RANGES]) cluster.apply(readObject(value).object!);
  cluster.takeDirty();
  const whole = { source: "203.0.113.1", protocol: "TCP", destination: "198.51.100.1", port: 80 };
  const decision = decide({ ...whole, ...packet } as Packet, cluster.serving());
  if (decision.outcome !== "endpoints") return `${decision.outcome}: ${decision.reason}`;
  const endpoints = decision.endpoints.map(({ address, masquerade }) =>
    masquerade ? `${address} rewritten` : address,
  );
  return endpoints.join(", ");
}

test("a detector by device tells a pod by where its packet came in", (t) => {
  const config = { detectLocalMode: "BridgeInterface", bridgeInterface: "cni0" } as const;
  const pod = { source: "10.244.1.9", device: "cni0" };
  t.is(decideFor(pod, config), "10.244.1.1, 10.244.2.2");
  t.is(decideFor({ ...pod, device: "eth0" }, config), "10.244.1.1");
  t.is(decideFor({ source: "192.168.50.2" }, config), "10.244.1.1 rewritten, 10.244.2.2 rewritten");
});

test("only an endpoint of this node is its own client's neighbour", (t) => {
  const packet = { destination: "10.96.0.1", source: "10.244.2.2" };
  t.is(decideFor(packet), "10.244.1.1, 10.244.2.2", "the rule of §10.5 asks for a local endpoint");
  t.is(decideFor({ ...packet, source: "10.244.1.1" }), "10.244.1.1 rewritten, 10.244.2.2");
});

test("a decision against a packet says why", (t) => {
  t.is(decideFor({ destination: "10.96.0.1", port: 81 }), "refuse: otherPort");
  t.is(decideFor({ destination: "10.96.0.2" }), "drop: unownedAddress");
  t.is(decideFor({ destination: "10.96.0.200", port: 81 }), "drop: unownedAddress");
  t.is(decideFor({ destination: "198.51.100.1", port: 81 }), "untouched: noService");
  t.is(decideFor({ protocol: "UDP", destination: "192.168.50.2" }), "untouched: noService");
  t.is(decideFor({ source: "2001:db8::1" }), "untouched: noService");
});

for (const [source, expected] of [
  ["127.0.0.1", "10.244.1.1 rewritten, 10.244.2.2 rewritten"],
  ["192.168.50.2", "10.244.1.1 rewritten, 10.244.2.2 rewritten"],
  ["10.244.1.7", "untouched: noService"],
  ["203.0.113.1", "untouched: noService"],
] as const)
  test(`a node port of localhost, asked from ${source}: ${expected}`, (t) => {
    const pods = { clusterCIDRs: [parseRange("10.244.0.0/16")!] };
    const packet = { source, destination: "127.0.0.1", port: 30080 };
    t.is(decideFor(packet, { ...pods, localhostNodePorts: true }), expected);
    t.is(decideFor(packet, pods), "untouched: noService");
  });
