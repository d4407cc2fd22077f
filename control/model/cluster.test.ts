// Events in, rows out: what changes, who owns a contested frontend, and that the order of arrival
// has no part in the result.
import test from "ava";
import fc from "fast-check";
import { type Batch, Cluster } from "./cluster.ts";
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

function makeCluster(...objects: KubernetesObject[]): Cluster {
  const fallbackNodeAddresses = ["192.168.99.9", "2001:db8::9"];
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses });
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

test("node ports follow the Node, and are served on fallback addresses without one", (t) => {
  const ports = [{ name: "http", port: 80, nodePort: 30080 }];
  const cluster = makeCluster(service("web", { type: "NodePort", ports }));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.99.9:30080"] });
  t.false(cluster.nodePorts.fromNode);
  cluster.apply(node("a"));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.50.2:30080"] });
  t.true(cluster.nodePorts.fromNode);
  cluster.apply(node("a", "192.168.50.3"));
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.50.3:30080"] });
  cluster.remove({ kind: "Node", namespace: "", name: "node-a" });
  t.deepEqual(frontends(cluster.takeDirty()), { web: ["10.96.0.1:80", "192.168.99.9:30080"] });
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
  })
  .map(
    ({ namespace, name, created: creationTimestamp, dual, numbers, nodePort, proxy, ...spec }) =>
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
const someObject = fc.oneof(serviceObject, sliceObject, nodeObject);
const events = fc.array(
  fc.record({
    object: someObject,
    kind: fc.constantFrom("apply", "apply", "remove"),
    take: fc.boolean(),
  }),
  { minLength: 1, maxLength: 40 },
);

/** Follows batches as the dataplane would, and checks that no two rows share a frontend. */
class Follower {
  readonly rows = new Map<string, ServiceRow>();

  follow({ changed, removed }: Batch): void {
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

  sorted(): ServiceRow[] {
    return [...this.rows.values()].sort((left, right) => (left.key < right.key ? -1 : 1));
  }
}

test("any sequence of events ends in the rows and conflicts of a rebuild from scratch", (t) => {
  fc.assert(
    fc.property(events, (list) => {
      const cluster = makeCluster();
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
      for (const { object, kind, take } of list) {
        const identity: ObjectIdentity = object;
        const key = `${identity.kind} ${identity.namespace}/${identity.name}`;
        if (kind === "apply") objects.set(key, object);
        else objects.delete(key);
        if (kind === "apply") cluster.apply(object);
        else cluster.remove(identity);
        if (take) follow(cluster.takeDirty());
      }
      follow(cluster.takeDirty());
      const rebuilt = makeCluster(...[...objects.values()].reverse());
      const fresh = new Follower();
      const batch = rebuilt.takeDirty();
      fresh.follow(batch);
      t.deepEqual(follower.sorted(), fresh.sorted());
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
  t.deepEqual(cluster.takeDirty(), { changed: [], removed: [], problems: [], resolved: [] });
});
