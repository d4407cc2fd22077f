// `bpfsvc dump flows`: the connections that pass through the node, agent or no agent. What is there
// comes from dataplane/flows.ts; this knows how it looks.
import type { DumpFilter, DumpReader } from "../dataplane/dump.ts";
import type { FlowFilter } from "../dataplane/flowfilter.ts";
import { type Flow, Flows } from "../dataplane/flows.ts";
import { openProgrammed } from "../dataplane/kernel.ts";
import { Pins } from "../dataplane/pins.ts";
import { type Format, formatData, formatEndpoint, formatTable } from "../print.ts";
import { nothingPinned, openedInForce, openReader } from "./dump.ts";
import { printWatched, type WatchOptions } from "./watching.ts";

/** With `name` or `namespace`: only what was sent to frontends that such Services have now. */
export interface DumpFlowsOptions extends WatchOptions, DumpFilter, FlowFilter {
  pins: string;
}

/** Prints the connections as they are now. Throws UserError if nothing is pinned. */
export async function dumpFlows(options: DumpFlowsOptions): Promise<void> {
  const pins = new Pins(options.pins);
  const current = openedInForce(pins, openFlows);
  const services = openedInForce(pins, openReader);
  const isOfServices = options.name !== undefined || options.namespace !== undefined;
  await printWatched(options, async () => {
    const asked = isOfServices ? await frontendsOf(services(), options) : undefined;
    const flows = [...current().list(options)];
    const shown = flows.filter((flow) => asked?.has(frontendOf(flow)) ?? true);
    return formatFlows(shown.sort(compare), options.output, { isFiltered: isFiltered(options) });
  });
}

function openFlows(pins: Pins): Flows {
  const maps = openProgrammed(pins)?.maps;
  if (!maps) throw nothingPinned(pins);
  const readOnly = { readOnly: true };
  return new Flows({ flows: maps.svc_flows.mmap(readOnly), node: maps.svc_node.mmap(readOnly) });
}

function isFiltered({ name, namespace, protocol, ...places }: DumpFlowsOptions): boolean {
  const { client, frontend, endpoint } = places;
  return [name, namespace, protocol, client, frontend, endpoint].some((each) => each !== undefined);
}

/** The frontends of the Services that are asked for, as texts. */
async function frontendsOf(
  reader: DumpReader,
  { name, namespace }: DumpFilter,
): Promise<ReadonlySet<string>> {
  const { services } = await reader.read({ name, namespace });
  return new Set(
    services.flatMap(({ protocol, frontends }) =>
      frontends.map((frontend) => `${protocol} ${formatEndpoint(frontend)}`),
    ),
  );
}

function frontendOf({ protocol, frontend }: Flow): string {
  return `${protocol} ${formatEndpoint(frontend)}`;
}

/** Connections as text in one of the formats. The JSON form is documented in docs/operating.md. */
export async function formatFlows(
  flows: readonly Flow[],
  format: Format,
  { isFiltered = false } = {},
): Promise<string> {
  if (format === "json" || format === "yaml") return formatData({ flows }, format);
  if (flows.length === 0)
    return `No ${isFiltered ? "such " : ""}connections pass through this node.\n`;
  const header = ["PROTOCOL", "CLIENT", "FRONTEND", "SEEN AS", "ENDPOINT", "PATH", "STATE", "IDLE"];
  return formatTable(header, flows.map(cellsOf));
}

function cellsOf({ protocol, client, frontend, source, backend, ...rest }: Flow): string[] {
  const places = [client, frontend, source, backend].map(formatEndpoint);
  if (places[2] === places[0]) places[2] = "-";
  return [protocol, ...places, rest.path, rest.state, `${rest.idleSeconds}s`];
}

/** By frontend, then by client: who asks for what stands together. */
function compare(left: Flow, right: Flow): number {
  return textOf(left) < textOf(right) ? -1 : 1;
}

function textOf(flow: Flow): string {
  return `${frontendOf(flow)} ${formatEndpoint(flow.client)}`;
}
