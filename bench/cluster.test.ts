// The bench of a cluster as a node's root starts it, between two pods of the lab. What it finds is
// nobody's test.
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { Lab } from "../lab/lab.ts";
import { needsLab } from "../lab/needs.ts";
import { startAgent } from "./commands.ts";
import { readResult } from "./result.ts";
import { makeManifest, serviceAddress } from "./services.ts";

const labTest = needsLab(test);
const PROGRAM = path.resolve(import.meta.dirname, "incluster.js");
const SERVICES = 20;

/** Services of TCP and UDP at once, as deploy/vagrant/bench.sh makes them. */
function manifestsFor(endpoint: string): string {
  const services = Array.from({ length: SERVICES }, (_, service) =>
    (["TCP", "UDP"] as const).map((protocol) => {
      const made = JSON.parse(makeManifest(service, { protocol, endpoints: [endpoint] }));
      for (const { metadata } of made.items) metadata.namespace = `bench-${protocol.toLowerCase()}`;
      return JSON.stringify(made);
    }),
  );
  return services.flat().join("\n---\n");
}

labTest("it measures the pods of a node, and every figure has a value", async (t) => {
  const lab = await Lab.create({ name: "cluster", topology: { node: ["client", "server"] } });
  t.teardown(() => lab.close());
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-cluster-"));
  t.teardown(() => rm(folder, { recursive: true }));
  const { client, server } = lab.pods as Record<"client" | "server", (typeof lab.pods)[string]>;
  const node = lab.nodes.node!;
  const endpoint = server.addresses.ipv4;
  await writeFile(path.join(folder, "services.yaml"), manifestsFor(endpoint));
  await startAgent(node, ["--manifests", folder]);
  const place = {
    proxy: "bpfsvc",
    client: client.netns,
    server: server.netns,
    endpoint,
    first: serviceAddress(0),
    count: String(SERVICES),
    results: path.join(folder, "results"),
  };
  const flags = Object.entries(place).flatMap(([name, value]) => [`--${name}`, value]);
  const { code, stdout, stderr } = await node.run(
    [process.execPath, PROGRAM, "--quick", ...flags],
    { timeoutSeconds: 60 },
  );
  t.is(code, 0, stderr);
  const [file = ""] = await readdir(place.results);
  const { bench, figures, samples } = readResult(path.join(place.results, file));
  t.is(bench, "cluster-bpfsvc");
  t.true(figures.length > 0);
  for (const { claim, value } of figures) {
    t.true(Number.isFinite(value) && value > 0, claim);
    t.true(stdout.includes(claim), `"${claim}" is missing in:\n${stdout}`);
  }
  for (const way of ["direct", "service"]) t.true(`${way} tcp-life cpu` in samples);
});

labTest("it names the flags that it lacks", async (t) => {
  const lab = await Lab.create({ name: "cluster", topology: { node: [] } });
  t.teardown(() => lab.close());
  const command = [process.execPath, PROGRAM, "--proxy", "bpfsvc", "--count", "1"];
  const { code, stderr } = await lab.nodes.node!.run(command);
  t.is(code, 1);
  t.regex(stderr, /--client, --server, --endpoint, --first must be given/);
});
