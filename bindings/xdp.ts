// What a device's driver can do for XDP: as the kernel says since Linux 6.3, before that by the
// driver's name. Knows no program.
import { closeSync } from "node:fs";
import { BpfError } from "./errors.ts";
import { addressOf, lastErrno, loadLibc } from "./libbpf.ts";
import type { DeviceTarget } from "./link.ts";
import {
  eachAttribute,
  type NetlinkMessage,
  NetlinkSocket,
  netlinkProtocol,
  numberAttribute,
} from "./netlink.ts";

const GENERIC_HEADER_BYTES = 4;
const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const NETDEV_CMD_DEV_GET = 1;
const NETDEV_A_DEV_IFINDEX = 1;
const NETDEV_A_DEV_XDP_FEATURES = 3;
const NETDEV_XDP_ACT_NDO_XMIT = 4n;

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
const SIOCETHTOOL = 0x8946;
const ETHTOOL_GDRVINFO = 3;
const NAME_BYTES = 16;
const REQUEST_BYTES = 40;
const DRIVER_INFO_BYTES = 196;
const DRIVER_AT = 4;
const DRIVER_BYTES = 32;

/**
 * Drivers with ndo_xdp_xmit in Linux 6.1, which cannot be asked. Of a veth whoever wants XDP there
 * has to know that its peer takes frames.
 */
const SENDING_DRIVERS: ReadonlySet<string> = new Set([
  "bnxt_en",
  "ena",
  "hv_netvsc",
  "i40e",
  "ice",
  "igb",
  "igc",
  "ixgbe",
  "mlx5_core",
  "mvneta",
  "mvpp2",
  "qede",
  "sfc",
  "veth",
  "virtio_net",
]);

/**
 * Whether frames that XDP redirects to a device are sent: its driver can, and, where the kernel
 * tells, what it needs for that is in place (a veth's peer with NAPI, say). False if it is gone.
 */
export function canSendFrames(device: DeviceTarget): boolean {
  const features = xdpFeatures(device);
  if (features !== undefined) return (features & NETDEV_XDP_ACT_NDO_XMIT) !== 0n;
  return SENDING_DRIVERS.has(driverName(device.name));
}

/** NETDEV_XDP_ACT_*; undefined before Linux 6.3 and for a device that is gone. */
function xdpFeatures({ ifindex, name }: DeviceTarget): bigint | undefined {
  const socket = new NetlinkSocket(netlinkProtocol.GENERIC);
  try {
    const family = find(socket, {
      type: GENL_ID_CTRL,
      body: Uint8Array.of(CTRL_CMD_GETFAMILY, 1, 0, 0),
      attribute: [CTRL_ATTR_FAMILY_NAME, new TextEncoder().encode("netdev\0")],
      wanted: CTRL_ATTR_FAMILY_ID,
      subject: "netdev",
    });
    if (family === undefined) return undefined;
    return find(socket, {
      type: Number(family),
      body: Uint8Array.of(NETDEV_CMD_DEV_GET, 1, 0, 0),
      attribute: [NETDEV_A_DEV_IFINDEX, numberAttribute(ifindex, 4)],
      wanted: NETDEV_A_DEV_XDP_FEATURES,
      subject: name,
    });
  } finally {
    socket.close();
  }
}

/** The number in one attribute of an answer; undefined if there is no such thing. */
function find(
  socket: NetlinkSocket,
  question: {
    type: number;
    body: Uint8Array;
    attribute: readonly [number, Uint8Array];
    wanted: number;
    subject: string;
  },
): bigint | undefined {
  const { type, body, attribute, wanted, subject } = question;
  const decode = (message: NetlinkMessage) => {
    let value: bigint | undefined;
    eachAttribute(message, message.at + GENERIC_HEADER_BYTES, (type, at, length) => {
      if (type !== wanted) return;
      const { view } = message;
      value = length === 8 ? view.getBigUint64(at, true) : BigInt(view.getUint16(at, true));
    });
    return value;
  };
  try {
    const request = { type, body, attributes: [attribute] };
    return socket.get(request, decode, { operation: "ask about", subject });
  } catch (error) {
    const { code } = error as { code?: unknown };
    if (code === "ENOENT" || code === "ENODEV") return undefined;
    throw error;
  }
}

/** What ethtool calls a device's driver; "" if the device is gone or does not tell. */
function driverName(name: string): string {
  const { socket, ioctl } = loadLibc();
  const fd = socket(AF_INET, SOCK_DGRAM_CLOEXEC, 0);
  if (fd < 0) throw new BpfError({ operation: "ask about", subject: name, code: lastErrno() });
  try {
    const info = new Uint8Array(DRIVER_INFO_BYTES);
    new DataView(info.buffer).setUint32(0, ETHTOOL_GDRVINFO, true);
    const request = new DataView(new ArrayBuffer(REQUEST_BYTES));
    new Uint8Array(request.buffer).set(new TextEncoder().encode(name).subarray(0, NAME_BYTES - 1));
    request.setBigUint64(NAME_BYTES, addressOf(info), true);
    if (ioctl(fd, SIOCETHTOOL, new Uint8Array(request.buffer)) !== 0) return "";
    const driver = info.subarray(DRIVER_AT, DRIVER_AT + DRIVER_BYTES);
    return new TextDecoder().decode(driver.subarray(0, driver.indexOf(0)));
  } finally {
    closeSync(fd);
  }
}
