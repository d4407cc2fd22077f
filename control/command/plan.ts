// `bpfsvc plan`: what would be programmed for a node from a set of manifests. Needs no kernel and
// no root; decides nothing itself.
import { Cluster } from "../model/cluster.ts";
import { compareServices, type ServiceRow, type TableRow } from "../model/rows.ts";
import { type Format, formatData } from "../print.ts";
import { defaultNodeName, defaultRouteAddresses } from "../source/host.ts";
import { ManifestSource } from "../source/manifests.ts";
import type { Sink } from "../source/source.ts";
import { formatServices, type ServiceView } from "./view.ts";

export interface PlanOptions {
  manifests: string;
  node?: string;
  output: Format;
}

/** Reads the manifests once and prints the rows; problems go to standard error. */
export async function plan(options: PlanOptions): Promise<void> {
  const nodeName = options.node ?? defaultNodeName();
  const cluster = new Cluster({ nodeName, fallbackNodeAddresses: defaultRouteAddresses() });
  const warn = (message: string) => process.stderr.write(`Warning: ${message}\n`);
  await readOnce(options.manifests, cluster, warn);
  const { changed, problems } = cluster.takeDirty();
  for (const { message } of problems) warn(message);
  const services = changed.sort(compareServices).map(viewOf);
  const { output } = options;
  process.stdout.write(
    output === "json" || output === "yaml"
      ? formatData({ node: nodeName, services }, output)
      : formatServices(services, { wide: output === "wide", counters: false }),
  );
}

async function readOnce(
  manifests: string,
  cluster: Cluster,
  warn: (message: string) => void,
): Promise<void> {
  const source = new ManifestSource(manifests);
  const sink: Sink = {
    apply: (object) => cluster.apply(object),
    remove: (identity) => cluster.remove(identity),
    problem: warn,
    resolved: () => {},
    changed: () => {},
    synced: () => {},
  };
  try {
    await source.start(sink);
  } finally {
    await source.close();
  }
}

/** A planned row in the form of a dump, as far as it is decided without a kernel. */
function viewOf(row: ServiceRow) {
  const { key: _, backends, internal, inside, outside, frontends, ...rest } = row;
  const named = { internal, inside, outside };
  const tables = Object.entries(named) as [keyof typeof named, TableRow][];
  return {
    ...rest,
    frontends,
    endpoints: backends.map((backend, index) => ({
      ...backend,
      tables: tables.filter(([, table]) => table.members.includes(index)).map(([name]) => name),
    })),
    tables: {
      internal: tableView(internal),
      inside: tableView(inside),
      outside: tableView(outside),
    },
  } satisfies ServiceView;
}

function tableView({ kind, members, whenEmpty }: TableRow) {
  return { kind, members: members.length, whenEmpty };
}
