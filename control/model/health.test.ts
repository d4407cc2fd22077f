// Which Services have a health-check node port, and which endpoints it counts (§12.1, §12.6). What
// is answered is compared with the vectors.
import test from "ava";
import type { Endpoint } from "./endpoint.ts";
import {
  answerProxyHealth,
  countLocalEndpoints,
  hasHealthCheck,
  makeHealthCheck,
} from "./health.ts";
import type { ServiceObject, SliceObject } from "./objects.ts";
import { readObject } from "./read.ts";

function service(spec: object): ServiceObject {
  const whole = {
    type: "LoadBalancer",
    externalTrafficPolicy: "Local",
    healthCheckNodePort: 32000,
  };
  const value = { kind: "Service", metadata: { name: "web" }, spec: { ...whole, ...spec } };
  return readObject(value).object as ServiceObject;
}

function slice(family: 4 | 6, endpoints: readonly object[]): SliceObject {
  const labels = { "kubernetes.io/service-name": "web" };
  return readObject({
    kind: "EndpointSlice",
    metadata: { name: `web-${family}`, labels },
    addressType: `IPv${family}`,
    ports: [{ name: "http", port: 8080 }],
    endpoints,
  }).object as SliceObject;
}

test("a load balancer with external policy Local has a health check", (t) => {
  t.true(hasHealthCheck(service({})));
  t.true(hasHealthCheck(service({ healthCheckNodePort: 0 })), "one that lacks its port, §12.1");
  t.false(hasHealthCheck(service({ externalTrafficPolicy: "Cluster" })));
  t.false(hasHealthCheck(service({ type: "NodePort" })));
});

test("local ready addresses count once each, over all ports", (t) => {
  const endpoint = (address: string, more: Partial<Endpoint> = {}): Endpoint => {
    const conditions = { ready: true, serving: true, terminating: false };
    const hints = { zoneHints: [], nodeHints: [] };
    return { address, port: 80, nodeName: "node-a", ...conditions, ...hints, ...more };
  };
  const endpoints = [
    endpoint("10.244.1.1"),
    endpoint("10.244.1.1", { port: 443 }),
    endpoint("10.244.1.2"),
    endpoint("10.244.1.3", { ready: false, terminating: true }),
    endpoint("10.244.2.4", { nodeName: "node-b" }),
    endpoint("10.244.2.5", { nodeName: "" }),
  ];
  t.is(countLocalEndpoints(endpoints, { node: { name: "node-a", zone: "" } }), 2);
});

test("each family of a Service counts its endpoints, of the ports that the Service has", (t) => {
  const node = { name: "node-a", zone: "" };
  const here = (address: string) => ({ addresses: [address], nodeName: "node-a" });
  const slices = [
    slice(4, [here("10.244.1.1"), here("10.244.1.2")]),
    slice(6, [here("fd00:10:244::1")]),
  ];
  const spec = {
    clusterIP: "10.96.0.1",
    clusterIPs: ["10.96.0.1", "fd00:10:96::1"],
    ipFamilies: ["IPv4", "IPv6"],
  };
  const ports = (name: string) => [{ name, port: 80 }];
  const check = makeHealthCheck(service({ ...spec, ports: ports("http") }), { slices, node });
  t.like(check, { name: "web", port: 32000 });
  t.deepEqual(
    [...check!.localEndpoints],
    [
      [4, 2],
      [6, 1],
    ],
  );
  const other = makeHealthCheck(service({ ...spec, ports: ports("grpc") }), { slices, node });
  t.deepEqual([...other!.localEndpoints.values()], [0, 0]);
  t.is(makeHealthCheck(service({ clusterIP: "None" }), { slices, node }), undefined);
});

test("a proxy that never wrote anything is healthy, and its time is none", (t) => {
  const health = { families: new Map(), nodeEligible: false, nowMs: 0, timeoutMs: 60_000 };
  const { status, body } = answerProxyHealth(health, { path: "/healthz" });
  t.is(status, 503, "a node that is not eligible");
  t.like(JSON.parse(body), { healthy: true, lastUpdated: "0001-01-01T00:00:00Z" });
});
