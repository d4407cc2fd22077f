// A container of the DaemonSet in deploy/, as a node's container runtime would make it: from the
// manifest and the unpacked image to the configuration that crun takes. The node is one of the lab,
// so that what the manifest asks of a node is proven on one. Knows nothing of bpfsvc.
import { mkdirSync, mkdtempSync, readFileSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { parseAllDocuments } from "yaml";
import type { LabNode } from "../../lab/lab.ts";

const ROOT = path.resolve(import.meta.dirname, "../../..");
const IMAGE = path.join(ROOT, "build/image");
const SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount";

type Data = Readonly<Record<string, string>>;

/** What is read of a container of a pod, and of the pod. */
interface ContainerSpec {
  args: string[];
  env: { name: string; valueFrom: { fieldRef?: unknown; configMapKeyRef?: KeyRef } }[];
  securityContext: { capabilities: { add: string[] }; readOnlyRootFilesystem: boolean };
  volumeMounts: { name: string; mountPath: string; readOnly?: boolean }[];
}
interface KeyRef {
  name: string;
  key: string;
}
interface PodSpec {
  containers: [ContainerSpec];
  volumes: { name: string; hostPath?: { path: string }; configMap?: { name: string } }[];
}

/** The objects of a file in deploy/. */
export function readManifest(file: string): Record<string, unknown>[] {
  const text = readFileSync(path.join(ROOT, "deploy", file), "utf8");
  return parseAllDocuments(text).map((document) => document.toJS() as Record<string, unknown>);
}

/** The configuration of the image. */
function readImage(): { Entrypoint: string[]; Env: string[] } {
  const text = readFileSync(path.join(IMAGE, "image.json"), "utf8");
  return (JSON.parse(text) as { OCIv1: { config: ReturnType<typeof readImage> } }).OCIv1.config;
}

export interface ContainerOptions {
  node: LabNode;
  /** The API server, and a token for it. */
  server: { url: string; ca: string; token: string };
  /** Instead of those of the manifest. */
  capabilities?: readonly string[];
  /** Volumes that are not mounted. */
  without?: readonly string[];
}

/** A container that is ready to run. */
export interface Container {
  /** What lies outside the lab; the caller's to remove. */
  folder: string;
  /** Runs it in the foreground. */
  command: string[];
  /** Kills what runs in it, and with that the command; crun's own end is nothing to it. */
  kill(): void;
}

/**
 * Writes a bundle for crun, which runs it in the node's network, PID namespace and cgroup.
 */
export function makeContainer(options: ContainerOptions): Container {
  const { node } = options;
  const [daemonSet] = readManifest("daemonset.yaml") as [{ spec: { template: { spec: PodSpec } } }];
  const [config] = readManifest("config.yaml") as [{ data: Data }];
  const { hostname, port } = new URL(options.server.url);
  const configMaps = { bpfsvc: config.data, "bpfsvc-apiserver": { host: hostname, port } };
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-container-"));
  const pod = daemonSet.spec.template.spec;
  const [container] = pod.containers;
  const image = readImage();
  const env = new Map([
    ["KUBERNETES_SERVICE_HOST", "10.96.0.1"],
    ["KUBERNETES_SERVICE_PORT", "443"],
  ]);
  for (const { name, valueFrom } of container.env) {
    const value = valueFor(valueFrom, { node, configMaps });
    if (value !== undefined) env.set(name, value);
  }
  const args = container.args.map((text) =>
    text.replace(/\$\((\w+)\)/g, (whole, name: string) => env.get(name) ?? whole),
  );
  const runtime = {
    ociVersion: "1.0.2",
    process: {
      user: { uid: 0, gid: 0 },
      args: [...image.Entrypoint, ...args],
      env: [...image.Env, ...[...env].map(([name, value]) => `${name}=${value}`)],
      cwd: "/",
      capabilities: makeCapabilities(
        options.capabilities ?? container.securityContext.capabilities.add,
      ),
    },
    root: {
      path: path.join(IMAGE, "rootfs"),
      readonly: container.securityContext.readOnlyRootFilesystem,
    },
    mounts: [...SYSTEM_MOUNTS, ...volumeMounts(pod, { ...options, folder, configMaps })],
    // Those of the host that are not named are shared: hostNetwork and hostPID.
    linux: { namespaces: ["mount", "cgroup", "ipc", "uts"].map((type) => ({ type })) },
  };
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(runtime));
  const place = ["--root", path.join(folder, "state"), "--cgroup-manager=disabled"];
  const id = path.basename(folder);
  const pidFile = path.join(folder, "pid");
  const command = ["crun", ...place, "run", "--bundle", folder, "--pid-file", pidFile, id];
  const kill = () => process.kill(Number(readFileSync(pidFile, "utf8")), "SIGKILL");
  return { folder, command, kill };
}

/** What a runtime mounts in every container; its cgroup is its own alone. */
const SYSTEM_MOUNTS = [
  { destination: "/proc", type: "proc", source: "proc" },
  { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
  { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "ro"] },
  { destination: "/sys/fs/cgroup", type: "cgroup2", source: "cgroup", options: ["ro"] },
];

function makeCapabilities(names: readonly string[]): Record<string, string[]> {
  const set = names.map((name) => `CAP_${name}`);
  return { bounding: set, effective: set, permitted: set };
}

function valueFor(
  { fieldRef, configMapKeyRef }: { fieldRef?: unknown; configMapKeyRef?: KeyRef },
  { node, configMaps }: { node: LabNode; configMaps: Readonly<Record<string, Data>> },
): string | undefined {
  if (fieldRef !== undefined) return node.name;
  return configMapKeyRef && configMaps[configMapKeyRef.name]?.[configMapKeyRef.key];
}

/** Bind mounts of a pod's volumes; the node's own folders are those of the lab. */
function volumeMounts(
  { containers: [container], volumes }: PodSpec,
  options: ContainerOptions & { folder: string; configMaps: Readonly<Record<string, Data>> },
) {
  const { node, server, folder, configMaps, without = [] } = options;
  const hostPaths: Data = {
    "/sys/fs/cgroup": node.cgroup,
    "/sys/fs/bpf": node.pins,
    "/var/lib/bpfsvc": makeFolder(path.join(folder, "state-files"), {}),
  };
  const sources = new Map([["token", makeFolder(path.join(folder, "token"), tokenFiles(server))]]);
  for (const { name, hostPath, configMap } of volumes) {
    const data = configMap && configMaps[configMap.name];
    const source = data ? makeFolder(path.join(folder, name), data) : hostPaths[hostPath!.path];
    sources.set(name, source!);
  }
  return [...container.volumeMounts, { name: "token", mountPath: SERVICE_ACCOUNT, readOnly: true }]
    .filter(({ name }) => !without.includes(name))
    .map(({ name, mountPath, readOnly }) => ({
      destination: mountPath,
      type: "bind",
      source: sources.get(name),
      options: ["rbind", readOnly === true ? "ro" : "rw"],
    }));
}

function tokenFiles({ ca, token }: { ca: string; token: string }): Data {
  return { "ca.crt": ca, token, namespace: "kube-system" };
}

/** A folder with these files. */
function makeFolder(folder: string, files: Data): string {
  mkdirSync(folder, { recursive: true });
  for (const [name, text] of Object.entries(files)) writeFileSync(path.join(folder, name), text);
  return folder;
}
