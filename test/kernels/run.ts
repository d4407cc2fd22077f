// npm run test:kernels: runs the subset of the tests that kernels.ts names on each of its kernels,
// all at once, each in a virtual machine, and writes one stream of TAP, as AVA does for npm test.
// With --image it runs those of the image instead, which npm run test:image has bundled.
import path from "node:path";
import { parseArgs } from "node:util";
import { BUILD, bundleTests } from "./bundle.ts";
import { runGuest } from "./guest.ts";
import { FILES, KERNELS, type Kernel, kernelNamed } from "./kernels.ts";
import { fetchKernels, type Unpacked } from "./packages.ts";

const IMAGE_TESTS = "image/tests.mjs";

interface Tally {
  count: number;
  failed: number;
}

/** Results of one guest on their way to the common stream, each with the lines that follow it. */
class Results {
  count = 0;
  planned = -1;
  readonly #release: string;
  readonly #tally: Tally;
  #block: string[] = [];

  constructor(release: string, tally: Tally) {
    this.#release = release;
    this.#tally = tally;
  }

  take(line: string): void {
    const [, not, title] = /^(not )?ok \d+ - (.*)$/.exec(line) ?? [];
    if (title !== undefined) this.say(title, not === undefined);
    else if (/^1\.\.\d+$/.test(line)) this.planned = Number(line.slice(3));
    else this.#block.push(line);
  }

  say(title: string, ok: boolean): void {
    this.flush();
    this.count++;
    if (!ok) this.#tally.failed++;
    const word = ok ? "ok" : "not ok";
    this.#block.push(`${word} ${++this.#tally.count} - ${this.#release} › ${title}`);
  }

  /** Guests write at the same time, so what belongs together is held until it is whole. */
  flush(): void {
    for (const line of this.#block) console.log(line);
    this.#block = [];
  }
}

interface Work {
  unpacked: Unpacked;
  tests: string;
  tally: Tally;
}

async function runOn(kernel: Kernel, { unpacked, tests, tally }: Work): Promise<void> {
  const folder = path.join(BUILD, "kernels", kernel.name);
  const results = new Results(unpacked.release, tally);
  const started = performance.now();
  try {
    const { name, cpuLacks } = kernel;
    const guest = { name, cpuLacks, kernel: unpacked, tests, folder };
    await runGuest(guest, (line) => results.take(line));
    if (results.planned !== results.count)
      throw new Error(`It told of ${results.count} tests, not of ${results.planned}`);
  } catch (error) {
    results.say("the guest runs to its end", false);
    for (const line of (error as Error).message.split("\n")) results.take(`    ${line}`);
  }
  results.flush();
  const seconds = Math.round((performance.now() - started) / 1000);
  console.log(`# ${unpacked.release} (${kernel.name}) ended after ${seconds} s`);
}

/** Bundles the subset and returns the script, below build/. */
async function bundleSubset(): Promise<string> {
  const file = "kernels/tests.mjs";
  await bundleTests({
    files: FILES,
    imports: 'import { kernelNamed, partsOf } from "./test/kernels/kernels.js";',
    parts: "partsOf(kernelNamed(process.env.kernel))",
    outfile: path.join(BUILD, file),
  });
  return file;
}

async function main(): Promise<void> {
  if (process.arch !== "x64") throw new Error("The kernels are for x86-64, this machine is not");
  if (process.getuid?.() !== 0)
    throw new Error("Sharing the root with guests needs root: use sudo");
  const { values, positionals } = parseArgs({
    options: {
      fetch: { type: "boolean", default: false },
      image: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const kernels = positionals.length === 0 ? KERNELS : positionals.map(kernelNamed);
  const suites = kernels.map(({ suite }) => suite);
  const unpacked = await fetchKernels(suites, { fresh: values.fetch });
  const tests = values.image ? IMAGE_TESTS : await bundleSubset();
  const tally = { count: 0, failed: 0 };
  await Promise.all(
    kernels.map((kernel, index) => runOn(kernel, { unpacked: unpacked[index]!, tests, tally })),
  );
  console.log(`1..${tally.count}`);
  process.exitCode = tally.failed === 0 ? 0 : 1;
}

await main().catch((error: Error) => {
  console.error(`test:kernels: ${error.message}`);
  process.exitCode = 1;
});
