// Programs on a device before Linux 6.6, which has no TCX: as filters (cls_bpf) of a qdisc that is
// for nothing else (clsact). Several may be on a device; one is told from others by its handle.
import { BpfError } from "./errors.ts";
import { loadLibbpf, takeWarnings } from "./libbpf.ts";
import type { Attachable, DeviceTarget } from "./link.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import { rtm } from "./rtnetlink.ts";

/** Where a filter runs (BPF_TC_INGRESS, BPF_TC_EGRESS). */
export const filterPoint = { INGRESS: 1, EGRESS: 2 } as const;

const HOOK_BYTES = 24;
const OPTIONS_BYTES = 32;
const FD_AT = 8;
const FLAGS_AT = 12;
const PROGRAM_ID_AT = 16;
const HANDLE_AT = 20;
const PRIORITY_AT = 24;
const BPF_TC_F_REPLACE = 1;
const EEXIST = -17;
const ABSENT: ReadonlySet<number> = new Set([-2, -19, -22]);
const TC_MESSAGE_BYTES = 20;
/** The handles of clsact's two sides (TC_H_CLSACT with TC_H_MIN_INGRESS, TC_H_MIN_EGRESS). */
const PARENTS: Readonly<Record<number, number>> = {
  [filterPoint.INGRESS]: 0xfffffff2,
  [filterPoint.EGRESS]: 0xfffffff3,
};

/** One place for one filter. */
export interface FilterPlace {
  device: DeviceTarget;
  /** One of filterPoint. */
  point: number;
  handle: number;
  /** Lower ones run first; 1 to 65535. */
  priority: number;
}

/**
 * Puts a program in a place, instead of what is there, without a gap; others of the device stay.
 * Throws BpfError naming program and device.
 */
export function attachFilter(program: Attachable, place: FilterPlace): void {
  const bpf = loadLibbpf();
  const subject = `${program.name} to ${place.device.name}`;
  const hook = hookOf(place);
  takeWarnings();
  const created = bpf.tcHookCreate(hook);
  if (created !== 0 && created !== EEXIST)
    throw new BpfError({ operation: "attach", subject, code: created, reason: said() });
  const options = optionsOf(place);
  options.setInt32(FD_AT, program.fd, true);
  options.setUint32(FLAGS_AT, BPF_TC_F_REPLACE, true);
  const code = bpf.tcAttach(hook, bytesOf(options));
  if (code !== 0) throw new BpfError({ operation: "attach", subject, code, reason: said() });
}

/** The id of the program in a place, undefined if there is none. Throws BpfError. */
export function findFilter(place: FilterPlace): number | undefined {
  const options = optionsOf(place);
  takeWarnings();
  const code = loadLibbpf().tcQuery(hookOf(place), bytesOf(options));
  takeWarnings();
  if (code === 0) return options.getUint32(PROGRAM_ID_AT, true);
  if (ABSENT.has(code)) return undefined;
  throw new BpfError({ operation: "read filters of", subject: place.device.name, code });
}

/** Empties a place; false if it was. Throws BpfError. */
export function detachFilter(place: FilterPlace): boolean {
  takeWarnings();
  const code = loadLibbpf().tcDetach(hookOf(place), bytesOf(optionsOf(place)));
  takeWarnings();
  if (code !== 0 && !ABSENT.has(code))
    throw new BpfError({ operation: "remove a filter of", subject: place.device.name, code });
  return code === 0;
}

/** Removes the qdisc of a device's filters if none is left on either side. Throws BpfError. */
export function removeEmptyQdisc(device: DeviceTarget): void {
  const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
  try {
    for (const parent of Object.values(PARENTS)) {
      const body = new DataView(new ArrayBuffer(TC_MESSAGE_BYTES));
      body.setInt32(4, device.ifindex, true);
      body.setUint32(12, parent, true);
      const request = { type: rtm.GETTFILTER, body: new Uint8Array(body.buffer) };
      if (socket.dump(request, () => true).length > 0) return;
    }
  } finally {
    socket.close();
  }
  const both = filterPoint.INGRESS | filterPoint.EGRESS;
  const code = loadLibbpf().tcHookDestroy(hookOf({ device, point: both }));
  if (code !== 0 && !ABSENT.has(code))
    throw new BpfError({ operation: "remove the qdisc of", subject: device.name, code });
}

/** struct bpf_tc_hook */
function hookOf({ device, point }: Pick<FilterPlace, "device" | "point">): Uint8Array {
  const hook = new DataView(new ArrayBuffer(HOOK_BYTES));
  hook.setBigUint64(0, BigInt(HOOK_BYTES), true);
  hook.setInt32(8, device.ifindex, true);
  hook.setUint32(12, point, true);
  return bytesOf(hook);
}

/** struct bpf_tc_opts */
function optionsOf({ handle, priority }: FilterPlace): DataView {
  const options = new DataView(new ArrayBuffer(OPTIONS_BYTES));
  options.setBigUint64(0, BigInt(OPTIONS_BYTES), true);
  options.setUint32(HANDLE_AT, handle, true);
  options.setUint32(PRIORITY_AT, priority, true);
  return options;
}

function bytesOf(view: DataView): Uint8Array {
  return new Uint8Array(view.buffer);
}

/** What libbpf had to say, which holds the kernel's own words. */
function said(): string | undefined {
  return takeWarnings().join("; ") || undefined;
}
