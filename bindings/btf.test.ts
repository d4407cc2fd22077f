// The reader of ELF and BTF against what clang writes, and against damage: whatever the bytes are,
// they are read or refused with a BtfError.
import { readFileSync } from "node:fs";
import test from "ava";
import fc from "fast-check";
import { mapDefinitions, readBtf, sectionVariables, sizeOf } from "./btf.ts";
import { collectLayouts } from "./collect.ts";
import { generateLayout } from "./generate.ts";
import { BtfError } from "./reader.ts";
import { testdata } from "./testing.ts";

const object = readFileSync(testdata("layout"));

test("map definitions have the numbers of __uint and the sizes of __type", (t) => {
  const maps = mapDefinitions(readBtf(object));
  const plain = maps.find(({ name }) => name === "svc_plain");
  const sample = maps.find(({ name }) => name === "svc_sample");
  t.like(plain, { type: 2, keyBytes: 4, valueBytes: 6, maxEntries: 3, flags: 0, key: undefined });
  t.like(sample, { type: 1, keyBytes: 24, valueBytes: 152, maxEntries: 12, flags: 1 });
});

test("rodata variables have the offsets that the compiler gave them", (t) => {
  const btf = readBtf(readFileSync(testdata("connect")));
  const variables = sectionVariables(btf, ".rodata");
  const places = variables.map(({ name, offset, size }) => [name, offset, size]);
  t.deepEqual(places, [
    ["asked_port", 0, 2],
    ["served_port", 2, 2],
    ["offset", 4, 4],
    ["bytes", 8, 3],
  ]);
  t.deepEqual(sectionVariables(btf, ".data"), []);
});

test("enumerators of 64 bits and below zero are read", (t) => {
  const wide = enumObject({ kind: 19, size: 8, words: [0xffffffff, 0x7fffffff] });
  t.deepEqual(valuesOf(wide), [2n ** 63n - 1n]);
  const signedFlag = 2 ** 31;
  const below = enumObject({ kind: 6, size: 4, words: [0xffffffff], flag: signedFlag });
  t.deepEqual(valuesOf(below), [-1n]);
  t.throws(() => readBtf(enumObject({ kind: 6, size: 8, words: [0] })), {
    instanceOf: BtfError,
    message: /enum "x" needs a compiler that knows enum64/,
  });
});

test("a type that contains itself is an error and no endless loop", (t) => {
  const typedef = 8 * 2 ** 24;
  const btf = readBtf(elfOf(btfOf([0, typedef, 1])));
  t.throws(() => sizeOf(btf, 1), { instanceOf: BtfError, message: /refers to itself/ });
});

test("what is no object, or has no BTF, is an error that says so", (t) => {
  const read = (bytes: Uint8Array) => () => readBtf(bytes);
  t.throws(read(new Uint8Array()), { instanceOf: BtfError, message: /the object file/ });
  t.throws(read(readFileSync("/bin/sh")), { instanceOf: BtfError, message: /it has no BTF/ });
  t.throws(read(new TextEncoder().encode("#!/bin/sh\n")), {
    instanceOf: BtfError,
    message: /it is no ELF file/,
  });
});

test("an object cut off anywhere is read or refused, never more", (t) => {
  for (let length = 0; length < object.length; length += 7) {
    assertReadOrRefused(object.subarray(0, length));
  }
  t.pass();
});

test("an object with garbage in it is read or refused, never more", (t) => {
  const damage = fc.array(fc.tuple(fc.nat(object.length - 1), fc.nat(255)), { maxLength: 8 });
  fc.assert(
    fc.property(damage, (bytes) => {
      const damaged = new Uint8Array(object);
      for (const [at, value] of bytes) damaged[at] = value;
      assertReadOrRefused(damaged);
    }),
    { numRuns: 500 },
  );
  fc.assert(fc.property(fc.uint8Array({ maxLength: 200 }), assertReadOrRefused));
  t.pass();
});

test("BTF with garbage in it is read or refused, never more", (t) => {
  const words = fc.array(
    fc.oneof(
      fc.nat(3),
      fc.nat(19).map((kind) => kind * 2 ** 24 + 1),
    ),
    {
      maxLength: 60,
    },
  );
  fc.assert(fc.property(words, (types) => assertReadOrRefused(elfOf(btfOf(types)))));
  t.pass();
});

function assertReadOrRefused(bytes: Uint8Array): void {
  try {
    collectLayouts(readBtf(bytes));
    generateLayout(bytes);
  } catch (error) {
    if (!(error instanceof BtfError)) throw error;
  }
}

/** An object whose BTF is one enum "x" with one enumerator "x". */
function enumObject(options: { kind: number; size: number; words: number[]; flag?: number }) {
  const { kind, size, words, flag = 0 } = options;
  return elfOf(btfOf([1, flag + kind * 2 ** 24 + 1, size, 1, ...words]));
}

function valuesOf(bytes: Uint8Array): bigint[] {
  const type = readBtf(bytes).types[1];
  return type?.kind === "enum" ? type.values.map(({ value }) => value) : [];
}

/** BTF with these words as types and the strings "" and "x". */
function btfOf(types: readonly number[]): Uint8Array {
  const header = Uint32Array.of(0x0001eb9f, 24, 0, types.length * 4, types.length * 4, 3);
  return Buffer.concat([bytesOf(header), bytesOf(Uint32Array.from(types)), Buffer.from("\0x\0")]);
}

/** An ELF file with the sections "", ".BTF" and ".names". */
function elfOf(btf: Uint8Array): Uint8Array {
  const names = Buffer.from("\0.BTF\0.names\0");
  const headerBytes = 64;
  const header = new DataView(new ArrayBuffer(headerBytes));
  header.setUint32(0, 0x7f454c46);
  header.setUint16(4, 0x0201);
  header.setBigUint64(40, BigInt(headerBytes + btf.length + names.length), true);
  header.setUint16(58, 64, true);
  header.setUint16(60, 3, true);
  header.setUint16(62, 2, true);
  const section = (name: number, at: number, length: number) => {
    const view = new DataView(new ArrayBuffer(64));
    view.setUint32(0, name, true);
    view.setUint32(4, length === 0 ? 0 : 1, true);
    view.setBigUint64(24, BigInt(at), true);
    view.setBigUint64(32, BigInt(length), true);
    return new Uint8Array(view.buffer);
  };
  return Buffer.concat([
    new Uint8Array(header.buffer),
    btf,
    names,
    section(0, 0, 0),
    section(1, headerBytes, btf.length),
    section(6, headerBytes + btf.length, names.length),
  ]);
}

function bytesOf(words: Uint32Array): Uint8Array {
  return new Uint8Array(words.buffer);
}
