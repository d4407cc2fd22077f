// What this network namespace looks like, read over netlink: only what decides about devices.
// Addresses are canonical text here. Decides nothing.
import type { NetlinkSocket } from "../../../bindings/netlink.ts";
import {
  type Link,
  listAddresses,
  listLinks,
  listRoutes,
  routeType,
} from "../../../bindings/rtnetlink.ts";
import { formatAddress } from "../../model/address.ts";
import type { Family } from "../../model/rows.ts";
import { bytesToText } from "../table.ts";

/** An address that this node has. */
export interface OwnAddress {
  ifindex: number;
  family: Family;
  address: string;
  /** Whether others may see it: global, and neither tentative, deprecated nor temporary. */
  isUsable: boolean;
}

/** One next hop of one unicast route of any table. */
export interface DeviceRoute {
  ifindex: number;
  family: Family;
  isDefault: boolean;
  /** Undefined if whoever is asked for is on the device's own link. */
  gateway: string | undefined;
  /** The source that the route prefers. */
  source: string | undefined;
}

export interface NetworkState {
  links: readonly Link[];
  addresses: readonly OwnAddress[];
  routes: readonly DeviceRoute[];
}

const IFA_F_TEMPORARY = 0x01;
const IFA_F_DADFAILED = 0x08;
const IFA_F_DEPRECATED = 0x20;
const IFA_F_TENTATIVE = 0x40;
const SCOPE_GLOBAL = 0;

/** Looks at everything. Throws BpfError. */
export function readNetwork(socket: NetlinkSocket): NetworkState {
  const textOf = rememberText();
  const addresses = listAddresses(socket).map(({ ifindex, family, address, scope, flags }) => {
    const unusable = IFA_F_DADFAILED | IFA_F_DEPRECATED | IFA_F_TENTATIVE;
    // The same bit says of an IPv4 address that it is not the first of its subnet.
    const wrong = family === 6 ? unusable | IFA_F_TEMPORARY : unusable;
    const isUsable = scope === SCOPE_GLOBAL && (flags & wrong) === 0 && !isLinkLocal(address);
    return { ifindex, family, address: textOf(address), isUsable };
  });
  const routes: DeviceRoute[] = [];
  for (const { type, family, destination, prefixLength, source, nextHops } of listRoutes(socket)) {
    // Every device that is up has a route to link-local addresses.
    if (type !== routeType.UNICAST || isLinkLocal(destination)) continue;
    for (const { ifindex, gateway } of nextHops)
      routes.push({
        ifindex,
        family,
        isDefault: prefixLength === 0,
        gateway: gateway && textOf(gateway),
        source: source && textOf(source),
      });
  }
  return { links: listLinks(socket), addresses, routes };
}

/** fe80::/10 and 169.254.0.0/16 */
function isLinkLocal(address: Uint8Array | undefined): boolean {
  const [first = 0, second = 0] = address ?? [];
  if (address?.length === 4) return first === 169 && second === 254;
  return first === 0xfe && (second & 0xc0) === 0x80;
}

/** The 16 bytes of an address of 4 or 16 bytes. */
export function mappedBytes(address: Uint8Array): Uint8Array {
  if (address.length === 16) return address;
  const bytes = new Uint8Array(16);
  bytes.fill(0xff, 10, 12);
  bytes.set(address, 12);
  return bytes;
}

/** Addresses as canonical text. Thousands of routes have a handful of gateways. */
function rememberText(): (address: Uint8Array) => string {
  const texts = new Map<string, string>();
  return (address) => {
    const key = bytesToText(address);
    const known = texts.get(key);
    if (known !== undefined) return known;
    const text = formatAddress(mappedBytes(address));
    texts.set(key, text);
    return text;
  };
}
