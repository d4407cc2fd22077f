// Runs AVA with a live report and one line at the end that counts. Of all tests most files run two
// at a time, since they wait a lot, and then, each alone, those that keep all CPUs busy; with
// arguments AVA gets those, and one file at a time.
import { readdirSync } from "node:fs";
import path from "node:path";
import { reportTap } from "./tap.mjs";

/** Folders of files that have to be alone: they load the machine until something gives. */
const ALONE = ["build/test/fire"];

function ava(concurrency, args) {
  const command = [process.execPath, "node_modules/ava/entrypoints/cli.mjs", "--tap"];
  return [...command, `--concurrency=${concurrency}`, ...args];
}

function testFiles() {
  return readdirSync("build", { recursive: true })
    .filter((name) => name.endsWith(".test.js"))
    .map((name) => path.join("build", name));
}

function everything() {
  const isAlone = (file) => ALONE.includes(path.dirname(file));
  const files = testFiles();
  return [
    ava(
      2,
      files.filter((file) => !isAlone(file)),
    ),
    ava(1, files.filter(isAlone)),
  ];
}

const args = process.argv.slice(2);
await reportTap(...(args.length > 0 ? [ava(1, args)] : everything()));
