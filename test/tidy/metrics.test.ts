// The page about operating against the code: every metric is in its table, as it is served.
import { readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";
import { Metrics } from "../../control/serve/metrics/metrics.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const page = readFileSync(path.join(ROOT, "docs/operating.md"), "utf8");

/** A metric as prom-client keeps it. */
interface Kept {
  name: string;
  type: string;
  help: string;
  labelNames: readonly string[];
}

const kept = new Metrics().registry.getMetricsAsArray() as unknown as Kept[];
const names = kept.map(({ name }) => name);

for (const { name, type, help, labelNames } of kept)
  test(`the table of metrics has ${name} as it is`, (t) => {
    const labels = labelNames.map((label) => `\`${label}\``).join(", ");
    const row = `| \`${name}\` | ${type} | ${labels} | ${help} |`;
    t.true(page.includes(`\n${row}\n`), `the page lacks this row:\n${row}`);
  });

test("the table and the alerts name no metric that there is none of", (t) => {
  const named = page.matchAll(/\b(?:kubeproxy|bpfsvc|process|nodejs)_[a-z_]+[a-z]\b/g);
  for (const [name] of named) {
    const base = name.replace(/_(?:bucket|sum|count)$/, "");
    t.true(names.includes(name) || names.includes(base), name);
  }
});

test("names are of Prometheus' form, and every series of a counter is a total", (t) => {
  for (const { name, type } of kept) {
    t.regex(name, /^(kubeproxy|bpfsvc|process|nodejs)_[a-z_]+$/);
    if (type === "counter") t.regex(name, /_total$/);
  }
});
