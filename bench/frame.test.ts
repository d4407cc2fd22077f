import test from "ava";
import { internetChecksum, makeFrame, offsetsOf } from "./frame.ts";

const fields = {
  destinationMac: "02:00:00:00:00:02",
  sourceMac: "02:00:00:00:00:01",
  source: "203.0.113.10",
  destination: "192.168.50.2",
  sourcePort: 40_000,
  destinationPort: 30_080,
} as const;

test("the checksum of RFC 1071's example", (t) => {
  const bytes = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  t.is(internetChecksum(bytes), ~0xddf2 & 0xffff);
});

for (const protocol of ["TCP", "UDP"] as const)
  test(`a header with its checksum sums up to nothing, and so does ${protocol}'s`, (t) => {
    const frame = makeFrame({ ...fields, protocol });
    t.is(frame.length, 64);
    t.is(internetChecksum(frame.subarray(14, 34)), 0);
    const pseudo = [...frame.subarray(26, 34), 0, frame[23]!, 0, 30];
    t.is(internetChecksum(Uint8Array.from([...pseudo, ...frame.subarray(34)])), 0);
    const view = new DataView(frame.buffer);
    view.setUint16(offsetsOf({ ...fields, protocol }).transportChecksum, 0);
    t.is(internetChecksum(Uint8Array.from([...pseudo, ...frame.subarray(34)])) > 0, true);
  });

test("fields lie where programs look for them", (t) => {
  const frame = makeFrame({ ...fields, protocol: "UDP" });
  const view = new DataView(frame.buffer);
  t.deepEqual([...frame.subarray(0, 6)], [2, 0, 0, 0, 0, 2]);
  t.is(view.getUint16(12), 0x0800);
  t.is(frame[23], 17);
  t.is(view.getUint16(16), 50);
  t.is(view.getUint16(34), 40_000);
  t.is(view.getUint16(36), 30_080);
  t.is(view.getUint16(38), 30);
});

test("a packet of IPv6 sums up to nothing, and its words are the ends of its addresses", (t) => {
  const wide = { ...fields, source: "2001:db8::a:b", destination: "fd00::c:d", protocol: "TCP" };
  const frame = makeFrame({ ...wide, protocol: "TCP" });
  t.is(frame.length, 80);
  const pseudo = [...frame.subarray(22, 54), 0, 6, 0, 26];
  t.is(internetChecksum(Uint8Array.from([...pseudo, ...frame.subarray(54)])), 0);
  const view = new DataView(frame.buffer);
  const offsets = offsetsOf({ ...wide, protocol: "TCP" });
  t.is(view.getUint32(offsets.sourceWord), 0x000a000b);
  t.is(view.getUint32(offsets.destinationWord), 0x000c000d);
  t.is(view.getUint16(offsets.port), 40_000);
  t.is(offsets.networkChecksum, 0);
});

test("the first fragment says that more follow, the last one has no ports", (t) => {
  const [first, last] = (["first", "last"] as const).map(
    (fragment) => new DataView(makeFrame({ ...fields, protocol: "UDP", fragment }).buffer),
  );
  t.is(first!.getUint16(20), 0x2000);
  t.is(last!.getUint16(20), 0x0010);
  t.is(first!.getUint16(18), last!.getUint16(18));
  t.is(first!.getUint16(34), 40_000);
  t.is(last!.getUint16(34), 0);
});
