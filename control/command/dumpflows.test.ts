import test from "ava";
import type { Flow } from "../dataplane/flows.ts";
import { formatFlows } from "./dumpflows.ts";

const FLOW: Flow = {
  protocol: "TCP",
  client: { address: "2001:db8:ffff::10", port: 40_000 },
  frontend: { address: "2001:db8:198::80", port: 80 },
  backend: { address: "fd00:10:244:1::2", port: 8080 },
  source: { address: "2001:db8:50::2", port: 40_001 },
  path: "redirect",
  state: "established",
  idleSeconds: 8,
};

test("a connection is a line of a table, and its client is seen as itself or not", async (t) => {
  const lines = (await formatFlows([FLOW, { ...FLOW, source: FLOW.client }], "table")).split("\n");
  const cells = lines.map((line) => line.split(/ {2,}/));
  t.deepEqual(cells[1], [
    "TCP",
    "[2001:db8:ffff::10]:40000",
    "[2001:db8:198::80]:80",
    "[2001:db8:50::2]:40001",
    "[fd00:10:244:1::2]:8080",
    "redirect",
    "established",
    "8s",
  ]);
  t.is(cells[2]?.[3], "-");
});

test("connections as JSON have the documented fields", async (t) => {
  t.deepEqual(JSON.parse(await formatFlows([FLOW], "json")), { flows: [FLOW] });
});

test("where no connection passes that is said", async (t) => {
  t.regex(await formatFlows([], "table"), /No connections/);
  t.regex(await formatFlows([], "table", { isFiltered: true }), /No such connections/);
});
