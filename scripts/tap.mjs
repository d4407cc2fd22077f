// Runs a command that writes TAP, and reports live: one line a test, and what a failed one says.
// A test that says it left something out counts as skipped.
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";

/** Ends with the one line that counts: N passed, N failed, N skipped. Sets the exit code. */
export async function reportTap(command, ...args) {
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  const counts = { passed: 0, failed: 0, skipped: 0 };
  let isDetail = false;
  for await (const line of createInterface({ input: child.stdout })) {
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
    if (child.exitCode !== null) resolve(child.exitCode);
    else child.on("exit", (exit) => resolve(exit ?? 1));
  });
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  process.exitCode = code === 0 && counts.passed === 0 ? 1 : code;
}
