import test from "ava";
import fc from "fast-check";
import { limit, serviceRange, serviceRanges } from "../../bindings/layout.ts";
import { addressBytes } from "./maps.ts";
import { readRanges, ServiceRanges } from "./ranges.ts";

/** Whether an address is in a range that is in force, as range_contains() in bpf/balance.h. */
function contains(bytes: Uint8Array, text: string): boolean {
  const view = new DataView(bytes.buffer);
  const address = addressBytes(text);
  const { active } = serviceRanges.read(view, 0);
  for (let place = 0; place < limit.SERVICE_RANGES && active >> place; place++) {
    const at = serviceRanges.offset.range + place * serviceRanges.stride.range;
    const range = serviceRange.read(view, at);
    const isIn = address.every(
      (byte, index) => (byte & range.mask[index]!) === range.address[index],
    );
    if (active & (1 << place) && isIn) return true;
  }
  return false;
}

function makeRanges(): { bytes: Uint8Array; ranges: ServiceRanges } {
  const bytes = new Uint8Array(serviceRanges.bytes);
  return { bytes, ranges: new ServiceRanges(bytes) };
}

function write(ranges: ServiceRanges): (() => void) | undefined {
  ranges.writeRemovals();
  ranges.writeAdditions();
  return ranges.giveUp();
}

test("ranges of both families hold just their addresses", (t) => {
  const { bytes, ranges } = makeRanges();
  ranges.set(["10.96.0.0/12", "fd00:10:96::/112", "192.0.2.7/32"]);
  write(ranges);
  for (const address of ["10.96.0.1", "10.111.255.255", "fd00:10:96::ffff", "192.0.2.7"])
    t.true(contains(bytes, address), address);
  for (const address of ["10.112.0.0", "10.95.255.255", "fd00:10:96::1:0", "::a60:1", "192.0.2.6"])
    t.false(contains(bytes, address), address);
  t.deepEqual(
    [...readRanges(bytes).values()],
    ["10.96.0.0/12", "fd00:10:96::/112", "192.0.2.7/32"],
  );
});

test("a range is changed only where no program can be reading", (t) => {
  const pool = Array.from({ length: 24 }, (_, index) => `10.${index}.0.0/${16 + (index % 9)}`);
  const step = fc.record({ wanted: fc.subarray(pool), grace: fc.boolean(), restart: fc.boolean() });
  fc.assert(
    fc.property(fc.array(step, { maxLength: 25 }), (steps) => {
      const { bytes } = makeRanges();
      let ranges = new ServiceRanges(bytes);
      /** What may be being read, by place: of each the bytes as they were when it was in force. */
      const readers = new Map<number, Uint8Array>();
      let reuses: ((() => void) | undefined)[] = [];
      const slice = (place: number) => bytes.slice(8 + place * 32, 8 + (place + 1) * 32);
      for (const { wanted, grace, restart } of steps) {
        if (grace || restart) {
          for (const reuse of reuses) reuse?.();
          reuses = [];
          readers.clear();
        }
        if (restart) ranges = new ServiceRanges(bytes);
        for (const place of readRanges(bytes).keys()) readers.set(place, slice(place));
        ranges.set(wanted);
        reuses.push(write(ranges));
        for (const [place, before] of readers) t.deepEqual(slice(place), before);
        const inForce = new Set(readRanges(bytes).values());
        for (const range of inForce) t.true(wanted.includes(range));
        t.is(ranges.isPending, inForce.size < wanted.length);
        t.is(ranges.errors().length, Math.max(0, wanted.length - limit.SERVICE_RANGES));
      }
      for (const reuse of reuses) reuse?.();
      write(ranges);
      const last = steps.at(-1)?.wanted ?? [];
      t.deepEqual(
        [...readRanges(bytes).values()].sort(),
        last.slice(0, limit.SERVICE_RANGES).sort(),
      );
    }),
  );
});

test("ranges beyond the last place are named", (t) => {
  const { bytes, ranges } = makeRanges();
  ranges.set(Array.from({ length: 18 }, (_, index) => `10.${index}.0.0/16`));
  write(ranges);
  t.is(readRanges(bytes).size, 16);
  t.deepEqual(
    ranges.errors().map(({ key }) => key),
    ["10.16.0.0/16", "10.17.0.0/16"],
  );
  t.is(
    ranges.errors()[0]!.message,
    "svc_ranges is full, it holds 16 entries: cover the cluster IPs with fewer and wider " +
      "ServiceCIDRs",
  );
  t.false(ranges.differs);
  t.true(ranges.isPending);
});

test("what is no range is refused with its text", (t) => {
  const { ranges } = makeRanges();
  t.throws(() => ranges.set(["10.96.0.0"]), { message: /^Range "10\.96\.0\.0" / });
});
