// Objects from values that may be anything: the bad part is named, the rest works.
import test from "ava";
import fc from "fast-check";
import { Cluster } from "./cluster.ts";
import { readObject } from "./read.ts";

const metadata = { namespace: "shop", name: "web" };

const serviceValue = {
  apiVersion: "v1",
  kind: "Service",
  metadata: {
    ...metadata,
    creationTimestamp: "2026-01-01T00:00:00Z",
    labels: { "service.kubernetes.io/service-proxy-name": "other", app: "web" },
  },
  spec: {
    type: "LoadBalancer",
    clusterIP: "10.96.0.041",
    clusterIPs: ["10.96.0.041", "FD00:10:96::0001"],
    ipFamilies: ["IPv4", "IPv6"],
    ports: [
      { name: "http", port: 80, nodePort: 30080, targetPort: "web" },
      { name: "dns", port: 53, protocol: "UDP" },
    ],
    externalIPs: ["192.0.2.1", "192.0.2.001"],
    loadBalancerSourceRanges: [" 203.0.113.0/24 "],
    internalTrafficPolicy: "Local",
    externalTrafficPolicy: "Local",
    sessionAffinity: "ClientIP",
    healthCheckNodePort: 32000,
  },
  status: {
    loadBalancer: {
      ingress: [{ ip: "198.51.100.1" }, { ip: "198.51.100.2", ipMode: "Proxy" }, { hostname: "x" }],
    },
  },
};

const sliceValue = {
  apiVersion: "discovery.k8s.io/v1",
  kind: "EndpointSlice",
  metadata: { ...metadata, labels: { "kubernetes.io/service-name": "web" } },
  addressType: "IPv4",
  ports: [{ name: "", port: 8080 }],
  endpoints: [
    {
      addresses: ["10.244.1.1", "10.244.1.2"],
      nodeName: "node-a",
      hints: { forZones: [{ name: "a" }, { name: "b" }], forNodes: [{ name: "node-a" }] },
    },
    { addresses: ["10.244.1.3"], conditions: { ready: null, serving: false, terminating: true } },
    { addresses: [] },
  ],
};

const nodeValue = {
  apiVersion: "v1",
  kind: "Node",
  metadata: { name: "node-a", labels: { "topology.kubernetes.io/zone": "a" } },
  spec: {
    podCIDRs: ["10.244.1.0/24", "fd00:10:244::/64"],
    taints: [{ key: "dedicated", value: "web", effect: "NoSchedule" }],
  },
  status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
};

const rangesValue = {
  apiVersion: "networking.k8s.io/v1",
  kind: "ServiceCIDR",
  metadata: { name: "kubernetes" },
  spec: { cidrs: ["10.96.0.1/16", "fd00:10:96::/112"] },
};

function set(value: object, path: string | readonly string[], replacement: unknown): unknown {
  const copy = structuredClone(value) as Record<string, unknown>;
  const keys = typeof path === "string" ? path.split(".") : [...path];
  const last = keys.pop()!;
  let at = copy;
  for (const key of keys) at = at[key] as Record<string, unknown>;
  at[last] = replacement;
  return copy;
}

test("a Service keeps what decides about it, canonical and with defaults", (t) => {
  t.deepEqual(readObject(serviceValue), {
    object: {
      kind: "Service",
      ...metadata,
      createdMs: 1767225600000,
      otherProxy: true,
      type: "LoadBalancer",
      clusterIP: "10.96.0.41",
      clusterIPs: ["10.96.0.41", "fd00:10:96::1"],
      ipFamilies: [4, 6],
      ports: [
        { name: "http", protocol: "TCP", port: 80, nodePort: 30080 },
        { name: "dns", protocol: "UDP", port: 53, nodePort: 0 },
      ],
      externalIPs: ["192.0.2.1"],
      ingress: [
        { address: "198.51.100.1", ipMode: "VIP" },
        { address: "198.51.100.2", ipMode: "Proxy" },
      ],
      sourceRanges: [{ family: 4, address: "203.0.113.0", prefixLength: 24 }],
      internalTrafficPolicy: "Local",
      externalTrafficPolicy: "Local",
      affinitySeconds: 10800,
      healthCheckNodePort: 32000,
    },
    problems: [],
  });
});

test("a slice keeps first addresses, default conditions and hints", (t) => {
  const hints = { zoneHints: ["a", "b"], nodeHints: ["node-a"] };
  const none = { zoneHints: [], nodeHints: [] };
  const ready = { ready: true, serving: true, terminating: false };
  t.deepEqual(readObject(sliceValue), {
    object: {
      kind: "EndpointSlice",
      ...metadata,
      serviceName: "web",
      headless: false,
      family: 4,
      ports: [{ name: "", protocol: "TCP", port: 8080 }],
      endpoints: [
        { address: "10.244.1.1", port: 8080, nodeName: "node-a", ...ready, ...hints },
        {
          address: "10.244.1.3",
          port: 8080,
          nodeName: "",
          ready: true,
          serving: false,
          terminating: true,
          ...none,
        },
      ],
    },
    problems: [],
  });
});

test("a Node keeps zone, addresses and pod ranges", (t) => {
  t.deepEqual(readObject(nodeValue), {
    object: {
      kind: "Node",
      namespace: "",
      name: "node-a",
      zone: "a",
      addresses: [{ type: "InternalIP", address: "192.168.50.2" }],
      podRanges: [
        { family: 4, address: "10.244.1.0", prefixLength: 24 },
        { family: 6, address: "fd00:10:244::", prefixLength: 64 },
      ],
      isDeleted: false,
      taints: ["dedicated"],
    },
    problems: [],
  });
});

test("a Node that is being deleted is known to be", (t) => {
  const value = set(nodeValue, "metadata.deletionTimestamp", "2026-01-01T00:00:00Z");
  t.like(readObject(value).object, { isDeleted: true });
});

test("a ServiceCIDR keeps its ranges, and has no namespace", (t) => {
  t.deepEqual(readObject(set(rangesValue, "metadata.namespace", "x")), {
    object: {
      kind: "ServiceCIDR",
      namespace: "",
      name: "kubernetes",
      ranges: [
        { family: 4, address: "10.96.0.0", prefixLength: 16 },
        { family: 6, address: "fd00:10:96::", prefixLength: 112 },
      ],
    },
    problems: [],
  });
});

test("a range of every address is no Service range: all that nobody owns in it is dropped", (t) => {
  const cidrs = ["0.0.0.0/0", "10.96.0.0/16", "::/0"];
  const { object, problems } = readObject(set(rangesValue, "spec.cidrs", cidrs));
  t.like(object, { ranges: [{ family: 4, address: "10.96.0.0", prefixLength: 16 }] });
  t.deepEqual(
    problems.map(({ message }) => message),
    ["0.0.0.0/0", "::/0"].map((range) => {
      const what = `spec.cidrs holds ${range}, every address there is`;
      return `ServiceCIDR "kubernetes": ${what}; it is skipped`;
    }),
  );
});

test("ports of a slice that serve no service port are left out", (t) => {
  const good = { name: "http", protocol: "TCP", port: 8080 };
  const ports = [
    { ...good, protocol: "QUIC" },
    { ...good, name: "a/b" },
    { ...good, name: null },
    { ...good, port: null },
    { ...good, port: 0 },
    { ...good, port: 65536 },
    good,
  ];
  t.like(readObject(set(sliceValue, "ports", ports)).object, { ports: [good] });
  t.like(readObject(set(sliceValue, "ports", null)).object, { ports: [] });
});

test("the namespace is default where none is given, and a Node has none", (t) => {
  const value = { kind: "Service", metadata: { name: "web" }, spec: { clusterIP: "None" } };
  t.like(readObject(value).object, { namespace: "default", clusterIP: "None" });
  t.is(readObject(set(nodeValue, "metadata.namespace", "x")).object?.namespace, "");
});

test("objects of other kinds and groups are neither read nor reported", (t) => {
  for (const value of [
    { apiVersion: "apps/v1", kind: "Deployment", metadata: 5 },
    { apiVersion: "serving.knative.dev/v1", kind: "Service", metadata },
    { kind: "constructor" },
  ]) {
    t.deepEqual(readObject(value), { object: undefined, problems: [] });
  }
});

// What is set, the field that is named, and whether the object is still used.
for (const [value, path, replacement, field, used] of [
  [serviceValue, "spec.ports.1.port", 70000, "spec.ports[1].port", true],
  [serviceValue, "spec.ports.1.port", "53", "spec.ports[1].port", true],
  [serviceValue, "spec.ports.1.port", undefined, "spec.ports[1].port", true],
  [serviceValue, "spec.ports.1.nodePort", -1, "spec.ports[1].nodePort", true],
  [serviceValue, "spec.ports.1.protocol", "QUIC", "spec.ports[1].protocol", true],
  [serviceValue, "spec.ports.1.name", "a/b", "spec.ports[1].name", true],
  [serviceValue, "spec.ports.1", { name: "http", port: 81 }, "spec.ports[1]", true],
  [serviceValue, "spec.ports.1", { name: "web", port: 80 }, "spec.ports[1]", true],
  [serviceValue, "spec.ports.1", 5, "spec.ports[1]", true],
  [serviceValue, "spec.ports", "http", "spec.ports", true],
  [serviceValue, "spec.externalIPs.1", "192.0.2", "spec.externalIPs[1]", true],
  [serviceValue, "spec.externalIPs.1", "127.0.0.1", "spec.externalIPs[1]", true],
  [serviceValue, "spec.clusterIPs.1", "10.96.0.9", "spec.clusterIPs[1]", true],
  [serviceValue, "spec.type", "Magic", "spec.type", true],
  [serviceValue, "spec.internalTrafficPolicy", 1, "spec.internalTrafficPolicy", true],
  [serviceValue, "spec.loadBalancerSourceRanges.0", "x", "spec.loadBalancerSourceRanges[0]", true],
  [
    serviceValue,
    "status.loadBalancer.ingress.0.ip",
    "x",
    "status.loadBalancer.ingress[0].ip",
    true,
  ],
  [serviceValue, "status", [], "status", true],
  [serviceValue, "metadata.labels", "x", "metadata.labels", true],
  [serviceValue, "spec.clusterIP", "10.96", "spec.clusterIP", false],
  [serviceValue, "spec", null, "spec", false],
  [serviceValue, "metadata.name", "x".repeat(100_000), "metadata.name", false],
  [serviceValue, "metadata.name", "web:http", "metadata.name", false],
  [serviceValue, "metadata.namespace", 7, "metadata.namespace", false],
  [serviceValue, "metadata", undefined, "metadata.name", false],
  [sliceValue, "addressType", "IPv5", "addressType", false],
  [sliceValue, "ports.0.name", undefined, "ports[0].name", true],
  [sliceValue, "ports.0.port", 1.5, "ports[0].port", true],
  [sliceValue, "endpoints.0.addresses.0", "fd00::1", "endpoints[0]", true],
  [sliceValue, "endpoints.0.addresses.0", "169.254.1.1", "endpoints[0]", true],
  [sliceValue, "endpoints.0.addresses.0", null, "endpoints[0]", true],
  [sliceValue, "endpoints.0.conditions", { ready: "yes" }, "endpoints[0].conditions.ready", true],
  [sliceValue, "endpoints.0.nodeName", 1, "endpoints[0].nodeName", true],
  [sliceValue, "endpoints.0.nodeName", "node\na", "endpoints[0].nodeName", true],
  [
    sliceValue,
    "endpoints.0.hints.forNodes.0",
    { name: "a b" },
    "endpoints[0].hints.forNodes[0].name",
    true,
  ],
  [sliceValue, "endpoints.0.hints.forZones.0", "a", "endpoints[0].hints.forZones[0]", true],
  [rangesValue, "spec.cidrs.1", "fd00::", "spec.cidrs[1]", true],
  [rangesValue, "spec.cidrs.1", "::/0", "spec.cidrs", true],
  [rangesValue, "spec", undefined, "spec", false],
  [nodeValue, "spec.taints.0", { key: 5 }, "spec.taints[0].key", true],
  [nodeValue, "status.addresses.0.address", "x", "status.addresses[0].address", true],
] as const) {
  const shown = JSON.stringify(replacement)?.slice(0, 30) ?? "missing";
  test(`${value.kind} ${path} ${shown} is one problem at ${field}`, (t) => {
    const { object, problems } = readObject(set(value, path, replacement));
    t.is(object !== undefined, used);
    t.is(problems.length, 1, JSON.stringify(problems));
    t.is(problems[0]!.field, field);
    t.is(problems[0]!.kind, value.kind);
    t.true(problems[0]!.message.includes(field));
    t.true(problems[0]!.message.length < 700, "a message is readable");
  });
}

test("the affinity timeout is kept within its limits, else the default is used", (t) => {
  const withTimeout = (timeoutSeconds: unknown) =>
    readObject(set(serviceValue, "spec.sessionAffinityConfig", { clientIP: { timeoutSeconds } }));
  t.like(withTimeout(30).object, { affinitySeconds: 30 });
  t.like(withTimeout(86400).object, { affinitySeconds: 86400 });
  t.like(withTimeout(0).object, { affinitySeconds: 10800 });
  t.is(withTimeout(86401).problems.length, 1);
  t.like(readObject(set(serviceValue, "spec.sessionAffinity", "None")).object, {
    affinitySeconds: 0,
  });
});

test("thousands of problems of one object are a few, and counted", (t) => {
  const { problems } = readObject(set(serviceValue, "spec.ports", new Array(5000).fill("x")));
  t.true(problems.length < 20);
  t.regex(problems.at(-1)!.message, /more problems/);
});

test("no value whatever makes reading or serving throw", (t) => {
  const kinds = fc.constantFrom("Service", "EndpointSlice", "Node");
  const field = fc.oneof(
    fc.jsonValue(),
    fc.anything({ withBigInt: true, withNullPrototype: true }),
  );
  fc.assert(
    fc.property(
      fc.oneof(
        fc.anything(),
        fc.record({ kind: kinds, metadata: fc.constant(metadata), spec: field, status: field }),
        fc.record({ kind: kinds, metadata: field, addressType: field, endpoints: field }),
      ),
      (value) => {
        const { object, problems } = readObject(value);
        if (object === undefined) return problems.every(({ message }) => message.length > 0);
        const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
        cluster.apply(object);
        return cluster.takeDirty().removed.length === 0;
      },
    ),
    { numRuns: 2000 },
  );
  t.pass();
});

/** Every path into a value, for mutation. */
function paths(value: unknown, prefix: readonly string[] = []): string[][] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = [...prefix, key];
    return [path, ...paths(inner, path)];
  });
}

test("a valid object with any one field replaced is read or named, never thrown", (t) => {
  const values = [serviceValue, sliceValue, nodeValue];
  const targets = values.flatMap((value) => paths(value).map((path) => ({ value, path })));
  fc.assert(
    fc.property(fc.constantFrom(...targets), fc.anything(), ({ value, path }, replacement) => {
      const { object, problems } = readObject(set(value, path, replacement));
      const foreign = path[0] === "kind" || path[0] === "apiVersion";
      if (object === undefined && problems.length === 0 && !foreign) return false;
      const cluster = new Cluster({ nodeName: "node-a", fallbackNodeAddresses: [] });
      cluster.apply(readObject(set(serviceValue, "metadata.labels", {})).object!);
      if (object !== undefined) cluster.apply(object);
      cluster.takeDirty();
      return true;
    }),
    { numRuns: 3000 },
  );
  t.pass();
});
