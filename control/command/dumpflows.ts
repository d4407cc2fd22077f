// `bpfsvc dump flows`: the connections that pass through the node, agent or no agent. What is there
// comes from dataplane/flows.ts; this knows how it looks.
import { type Flow, Flows } from "../dataplane/flows.ts";
import { openPinned } from "../dataplane/kernel.ts";
import { Pins } from "../dataplane/pins.ts";
import { type Format, formatData, formatEndpoint, formatTable } from "../print.ts";
import { nothingPinned, openedInForce } from "./dump.ts";
import { printWatched, type WatchOptions } from "./watching.ts";

export interface DumpFlowsOptions extends WatchOptions {
  pins: string;
}

/** Prints the connections as they are now. Throws UserError if nothing is pinned. */
export async function dumpFlows(options: DumpFlowsOptions): Promise<void> {
  const pins = new Pins(options.pins);
  const current = openedInForce(pins, openFlows);
  await printWatched(options, () =>
    formatFlows([...current().list()].sort(compare), options.output),
  );
}

function openFlows(pins: Pins): Flows {
  const maps = openPinned(pins);
  if (!maps) throw nothingPinned(pins);
  const readOnly = { readOnly: true };
  return new Flows({ flows: maps.svc_flows.mmap(readOnly), node: maps.svc_node.mmap(readOnly) });
}

/** Connections as text in one of the formats. The JSON form is documented in docs/operating.md. */
export async function formatFlows(flows: readonly Flow[], format: Format): Promise<string> {
  if (format === "json" || format === "yaml") return formatData({ flows }, format);
  if (flows.length === 0) return "No connections pass through this node.\n";
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

function textOf({ protocol, frontend, client }: Flow): string {
  return [protocol, formatEndpoint(frontend), formatEndpoint(client)].join(" ");
}
