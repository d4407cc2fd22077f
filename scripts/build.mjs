// Builds everything: BPF objects, layouts (with --generate), the bench's programs in C, TypeScript
// for the tests, and the bundle that ships; with --ship only what ships. Runs on plain Node 20: no
// TypeScript here.
import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { build } from "esbuild";

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

/** Programs of the bench in C; libc's headers and the linker come with Debian's clang. */
function compileNative(from, to) {
  mkdirSync(to, { recursive: true });
  for (const file of readdirSync(from).filter((name) => name.endsWith(".c"))) {
    const program = path.join(to, path.basename(file, ".c"));
    run("clang", "-O2", "-Wall", "-Wextra", "-Werror", "-o", program, path.join(from, file));
  }
}

const bundling = {
  absWorkingDir: root,
  bundle: true,
  platform: "node",
  target: "node20.19",
  external: ["koffi"],
  logLevel: "warning",
};

/** Packages that are needed now and then: files beside the bundle, read at their first use. */
const LAZY = ["yaml", "jsonpath-plus", "openid-client", "socks-proxy-agent"];
/** What packages ask for, but never use for what we ask of them. It would cost much to load. */
const UNUSED = [
  // For verbs that are programs of their own: a tenth of what `dump` takes.
  { asked: /^node:child_process$/, by: /\/commander\// },
  // Clients of the API, and what fetch() needs: of KubeConfig we ask for options of node:https.
  { asked: /^undici$|^socks$|^\.\/gen\/|^\.\/middleware\.js$/, by: /\/client-node\/dist\// },
];

/** What a bundle does not need at its start is a file beside it, or left out (decision 15). */
const apart = {
  name: "apart",
  setup({ onResolve, onLoad }) {
    onResolve({ filter: /^\.\/command\/\w+\.ts$/ }, ({ path: asked, kind }) =>
      kind === "dynamic-import" ? { path: `./${pieceOf(asked)}.js`, external: true } : undefined,
    );
    onResolve({ filter: /./ }, ({ path: asked, kind, importer, namespace }) => {
      if (kind === "entry-point" || namespace === "lazy") return undefined;
      if (UNUSED.some((each) => each.asked.test(asked) && each.by.test(importer)))
        return { path: asked, namespace: "nothing" };
      return LAZY.includes(asked) ? { path: asked, namespace: "lazy" } : undefined;
    });
    onResolve({ filter: /^\.\//, namespace: "lazy" }, ({ path: asked }) => ({
      path: asked,
      external: true,
    }));
    onLoad({ filter: /./, namespace: "nothing" }, () => ({ contents: "module.exports = {};" }));
    onLoad({ filter: /./, namespace: "lazy" }, async ({ path: name }) => ({
      contents: `module.exports = { __esModule: true, ${Object.keys(await import(name))
        // Of a CommonJS module, Node 23 and later call the whole so.
        .filter((each) => each !== "module.exports")
        .map((each) => `get ${each}() { return require("./${pieceOf(name)}.js").${each}; }`)
        .join(", ")} };`,
    }));
  },
};

function pieceOf(asked) {
  return path.basename(asked, ".ts");
}

/**
 * The command: bpfsvc.js, each verb and each lazy package, as scripts rather than modules, since
 * Node takes 20 ms longer to load so many modules (decision 15).
 */
async function bundleCommand() {
  const { version } = JSON.parse(readFileSync("package.json", "utf8"));
  const verbs = readdirSync("control/command").filter((file) =>
    readFileSync("control/main.ts", "utf8").includes(`import("./command/${file}")`),
  );
  const pieces = [...verbs.map((file) => `control/command/${file}`), ...LAZY];
  await build({
    ...bundling,
    entryPoints: {
      bpfsvc: "control/main.ts",
      ...Object.fromEntries(pieces.map((piece) => [pieceOf(piece), piece])),
    },
    outdir: "dist",
    format: "cjs",
    supported: { "dynamic-import": false },
    define: { BPFSVC_VERSION: JSON.stringify(version), "import.meta.dirname": "__dirname" },
    plugins: [apart],
    banner: { js: "#!/usr/bin/env node" },
  });
  writeFileSync("dist/package.json", '{ "type": "commonjs" }\n');
  chmodSync("dist/bpfsvc.js", 0o755);
}

rmSync("build", { recursive: true, force: true });
rmSync("dist", { recursive: true, force: true });
compileBpf("bpf", "dist");
if (!isShipOnly) compileBpf("lab", "build/lab");
if (!isShipOnly) compileNative("bench", "build/bench");
for (const folder of isShipOnly ? [] : ["bindings", "lab", "test", "bench"]) {
  for (const found of globFolders(folder, "testdata")) compileBpf(found, path.join("build", found));
}
if (generate) {
  const outfile = "build/generate.mjs";
  await build({ ...bundling, entryPoints: ["bindings/generate.ts"], outfile, format: "esm" });
  run(process.execPath, outfile, "dist/sock.bpf.o", "bindings/layout.ts");
}
if (!isShipOnly) run("node_modules/.bin/tsc", "-p", "tsconfig.json");
await bundleCommand();

/** Folders called `name` anywhere below `folder`. */
function globFolders(folder, name) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isDirectory() && entry.name === name)
    .map((entry) => path.join(entry.parentPath, entry.name));
}
