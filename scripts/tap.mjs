// Runs commands that write TAP, and reports live: one line a test, and what a failed one says. A
// test that says it left something out counts as skipped.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";

/**
 * Runs each command, a program with its arguments, to its end whatever came before. Ends with the
 * one line that counts the tests of all: N passed, N failed, N skipped. Sets the exit code, to that
 * of the first command that failed.
 */
export async function reportTap(...commands) {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  const codes = [];
  for (const command of commands) codes.push(await reportOne(command, counts));
  console.log(`${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`);
  const code = codes.find((each) => each !== 0) ?? 0;
  process.exitCode = code === 0 && counts.passed === 0 ? 1 : code;
}

/** Adds to the counts, and returns the exit code. */
async function reportOne([program, ...args], counts) {
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  const closed = once(child, "close");
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
  const [code] = await closed;
  return code ?? 1;
}
