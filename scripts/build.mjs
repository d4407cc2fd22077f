// Builds everything: BPF objects, layouts (with --generate), TypeScript for the tests, and the
// bundle that ships; with --ship only what ships. Runs on plain Node 20: no TypeScript here.
import { execFileSync } from "node:child_process";
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";

const root = path.resolve(import.meta.dirname, "..");
process.chdir(root);
const generate = process.argv.includes("--generate");
const isShipOnly = process.argv.includes("--ship");

function run(command, ...args) {
  execFileSync(command, args, { stdio: "inherit" });
}

/** Compiles the programs in `from` (not below it) to `to`. */
function compileBpf(from, to) {
  if (!existsSync(from)) return;
  const machine = { x64: "x86_64", arm64: "aarch64" }[process.arch] ?? process.arch;
  for (const file of readdirSync(from).filter((name) => name.endsWith(".bpf.c"))) {
    mkdirSync(to, { recursive: true });
    const object = path.join(to, file.replace(/\.c$/, ".o"));
    run(
      "clang",
      "-target",
      "bpf",
      "-mcpu=v3",
      "-O2",
      "-g",
      "-Wall",
      "-Wextra",
      "-Werror",
      "-Wno-unused-parameter",
      `-I/usr/include/${machine}-linux-gnu`,
      "-Ibpf",
      `-ffile-prefix-map=${root}/=`,
      "-c",
      path.join(from, file),
      "-o",
      object,
    );
  }
}

/** `place` says where the result goes: --outfile, or --outdir with --splitting. */
function bundle(entry, ...place) {
  const banner = [
    "#!/usr/bin/env node",
    'import { createRequire as bundledRequire } from "node:module";',
    "const require = bundledRequire(import.meta.url);",
  ].join("\n");
  run(
    "node_modules/.bin/esbuild",
    entry,
    "--bundle",
    "--platform=node",
    "--target=node20.19",
    "--format=esm",
    "--external:koffi",
    "--log-level=warning",
    `--banner:js=${banner}`,
    ...place,
  );
}

rmSync("build", { recursive: true, force: true });
rmSync("dist", { recursive: true, force: true });
compileBpf("bpf", "dist");
if (!isShipOnly) compileBpf("lab", "build/lab");
for (const folder of isShipOnly ? [] : ["bindings", "lab", "test", "bench"]) {
  for (const found of globFolders(folder, "testdata")) compileBpf(found, path.join("build", found));
}
if (generate) {
  bundle("bindings/generate.ts", "--outfile=build/generate.mjs");
  run(process.execPath, "build/generate.mjs", "dist/sock.bpf.o", "bindings/layout.ts");
}
if (!isShipOnly) run("node_modules/.bin/tsc", "-p", "tsconfig.json");
const { version } = JSON.parse(readFileSync("package.json", "utf8"));
// In pieces, so that no verb reads the code of another: the Kubernetes client alone is 2 MB.
bundle(
  "control/main.ts",
  `--define:BPFSVC_VERSION="${version}"`,
  "--splitting",
  "--outdir=dist",
  "--entry-names=bpfsvc",
);
chmodSync("dist/bpfsvc.js", 0o755);

/** Folders called `name` anywhere below `folder`. */
function globFolders(folder, name) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name === name)
    .map((entry) => path.join(entry.parentPath, entry.name));
}
