// Addresses of the packet tests' bed, by family: those of the lab's routed network, and some that
// nobody has. Knows nothing of packets.
import { limit } from "../../bindings/layout.ts";
import { addressBytes, addressHash } from "../../control/dataplane/maps.ts";
import { formatAddress } from "../../control/model/address.ts";

export const PLACES = {
  4: {
    client: "203.0.113.10",
    other: "203.0.113.77",
    router: "192.168.50.1",
    node: "192.168.50.2",
    nodeB: "192.168.50.3",
    local: "10.244.1.2",
    remote: "10.244.2.2",
    second: "10.244.2.3",
    clusterIP: "10.96.0.80",
    vip: "198.51.100.80",
    vipLocal: "198.51.100.81",
    externalIP: "192.0.2.80",
    unowned: "10.96.7.7",
    stranger: "192.0.2.200",
    loopback: "127.0.0.1",
    multicast: "224.0.0.9",
  },
  6: {
    client: "2001:db8:ffff::10",
    other: "2001:db8:ffff::77",
    router: "2001:db8:50::1",
    node: "2001:db8:50::2",
    nodeB: "2001:db8:50::3",
    local: "fd00:10:244:1::2",
    remote: "fd00:10:244:2::2",
    second: "fd00:10:244:2::3",
    clusterIP: "fd00:10:96::80",
    vip: "2001:db8:51::80",
    vipLocal: "2001:db8:51::81",
    externalIP: "2001:db8:192::80",
    unowned: "fd00:10:96::7707",
    stranger: "2001:db8:52::200",
    loopback: "::1",
    multicast: "ff05::9",
  },
} as const;
export type Family = keyof typeof PLACES;
export const FAMILIES = [4, 6] as const;

/** MAC addresses of the bed's neighbours, and one that is nobody's. */
export const MACS = {
  router: "02:00:00:00:00:01",
  nodeB: "02:00:00:00:00:02",
  somebody: "02:00:00:00:00:99",
} as const;

/** An address that nobody has, and that svc_filter takes for another. */
export function filterTwin(address: string): string {
  const positions = limit.FILTER_WORDS * limit.FILTER_POSITIONS;
  const wanted = addressBytes(address);
  const position = addressHash(wanted) % positions;
  const bytes = Uint8Array.from(wanted);
  for (let number = 0; number < 2 ** 24; number++) {
    bytes.set([number >> 16, number >> 8, number], 13);
    if (addressHash(bytes) % positions === position && Buffer.compare(bytes, wanted) !== 0)
      return formatAddress(bytes);
  }
  throw new Error(`the filter takes no address for ${address}`);
}
