// Whom frames go to: a reference to a next hop has few bits of its generation, so that one that has
// rested for long may mean another row by now. Rows are made to be others' here, with the
// generation that they had.
import test from "ava";
import { backend, hop, limit } from "../../bindings/layout.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Bed, FLOW_UNIT_SECONDS, formatMac } from "./bed.ts";
import { MACS } from "./places.ts";
import { makeServices, PORT } from "./services.ts";
import { tcp, wordsOf } from "./words.ts";

const labTest = needsLab(test.serial);
const STRANGER = [2, 0, 0, 0, 0, 0x66];
const CLIENT_PORT = 2000;
/** So long, in units of the flows' clock, a reference is believed. */
const TRUST = 2 ** (16 - limit.HOP_BITS);

let bed: Bed;

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  bed = await Bed.open();
  bed.program(makeServices());
});

test.after.always(async () => {
  await bed?.close();
});

/** Where XDP sends a request from this port. */
async function sendFrom(port: number, flags: "S" | "A"): Promise<string> {
  const { at, ip } = wordsOf(4);
  const frame = await bed.frame(`${ip(at.client, at.vip)}/${tcp(port, PORT, flags)}`);
  const run = bed.run(frame, { hook: "xdp" });
  return run.verdict === "sent" ? formatMac(run.frame.subarray(0, 6)) : run.verdict;
}

function changeRows(change: (view: DataView, at: number, now: number) => void): void {
  bed.maps.svc_hops.withMemory((memory) => {
    const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    const now = Number(process.hrtime.bigint() >> BigInt(limit.FLOW_CLOCK_SHIFT));
    for (let at = 0; at < memory.byteLength; at += hop.bytes) change(view, at, now);
  });
}

/** Every row leads to the stranger, and somebody has just found that right. */
function misleadRows(): void {
  changeRows((view, at, now) => {
    if (view.getUint32(at + hop.offset.ifindex, true) === 0) return;
    for (const [index, byte] of STRANGER.entries())
      view.setUint8(at + hop.offset.header + index, byte);
    view.setUint32(at + hop.offset.checked, now, true);
  });
}

/** Every row is another next hop's, and was last in use so many units ago. */
function crowdRows(rest: number): void {
  changeRows((view, at, now) => {
    view.setUint32(at + hop.offset.ifindex, 999, true);
    view.setUint32(at + hop.offset.checked, now - rest, true);
  });
}

/** Backends have last been led to so many units ago. */
function restBackends(units: number): void {
  bed.maps.svc_backends.withMemory((memory) => {
    const view = new DataView(memory.buffer, memory.byteOffset, memory.byteLength);
    for (let at = backend.offset.hopUsed; at < memory.byteLength; at += backend.bytes)
      view.setUint16(at, view.getUint16(at, true) - units, true);
  });
}

/**
 * Where requests go when rows were misled before. Of some turns, since the clock may go on within
 * one, and then the kernel is asked.
 */
async function sendMisled(rest: number, begins: boolean): Promise<Set<string>> {
  const seen = new Set<string>();
  for (let turn = 0; turn < 5; turn++) {
    bed.forget();
    await sendFrom(CLIENT_PORT, "S");
    bed.age(rest * FLOW_UNIT_SECONDS);
    restBackends(rest);
    misleadRows();
    seen.add(await sendFrom(CLIENT_PORT + (begins ? 1 : 0), begins ? "S" : "A"));
  }
  return seen;
}

for (const [title, begins] of [
  ["a connection", false],
  ["an endpoint", true],
] as const)
  labTest(`${title} that has rested for long asks anew where its packets go`, async (t) => {
    t.true((await sendMisled(0, begins)).has(formatMac(Uint8Array.from(STRANGER))));
    t.deepEqual(await sendMisled(TRUST + 1, begins), new Set([MACS.nodeB]));
  });

labTest("a row in use is not given to another next hop, one at rest is", async (t) => {
  bed.forget();
  crowdRows(0);
  t.is(await sendFrom(CLIENT_PORT, "S"), "next", "to TC, which asks the kernel each time");
  crowdRows(3);
  t.is(await sendFrom(CLIENT_PORT + 1, "S"), MACS.nodeB);
});
