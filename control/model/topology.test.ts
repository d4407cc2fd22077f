// Endpoint selection where the conformance cases have none.
import test from "ava";
import type { Endpoint } from "./endpoint.ts";
import { categorizeEndpoints, type EndpointPolicy, ruleOf, whyExcluded } from "./topology.ts";

const READY = { ready: true, serving: true, terminating: false };
const LEAVING = { ready: false, serving: true, terminating: true };

function endpoint(host: number, more: Partial<Endpoint> = {}): Endpoint {
  const address = `10.244.1.${host}`;
  return { address, port: 80, nodeName: "", ...READY, zoneHints: [], nodeHints: [], ...more };
}

const internalLocal: EndpointPolicy = {
  internalLocal: true,
  externalLocal: false,
  hasExternalFrontend: false,
};

test("an endpoint without a node is not local, even to a node without a name", (t) => {
  const lists = categorizeEndpoints([endpoint(1)], {
    node: { name: "", zone: "" },
    policy: internalLocal,
  });
  t.deepEqual(lists.local, []);
  t.is(lists.cluster, undefined);
  t.true(lists.hasEndpoints);
});

test("a hint is not compared with a zone or name that is empty", (t) => {
  const endpoints = [endpoint(1, { zoneHints: [""], nodeHints: [""] }), endpoint(2)];
  const node = { name: "", zone: "" };
  t.is(ruleOf("cluster", { endpoints, node }).by, "ready");
});

test("what leaves an endpoint out is named", (t) => {
  const node = { name: "node-a", zone: "a" };
  const elsewhere = endpoint(1, { nodeName: "node-b", zoneHints: ["b"] });
  const here = endpoint(2, { nodeName: "node-a", zoneHints: ["a"] });
  const leaving = endpoint(3, { nodeName: "node-a", ...LEAVING });
  const broken = endpoint(4, { nodeName: "node-a", ready: false });
  const endpoints = [elsewhere, here, leaving, broken];
  const reasons = (list: "cluster" | "local", of: Endpoint[]) =>
    of.map((each) => whyExcluded(each, { rule: ruleOf(list, { endpoints: of, node }), node }));
  t.deepEqual(reasons("cluster", endpoints), ["zoneHint", undefined, "terminating", "notReady"]);
  t.deepEqual(reasons("local", endpoints), ["elsewhere", undefined, "terminating", "notReady"]);
  t.deepEqual(reasons("local", [elsewhere, leaving]), ["elsewhere", undefined]);
  t.deepEqual(reasons("cluster", [leaving, broken]), [undefined, "notReady"]);
});
