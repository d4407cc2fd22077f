// Which Services have a health-check node port, and which endpoints it counts (§12.1, §12.6). What
// is answered is compared with the vectors.
import test from "ava";
import type { Endpoint } from "./endpoint.ts";
import { countLocalEndpoints, hasHealthCheck } from "./health.ts";
import type { ServiceObject } from "./objects.ts";
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

test("a load balancer with external policy Local and a port has a health check", (t) => {
  t.true(hasHealthCheck(service({})));
  t.false(hasHealthCheck(service({ healthCheckNodePort: 0 })));
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
