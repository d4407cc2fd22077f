// What the kernel says of this network namespace (rtnetlink(7)): devices, addresses, routes,
// neighbours. Addresses are 4 or 16 bytes as they come. Decides nothing.
import {
  attributeBytes,
  attributeText,
  eachAttribute,
  type NetlinkMessage,
  type NetlinkSocket,
  netlinkFlag,
  numberAttribute,
} from "./netlink.ts";

/** Message types used here (linux/rtnetlink.h); those with NEW are what dumps consist of. */
export const rtm = {
  NEWLINK: 16,
  DELLINK: 17,
  GETLINK: 18,
  NEWADDR: 20,
  DELADDR: 21,
  GETADDR: 22,
  NEWROUTE: 24,
  DELROUTE: 25,
  GETROUTE: 26,
  NEWNEIGH: 28,
  DELNEIGH: 29,
  GETNEIGH: 30,
  NEWRULE: 32,
  DELRULE: 33,
  NEWQDISC: 36,
  DELQDISC: 37,
  NEWTFILTER: 44,
  DELTFILTER: 45,
  GETTFILTER: 46,
  NEWNEXTHOP: 104,
  DELNEXTHOP: 105,
} as const;

/** Kinds of hardware that have no Ethernet header, or none of our making (linux/if_arp.h). */
export const hardwareType = { ETHER: 1, LOOPBACK: 772 } as const;
/** Flags of a device (linux/if.h). */
export const deviceFlag = { UP: 1, LOOPBACK: 8 } as const;
export const routeType = { UNICAST: 1, LOCAL: 2 } as const;
/** States of a neighbour that it is bound to, and flags (linux/neighbour.h). */
export const neighbourState = {
  INCOMPLETE: 1,
  FAILED: 0x20,
  NOARP: 0x40,
  PERMANENT: 0x80,
} as const;
export const neighbourFlag = { USE: 1, EXTERNALLY_LEARNED: 0x10, ROUTER: 0x80 } as const;
/** XDP_ATTACHED_* of linux/if_link.h */
export const xdpMode = { NONE: 0, NATIVE: 1, GENERIC: 2, HARDWARE: 3, MULTIPLE: 4 } as const;

const AF_INET = 2;
const AF_INET6 = 10;
const RTEXT_FILTER_SKIP_STATS = 8;
const NTF_EXT_MANAGED = 1;

const LINK_BYTES = 16;
const IFLA = {
  ADDRESS: 1,
  IFNAME: 3,
  MTU: 4,
  LINK: 5,
  MASTER: 10,
  LINKINFO: 18,
  EXT_MASK: 29,
  LINK_NETNSID: 37,
  XDP: 43,
  PARENT_DEV_NAME: 56,
} as const;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_XDP_ATTACHED = 2;
const IFLA_XDP_PROG_ID = 4;

const ADDRESS_BYTES = 8;
const IFA = { ADDRESS: 1, LOCAL: 2, FLAGS: 8 } as const;

const ROUTE_BYTES = 12;
const RTA = {
  DST: 1,
  OIF: 4,
  GATEWAY: 5,
  PREFSRC: 7,
  MULTIPATH: 9,
  TABLE: 15,
  VIA: 18,
} as const;
const NEXT_HOP_BYTES = 8;

const NEIGHBOUR_BYTES = 12;
const NDA = { DST: 1, LLADDR: 2, PROTOCOL: 12, FLAGS_EXT: 15 } as const;

export interface Link {
  ifindex: number;
  name: string;
  /** What made it: "veth", "bridge", "vxlan", …; "" for a real network card. */
  kind: string;
  /** What its master is: "bridge", "bond", …; "" without one. */
  portOf: string;
  /** ARPHRD_* */
  hardware: number;
  /** IFF_* */
  flags: number;
  mac: Uint8Array;
  mtu: number;
  /** The ifindex of the device that it is a port of, 0 for none. */
  master: number;
  /** The ifindex of the device below it in this network namespace, 0 for none. */
  lower: number;
  /** Whether it sits on a bus, as a real or an emulated network card does. */
  hasParent: boolean;
  /** Which XDP program runs; the id is 0 if there is none, or more than one. */
  xdp: { mode: number; programId: number };
}

export interface InterfaceAddress {
  ifindex: number;
  family: 4 | 6;
  address: Uint8Array;
  prefixLength: number;
  /** RT_SCOPE_*: 0 is global. */
  scope: number;
  /** IFA_F_* */
  flags: number;
}

export interface NextHop {
  ifindex: number;
  /** Undefined if the destination is on the device's own link. */
  gateway: Uint8Array | undefined;
}

export interface Route {
  family: 4 | 6;
  /** RTN_* */
  type: number;
  table: number;
  /** Undefined for a default route. */
  destination: Uint8Array | undefined;
  prefixLength: number;
  /** The source that it prefers. */
  source: Uint8Array | undefined;
  nextHops: readonly NextHop[];
}

export interface Neighbour {
  ifindex: number;
  family: 4 | 6;
  address: Uint8Array;
  /** Empty while it is not known. */
  mac: Uint8Array;
  /** NUD_* */
  state: number;
  /** NTF_* */
  flags: number;
  /** Whether the kernel keeps probing it whoever uses it (Linux 5.16). */
  isManaged: boolean;
  /** Who made it so, a number of RTPROT_*; 0 unless told. */
  protocol: number;
}

/** Every device. Throws BpfError. */
export function listLinks(socket: NetlinkSocket): Link[] {
  const attributes = [[IFLA.EXT_MASK, numberAttribute(RTEXT_FILTER_SKIP_STATS, 4)]] as const;
  return socket.dump(
    { type: rtm.GETLINK, body: new Uint8Array(LINK_BYTES), attributes },
    decodeLink,
  );
}

/** Every address of every device. Throws BpfError. */
export function listAddresses(socket: NetlinkSocket): InterfaceAddress[] {
  return socket.dump({ type: rtm.GETADDR, body: new Uint8Array(ADDRESS_BYTES) }, decodeAddress);
}

/** Every route of every table. Throws BpfError. */
export function listRoutes(socket: NetlinkSocket): Route[] {
  return socket.dump({ type: rtm.GETROUTE, body: new Uint8Array(ROUTE_BYTES) }, decodeRoute);
}

/** Every neighbour, those of bridges (FDB) left out. Throws BpfError. */
export function listNeighbours(socket: NetlinkSocket): Neighbour[] {
  return socket.dump(
    { type: rtm.GETNEIGH, body: new Uint8Array(NEIGHBOUR_BYTES) },
    decodeNeighbour,
  );
}

/** One neighbour, undefined if the kernel does not have it. Throws BpfError. */
export function findNeighbour(
  socket: NetlinkSocket,
  { ifindex, address }: Pick<Neighbour, "ifindex" | "address">,
): Neighbour | undefined {
  const body = neighbourBody({ ifindex, address });
  const attributes = [[NDA.DST, address]] as const;
  const request = { type: rtm.GETNEIGH, body, attributes };
  try {
    const subject = `neighbour on device ${ifindex}`;
    return socket.get(request, decodeNeighbour, { operation: "find", subject });
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

/**
 * Has the kernel keep a neighbour's MAC up to date from now on, or no longer. What else is known of
 * the neighbour stays. Throws BpfError.
 */
export function manageNeighbour(
  socket: NetlinkSocket,
  neighbour: Pick<Neighbour, "ifindex" | "address" | "flags" | "protocol">,
  { isManaged }: { isManaged: boolean },
): void {
  const { EXTERNALLY_LEARNED, ROUTER, USE } = neighbourFlag;
  const kept = neighbour.flags & (EXTERNALLY_LEARNED | ROUTER);
  // USE alone takes "managed" back and has the kernel find out once more.
  const body = neighbourBody({ ...neighbour, flags: kept | (isManaged ? 0 : USE) });
  const attributes = [
    [NDA.DST, neighbour.address],
    [NDA.PROTOCOL, numberAttribute(neighbour.protocol, 1)],
    ...(isManaged ? [[NDA.FLAGS_EXT, numberAttribute(NTF_EXT_MANAGED, 4)] as const] : []),
  ] as const;
  const flags = netlinkFlag.CREATE | netlinkFlag.REPLACE;
  const subject = `neighbour on device ${neighbour.ifindex}`;
  socket.request(
    { type: rtm.NEWNEIGH, flags, body, attributes },
    { operation: isManaged ? "manage" : "release", subject },
  );
}

function neighbourBody({
  ifindex,
  address,
  flags = 0,
}: {
  ifindex: number;
  address: Uint8Array;
  flags?: number;
}): Uint8Array {
  const view = new DataView(new ArrayBuffer(NEIGHBOUR_BYTES));
  view.setUint8(0, address.length === 4 ? AF_INET : AF_INET6);
  view.setInt32(4, ifindex, true);
  view.setUint8(10, flags);
  return new Uint8Array(view.buffer);
}

/** RTM_NEWLINK and RTM_DELLINK; undefined for what a bridge says of its ports. */
export function decodeLink(message: NetlinkMessage): Link | undefined {
  const { view, at } = message;
  if (view.getUint8(at) !== 0) return undefined;
  const link: Link = {
    hardware: view.getUint16(at + 2, true),
    ifindex: view.getInt32(at + 4, true),
    flags: view.getUint32(at + 8, true),
    name: "",
    kind: "",
    portOf: "",
    mac: new Uint8Array(0),
    mtu: 0,
    master: 0,
    lower: 0,
    hasParent: false,
    xdp: { mode: xdpMode.NONE, programId: 0 },
  };
  let isLowerElsewhere = false;
  eachAttribute(message, at + LINK_BYTES, (type, at, length) => {
    if (type === IFLA.IFNAME) link.name = attributeText(view, at, length);
    else if (type === IFLA.ADDRESS) link.mac = attributeBytes(view, at, length);
    else if (type === IFLA.MTU) link.mtu = view.getUint32(at, true);
    else if (type === IFLA.MASTER) link.master = view.getUint32(at, true);
    else if (type === IFLA.LINK) link.lower = view.getUint32(at, true);
    else if (type === IFLA.LINK_NETNSID) isLowerElsewhere = true;
    else if (type === IFLA.PARENT_DEV_NAME) link.hasParent = true;
    else if (type === IFLA.LINKINFO) readKind(link, { view, at, end: at + length });
    else if (type === IFLA.XDP) readXdp(link, { view, at, end: at + length });
  });
  if (isLowerElsewhere) link.lower = 0;
  return link;
}

type Nested = Omit<NetlinkMessage, "type">;

function readKind(link: Link, nested: Nested): void {
  eachAttribute(nested, nested.at, (type, at, length) => {
    if (type === IFLA_INFO_KIND) link.kind = attributeText(nested.view, at, length);
    if (type === IFLA_INFO_SLAVE_KIND) link.portOf = attributeText(nested.view, at, length);
  });
}

function readXdp({ xdp }: Link, nested: Nested): void {
  eachAttribute(nested, nested.at, (type, at) => {
    if (type === IFLA_XDP_ATTACHED) xdp.mode = nested.view.getUint8(at);
    if (type === IFLA_XDP_PROG_ID) xdp.programId = nested.view.getUint32(at, true);
  });
}

function familyOf(number: number): 4 | 6 | undefined {
  if (number === AF_INET) return 4;
  return number === AF_INET6 ? 6 : undefined;
}

/** RTM_NEWADDR and RTM_DELADDR. */
function decodeAddress(message: NetlinkMessage): InterfaceAddress | undefined {
  const { view, at } = message;
  const family = familyOf(view.getUint8(at));
  if (family === undefined) return undefined;
  let flags = view.getUint8(at + 2);
  let address: Uint8Array | undefined;
  let peer: Uint8Array | undefined;
  eachAttribute(message, at + ADDRESS_BYTES, (type, at, length) => {
    if (type === IFA.LOCAL) address = attributeBytes(view, at, length);
    else if (type === IFA.ADDRESS) peer = attributeBytes(view, at, length);
    else if (type === IFA.FLAGS) flags = view.getUint32(at, true);
  });
  // Only where an address has a peer do the two differ.
  const own = address ?? peer;
  if (own === undefined) return undefined;
  return {
    family,
    flags,
    address: own,
    prefixLength: view.getUint8(at + 1),
    scope: view.getUint8(at + 3),
    ifindex: view.getUint32(at + 4, true),
  };
}

/** RTM_NEWROUTE and RTM_DELROUTE of IPv4 and IPv6. */
function decodeRoute(message: NetlinkMessage): Route | undefined {
  const { view, at } = message;
  const family = familyOf(view.getUint8(at));
  if (family === undefined) return undefined;
  const route = {
    family,
    prefixLength: view.getUint8(at + 1),
    table: view.getUint8(at + 4),
    type: view.getUint8(at + 7),
    destination: undefined as Uint8Array | undefined,
    source: undefined as Uint8Array | undefined,
    nextHops: [] as NextHop[],
  };
  let ifindex = 0;
  let gateway: Uint8Array | undefined;
  eachAttribute(message, at + ROUTE_BYTES, (type, at, length) => {
    if (type === RTA.DST) route.destination = attributeBytes(view, at, length);
    else if (type === RTA.OIF) ifindex = view.getUint32(at, true);
    else if (type === RTA.PREFSRC) route.source = attributeBytes(view, at, length);
    else if (type === RTA.TABLE) route.table = view.getUint32(at, true);
    else if (type === RTA.MULTIPATH) route.nextHops = readNextHops(view, at, at + length);
    else gateway = readGateway(view, { type, at, length }) ?? gateway;
  });
  if (ifindex !== 0) route.nextHops.unshift({ ifindex, gateway });
  return route;
}

/** RTA_GATEWAY; or RTA_VIA, a gateway of another family, which begins with that family. */
function readGateway(
  view: DataView,
  { type, at, length }: { type: number; at: number; length: number },
): Uint8Array | undefined {
  if (type === RTA.GATEWAY) return attributeBytes(view, at, length);
  return type === RTA.VIA ? attributeBytes(view, at + 2, length - 2) : undefined;
}

function readNextHops(view: DataView, at: number, end: number): NextHop[] {
  const hops: NextHop[] = [];
  while (at + NEXT_HOP_BYTES <= end) {
    const length = view.getUint16(at, true);
    if (length < NEXT_HOP_BYTES) break;
    const hop: NextHop = { ifindex: view.getInt32(at + 4, true), gateway: undefined };
    eachAttribute({ view, end: at + length }, at + NEXT_HOP_BYTES, (type, at, length) => {
      hop.gateway = readGateway(view, { type, at, length }) ?? hop.gateway;
    });
    hops.push(hop);
    at += (length + 3) & ~3;
  }
  return hops;
}

/** RTM_NEWNEIGH and RTM_DELNEIGH of IPv4 and IPv6. */
export function decodeNeighbour(message: NetlinkMessage): Neighbour | undefined {
  const { view, at } = message;
  const family = familyOf(view.getUint8(at));
  if (family === undefined) return undefined;
  const neighbour: Neighbour = {
    family,
    ifindex: view.getInt32(at + 4, true),
    state: view.getUint16(at + 8, true),
    flags: view.getUint8(at + 10),
    address: new Uint8Array(0),
    mac: new Uint8Array(0),
    isManaged: false,
    protocol: 0,
  };
  eachAttribute(message, at + NEIGHBOUR_BYTES, (type, at, length) => {
    if (type === NDA.DST) neighbour.address = attributeBytes(view, at, length);
    else if (type === NDA.LLADDR) neighbour.mac = attributeBytes(view, at, length);
    else if (type === NDA.PROTOCOL) neighbour.protocol = view.getUint8(at);
    else if (type === NDA.FLAGS_EXT)
      neighbour.isManaged = (view.getUint32(at, true) & NTF_EXT_MANAGED) !== 0;
  });
  return neighbour;
}
