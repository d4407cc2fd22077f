// `bpfsvc plan`: what would be programmed for a node from a set of manifests, and why. Needs no
// kernel and no root; decides nothing itself.

import { openConfigFile } from "../config/file.ts";
import { type Flags, readConfig } from "../config.ts";
import { formatRange } from "../model/address.ts";
import { Cluster } from "../model/cluster.ts";
import type { ProxyConfig } from "../model/config.ts";
import { explainServices, explainUnserved, explainUnusedSlices } from "../model/explain.ts";
import type { NodePortAddresses } from "../model/nodeaddresses.ts";
import { objectName, type SliceObject } from "../model/objects.ts";
import { type Format, formatData } from "../print.ts";
import { defaultNodeName, defaultRouteAddresses } from "../source/host.ts";
import { ManifestSource } from "../source/manifests.ts";
import type { Sink } from "../source/source.ts";
import { formatPlan, type Plan } from "./planview.ts";

export interface PlanOptions {
  flags: Flags;
  config?: string;
  manifests: string;
  output: Format;
}

/** What was read: the model with all objects applied, slices that count or not, and faults. */
interface Objects {
  cluster: Cluster;
  slices: readonly SliceObject[];
  problems: readonly string[];
}

/** Reads the manifests once and prints the plan, problems included. */
export async function plan(options: PlanOptions): Promise<void> {
  const { output } = options;
  const made = await makePlan(options);
  process.stdout.write(
    output === "json" || output === "yaml"
      ? await formatData(made, output)
      : formatPlan(made, { wide: output === "wide" }),
  );
}

/** What a node would serve. Throws UserError for a flag that means nothing. */
export async function makePlan(options: Omit<PlanOptions, "output">): Promise<Plan> {
  const file = options.config === undefined ? undefined : openConfigFile(options.config);
  const { config: settings } = readConfig({ ...options, file });
  const { proxy: config, nodeName: name = defaultNodeName() } = settings;
  const fallbackNodeAddresses = defaultRouteAddresses();
  const cluster = new Cluster({ nodeName: name, fallbackNodeAddresses, config });
  const { slices, problems } = await readOnce(options.manifests, cluster);
  const batch = cluster.takeDirty();
  const { topology, addresses, nodePortAddresses } = cluster.node;
  return {
    node: {
      name,
      isKnown: cluster.nodePorts.fromNode,
      zone: topology.zone,
      primaryAddresses: bothFamilies(addresses.primary),
      nodePortAddresses: bothFamilies(nodePortAddresses),
      pods: describePods(cluster, config),
    },
    serviceRanges: batch.serviceRanges,
    services: explainServices(cluster),
    unserved: explainUnserved(cluster),
    unusedSlices: explainUnusedSlices(slices, { cluster }),
    problems: [...problems, ...batch.problems.map(({ message }) => message)],
  };
}

function bothFamilies({ ipv4, ipv6 }: NodePortAddresses): string[] {
  return [...ipv4, ...ipv6];
}

function describePods({ detector }: Cluster, config: ProxyConfig): Plan["node"]["pods"] {
  const { detectLocalMode, clusterCIDRs, bridgeInterface, interfaceNamePrefix } = config;
  const told = detector.isUsable(4) || detector.isUsable(6);
  switch (detectLocalMode) {
    case "ClusterCIDR":
      if (!told) return { told, by: "--cluster-cidr is not given" };
      return { told, by: clusterCIDRs.map(formatRange).join(", ") };
    case "NodeCIDR":
      return { told, by: `this Node has ${told ? "them in" : "no"} spec.podCIDRs` };
    case "BridgeInterface":
      return { told, by: `device ${bridgeInterface}` };
    case "InterfaceNamePrefix":
      return { told, by: `devices ${interfaceNamePrefix}*` };
  }
}

async function readOnce(manifests: string, cluster: Cluster): Promise<Omit<Objects, "cluster">> {
  const slices = new Map<string, SliceObject>();
  const problems: string[] = [];
  const sink: Sink = {
    apply: (object) => {
      if (object.kind === "EndpointSlice") slices.set(objectName(object), object);
      cluster.apply(object);
    },
    remove: (identity) => {
      if (identity.kind === "EndpointSlice") slices.delete(objectName(identity));
      cluster.remove(identity);
    },
    problem: (message) => problems.push(message),
    resolved: () => {},
    changed: () => {},
    synced: () => {},
  };
  const source = new ManifestSource(manifests);
  try {
    await source.start(sink);
  } finally {
    await source.close();
  }
  return { slices: [...slices.values()], problems };
}
