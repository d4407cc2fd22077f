// Test files and all that they import as one script for one process, which starts in a guest in a
// fraction of the time. Every module in it believes to lie where it was compiled to, so that it
// finds its files there. Knows nothing of which tests are wanted.
import { readFile } from "node:fs/promises";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { build, type Plugin } from "esbuild";

export const BUILD = path.resolve(import.meta.dirname, "../..");

/** AVA's place is taken by ava.ts, and `import.meta` is what it was before bundling. */
const inPlace: Plugin = {
  name: "in place",
  setup({ onLoad, onResolve }) {
    onResolve({ filter: /^ava$/ }, () => ({ path: path.join(import.meta.dirname, "ava.js") }));
    onLoad({ filter: /\.js$/ }, async ({ path: file }) => {
      if (!file.startsWith(`${BUILD}/`)) return undefined;
      const text = await readFile(file, "utf8");
      const contents = text
        .replaceAll("import.meta.dirname", JSON.stringify(path.dirname(file)))
        .replaceAll("import.meta.url", JSON.stringify(pathToFileURL(file).href));
      return { contents };
    });
  },
};

/**
 * Writes a script that runs the parts of test files that `parts` yields, a JavaScript expression of
 * kernels.ts's Part[], and exits with 0 if all tests passed. `imports` are statements for it, with
 * paths below build/, and `files` are all that may be named.
 */
export async function bundleTests(options: {
  files: readonly string[];
  imports?: string;
  parts: string;
  outfile: string;
}): Promise<void> {
  const { files, imports = "", parts, outfile } = options;
  const loads = files.map((file) => `"${file}": () => import("./${file}")`);
  const contents = `
    import { runFiles } from "ava";
    ${imports}
    const loads = {${loads.join(",\n")}};
    const files = (${parts}).map(({ file, only, without }) => ({
      name: file.replace(/(\\.test)?\\.js$/, "").replaceAll("/", " › "),
      load: loads[file],
      isWanted: (title) => (only?.test(title) ?? true) && !(without?.test(title) ?? false),
    }));
    process.exit((await runFiles(files)) === 0 ? 0 : 1);`;
  await build({
    stdin: { contents, resolveDir: BUILD },
    outfile,
    bundle: true,
    platform: "node",
    target: "node20.19",
    format: "esm",
    external: ["koffi"],
    logLevel: "warning",
    plugins: [inPlace],
    banner: {
      js: 'import { createRequire as r } from "node:module"; const require = r(import.meta.url);',
    },
  });
}
