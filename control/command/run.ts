// `bpfsvc run`: the agent of one node. Wires source, model and dataplane together, attaches once
// everything is programmed, and leaves it all serving when it ends.
import { release } from "node:os";
import { Agent } from "../agent.ts";
import { openConfigFile } from "../config/file.ts";
import { watchConfigFile } from "../config/watch.ts";
import { type Config, readConfig } from "../config.ts";
import { checkCgroup } from "../dataplane/attach.ts";
import { Clients } from "../dataplane/clients.ts";
import { Dataplane } from "../dataplane/dataplane.ts";
import { flowSets, type Works } from "../dataplane/flows.ts";
import { type Capacities, mayLoadPrograms } from "../dataplane/kernel.ts";
import { Maps } from "../dataplane/maps.ts";
import { Pins } from "../dataplane/pins.ts";
import { countUnknownClients } from "../dataplane/reasons.ts";
import { type Kernel, openKernel } from "../dataplane/takeover.ts";
import { ExitCode, UserError } from "../exit.ts";
import { createLogger, type Logger } from "../log.ts";
import { Cluster } from "../model/cluster.ts";
import type { ProxyConfig } from "../model/config.ts";
import { cgroup2Root, defaultNodeName, defaultRouteAddresses } from "../source/host.ts";
import { ManifestSource } from "../source/manifests.ts";
import type { Source } from "../source/source.ts";
import { collectLeftovers } from "./leftovers.ts";
import { makeMonitor } from "./monitoring.ts";
import { PacketPath } from "./packetpath.ts";
import { deviceRodata, type RunOptions, socketRodata } from "./runoptions.ts";
import { Serving } from "./serving.ts";
import { StaleSockets } from "./stale.ts";
import { StaleFlows } from "./staleflows.ts";
import { Surroundings } from "./surroundings.ts";

/** Runs until SIGTERM or SIGINT. Throws UserError for what the user can put right. */
export async function run(options: RunOptions): Promise<void> {
  const file = options.config === undefined ? undefined : openConfigFile(options.config);
  const given = { ...options, file };
  const { config: settings, notes } = readConfig(given);
  const log = createLogger({ level: settings.logLevel, format: settings.logFormat });
  for (const note of notes) log.info(note);
  if (options.initOnly) return log.info("There is nothing to set up ahead: --init-only ends here");
  const { proxy: config } = settings;
  const nodeName = settings.nodeName ?? defaultNodeName();
  const source = await makeSource(settings, { nodeName, stateFile: options.stateFile, log });
  const { cgroup, rodata, kernel, lock } = await openMaps(options, { config, log });
  const cluster = new Cluster({ nodeName, fallbackNodeAddresses: defaultRouteAddresses(), config });
  const dataplane = new Dataplane(new Maps(kernel.storage));
  const clients = new Clients(kernel.storage.clients);
  const ended = newEnd();
  const onFatal = (error: unknown) => ended.reject(error);
  const monitor = makeMonitor({
    ...{ settings, given, kernel, cgroup, cluster, dataplane, clients, source, log, onFatal },
    ...{ version: options.version, nodeName, series: options.metricsServices },
    parts: () => ({ serving, stale: stale.sockets }),
  });
  const surroundings = new Surroundings({
    cluster,
    config,
    cgroup,
    clients,
    unknownClients: () => countUnknownClients(kernel.maps.svc_reasons),
    onChange: () => agent.changed(),
    log,
  });
  const onLook = (isWhole: boolean) => monitor.attached(isWhole);
  const serving = new Serving({ kernel, cgroup, rodata, log, onLook });
  const packetPath = new PacketPath({
    ...{ kernel, cluster, log },
    settings: { uplinks: options.device },
    rodata: { ...rodata, ...deviceRodata(options, config) },
    onAddressGone: () => stale.flows.trigger(),
  });
  const stale = makeStale(kernel, { dataplane, packetPath, cgroup, log });
  const agent = new Agent({
    cluster,
    dataplane,
    log,
    minSyncPeriodMs: settings.minSyncPeriodMs,
    syncPeriodMs: settings.syncPeriodMs,
    onFirstSync: () => {
      warnOfMissingNode(cluster, nodeName, log);
      if (kernel.meta.node !== nodeName) kernel.meta.node = nodeName;
      surroundings.start();
      serving.start();
      packetPath.start();
      log.info(`serving ${dataplane.size} service ports of node "${nodeName}"`);
      stale.start();
      collectLeftovers();
    },
    onUdpDeparture: () => stale.trigger(),
    onFlush: (flush) => monitor.updated(flush),
    onFatal,
  });
  const unwatch = file && watchConfigFile(file, { onChange: onFatal });
  try {
    monitor.start();
    surroundings.look();
    // A source waits for a server that does not answer; a signal ends that too.
    await Promise.race([source.start(monitor.watch(agent)), ended.promise]);
    await ended.promise;
    log.info(`Stopped; what is programmed in "${kernel.pins.folder}" keeps serving`);
  } finally {
    unwatch?.();
    monitor.stop();
    agent.stop();
    surroundings.stop();
    serving.stop();
    packetPath.stop();
    stale.stop();
    await source.close();
    lock.release();
  }
}

/** The maps that are this agent's to write, and what its programs are to be loaded with. */
async function openMaps(
  options: RunOptions,
  { config, log }: { config: ProxyConfig; log: Logger },
) {
  checkPrivileges();
  const cgroup = options.cgroup ?? cgroup2Root();
  checkCgroup(cgroup);
  const pins = new Pins(options.pins);
  const lock = pins.open();
  const rodata = socketRodata(options, config);
  const kernel = openKernel(pins, { rodata, capacities: capacities(options) });
  for (const { level, message } of kernel.notes) log[level](message);
  // What an agent before this one gave up may still be read, and is free to this one.
  await kernel.storage.grace();
  return { cgroup, rodata, kernel, lock };
}

/**
 * The place that objects come from: a client of Kubernetes, which is most of the agent's code, is
 * loaded only for a server. Throws UserError if there is none.
 */
async function makeSource(
  { source }: Config,
  { stateFile, ...options }: { nodeName: string; stateFile: string | undefined; log: Logger },
): Promise<Source> {
  if ("manifests" in source) return new ManifestSource(source.manifests);
  if (source.kubeconfig !== undefined || process.env.KUBERNETES_SERVICE_HOST !== undefined) {
    const { KubernetesSource } = await import("../source/kubernetes/kubernetes.ts");
    return new KubernetesSource({ ...source, ...options, statePath: stateFile });
  }
  throw new UserError(
    "bpfsvc run needs a place for objects: give --kubeconfig FILE or --manifests PATH, or run it " +
      "in a pod of the cluster",
    ExitCode.usage,
  );
}

/** What forgets endpoints that left: where sockets hold them, and where flows do. */
function makeStale(
  { maps, storage }: Kernel,
  {
    dataplane,
    packetPath,
    cgroup,
    log,
  }: { dataplane: Dataplane; packetPath: PacketPath; cgroup: string; log: Logger },
) {
  const works = (): Works => {
    const serves = dataplane.servesFlows();
    return (flow) => serves(flow) && packetPath.isAnswered(flow);
  };
  const sockets = new StaleSockets({ maps, cgroup, log });
  const flows = new StaleFlows({ flows: storage.flows, works, log });
  const both = [sockets, flows];
  return {
    sockets,
    flows,
    start: () => {
      for (const each of both) each.start();
    },
    trigger: () => {
      for (const each of both) each.trigger();
    },
    stop: () => {
      for (const each of both) each.stop();
    },
  };
}

/** A promise that a signal resolves and a fatal error rejects. */
function newEnd(): {
  promise: Promise<void>;
  resolve: () => void;
  reject: (error: unknown) => void;
} {
  let resolve!: () => void;
  let reject!: (error: unknown) => void;
  const promise = new Promise<void>((onResolve, onReject) => {
    resolve = onResolve;
    reject = onReject;
  });
  for (const signal of ["SIGTERM", "SIGINT"] as const) process.once(signal, resolve);
  // It may be rejected before anybody waits for it; who does then still gets the error.
  promise.catch(() => {});
  return { promise, resolve, reject };
}

/** The sizes of maps that flags give; the others stay as they are. */
function capacities(options: RunOptions): Capacities {
  const { maxFrontends, maxServices, maxBackends, maxSlots, maxFlows } = options;
  const given = {
    svc_overflow: maxFrontends,
    svc_services: maxServices,
    svc_names: maxServices,
    svc_backends: maxBackends,
    svc_slots: maxSlots && Math.ceil(maxSlots / 2),
    svc_flows: maxFlows && flowSets(maxFlows),
  };
  return Object.fromEntries(Object.entries(given).filter(([, entries]) => entries !== undefined));
}

function warnOfMissingNode(cluster: Cluster, nodeName: string, log: Logger): void {
  const { fromNode, addresses } = cluster.nodePorts;
  if (fromNode) return;
  const list = [...addresses.ipv4, ...addresses.ipv6].join(", ") || "no address at all";
  const health = cluster.nodeObject ? "" : ", and /healthz says that the node is not eligible";
  log.warn(
    `No Node object "${nodeName}" with addresses: node ports are served on the default-route ` +
      `device's addresses (${list})${health}`,
  );
}

/** Throws unless the process may load programs. */
function checkPrivileges(): void {
  if (mayLoadPrograms()) return;
  throw new UserError(
    "bpfsvc run loads programs into the kernel: run it as root, or with CAP_BPF, CAP_NET_ADMIN " +
      `and CAP_PERFMON (kernel ${release()})`,
  );
}
