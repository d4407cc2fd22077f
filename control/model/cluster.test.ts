// Events in, rows out: what changes, who owns a contested frontend, and that the order of arrival
// has no part in the result.
import test from "ava";
import fc from "fast-check";
import { parseRange } from "./address.ts";
import { type Batch, Cluster } from "./cluster.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "./config.ts";
import type { KubernetesObject, ObjectIdentity } from "./objects.ts";
import { readObject } from "./read.ts";
import type { ServiceRow } from "./rows.ts";

const NODE_ADDRESS = "192.168.50.2";

function read(value: unknown): KubernetesObject {
  const { object, problems } = readObject(value);
  if (object === undefined || problems.length > 0) throw new Error(JSON.stringify(problems));
  return object;
}

function service(name: string, spec: object = {}, { created = "" } = {}): KubernetesObject {
  return read({
    apiVersion: "v1",
    kind: "Service",
    metadata: { namespace: "shop", name, creationTimestamp: created },
    spec: { clusterIP: "10.96.0.1", ports: [{ name: "http", port: 80 }], ...spec },
  });
}

function slice(name: string, addresses: string[], more: object = {}): KubernetesObject {
  const labels = { "kubernetes.io/service-name": "web" };
  return read({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: { namespace: "shop", name, labels },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080 }],
    endpoints: addresses.map((address) => ({ addresses: [address] })),
    ...more,
  });
}

function node(zone: string, address = NODE_ADDRESS): KubernetesObject {
  const labels = { "topology.kubernetes.io/zone": zone };
  const addresses = [
    { type: "Hostname", address: "node-a" },
    { type: "ExternalIP", address: "203.0.113.7" },
    { type: "InternalIP", address },
  ];
  return read({ kind: "Node", metadata: { name: "node-a", labels }, status: { addresses } });
}

function serviceRanges(name: string, ...cidrs: string[]): KubernetesObject {
  const apiVersion = "networking.k8s.io/v1";
  return read({ apiVersion, kind: "ServiceCIDR", metadata: { name }, spec: { cidrs } });
}

function makeCluster(...objects: KubernetesObject[]): Cluster {
  return makeClusterWith({}, ...objects);
}

function makeClusterWith(config: Partial<ProxyConfig>, ...objects: KubernetesObject[]): Cluster {
  const cluster = new Cluster({
    nodeName: "node-a",
    fallbackNodeAddresses: ["192.168.99.9", "2001:db8::9"],
    config: { ...DEFAULT_CONFIG, ...config },
  });
  for (const object of objects) cluster.apply(object);
  return cluster;
}

function frontends(batch: Pick<Batch, "changed">): Record<string, string[]> {
  const list = (row: ServiceRow) => row.frontends.map(({ address, port }) => `${address}:${port}`);
  return Object.fromEntries(batch.changed.map((row) => [row.name, list(row)]));
}

test("a Service and its slices become one row, whichever comes first", (t) => {
  const objects = [
    service("web"),
    slice("web-b", ["10.244.2.2", "10.244.1.1"]),
    slice("web-a", ["10.244.1.1", "10.244.3.3"]),
  ];
  const { changed, removed } = makeCluster(...objects).takeDirty();
  t.deepEqual(removed, []);
  t.is(changed.length, 1);
  const [row] = changed;
  t.is(row!.key, "shop/web:http/TCP/4");
  t.deepEqual(row!.frontends, [{ kind: "clusterIP", address: "10.96.0.1", port: 80 }]);
  t.deepEqual(
    row!.backends.map(({ address, port, state }) => `${address}:${port} ${state}`),
    ["10.244.1.1:8080 ready", "10.244.2.2:8080 ready", "10.244.3.3:8080 ready"],
  );
  t.deepEqual(row!.internal, { kind: "uniform", members: [0, 1, 2], whenEmpty: "refuse" });
  t.deepEqual(row!.outside, { kind: "uniform", members: [], whenEmpty: "refuse" });
  t.deepEqual(makeCluster(...objects.reverse()).takeDirty().changed, changed);
});

test("an update that changes nothing relevant marks nothing", (t) => {
  const cluster = makeCluster(service("web"), slice("web-a", ["10.244.1.1"]), node("a"));
  cluster.takeDirty();
  cluster.apply(service("web"));
  cluster.apply(slice("web-a", ["10.244.1.1"]));
  cluster.apply(node("b"));
  t.false(cluster.isDirty);
  cluster.apply(
    slice("web-a", ["10.244.1.1"], { endpoints: [{ addresses: ["10.244.1.1"], zone: "b" }] }),
  );
  t.false(cluster.isDirty);
});

test("a primary address that is set stands for the Node's of its family (§9.6)", (t) => {
  const cluster = makeClusterWith({ primaryAddress: "192.168.60.6" }, node("a"));
  t.deepEqual(cluster.nodePorts.addresses.ipv4, ["192.168.60.6"]);
  const other = makeClusterWith({ primaryAddress: "2001:db8::6" }, node("a"));
  t.deepEqual(other.nodePorts.addresses, { ipv4: [NODE_ADDRESS], ipv6: ["2001:db8::6"] });
});

test("without external IPs a Service keeps its other frontends (§3.7)", (t) => {
  const spec = { externalIPs: ["192.0.2.1"] };
  const { changed } = makeClusterWith({ externalIPs: false }, service("web", spec)).takeDirty();
  t.deepEqual(frontends({ changed }), { web: ["10.96.0.1:80"] });
});

test("a slice that moves to another Service leaves the first", (t) => {
  const other = service("other", { clusterIP: "10.96.0.2" });
  const cluster = makeCluster(service("web"), other, slice("web-a", ["10.244.1.1"]));
  cluster.takeDirty();
  const metadata = {
    namespace: "shop",
    name: "web-a",
    labels: { "kubernetes.io/service-name": "other" },
  };
  cluster.apply(slice("web-a", ["10.244.1.1"], { metadata }));
  const { changed } = cluster.takeDirty();
  const backends = changed.map((row) => [row.name, row.backends.length]);
  t.deepEqual(Object.fromEntries(backends), { web: 0, other: 1 });
});

test("the older Service owns a frontend, and the other gets it when that goes", (t) => {
  const young = service("a-young", {}, { created: "2026-02-01T00:00:00Z" });
  const old = service("z-old", {}, { created: "2026-01-01T00:00:00Z" });
  const cluster = makeCluster(young);
  t.deepEqual(frontends(cluster.takeDirty()), { "a-young": ["10.96.0.1:80"] });

  cluster.apply(old);
  const taken = cluster.takeDirty();
  t.deepEqual(frontends(taken), { "z-old": ["10.96.0.1:80"] });
  t.deepEqual(taken.removed, ["shop/a-young:http/TCP/4"]);
  t.is(taken.problems.length, 1);
  t.like(taken.problems[0], { namespace: "shop", name: "a-young", field: "spec.clusterIPs" });
  t.is(
    taken.problems[0]!.message,
    'Service "shop/a-young": port "http" does not get 10.96.0.1:80/TCP (clusterIP): ' +
      'Service "shop/z-old" has it, for it is older; give one of them another address or port',
  );

  cluster.apply(slice("z-old-a", []));
  t.deepEqual(cluster.takeDirty().problems, [], "a conflict is reported once");

  cluster.remove(old);
  const given = cluster.takeDirty();
  t.deepEqual(frontends(given), { "a-young": ["10.96.0.1:80"] });
  t.deepEqual(given.removed, ["shop/z-old:http/TCP/4"]);
  t.deepEqual(given.resolved, taken.problems);
});

test("of two Services of one age the first by name owns a frontend", (t) => {
  const cluster = makeCluster(service("b"), service("a"));
  const batch = cluster.takeDirty();
  t.deepEqual(frontends(batch), { a: ["10.96.0.1:80"] });
  t.true(batch.problems[0]!.message.includes("its name comes first"));
});

test("a cluster IP wins over the external IP of another Service, whatever their age", (t) => {
  const thief = service(
    "thief",
    { clusterIP: "10.96.0.9", externalIPs: ["10.96.0.1"] },
    { created: "2026-01-01T00:00:00Z" },
  );
  const robbed = service("robbed", {}, { created: "2026-02-01T00:00:00Z" });
  const batch = makeCluster(thief, robbed).takeDirty();
  t.deepEqual(frontends(batch), { thief: ["10.96.0.9:80"], robbed: ["10.96.0.1:80"] });
  t.is(
    batch.problems[0]!.message,
    'Service "shop/thief": port "http" does not get 10.96.0.1:80/TCP (externalIP): Service ' +
      '"shop/robbed" has it, for cluster IPs come before other addresses; give one of them ' +
      "another address or port",
  );
});

test("an exact address wins over a node port, whatever their age", (t) => {
  const created = "2026-01-01T00:00:00Z";
  const ports = [{ port: 8080, nodePort: 30080 }];
  const exposed = service(
    "exposed",
    { type: "NodePort", clusterIP: "10.96.0.5", ports },
    { created },
  );
  const external = service("external", {
    clusterIP: "10.96.0.6",
    ports: [{ port: 30080 }],
    externalIPs: [NODE_ADDRESS],
  });
  const cluster = makeCluster(node("a"), exposed, external);
  const batch = cluster.takeDirty();
  t.deepEqual(frontends(batch), {
    exposed: ["10.96.0.5:8080"],
    external: ["10.96.0.6:30080", "192.168.50.2:30080"],
  });
  t.true(batch.problems[0]!.message.includes("exact addresses come before node ports"));
});

test("node ports follow the Node, and are on fallback addresses before there is one", (t) => {
  const ports = [{ name: "http", port: 80, nodePort: 30080 }];
  const cluster = makeCluster(service("web", { type: "NodePort", ports }));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.99.9:30080"] });
  t.false(cluster.nodePorts.fromNode);
  cluster.apply(node("a"));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.50.2:30080"] });
  t.true(cluster.nodePorts.fromNode);
  cluster.apply(node("a", "192.168.50.3"));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.50.3:30080"] });
});

test("what a Node said holds on when it is deleted, and until a new one says other", (t) => {
  const ports = [{ name: "http", port: 80, nodePort: 30080 }];
  const named = (address?: string, podCIDR?: string) =>
    read({
      kind: "Node",
      metadata: { name: "node-a" },
      spec: podCIDR ? { podCIDRs: [podCIDR] } : {},
      status: address ? { addresses: [{ type: "InternalIP", address }] } : {},
    });
  const cluster = makeClusterWith(
    { detectLocalMode: "NodeCIDR" },
    service("web", { type: "NodePort", ports }),
    named(NODE_ADDRESS, "10.244.1.0/24"),
  );
  cluster.takeDirty();
  const isPod = () => cluster.detector.isPod({ source: "10.244.1.5" });
  cluster.remove({ kind: "Node", namespace: "", name: "node-a" });
  t.is(cluster.nodeObject, undefined);
  t.true(isPod());
  t.deepEqual(cluster.takeDirty().changed, []);
  cluster.apply(named());
  t.true(cluster.nodeObject !== undefined);
  t.true(isPod());
  t.deepEqual(cluster.takeDirty().changed, []);
  cluster.apply(named("192.168.50.3", "10.244.2.0/24"));
  t.false(isPod());
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.50.3:30080"] });
});

test("a change of zone re-evaluates Services with zone hints", (t) => {
  const hint = (name: string) => ({ forZones: [{ name }] });
  const endpoints = [
    { addresses: ["10.244.1.1"], hints: hint("a") },
    { addresses: ["10.244.2.2"], hints: hint("b") },
  ];
  const cluster = makeCluster(service("web"), slice("web-a", [], { endpoints }), node("a"));
  t.deepEqual(
    cluster.takeDirty().changed[0]!.backends.map(({ address }) => address),
    ["10.244.1.1"],
  );
  cluster.apply(node("b"));
  t.deepEqual(
    cluster.takeDirty().changed[0]!.backends.map(({ address }) => address),
    ["10.244.2.2"],
  );
});

test("a Service that gains the label of another proxy is withdrawn", (t) => {
  const cluster = makeCluster(service("web"));
  cluster.takeDirty();
  const labels = { "service.kubernetes.io/service-proxy-name": "" };
  const spec = { clusterIP: "10.96.0.1", ports: [{ port: 80 }] };
  cluster.apply(
    read({ kind: "Service", metadata: { namespace: "shop", name: "web", labels }, spec }),
  );
  t.deepEqual(cluster.takeDirty().removed, ["shop/web:http/TCP/4"]);
});

test("external policy Local keeps two lists over one set of backends", (t) => {
  const ports = [{ name: "http", port: 80, nodePort: 30080 }];
  const spec = { type: "NodePort", externalTrafficPolicy: "Local", ports };
  const endpoints = [
    { addresses: ["10.244.1.1"], nodeName: "node-a" },
    { addresses: ["10.244.2.2"], nodeName: "node-b" },
    { addresses: ["10.244.3.3"], conditions: { ready: false } },
  ];
  const cluster = makeCluster(service("web", spec), slice("web-a", [], { endpoints }));
  const [row] = cluster.takeDirty().changed;
  t.deepEqual(row!.inside, { kind: "uniform", members: [0, 1], whenEmpty: "refuse" });
  t.deepEqual(row!.outside, { kind: "maglev", members: [0], whenEmpty: "refuse" });
  cluster.apply(slice("web-a", [], { endpoints: endpoints.slice(1) }));
  const [next] = cluster.takeDirty().changed;
  t.deepEqual(next!.outside, { kind: "uniform", members: [], whenEmpty: "drop" });
});

test("other ports of a cluster IP of ours are refused, those of another proxy left alone", (t) => {
  const proxy = { "service.kubernetes.io/service-proxy-name": "mesh" };
  const theirs = read({
    kind: "Service",
    metadata: { namespace: "shop", name: "theirs", labels: proxy },
    spec: { clusterIP: "10.96.0.7", externalIPs: ["192.0.2.7"], ports: [{ port: 80 }] },
    status: { loadBalancer: { ingress: [{ ip: "198.51.100.7" }] } },
  });
  const headless = service("headless", { clusterIP: "None" });
  const cluster = makeCluster(service("web"), theirs, headless);
  const { addresses } = cluster.takeDirty();
  t.deepEqual(addresses, {
    changed: [
      { address: "10.96.0.1", action: "refuse" },
      { address: "10.96.0.7", action: "leave" },
      { address: "198.51.100.7", action: "leave" },
      { address: "192.0.2.7", action: "leave" },
    ],
    removed: [],
  });
  cluster.remove(service("web"));
  cluster.apply(service("theirs", { clusterIP: "10.96.0.7" }));
  t.deepEqual(cluster.takeDirty().addresses, {
    changed: [{ address: "10.96.0.7", action: "refuse" }],
    removed: ["10.96.0.1", "198.51.100.7", "192.0.2.7"],
  });
});

test("an address that two Services have says what the older one does", (t) => {
  const labels = { "service.kubernetes.io/service-proxy-name": "mesh" };
  const metadata = { namespace: "shop", name: "a-theirs", labels };
  const theirs = (creationTimestamp: string, spec: object) =>
    read({
      kind: "Service",
      metadata: { ...metadata, creationTimestamp },
      spec: { clusterIP: "10.96.0.1", ports: [{ port: 80 }], ...spec },
    });
  const created = "2026-02-01T00:00:00Z";
  const cluster = makeCluster(service("web", {}, { created }), theirs("2026-03-01T00:00:00Z", {}));
  const addresses = () => cluster.takeDirty().addresses.changed;
  t.deepEqual(addresses(), [{ address: "10.96.0.1", action: "refuse" }]);
  cluster.apply(theirs("2026-01-01T00:00:00Z", {}));
  t.deepEqual(addresses(), [{ address: "10.96.0.1", action: "leave" }]);
  // Anybody can write an external IP: it does not outweigh the cluster IP of another.
  const externalIPs = ["10.96.0.1"];
  cluster.apply(theirs("2026-01-01T00:00:00Z", { clusterIP: "10.96.0.8", externalIPs }));
  t.deepEqual(addresses(), [
    { address: "10.96.0.1", action: "refuse" },
    { address: "10.96.0.8", action: "leave" },
  ]);
});

test("a load balancer in mode Proxy is left alone, and an external IP may be a host's", (t) => {
  const ingress = [{ ip: "10.96.0.9", ipMode: "Proxy" }, { ip: "198.51.100.9" }];
  const externalIPs = ["192.168.50.3", "198.51.100.9"];
  const cluster = makeCluster(
    read({
      kind: "Service",
      metadata: { name: "web" },
      spec: { clusterIP: "10.96.0.1", type: "LoadBalancer", ports: [{ port: 80 }], externalIPs },
      status: { loadBalancer: { ingress } },
    }),
  );
  t.deepEqual(cluster.takeDirty().addresses.changed, [
    { address: "10.96.0.1", action: "refuse" },
    { address: "10.96.0.9", action: "leave" },
    { address: "198.51.100.9", action: "answer" },
    { address: "192.168.50.3", action: "host" },
  ]);
});

test("the ranges of all ServiceCIDRs count, each once", (t) => {
  const cluster = makeCluster(
    serviceRanges("one", "10.96.0.0/16"),
    serviceRanges("two", "fd00:10:96::/112", "10.96.0.0/16"),
  );
  t.true(cluster.isDirty);
  t.deepEqual(cluster.takeDirty().serviceRanges, ["10.96.0.0/16", "fd00:10:96::/112"]);
  t.false(cluster.isDirty);
  cluster.remove(serviceRanges("one"));
  t.false(cluster.isDirty, "the other one still has it");
  cluster.apply(serviceRanges("two"));
  t.deepEqual(cluster.takeDirty().serviceRanges, []);
});

const guarded = {
  type: "LoadBalancer",
  clusterIPs: ["10.96.0.1", "fd00::1"],
  ipFamilies: ["IPv4", "IPv6"],
};
const vips = { ingress: [{ ip: "198.51.100.1" }, { ip: "2001:db8::77" }] };

/** The source rows of a dual-stack load balancer with these ranges, IPv4 first. */
function sourcesOf(cluster: Cluster, ...loadBalancerSourceRanges: string[]) {
  const spec = { clusterIP: "10.96.0.1", ports: [{ port: 80 }], ...guarded };
  cluster.apply(
    read({
      kind: "Service",
      metadata: { name: "web" },
      spec: { ...spec, loadBalancerSourceRanges },
      status: { loadBalancer: vips },
    }),
  );
  cluster.takeDirty();
  return cluster.rows().map(({ sources }) => sources);
}

test("source ranges hold for their own family, and a range of length 0 opens it", (t) => {
  const cluster = makeCluster(node("a"));
  t.deepEqual(sourcesOf(cluster, "203.0.113.0/24", " 203.0.113.7/24"), [
    { ranges: ["203.0.113.0/24"], nodeAllowed: false },
    undefined,
  ]);
  t.deepEqual(sourcesOf(cluster, "203.0.113.0/24", "0.0.0.0/0", "2001:db8:ffff::/48"), [
    undefined,
    { ranges: ["2001:db8:ffff::/48"], nodeAllowed: false },
  ]);
});

test("a range with the node's primary address lets the VIPs in as sources", (t) => {
  const cluster = makeCluster(node("a"));
  t.deepEqual(sourcesOf(cluster, "192.168.50.0/24", "203.0.113.0/24", "2001:db8:ffff::/48"), [
    { ranges: ["192.168.50.0/24", "198.51.100.1/32", "203.0.113.0/24"], nodeAllowed: true },
    { ranges: ["2001:db8:ffff::/48"], nodeAllowed: false },
  ]);
  cluster.apply(node("a", "192.168.51.2"));
  t.deepEqual(
    cluster.takeDirty().changed.map(({ sources }) => sources),
    [{ ranges: ["192.168.50.0/24", "203.0.113.0/24"], nodeAllowed: false }],
    "another primary address re-evaluates the row at once, and no other",
  );
});

test("node ports in ranges follow the addresses that the kernel calls local", (t) => {
  const nodePortAddresses = ["192.168.50.0/24", "2001:db8::/32"].map((text) => parseRange(text)!);
  const ports = [{ name: "http", port: 80, nodePort: 30080 }];
  const exposed = service("web", { type: "NodePort", ports });
  const cluster = makeClusterWith({ nodePortAddresses }, exposed, service("other"), node("a"));
  const nodePorts = () => {
    const { changed } = cluster.takeDirty();
    const rows = changed.flatMap((row) => row.frontends).filter(({ kind }) => kind === "nodePort");
    return rows.map(({ address }) => address);
  };
  t.deepEqual(
    nodePorts(),
    [NODE_ADDRESS],
    "until they are known, those of the Node stand for them",
  );
  cluster.setLocalAddresses(["127.0.0.1", "192.168.50.9", "192.168.51.9", "192.168.050.2"]);
  t.deepEqual(nodePorts(), ["192.168.50.2", "192.168.50.9"]);
  cluster.setLocalAddresses(["192.168.50.2", "192.168.50.9", "192.168.52.1"]);
  t.false(cluster.isDirty, "an address that no node port is served on changes nothing");
  cluster.setLocalAddresses(["192.168.51.9"]);
  t.deepEqual(nodePorts(), []);
});

// Small pools, so that random objects meet: frontends collide, slices move, nodes change.
const created = fc.constantFrom("", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z");
const externalPool = ["192.0.2.1", "10.96.0.1", NODE_ADDRESS, "192.168.99.9", "2001:db8::9"];
const serviceObject = fc
  .record({
    namespace: fc.constantFrom("a", "b"),
    name: fc.constantFrom("x", "y", "z"),
    created,
    dual: fc.boolean(),
    clusterIP: fc.constantFrom("10.96.0.1", "10.96.0.2", "None"),
    type: fc.constantFrom("ClusterIP", "NodePort", "LoadBalancer"),
    internalTrafficPolicy: fc.constantFrom("Cluster", "Local"),
    externalTrafficPolicy: fc.constantFrom("Cluster", "Local"),
    externalIPs: fc.subarray(externalPool),
    numbers: fc.uniqueArray(fc.constantFrom(80, 81, 30080), { minLength: 1 }),
    nodePort: fc.constantFrom(0, 80, 30080),
    proxy: fc.boolean(),
    loadBalancerSourceRanges: fc.subarray(["192.168.0.0/16", "203.0.113.0/24", "0.0.0.0/0"]),
    ingress: fc.subarray([
      { ip: "198.51.100.1" },
      { ip: "198.51.100.2", ipMode: "Proxy" },
      { ip: "10.96.0.2", ipMode: "Proxy" },
    ]),
  })
  .map(
    ({
      namespace,
      name,
      created: creationTimestamp,
      dual,
      numbers,
      nodePort,
      proxy,
      ingress,
      ...spec
    }) =>
      readObject({
        kind: "Service",
        metadata: {
          namespace,
          name,
          creationTimestamp,
          labels: proxy && name === "z" ? { "service.kubernetes.io/service-proxy-name": "x" } : {},
        },
        spec: {
          ...spec,
          ...(dual
            ? { clusterIPs: [spec.clusterIP, "fd00::1"], ipFamilies: ["IPv4", "IPv6"] }
            : {}),
          ports: numbers.map((port, index) => ({
            name: `p${port % 3}`,
            port,
            protocol: port === 81 ? "UDP" : "TCP",
            nodePort: index === 0 ? nodePort : 0,
          })),
        },
        status: { loadBalancer: { ingress } },
      }).object!,
  );

const endpointValue = fc.record(
  {
    addresses: fc.constantFrom(["10.244.1.1"], ["10.244.1.2"], ["10.244.1.3"]),
    nodeName: fc.constantFrom("node-a", "node-b"),
    conditions: fc.record(
      { ready: fc.boolean(), serving: fc.boolean(), terminating: fc.boolean() },
      { requiredKeys: [] },
    ),
    hints: fc.constantFrom({ forZones: [{ name: "a" }] }, { forZones: [{ name: "b" }] }),
  },
  { requiredKeys: ["addresses"] },
);
const sliceObject = fc
  .record({
    namespace: fc.constantFrom("a", "b"),
    name: fc.constantFrom("s1", "s2", "s3"),
    owner: fc.constantFrom("x", "y", ""),
    ports: fc.subarray([
      { name: "p0", port: 8080, protocol: "UDP" },
      { name: "p2", port: 8080 },
      { name: "p0", port: 8081 },
    ]),
    endpoints: fc.array(endpointValue, { maxLength: 4 }),
  })
  .map(
    ({ namespace, name, owner, ports, endpoints }) =>
      readObject({
        kind: "EndpointSlice",
        metadata: { namespace, name, labels: { "kubernetes.io/service-name": owner } },
        addressType: "IPv4",
        ports,
        endpoints,
      }).object!,
  );
const nodeObject = fc
  .record({
    zone: fc.constantFrom("a", "b", ""),
    address: fc.constantFrom(NODE_ADDRESS, "10.96.0.2"),
  })
  .map(({ zone, address }) => node(zone, address));
const rangesObject = fc
  .record({
    name: fc.constantFrom("one", "two"),
    cidrs: fc.subarray(["10.96.0.0/16", "10.97.0.0/16", "fd00::/64"]),
  })
  .map(({ name, cidrs }) => serviceRanges(name, ...cidrs));
const localAddresses = fc.subarray([NODE_ADDRESS, "192.168.51.2", "2001:db8::9", "127.0.0.1"]);
const someObject = fc.oneof(serviceObject, sliceObject, nodeObject, rangesObject);
const event = fc.oneof(
  { weight: 9, arbitrary: someObject.map((object) => ({ kind: "apply" as const, object })) },
  { weight: 4, arbitrary: someObject.map((object) => ({ kind: "remove" as const, object })) },
  {
    weight: 1,
    arbitrary: localAddresses.map((addresses) => ({ kind: "local" as const, addresses })),
  },
);
const events = fc.array(fc.record({ event, take: fc.boolean() }), { minLength: 1, maxLength: 40 });
const configs = fc.record({
  nodePortAddresses: fc.constantFrom(
    "primary" as const,
    [],
    [parseRange("192.168.50.0/24")!, parseRange("::/0")!],
  ),
});

/** Follows batches as the dataplane would, and checks that no two rows share a frontend. */
class Follower {
  readonly rows = new Map<string, ServiceRow>();
  readonly addresses = new Map<string, string>();
  serviceRanges: readonly string[] = [];

  follow({ changed, removed, addresses, serviceRanges }: Batch): void {
    this.serviceRanges = serviceRanges;
    for (const address of addresses.removed) {
      if (!this.addresses.delete(address)) throw new Error(`"${address}" was never there`);
    }
    for (const { address, action } of addresses.changed) this.addresses.set(address, action);
    for (const key of removed) {
      if (!this.rows.delete(key)) throw new Error(`"${key}" is removed, but was never there`);
    }
    for (const row of changed) this.rows.set(row.key, row);
    const seen = new Set<string>();
    for (const row of this.rows.values()) {
      if (row.frontends.length === 0) throw new Error(`"${row.key}" has no frontend`);
      for (const { address, port } of row.frontends) {
        const key = `${row.protocol} ${address} ${port}`;
        if (seen.has(key)) throw new Error(`"${key}" is in two rows`);
        seen.add(key);
      }
    }
  }

  /** Everything that was handed out and still holds, in one order. */
  state() {
    const byKey = <T>(map: ReadonlyMap<string, T>) =>
      [...map].sort(([left], [right]) => (left < right ? -1 : 1));
    const { rows, addresses, serviceRanges } = this;
    return { rows: byKey(rows), addresses: byKey(addresses), serviceRanges };
  }
}

test("any sequence of events ends in the rows and conflicts of a rebuild from scratch", (t) => {
  fc.assert(
    fc.property(events, configs, (list, config) => {
      const cluster = makeClusterWith(config);
      const follower = new Follower();
      const objects = new Map<string, KubernetesObject>();
      const standing = new Map<string, number>();
      const follow = (batch: Batch) => {
        follower.follow(batch);
        for (const { message } of batch.problems) {
          standing.set(message, (standing.get(message) ?? 0) + 1);
        }
        for (const { message } of batch.resolved) standing.set(message, standing.get(message)! - 1);
      };
      let local: readonly string[] | undefined;
      for (const { event, take } of list) {
        if (event.kind === "local") {
          local = event.addresses;
          cluster.setLocalAddresses(event.addresses);
        } else {
          const identity: ObjectIdentity = event.object;
          const key = `${identity.kind} ${identity.namespace}/${identity.name}`;
          if (event.kind === "apply") objects.set(key, event.object);
          // What a Node said holds on when it is gone.
          else if (identity.kind !== "Node") objects.delete(key);
          if (event.kind === "apply") cluster.apply(event.object);
          else cluster.remove(identity);
        }
        if (take) follow(cluster.takeDirty());
      }
      follow(cluster.takeDirty());
      const rebuilt = makeClusterWith(config);
      if (local !== undefined) rebuilt.setLocalAddresses(local);
      for (const object of [...objects.values()].reverse()) rebuilt.apply(object);
      const fresh = new Follower();
      const batch = rebuilt.takeDirty();
      fresh.follow(batch);
      t.deepEqual(follower.state(), fresh.state());
      const { rows, addresses, serviceRanges } = cluster.serving();
      t.is(rows.length, fresh.rows.size);
      t.is(addresses.length, fresh.addresses.size);
      t.deepEqual(serviceRanges, fresh.serviceRanges);
      const open = [...standing].filter(([, count]) => count > 0).map(([message]) => message);
      t.deepEqual(open.sort(), batch.problems.map(({ message }) => message).sort());
      t.true([...standing.values()].every((count) => count === 0 || count === 1));
    }),
    { numRuns: 300 },
  );
});

test("a second batch without events is empty", (t) => {
  const cluster = makeCluster(service("web"), service("other"));
  cluster.takeDirty();
  t.deepEqual(cluster.takeDirty(), {
    changed: [],
    removed: [],
    addresses: { changed: [], removed: [] },
    serviceRanges: [],
    problems: [],
    resolved: [],
  });
});
