// The Vagrantfile as Vagrant reads it: for both providers, with settings and without. No machine is
// made. What the provisioning does is tried elsewhere: image.sh by test:image, the smoke test's two
// ends in the lab.
import { execFile, spawnSync } from "node:child_process";
import { chmod, copyFile, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import test, { type ExecutionContext } from "ava";
import { needs } from "../../lab/needs.ts";

const VAGRANTFILE = path.resolve(import.meta.dirname, "../../../Vagrantfile");
const run = promisify(execFile);

const PROVIDERS = ["libvirt", "virtualbox"] as const;
type Provider = (typeof PROVIDERS)[number];

interface Call {
  provider?: Provider;
  env?: Record<string, string>;
  /** Made to the file before Vagrant reads it. */
  change?: (text: string) => string;
}

/** What Vagrant prints, and its exit code. Its own files are in a folder that the test removes. */
async function vagrant(
  t: ExecutionContext,
  words: readonly string[],
  { provider = "libvirt", env = {}, change }: Call = {},
): Promise<{ code: number; output: string }> {
  const folder = await mkdtemp(path.join(tmpdir(), "bpfsvc-vagrant-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, "Vagrantfile");
  await copyFile(VAGRANTFILE, file);
  if (change) await writeFile(file, change(await readFile(file, "utf8")));
  // Vagrant checks the settings of a provider that answers; VirtualBox is asked for its version.
  await writeFile(path.join(folder, "VBoxManage"), "#!/bin/sh\necho 7.0.20r163906\n");
  await chmod(path.join(folder, "VBoxManage"), 0o755);
  const { PATH } = process.env;
  const place = { VAGRANT_CWD: folder, VAGRANT_HOME: folder, PATH: `${folder}:${PATH}` };
  const quiet = { VAGRANT_CHECKPOINT_DISABLE: "1", VAGRANT_DEFAULT_PROVIDER: provider };
  return run("vagrant", words, { env: { ...place, ...quiet, ...env } }).then(
    ({ stdout, stderr }) => ({ code: 0, output: stdout + stderr }),
    ({ code, stdout, stderr }: { code: number; stdout: string; stderr: string }) => ({
      code,
      output: stdout + stderr,
    }),
  );
}

const isHere = spawnSync("vagrant", ["--version"]).status === 0;
const vagrantTest = needs(test, isHere ? undefined : "No Vagrant: sh scripts/setup.sh vagrant");

/** A setting of each provider, to be misspelt. */
const SETTINGS = { libvirt: "libvirt.memory", virtualbox: "virtualbox.linked_clone" } as const;

for (const provider of PROVIDERS) {
  vagrantTest(`Vagrant takes the Vagrantfile for ${provider}`, async (t) => {
    const { code, output } = await vagrant(t, ["validate"], { provider });
    t.is(code, 0, output);
  });

  vagrantTest(`a misspelt setting for ${provider} is found`, async (t) => {
    const change = (text: string) => text.replace(SETTINGS[provider], (name) => `${name}x`);
    const { code, output } = await vagrant(t, ["validate"], { provider, change });
    t.is(code, 1);
    t.regex(output, /settings shouldn't exist/);
  });
}

vagrantTest("each proxy has three machines of its own", async (t) => {
  for (const proxy of ["bpfsvc", "nftables"]) {
    const { output } = await vagrant(t, ["status"], { env: { PROXY: proxy } });
    const machines = ["control", "worker-a", "worker-b"].map((name) => `${proxy}-${name}`);
    t.deepEqual(output.match(/^\S+(?= +not created)/gm), machines, output);
  }
});

vagrantTest("a proxy that there is not is refused", async (t) => {
  const { code, output } = await vagrant(t, ["status"], { env: { PROXY: "ipvs" } });
  t.is(code, 1);
  t.regex(output, /PROXY is 'ipvs': it must be one of bpfsvc, iptables, nftables/);
});

vagrantTest("machines are made only where Kubernetes' packages are to be had", async (t) => {
  const { code, output } = await vagrant(t, ["up"]);
  t.is(code, 1);
  t.regex(output, /^KUBERNETES_APT is missing/);
});
