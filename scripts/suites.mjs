// Runs suites of tests by their npm scripts, each to its end whatever came before, and ends with one
// line that counts the tests of all: N passed, N failed, N skipped.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

const LAST_LINE = /^(\d+) passed, (\d+) failed, (\d+) skipped$/;
const total = [0, 0, 0];

for (const suite of process.argv.slice(2)) {
  console.log(`\n${suite}:`);
  const child = spawn("npm", ["run", "--silent", suite], { stdio: ["ignore", "pipe", "inherit"] });
  const closed = once(child, "close");
  let counts;
  for await (const line of createInterface({ input: child.stdout })) {
    console.log(line);
    counts = LAST_LINE.exec(line);
  }
  const [code] = await closed;
  for (const index of total.keys()) total[index] += Number(counts?.[index + 1] ?? 0);
  if (code !== 0) process.exitCode = 1;
  if (!counts) {
    console.log(`${suite} ended without counting its tests`);
    process.exitCode = 1;
  }
}
console.log(`\n${total[0]} passed, ${total[1]} failed, ${total[2]} skipped`);
