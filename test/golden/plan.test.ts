// A plan as people see it, of a cluster in which much goes wrong at once. After a change that is
// meant: UPDATE_GOLDEN=1 npx ava build/test/golden/plan.test.js, and read the difference.
import { readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { makePlan } from "../../control/command/plan.ts";
import { formatPlan, type Plan } from "../../control/command/planview.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const FOLDER = path.join(ROOT, "test/golden");
const MANIFESTS = path.join(FOLDER, "plan.yaml");

async function planOf(flags: Record<string, string> = {}): Promise<Plan> {
  return makePlan({ manifests: MANIFESTS, flags: { node: "node-a", ...flags } });
}

function compare(t: ExecutionContext, text: string, name: string): void {
  const file = path.join(FOLDER, name);
  const shown = text.replaceAll(`${FOLDER}/`, "");
  if (process.env.UPDATE_GOLDEN) writeFileSync(file, shown);
  t.is(shown, readFileSync(file, "utf8"));
}

test("a plan tells who gets what, and why an endpoint is left out", async (t) => {
  const plan = await planOf({ "cluster-cidr": "10.244.0.0/16,fd00:10:244::/56" });
  compare(t, formatPlan(plan, { wide: false }), "plan.txt");
});

test("a wide plan has conditions and hints too, and other nodes see other lists", async (t) => {
  const plan = await planOf({ node: "node-b", "nodeport-addresses": "192.168.51.0/24" });
  const services = plan.services.filter(({ name }) => name === "web" || name === "cache");
  compare(t, formatPlan({ ...plan, services }, { wide: true }), "plan-wide.txt");
});

test("a plan of nothing says so", (t) => {
  const addresses = { primaryAddresses: [], nodePortAddresses: [] };
  const node = { name: "node-a", isKnown: false, zone: "", ...addresses };
  const pods = { told: false, by: "--cluster-cidr is not given" };
  const nothing = { serviceRanges: [], services: [], unserved: [], unusedSlices: [], problems: [] };
  t.is(
    formatPlan({ node: { ...node, pods }, ...nothing }, { wide: false }),
    "Node node-a, in no zone, no address known (no Node object names any)\n" +
      "Node ports: served nowhere\n" +
      "Pods: not told from outside: --cluster-cidr is not given\n" +
      "No ServiceCIDR\n\nNo Services.\n",
  );
});

test("the lists of a plan count what their endpoints say", async (t) => {
  const { services } = await planOf({ "detect-local-mode": "NodeCIDR" });
  t.true(services.length > 0);
  for (const { lists, endpoints, name } of services)
    for (const list of ["cluster", "local"] as const) {
      const members = endpoints.filter((endpoint) => endpoint[list]?.in);
      t.is(members.length, lists[list]?.endpoints ?? 0, `${name} ${list}`);
    }
});
