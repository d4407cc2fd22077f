// Reading by description: every kind of field that a shared struct may have.
import { readFileSync } from "node:fs";
import test from "ava";
import { readBtf } from "./btf.ts";
import { collectLayouts, mapText, sameEnum } from "./collect.ts";
import { type DecodedStruct, makeDecode } from "./decode.ts";
import { BtfError } from "./reader.ts";
import { testdata } from "./testing.ts";

const layouts = collectLayouts(readBtf(readFileSync(testdata("layout"))));
const sample = layouts.maps.find(({ name }) => name === "svc_sample")!;

test("fields come by name, numbers in their order, enums by enumerator", (t) => {
  const view = new DataView(new ArrayBuffer(sample.valueBytes));
  view.setUint32(4, 0x01020304);
  view.setBigUint64(8, 2n ** 60n, true);
  view.setBigInt64(16, -5n, true);
  view.setBigUint64(24, 7n, true);
  view.setBigUint64(32, 8n, true);
  view.setUint8(40, 7);
  view.setInt8(41, -1);
  view.setInt16(44, -2, true);
  view.setUint16(46, 8443);
  view.setUint8(132, 0x61);
  const decoded = makeDecode(layouts, sample.valueShape)(view, 0) as DecodedStruct;
  t.like(decoded, {
    network: 0x01020304,
    big: 2n ** 60n,
    negative: -5n,
    pair: [7n, 8n],
    color: "COLOR_GREEN",
    tiny: -1,
    inner: { below: -2, port: 8443 },
    loose: 0,
  });
  t.is((decoded.list as unknown[]).length, 3);
  t.deepEqual(decoded.name, Uint8Array.of(0x61, 0, 0, 0, 0, 0, 0, 0));
  t.false("lock" in decoded || "reserved" in decoded);
});

test("a map without types cannot be read", (t) => {
  const plain = layouts.maps.find(({ name }) => name === "svc_plain")!;
  t.throws(() => makeDecode(layouts, plain.valueShape), { instanceOf: BtfError });
});

test("the text of a map changes with what it holds, and with nothing else", (t) => {
  const text = mapText(layouts, "svc_sample");
  const changed = (name: string) => ({
    ...layouts,
    structs: layouts.structs.map((struct) =>
      struct.name === name ? { ...struct, bytes: struct.bytes + 8 } : struct,
    ),
    enums: layouts.enums.map((each) => (each.name === name ? { ...each, values: [] } : each)),
    maps: layouts.maps.map((map) => (map.name === name ? { ...map, flags: 99 } : map)),
  });
  for (const name of ["sample", "sample_key", "inner", "color", "loose", "svc_sample"])
    t.not(mapText(changed(name), "svc_sample"), text, name);
  for (const name of ["lonely", "svc_plain"]) t.is(mapText(changed(name), "svc_sample"), text);
  t.is(mapText(layouts, "svc_absent"), undefined);
  t.true(sameEnum("color", [layouts, changed("loose")]));
  t.false(sameEnum("color", [layouts, changed("color")]));
  t.false(sameEnum("absent", [layouts, layouts]));
});
