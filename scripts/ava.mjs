// Runs AVA with a live report, and ends with the one line that counts: N passed, N failed,
// N skipped. One file at a time, since many use all the CPUs there are. A test that says it left
// something out counts as skipped.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

const ava = spawn(
  process.execPath,
  ["node_modules/ava/entrypoints/cli.mjs", "--tap", "--concurrency=1", ...process.argv.slice(2)],
  {
    stdio: ["ignore", "pipe", "inherit"],
  },
);
const counts = { passed: 0, failed: 0, skipped: 0 };
let isDetail = false;
for await (const line of createInterface({ input: ava.stdout })) {
  const result = /^(not )?ok \d+ - (.*)$/.exec(line);
  if (result) {
    const [, not, title] = result;
    const outcome = / # (SKIP|TODO)/i.test(title) ? "skipped" : not ? "failed" : "passed";
    counts[outcome]++;
    isDetail = outcome === "failed";
    const mark = { passed: "✔", failed: "✘", skipped: "-" }[outcome];
    console.log(`${mark} ${title}`);
  } else if (isDetail || /left out/.test(line)) console.log(line);
}
const code = await new Promise((resolve) => {
  if (ava.exitCode !== null) resolve(ava.exitCode);
  else ava.on("exit", (exit) => resolve(exit ?? 1));
});
console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
process.exitCode = code === 0 && counts.passed === 0 ? 1 : code;
