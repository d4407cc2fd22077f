// The store over any sequence of changes: every version that is not compacted can be had again.
import test from "ava";
import fc from "fast-check";
import type { ApiObject } from "./objects.ts";
import { RESOURCES, type Resource } from "./resources.ts";
import { Store } from "./store.ts";

const [services, nodes] = RESOURCES as [Resource, Resource];

function makeService(name: string, labels: Record<string, string> = {}): ApiObject {
  return { apiVersion: "v1", kind: "Service", metadata: { name, namespace: "shop", labels } };
}

function names(store: Store, at: number): string[] | undefined {
  return store
    .listAt(services, at)
    ?.map(({ name, resourceVersion }) => `${name} ${resourceVersion}`);
}

test("any version since the last compaction can be listed as it was", (t) => {
  const change = fc.record({
    name: fc.constantFrom("a", "b", "c", "d"),
    what: fc.constantFrom("apply", "apply", "delete", "other", "compact"),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 40 }), (changes) => {
      const store = new Store({ resourceVersion: 5 });
      const seen = new Map<number, string[]>();
      for (const { name, what } of changes) {
        seen.set(store.resourceVersion, names(store, store.resourceVersion)!);
        if (what === "apply") store.apply(makeService(name));
        if (what === "delete") store.delete({ kind: "Service", namespace: "shop", name });
        if (what === "other") store.apply({ apiVersion: "v1", kind: "Node", metadata: { name } });
        if (what === "compact") store.compact();
        for (const [version, expected] of seen)
          t.deepEqual(names(store, version), version < store.compacted ? undefined : expected);
      }
    }),
    { numRuns: 200 },
  );
});

test("one counter numbers the changes of all resources", (t) => {
  const store = new Store();
  const first = store.apply(makeService("a"));
  const second = store.apply({ apiVersion: "v1", kind: "Node", metadata: { name: "n" } });
  t.is(second.resourceVersion, first.resourceVersion + 1);
  t.deepEqual(store.changesAfter(services, 0), [first]);
  t.deepEqual(store.changesAfter(nodes, first.resourceVersion), [second]);
});

test("the history is bounded: the oldest changes are compacted by themselves", (t) => {
  const store = new Store({ historyLimit: 10 });
  for (let count = 0; count < 100; count++) store.apply(makeService("a"));
  t.true(store.compacted > 80);
  t.true(store.changesAfter(services, store.compacted).length <= 10);
});

test("an object keeps its identity through changes, and loses it with its deletion", (t) => {
  const store = new Store();
  const uidOf = () => store.get(services, "shop/a")?.object.metadata.uid;
  store.apply(makeService("a"));
  const first = uidOf();
  store.apply(makeService("a", { changed: "yes" }));
  t.is(uidOf(), first);
  store.delete({ kind: "Service", namespace: "shop", name: "a" });
  store.apply(makeService("a"));
  t.not(uidOf(), first);
});

test("a deleted object is shown in its last state with the version of the deletion", (t) => {
  const store = new Store();
  store.apply(makeService("a", { last: "state" }));
  const change = store.delete({ kind: "Service", namespace: "shop", name: "a" })!;
  t.is(change.current.resourceVersion, change.resourceVersion);
  t.deepEqual(change.current.labels, { last: "state" });
  t.is(store.delete({ kind: "Service", namespace: "shop", name: "a" }), undefined);
});

const REFUSED: readonly (readonly [object, RegExp])[] = [
  [{ kind: "Pod", apiVersion: "v1", metadata: { name: "a" } }, /no kind 'Pod', only Service, Node/],
  [
    { kind: "Service", apiVersion: "v2", metadata: { name: "a", namespace: "b" } },
    /'v2', not 'v1'/,
  ],
  [{ kind: "Service", apiVersion: "v1", metadata: { name: "a" } }, /needs a metadata.namespace/],
  [{ kind: "Node", apiVersion: "v1", metadata: { name: "a", namespace: "b" } }, /no namespace/],
  [{ kind: "Node", apiVersion: "v1", metadata: {} }, /lacks kind, apiVersion or metadata.name/],
  [{ ...makeService("a"), spec: { x: 1 } }, /^Service 'shop\/a' cannot be stored: 'spec.x' is no/],
];

test("what is refused changes nothing, and the error names the object and the fault", (t) => {
  const store = new Store({ resourceVersion: 7 });
  for (const [object, message] of REFUSED)
    t.throws(() => store.apply(object as ApiObject), { message });
  t.is(store.resourceVersion, 7);
  t.deepEqual(store.list(services), []);
});

test("a short Service gets what kube-apiserver fills in, and what is given stays", (t) => {
  const store = new Store();
  const object = {
    ...makeService("a"),
    spec: {
      type: "LoadBalancer",
      clusterIPs: ["10.96.0.1", "fd00::1"],
      sessionAffinity: "ClientIP",
      internalTrafficPolicy: "Local",
      ports: [{ port: 80 }, { port: 53, protocol: "UDP", targetPort: "dns" }],
    },
    status: { loadBalancer: { ingress: [{ ip: "192.0.2.1" }, { hostname: "a.example" }] } },
  };
  const before = structuredClone(object);
  store.apply(object);
  t.deepEqual(object, before);
  const { spec, status } = store.get(services, "shop/a")!.object;
  t.deepEqual(spec, {
    ...object.spec,
    ports: [
      { port: 80, protocol: "TCP", targetPort: 80 },
      { port: 53, protocol: "UDP", targetPort: "dns" },
    ],
    clusterIP: "10.96.0.1",
    ipFamilies: ["IPv4", "IPv6"],
    ipFamilyPolicy: "RequireDualStack",
    externalTrafficPolicy: "Cluster",
    allocateLoadBalancerNodePorts: true,
    sessionAffinityConfig: { clientIP: { timeoutSeconds: 10_800 } },
  });
  t.deepEqual(status, {
    loadBalancer: { ingress: [{ ip: "192.0.2.1", ipMode: "VIP" }, { hostname: "a.example" }] },
  });
});
