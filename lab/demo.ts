// `npm run demo`: the application of examples/ on a lab of two nodes, with an agent on each, and
// every Service asked with real clients. Ends with a table of who answered; exits 0 only if all was
// right.
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import type { Running } from "./host.ts";
import { Lab, type LabNode } from "./lab.ts";
import { prepareXdp, routeVips } from "./links.ts";
import {
  allQuestions,
  askEssentials,
  askFromOutside,
  askStore,
  type Question,
} from "./questions.ts";
import { checkout, examples, shopTopology, startShop } from "./shop.ts";
import { waitFor } from "./wait.ts";

const bpfsvc = [process.execPath, path.join(checkout, "dist/bpfsvc.js")];
const start = performance.now();

interface Row {
  what: string;
  from: string;
  answer: string;
  right: boolean;
}

function say(text: string): void {
  const seconds = ((performance.now() - start) / 1000).toFixed(1).padStart(5);
  console.log(`${seconds} s  ${text}`);
}

async function put({ what, from, command, expected }: Question): Promise<Row> {
  const { stdout, stderr } = await from.run(command, { timeoutSeconds: 20 });
  const output = `${stdout}${stderr}`.trim();
  const match = expected.exec(output);
  const answer = match === null ? output.split("\n").join(" ") : (match[1] ?? match[0]);
  return { what, from: from.name, answer, right: match !== null };
}

async function putAll(rows: Row[], questions: readonly Question[]): Promise<void> {
  for (const question of questions) {
    const row = await put(question);
    rows.push(row);
    if (!row.right) say(`WRONG: ${row.what}, from ${row.from}: '${row.answer}'`);
  }
  say(`  ${questions.length} questions from ${questions[0]?.from.name}`);
}

function startAgent(node: LabNode, manifests: string): Promise<Running> {
  const options = ["--node", node.name, "--cgroup", node.cgroup, "--pins", node.pins];
  return node.start([...bpfsvc, "run", "--manifests", manifests, ...options], {
    ready: /serving/,
    timeoutSeconds: 60,
  });
}

/** The dump as people see it, which must name the Services served and no others. */
function dumpOf(node: LabNode): Question {
  return {
    what: "dump: all Services but the headless and the ExternalName one",
    from: node,
    command: [...bpfsvc, "dump", "--pins", node.pins],
    expected: /^(?!.*(?:peers|search))(?=.*database)(?=.*dns)(?=.*reports).*web/s,
  };
}

/** The packet path is on the node's uplink and on the device of each of its pods. */
function devicesOf(node: LabNode): Question {
  const served = Object.keys(node.pods).map((pod) => `(?=.*^${pod} +pod-facing +tc )`);
  return {
    what: "dump devices: the uplink and every pod's device",
    from: node,
    command: [...bpfsvc, "dump", "devices", "--pins", node.pins],
    expected: new RegExp(`${served.join("")}.*^(eth0 +uplink +(?:tc|xdp))`, "ms"),
  };
}

/** Moves the store to its other pod, as an edit of its manifest does. */
async function editStore(rows: Row[], lab: Lab, manifests: string): Promise<void> {
  const file = path.join(manifests, "store.yaml");
  const text = fs.readFileSync(file, "utf8").replace("[10.244.2.4]", "[10.244.1.5]");
  fs.writeFileSync(file, text);
  for (const node of Object.values(lab.nodes)) {
    const question = askStore(node, "store-2");
    const what = `the edit of '${file}' to reach '${node.name}'`;
    await waitFor(async () => (await put(question)).right, { what });
    const row = await put(question);
    rows.push({ ...row, what: `after an edit: ${row.what}` });
  }
}

function afterKill(question: Question): Question {
  return { ...question, what: `agent killed: ${question.what}` };
}

function print(rows: readonly Row[]): void {
  const lines = [
    ["ASKED", "FROM", "ANSWER", "RESULT"],
    ...rows.map(({ what, from, answer, right }) => [what, from, answer, right ? "ok" : "WRONG"]),
  ];
  const width = (column: number) => Math.max(...lines.map((line) => line[column]?.length ?? 0));
  const widths = [width(0), width(1), Math.min(width(2), 40), 0];
  for (const line of lines) {
    console.log(
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join("  ")
        .trimEnd(),
    );
  }
}

async function demonstrate(lab: Lab, manifests: string): Promise<Row[]> {
  const rows: Row[] = [];
  const nodes = Object.values(lab.nodes);
  say(`Starting the servers of ${examples} in ${Object.keys(lab.pods).length} pods`);
  await startShop(lab);
  await prepareXdp(lab);
  say("Starting an agent on each node");
  const agents = await Promise.all(nodes.map((node) => startAgent(node, manifests)));
  try {
    say("Asking every Service from pods, nodes and outside of the nodes' cgroups");
    for (const group of allQuestions(lab)) await putAll(rows, group);
    say("Asking from outside: node ports, VIPs, external IPs and routed cluster IPs");
    await routeVips(lab, nodes);
    await putAll(rows, askFromOutside(lab));
    for (const node of nodes) rows.push(await put(devicesOf(node)));
    say("Editing a manifest: the store moves to another pod");
    await editStore(rows, lab, manifests);
    say("Killing the agents with -9: what is programmed goes on serving");
    await Promise.all(agents.map((agent) => agent.kill()));
    for (const node of nodes) {
      const pod = Object.values(node.pods).find(({ name }) => name.startsWith("client"));
      for (const host of [pod ?? node, node]) {
        const questions = [...askEssentials(host), askStore(host, "store-2")];
        await putAll(rows, questions.map(afterKill));
      }
      rows.push({ ...(await put(afterKill(dumpOf(node)))), answer: "bpfsvc dump" });
    }
    await putAll(rows, askFromOutside(lab).map(afterKill));
  } finally {
    if (rows.length === 0 || rows.some(({ right }) => !right)) {
      for (const agent of agents) console.error(agent.output());
    }
  }
  return rows;
}

async function main(): Promise<void> {
  say("Making a lab of two nodes out of network namespaces");
  const lab = await Lab.create({ name: "demo", topology: shopTopology });
  const manifests = fs.mkdtempSync(path.join(os.tmpdir(), "bpfsvc-demo-"));
  try {
    fs.cpSync(examples, manifests, { recursive: true });
    const rows = await demonstrate(lab, manifests);
    console.log();
    print(rows);
    for (const node of Object.values(lab.nodes).slice(0, 1)) {
      console.log(`\n$ bpfsvc dump --pins ${node.pins}    # on ${node.name}, no agent running`);
      console.log((await node.run([...bpfsvc, "dump", "--pins", node.pins])).stdout);
    }
    const wrong = rows.filter(({ right }) => !right).length;
    say(wrong === 0 ? `All ${rows.length} answers were right` : `${wrong} answers were WRONG`);
    process.exitCode = wrong === 0 ? 0 : 1;
  } finally {
    await lab.close();
    fs.rmSync(manifests, { recursive: true });
    say("Everything removed");
  }
}

await main();
