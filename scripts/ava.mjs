// Runs AVA with a live report and one line at the end that counts. One file at a time, since many
// use all the CPUs there are.
import { reportTap } from "./tap.mjs";

const ava = ["node_modules/ava/entrypoints/cli.mjs", "--tap", "--concurrency=1"];
await reportTap(process.execPath, ...ava, ...process.argv.slice(2));
