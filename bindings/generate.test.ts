// The text of layouts: that the one checked in is fresh, and each rule of how C becomes TypeScript.
import { readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";
import { readBtf } from "./btf.ts";
import { collectLayouts } from "./collect.ts";
import { generateLayout } from "./generate.ts";
import { BtfError } from "./reader.ts";
import { testdata } from "./testing.ts";

const root = path.resolve(import.meta.dirname, "../..");
const sample = generateLayout(readFileSync(testdata("layout")));

test("layout.ts is what the object's BTF says", (t) => {
  const generated = generateLayout(readFileSync(path.join(root, "dist/sock.bpf.o")));
  const checkedIn = readFileSync(path.join(root, "bindings/layout.ts"), "utf8");
  t.true(generated === checkedIn, 'bindings/layout.ts is not fresh, run "npm run generate"');
});

test("numbers are little-endian unless their C type is __be", (t) => {
  t.true(sample.includes("network: view.getUint32(at + 4),"));
  t.true(sample.includes("guarded: view.getUint32(at + 128, true),"));
  t.true(sample.includes("negative: view.getBigInt64(at + 16, true),"));
  t.true(sample.includes("view.setInt16(at, value.below, true);"));
});

test("a struct of one __be32 array is bytes of exact length, other bytes are padded", (t) => {
  t.true(sample.includes("place: Uint8Array;"));
  t.true(sample.includes("writeBytes(view, at, { bytes: value.place, length: 16,"));
  t.true(sample.includes("writePadded(view, at + 18, { bytes: value.tag, length: 3,"));
  t.false(sample.includes("interface Place"));
});

test("reserved fields are zeros and locks are left out", (t) => {
  t.false(/value\.reserved/.test(sample));
  t.true(sample.includes("writeZeros(view, at + 42, 2);"));
  t.false(/lock[:(.]/.test(sample));
});

test("short arrays are tuples, long ones and those of structs only have a place", (t) => {
  t.true(sample.includes("pair: readonly [bigint, bigint];"));
  t.true(sample.includes("inner: inner.read(view, at + 44),"));
  t.true(sample.includes("    list: 4,\n    many: 4,\n"));
  t.false(/(list|many): .*(number|Inner)/.test(sample));
});

test("enums come by fields and by variables", (t) => {
  t.true(
    sample.includes("export const color = {\n  COLOR_RED: 0,\n  COLOR_GREEN: 7,\n} as const;"),
  );
  t.true(sample.includes("export const loose = {"));
  t.true(sample.includes("export const lonely = {"));
});

test("generated lines are at most 100 columns long", (t) => {
  t.deepEqual(
    sample.split("\n").filter((line) => line.length > 100),
    [],
  );
});

test("bytes without a name are refused", (t) => {
  t.throws(() => generateLayout(readFileSync(testdata("padding"))), {
    instanceOf: BtfError,
    message: 'Bytes 1 to 2 of struct "gap" have no name, add a reserved field',
  });
});

test("the hash depends on names and types, not on how many entries a map has", (t) => {
  const btf = readBtf(readFileSync(testdata("layout")));
  const { hash } = collectLayouts(btf);
  const renamed = (kind: string, from: string, to: string) => {
    const rename = (name: string) => (name === from ? to : name);
    const types = btf.types.map((type) => {
      if (type.kind !== kind) return type;
      if (type.kind !== "struct") return { ...type, name: rename(type.name) };
      const members = type.members.map((one) => ({ ...one, name: rename(one.name) }));
      return { ...type, members };
    });
    return collectLayouts({ types }).hash;
  };
  t.not(renamed("struct", "last_part", "first_part"), hash);
  t.not(renamed("enum", "color", "colour"), hash);
  const counts = btf.types.map((type) =>
    type.kind === "array" && type.count === 12 ? { ...type, count: 13 } : type,
  );
  t.is(collectLayouts({ types: counts }).hash, hash);
});
