// Debian's cloud kernels as packages: fetched by apt from the mirror that this machine uses, with
// sources and lists of our own so that the machine's are left alone; unpacked and kept in the
// user's cache, checked at every use and fetched again if broken. Boots nothing.
import { execFile, spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { cp, mkdir, mkdtemp, readdir, rename, rm, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);
const META_PACKAGE = "linux-image-cloud-amd64";
const KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg";
/** Written last, so that it is there only if all is. */
const SUMS = "sha256sums";

/** An unpacked kernel: `folder` holds vmlinuz, and lib/modules as below the root. */
export interface Unpacked {
  folder: string;
  /** What `uname -r` says. */
  release: string;
}

function cacheFolder(): string {
  const caches = process.env.XDG_CACHE_HOME || path.join(os.homedir(), ".cache");
  return path.join(caches, "bpfsvc", "kernels");
}

/**
 * The kernels of these suites of Debian, from the cache where they are whole there, unless a fresh
 * one is asked for. Throws saying what to do if they cannot be had.
 */
export async function fetchKernels(
  suites: readonly string[],
  options: { fresh: boolean },
): Promise<Unpacked[]> {
  const cache = cacheFolder();
  await mkdir(cache, { recursive: true });
  const missing = suites.filter((suite) => options.fresh || !isWhole(path.join(cache, suite)));
  if (missing.length > 0) {
    const place = await mkdtemp(path.join(cache, "fetching-"));
    try {
      const apt = await setUpApt(place, missing);
      for (const suite of missing) {
        await unpack({ apt, suite, place });
        await rm(path.join(cache, suite), { recursive: true, force: true });
        await rename(path.join(place, suite), path.join(cache, suite));
      }
    } finally {
      await rm(place, { recursive: true, force: true });
    }
  }
  return Promise.all(suites.map((suite) => describe(path.join(cache, suite))));
}

function isWhole(folder: string): boolean {
  if (!existsSync(path.join(folder, SUMS))) return false;
  const { status } = spawnSync("sha256sum", ["--check", "--status", SUMS], { cwd: folder });
  return status === 0;
}

async function describe(folder: string): Promise<Unpacked> {
  const [release] = await readdir(path.join(folder, "lib/modules"));
  if (release === undefined) throw new Error(`No modules in "${folder}": remove it, and run again`);
  return { folder, release };
}

/** The URL of Debian's archive in this machine's own sources. */
async function findMirror(): Promise<string> {
  const { stdout } = await run("apt-get", ["indextargets", "--format", "$(REPO_URI)"]);
  const mirror = stdout.split("\n").find((line) => /\/debian\/?$/.test(line));
  if (mirror !== undefined) return mirror;
  throw new Error("apt's sources name no archive of Debian, whose kernels are booted: add one");
}

type Apt = (command: "apt-get" | "apt-cache", ...values: string[]) => Promise<string>;

/** apt with a world of its own below `place`, its lists up to date. */
async function setUpApt(place: string, suites: readonly string[]): Promise<Apt> {
  const mirror = await findMirror();
  for (const folder of ["state/lists/partial", "cache/archives/partial"])
    await mkdir(path.join(place, folder), { recursive: true });
  const sources = suites.map((suite) => `deb [signed-by=${KEYRING}] ${mirror} ${suite} main\n`);
  await writeFile(path.join(place, "sources.list"), sources.join(""));
  await writeFile(path.join(place, "status"), "");
  const settings = {
    "Dir::Etc::sourcelist": path.join(place, "sources.list"),
    "Dir::Etc::sourceparts": "-",
    "Dir::State": path.join(place, "state"),
    "Dir::State::status": path.join(place, "status"),
    "Dir::Cache": path.join(place, "cache"),
    "Acquire::Languages": "none",
    "Acquire::Retries": "3",
    "APT::Sandbox::User": "root",
  };
  const lines = Object.entries(settings).map(([name, value]) => `${name} "${value}";\n`);
  await writeFile(path.join(place, "apt.conf"), lines.join(""));
  const env = { ...process.env, APT_CONFIG: path.join(place, "apt.conf"), LC_ALL: "C" };
  const apt: Apt = async (command, ...values) => {
    const options = { cwd: place, env, maxBuffer: 2 ** 26 };
    return (await run(command, ["-qq", ...values], options)).stdout;
  };
  await apt("apt-get", "update");
  return apt;
}

/** The packages of a suite's cloud kernel: the image and, in later Debian, those it is split in. */
async function findPackages(apt: Apt, suite: string): Promise<string[]> {
  const found: string[] = [];
  const wanted = [`${META_PACKAGE}/${suite}`];
  for (let name = wanted.pop(); name !== undefined; name = wanted.pop()) {
    const text = await apt("apt-cache", "show", name);
    const depends = /^Depends: (.*)$/m.exec(text)?.[1] ?? "";
    for (const [part] of depends.matchAll(/linux-(?:image|modules|binary|base)-\d[^\s,]*/g))
      if (!found.includes(part)) {
        found.push(part);
        wanted.push(part);
      }
  }
  if (found.length === 0) throw new Error(`"${META_PACKAGE}" of ${suite} depends on no kernel`);
  return found;
}

/** Downloads and unpacks a suite's kernel to a folder of its name below `place`. */
async function unpack(options: { apt: Apt; suite: string; place: string }): Promise<void> {
  const { apt, suite, place } = options;
  const packages = await findPackages(apt, suite);
  console.error(`test:kernels: fetching ${packages.join(" ")}`);
  await apt("apt-get", "download", ...packages);
  const raw = path.join(place, `${suite}.raw`);
  for (const file of await readdir(place))
    if (file.endsWith(".deb")) {
      await run("dpkg-deb", ["--extract", path.join(place, file), raw]);
      await rm(path.join(place, file));
    }
  // /lib is a link to /usr/lib in a merged system, which packages of either age rely on.
  const folder = path.join(place, suite);
  await mkdir(path.join(folder, "lib"), { recursive: true });
  for (const lib of ["lib/modules", "usr/lib/modules"])
    if (existsSync(path.join(raw, lib)))
      await cp(path.join(raw, lib), path.join(folder, "lib/modules"), { recursive: true });
  const { release } = await describe(folder);
  const images = [`boot/vmlinuz-${release}`, `usr/lib/modules/${release}/vmlinuz`];
  const image = images.map((file) => path.join(raw, file)).find((file) => existsSync(file));
  if (image === undefined) throw new Error(`No kernel image in ${packages.join(" ")}`);
  await cp(image, path.join(folder, "vmlinuz"));
  await rm(raw, { recursive: true });
  await run("depmod", ["-b", folder, release]);
  const sum = `find . -type f ! -name .sums -exec sha256sum {} + >.sums && mv .sums ${SUMS}`;
  await run("sh", ["-c", sum], { cwd: folder });
}
