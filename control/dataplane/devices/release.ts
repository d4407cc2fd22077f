// What an agent leaves on the devices of this network namespace beside pinned links: filters before
// Linux 6.6, and managed neighbours. Takes it back; decides nothing.
import { NetlinkSocket, netlinkProtocol } from "../../../bindings/netlink.ts";
import { listLinks } from "../../../bindings/rtnetlink.ts";
import type { Pins } from "../pins.ts";
import { removeFilters } from "./hooks.ts";
import { ManagedNeighbours } from "./neighbours.ts";

/** Returns how many devices had filters of this folder, and what could not be taken back. */
export function releaseDevices(pins: Pins): { filters: number; problems: string[] } {
  const problems: string[] = [];
  let filters = 0;
  const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
  try {
    for (const device of listLinks(socket))
      try {
        if (removeFilters(pins, device)) filters++;
      } catch (error) {
        problems.push((error as Error).message);
      }
    ManagedNeighbours.releaseAll(socket);
  } catch (error) {
    problems.push((error as Error).message);
  } finally {
    socket.close();
  }
  return { filters, problems };
}
