// Objects with anything wrong in them, of every kind and in numbers: nothing throws, nobody else
// notices, and each fault is one short line that names its object.
import test, { type ExecutionContext } from "ava";
import fc from "fast-check";
import { type Batch, Cluster } from "./cluster.ts";
import type { KubernetesObject } from "./objects.ts";
import { readObject } from "./read.ts";

/** The longest line: a name that is cut, a field, a value that is cut, and the consequence. */
const LONGEST_LINE = 600;
const UNPRINTABLE = /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/u;
const NAMESPACE = "odd";

/** What a field may hold when whoever wrote it had something else in mind. */
const wrong = fc.oneof(
  fc.anything({ withBigInt: true, withNullPrototype: true, withSparseArray: true }),
  fc.constantFrom<unknown>(
    "",
    "x".repeat(100_000),
    "\n\r\u0000\u009b31m\u2028\u202e\u200f",
    "__proto__",
    -1,
    0,
    65_536,
    1e300,
    Number.NaN,
    "80",
    "10.96.0.1/33",
    "999.1.1.1",
    "::ffff:10.96.0.1",
    "fe80::1%eth0",
    ["IPv6", "IPv4", "IPv6"],
    [["10.96.0.1"]],
    new Array(3000).fill("10.96.0.1"),
  ),
);
/** Mostly wrong, sometimes right, so that one fault does not hide the others. */
function maybe<T>(right: fc.Arbitrary<T>): fc.Arbitrary<unknown> {
  return fc.oneof({ weight: 2, arbitrary: right as fc.Arbitrary<unknown> }, wrong);
}

function recordOf(fields: Record<string, fc.Arbitrary<unknown>>): fc.Arbitrary<unknown> {
  return fc.record(fields, { requiredKeys: [] });
}

/** A list whose entries may repeat one another, as objects and by reference. */
function listOf(entry: fc.Arbitrary<unknown>): fc.Arbitrary<unknown> {
  const list = fc.array(entry, { maxLength: 4 });
  return maybe(list.chain((entries) => fc.constantFrom(entries, [...entries, ...entries])));
}

const name = fc.constantFrom("a", "b", "c");
const address = maybe(fc.constantFrom("10.96.0.7", "10.96.0.8", "fd00::7", "192.0.2.7", "None"));
const port = maybe(fc.constantFrom(80, 81, 30080));
const protocol = maybe(fc.constantFrom("TCP", "UDP", "SCTP"));
const policy = maybe(fc.constantFrom("Cluster", "Local"));
const labels = maybe(
  fc.constantFrom<unknown>(
    {},
    { "kubernetes.io/service-name": "a" },
    { "kubernetes.io/service-name": 5 },
    { "service.kubernetes.io/service-proxy-name": "x" },
  ),
);
const metadata = maybe(
  recordOf({
    namespace: fc.constant(NAMESPACE),
    name: maybe(name),
    labels,
    creationTimestamp: wrong,
    deletionTimestamp: wrong,
  }),
);
const specOfService = recordOf({
  type: maybe(fc.constantFrom("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")),
  clusterIP: address,
  clusterIPs: listOf(address),
  ipFamilies: listOf(fc.constantFrom("IPv4", "IPv6", "IPv5")),
  ports: listOf(maybe(recordOf({ name: maybe(name), port, protocol, nodePort: port }))),
  externalIPs: listOf(address),
  loadBalancerSourceRanges: listOf(maybe(fc.constantFrom("10.0.0.0/8", "::/0"))),
  internalTrafficPolicy: policy,
  externalTrafficPolicy: policy,
  sessionAffinity: maybe(fc.constant("ClientIP")),
  sessionAffinityConfig: maybe(fc.constant({ clientIP: { timeoutSeconds: 1e9 } })),
  healthCheckNodePort: port,
});
const ingress = recordOf({ ip: address, ipMode: maybe(fc.constantFrom("VIP", "Proxy")) });
const status = maybe(recordOf({ loadBalancer: maybe(recordOf({ ingress: listOf(ingress) })) }));
const endpoint = recordOf({
  addresses: listOf(maybe(fc.constantFrom("10.244.9.1", "10.244.9.2", "fd00::9"))),
  conditions: maybe(recordOf({ ready: wrong, serving: wrong, terminating: wrong })),
  nodeName: maybe(fc.constant("node-a")),
  hints: maybe(recordOf({ forZones: listOf(wrong), forNodes: listOf(wrong) })),
});
const kinds = {
  Service: recordOf({ metadata, spec: maybe(specOfService), status }),
  EndpointSlice: recordOf({
    metadata,
    addressType: maybe(fc.constantFrom("IPv4", "IPv6", "FQDN")),
    ports: listOf(maybe(recordOf({ name: maybe(name), port, protocol }))),
    endpoints: listOf(maybe(endpoint)),
  }),
  // Of other nodes, and of none: this node's own is taken at its word.
  Node: recordOf({
    metadata: maybe(recordOf({ name: maybe(fc.constant("node-b")), labels })),
    spec: maybe(recordOf({ podCIDRs: listOf(wrong), taints: listOf(wrong) })),
    status: maybe(recordOf({ addresses: listOf(wrong) })),
  }),
  ServiceCIDR: recordOf({ metadata, spec: maybe(recordOf({ cidrs: listOf(wrong) })) }),
};
const malformed = fc.oneof(
  ...Object.entries(kinds).map(([kind, fields]) =>
    fields.map((value) => ({ kind, ...(value as object) })),
  ),
);

function read(value: unknown): KubernetesObject {
  return readObject(value).object!;
}

/** A Service that is older than all others, and its slice: nobody else may touch them. */
const GOOD = [
  {
    kind: "Service",
    metadata: { namespace: "shop", name: "web", creationTimestamp: "1990-01-01T00:00:00Z" },
    spec: {
      type: "LoadBalancer",
      clusterIP: "10.96.0.1",
      externalIPs: ["192.0.2.1"],
      loadBalancerSourceRanges: ["203.0.113.0/24"],
      ports: [{ name: "http", port: 80, nodePort: 30090 }],
    },
    status: { loadBalancer: { ingress: [{ ip: "198.51.100.1" }] } },
  },
  {
    kind: "EndpointSlice",
    metadata: {
      namespace: "shop",
      name: "web-a",
      labels: { "kubernetes.io/service-name": "web" },
    },
    addressType: "IPv4",
    ports: [{ name: "http", port: 8080 }],
    endpoints: [{ addresses: ["10.244.1.1"], nodeName: "node-a" }],
  },
  {
    kind: "Node",
    metadata: { name: "node-a" },
    status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
  },
].map(read);

function goodCluster(): Cluster {
  const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
  for (const object of GOOD) cluster.apply(object);
  return cluster;
}

const ROW = goodCluster().takeDirty().changed[0]!;

/** What a log would get for one object. */
function linesOf(value: unknown): string[] {
  return readObject(value).problems.map(({ message }) => message);
}

function isReadable(line: string): boolean {
  return line.length > 0 && line.length <= LONGEST_LINE && !UNPRINTABLE.test(line);
}

function check(t: ExecutionContext, values: readonly { kind: string }[]): void {
  const cluster = goodCluster();
  const batches: Batch[] = [cluster.takeDirty()];
  for (const value of values) {
    const { object, problems } = readObject(value);
    const lines = linesOf(value);
    t.is(new Set(lines).size, lines.length, "each fault has a line of its own");
    for (const line of lines) t.true(isReadable(line), line.slice(0, LONGEST_LINE + 50));
    for (const line of lines) t.true(line.startsWith(`${value.kind} "`), line);
    if (object === undefined) t.true(problems.length > 0, "what is not used is named");
    if (object !== undefined) cluster.apply(object);
    if (object !== undefined) batches.push(cluster.takeDirty());
  }
  t.deepEqual(
    cluster.rows().find(({ key }) => key === ROW.key),
    ROW,
  );
  for (const { changed, removed } of batches.slice(1)) {
    t.false(removed.includes(ROW.key), "the good Service stays");
    t.false(
      changed.some(({ key }) => key === ROW.key),
      "and does not change",
    );
  }
  const claimed = cluster.serving().addresses.find(({ address }) => address === "10.96.0.1");
  t.is(claimed?.action, "refuse");
}

test("malformed objects of every kind are named, and disturb no other Service", (t) => {
  fc.assert(
    fc.property(fc.array(malformed, { minLength: 1, maxLength: 8 }), (values) => {
      check(t, values);
    }),
    { numRuns: 400 },
  );
});

test("an object that holds itself is read or named", (t) => {
  const service: Record<string, unknown> = { kind: "Service", metadata: { name: "a" } };
  const list: unknown[] = [];
  list.push(list, service);
  service.spec = service;
  t.notThrows(() => readObject(service));
  service.spec = { clusterIP: "10.96.0.9", ports: list, externalIPs: list, ipFamilies: list };
  service.status = { loadBalancer: { ingress: list } };
  check(t, [service as { kind: string }]);
});

test("faults in thousands are a few lines, and one of them says how many there are", (t) => {
  const spec = { clusterIP: "10.96.0.9", ports: new Array(5000).fill({ port: 1e6 }) };
  const lines = linesOf({ kind: "Service", metadata: { name: "a" }, spec });
  t.true(lines.length <= 16);
  t.regex(lines.at(-1)!, /and 4984 more problems/);
});
