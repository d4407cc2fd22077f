// Format, lint and types of everything, C and shell included. Changes nothing.
import { execFileSync } from "node:child_process";
import path from "node:path";

process.chdir(path.resolve(import.meta.dirname, ".."));
const files = (...patterns) =>
  execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...patterns])
    .toString()
    .split("\n")
    .filter(Boolean);

const checks = [
  ["node_modules/.bin/biome", "check", "--error-on-warnings", "."],
  ["node_modules/.bin/tsc", "-p", "tsconfig.json", "--noEmit"],
  ["clang-format", "--dry-run", "--Werror", ...files("*.c", "*.h")],
  ["shellcheck", ".ci/run", ...files("*.sh")],
];
let failed = false;
for (const [command, ...args] of checks) {
  try {
    execFileSync(command, args, { stdio: "inherit" });
  } catch {
    failed = true;
    console.error(`check: ${command} ${args.slice(0, 3).join(" ")} found something`);
  }
}
process.exitCode = failed ? 1 : 0;
