// Which connections somebody asks for, told from the bytes of a flow before anything is made of
// it: a table of millions is mostly left alone. Pure.
import { flow as layout } from "../../bindings/layout.ts";
import type { PlaceFilter } from "../model/place.ts";
import type { Protocol } from "../model/rows.ts";

/** What a connection must be like to be shown; what is not given does not matter. */
export interface FlowFilter {
  protocol?: Protocol | undefined;
  client?: PlaceFilter | undefined;
  frontend?: PlaceFilter | undefined;
  /** The place that the connection leads to. */
  endpoint?: PlaceFilter | undefined;
}

/** Whether the flow whose bytes begin at `at` is between such places. */
export function matchesFlow(view: DataView, at: number, filter: FlowFilter): boolean {
  const { offset } = layout;
  const { client, frontend, endpoint } = filter;
  const is = (place: PlaceFilter | undefined, address: number, port: number) =>
    place === undefined || matchesPlace(view, place, { address: at + address, port: at + port });
  return (
    is(client, offset.client, offset.clientPort) &&
    is(frontend, offset.frontend, offset.frontendPort) &&
    is(endpoint, offset.backend, offset.backendPort)
  );
}

/** The same of one place, whose address and port are at these offsets. */
function matchesPlace(
  view: DataView,
  { range, port }: PlaceFilter,
  at: { address: number; port: number },
): boolean {
  if (port !== undefined && view.getUint16(at.port) !== port) return false;
  if (range === undefined) return true;
  const { address, mask } = range;
  for (let index = 0; index < address.length; index++)
    if ((view.getUint8(at.address + index) & mask[index]!) !== address[index]) return false;
  return true;
}
