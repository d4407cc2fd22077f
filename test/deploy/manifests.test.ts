// The manifests in deploy/, held against Kubernetes' own types: a field that is misspelt, missing
// or of another type does not compile. And what they say of bpfsvc, held against bpfsvc.
import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";
import test, { type ExecutionContext } from "ava";
import { parseAllDocuments } from "yaml";
import { readConfigFile } from "../../control/config/file.ts";
import { COMMAND } from "../scenarios/stage.ts";

const BUILD = path.resolve(import.meta.dirname, "../..");
const DEPLOY = path.resolve(BUILD, "../deploy");
const run = promisify(execFile);

interface Manifest extends Record<string, unknown> {
  kind: string;
}

/** The files that the kustomization names. */
async function namedFiles(): Promise<string[]> {
  const [kustomization] = await read("kustomization.yaml");
  return kustomization!.resources as string[];
}

async function read(file: string): Promise<Manifest[]> {
  const documents = parseAllDocuments(await readFile(path.join(DEPLOY, file), "utf8"));
  return documents.map((document) => document.toJS() as Manifest);
}

async function readAll(): Promise<Manifest[]> {
  return (await Promise.all((await namedFiles()).map(read))).flat();
}

/** What the compiler has against these objects as what they say they are; "" if nothing. */
async function faultsOf(t: ExecutionContext, manifests: readonly Manifest[]): Promise<string> {
  const folder = await mkdtemp(path.join(BUILD, "manifests-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  const file = path.join(folder, "manifests.ts");
  const models = "@kubernetes/client-node/dist/gen/models";
  const lines = manifests.map((manifest, index) => {
    const type = `import("${models}/V1${manifest.kind}.js").V1${manifest.kind}`;
    return `export const manifest${index}: ${type} = ${JSON.stringify(manifest, null, 1)};`;
  });
  await writeFile(file, lines.join("\n"));
  const tsc = path.resolve(BUILD, "../node_modules/.bin/tsc");
  const options = ["--ignoreConfig", "--noEmit", "--strict", "--skipLibCheck", "--types", "node"];
  const place = ["--module", "nodenext", "--target", "es2023"];
  return run(tsc, [...options, ...place, file], { cwd: folder }).then(
    () => "",
    ({ stdout, stderr }: { stdout: string; stderr: string }) => stdout + stderr,
  );
}

test("every file is part of the kustomization", async (t) => {
  const files = (await readdir(DEPLOY)).filter((file) => file.endsWith(".yaml"));
  t.deepEqual([...(await namedFiles()), "kustomization.yaml"].sort(), files.sort());
});

test("the manifests are what Kubernetes' types say", async (t) => {
  t.is(await faultsOf(t, await readAll()), "");
});

test("those of the smoke test are as well", async (t) => {
  const [list] = await read("vagrant/smoke.yaml");
  t.is(await faultsOf(t, list!.items as Manifest[]), "");
});

/** Changes that the check above has to find. */
const FAULTS: Readonly<Record<string, (pod: { hostPid?: boolean; hostPID?: unknown }) => void>> = {
  "a misspelt field": (pod) => {
    pod.hostPid = true;
  },
  "a field of another type": (pod) => {
    pod.hostPID = "true";
  },
};

for (const [title, change] of Object.entries(FAULTS))
  test(`${title} is found`, async (t) => {
    const [daemonSet] = await read("daemonset.yaml");
    change((daemonSet as unknown as { spec: { template: { spec: object } } }).spec.template.spec);
    t.regex(await faultsOf(t, [daemonSet!]), /hostPid|hostPID|boolean/);
  });

test("bpfsvc may do what kube-proxy may, and nothing else (§1.7)", async (t) => {
  const rights = (await readAll()).filter(({ kind }) => /Role/.test(kind));
  t.like(rights, [{ kind: "ClusterRoleBinding", roleRef: { name: "system:node-proxier" } }]);
  t.is(rights.length, 1);
});

test("the configuration is one that bpfsvc takes", async (t) => {
  const { "config.yaml": text } = await configData();
  t.notThrows(() => readConfigFile({ path: "deploy/config.yaml", text: text! }));
});

async function configData(): Promise<Readonly<Record<string, string>>> {
  const [config] = await read("config.yaml");
  return config!.data as Record<string, string>;
}

interface Container {
  args: string[];
  env: { name: string }[];
  volumeMounts: { name: string; mountPath: string }[];
}

/**
 * What the command says to the DaemonSet's arguments, once changed; "" if it takes them. Its files
 * are in a folder of the test, and nothing is started.
 */
async function refusal(
  t: ExecutionContext,
  change: (args: string[]) => string[] = (args) => args,
): Promise<string> {
  const [daemonSet] = await read("daemonset.yaml");
  const { template } = daemonSet!.spec as { template: { spec: { containers: [Container] } } };
  const [{ args, env, volumeMounts }] = template.spec.containers;
  const folder = await mkdtemp(path.join(BUILD, "config-"));
  t.teardown(() => rm(folder, { recursive: true, force: true }));
  for (const [name, text] of Object.entries(await configData()))
    await writeFile(path.join(folder, name), text);
  const { mountPath } = volumeMounts.find(({ name }) => name === "config")!;
  const value = (variable: string, name: string) => {
    t.true(
      env.some((given) => given.name === name),
      variable,
    );
    return "node-a";
  };
  const given = change(args).map((text) =>
    text.replace(`=${mountPath}/`, `=${folder}/`).replace(/\$\((\w+)\)/, value),
  );
  return run(process.execPath, [COMMAND, ...given, "--init-only"]).then(
    () => "",
    ({ stderr }: { stderr: string }) => stderr,
  );
}

test("the command takes the arguments that the DaemonSet gives", async (t) => {
  t.is(await refusal(t), "");
});

/** Changes of the arguments, and what the command says to them. */
const REFUSED: Readonly<Record<string, [string, string, RegExp]>> = {
  "a misspelt flag": ["--state-file", "--statefile", /unknown option '--statefile=/],
  "a file that no ConfigMap has": ["config.yaml", "kube-proxy.yaml", /kube-proxy\.yaml/],
};

for (const [title, [old, other, says]] of Object.entries(REFUSED))
  test(`${title} in the DaemonSet's arguments is found`, async (t) => {
    t.regex(await refusal(t, (args) => args.map((text) => text.replace(old, () => other))), says);
  });
