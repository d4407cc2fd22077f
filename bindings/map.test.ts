// Maps of the real kernel: every operation, and every buffer and handle that must be refused.
import path from "node:path";
import test from "ava";
import { BpfError } from "./errors.ts";
import { BpfMap, mapFlag, mapType } from "./map.ts";
import { BpfObject } from "./object.ts";
import { possibleCpus } from "./system.ts";
import { bpffsFolder, hasRoot, testdata } from "./testing.ts";

const hash = { type: mapType.HASH, name: "svc_test", keySize: 4, valueSize: 6, maxEntries: 10 };
const array = { ...hash, type: mapType.ARRAY, flags: mapFlag.MMAPABLE };
/** Kinds that only these tests use: one has batches by its own code, the other has none. */
const LPM_TRIE = 11;
const CPUMAP = 16;

const storage = { type: mapType.SK_STORAGE, keySize: 4, valueSize: 8, maxEntries: 0 };

test("a value is read back as it was set, and an absent key is undefined", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  t.is(map.get(key(1)), undefined);
  map.set(key(1), value(7));
  t.deepEqual(map.get(key(1)), value(7));
  t.true(map.delete(key(1)));
  t.false(map.delete(key(1)));
  map.close();
});

test("the kernel's description of a map is its info", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create({ ...hash, flags: mapFlag.NO_PREALLOC });
  const { id, ...rest } = map.info;
  t.deepEqual(rest, { ...hash, flags: mapFlag.NO_PREALLOC, btfId: 0 });
  const again = BpfMap.openById(id);
  map.set(key(1), value(1));
  t.deepEqual(again.get(key(1)), value(1));
  map.close();
  again.close();
});

test("create wants a key absent and replace wants it present", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  t.throws(() => map.set(key(1), value(1), "replace"), { message: /svc_test: ENOENT/ });
  map.set(key(1), value(1), "create");
  t.throws(() => map.set(key(1), value(2), "create"), { message: /svc_test: EEXIST/ });
  map.set(key(1), value(2), "replace");
  t.deepEqual(map.get(key(1)), value(2));
  map.close();
});

test("a buffer of a wrong size is an error that names map and sizes", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  const calls = [
    () => map.get(new Uint8Array(3)),
    () => map.set(new Uint8Array(5), value(1)),
    () => map.set(key(1), new Uint8Array(5)),
    () => map.set(key(1), new Uint8Array(0)),
    () => map.delete(new Uint8Array(0)),
    () => map.setBatch(new Uint8Array(8), new Uint8Array(11)),
    () => map.setBatch(new Uint8Array(7), new Uint8Array(6)),
    () => map.deleteBatch(new Uint8Array(6)),
  ];
  for (const call of calls) t.throws(call, { instanceOf: RangeError, message: /svc_test: \d+ b/ });
  t.throws(() => map.set(key(1), new Uint8Array(7)), {
    instanceOf: RangeError,
    message: "Wrong size of value for svc_test: 7 bytes given, 6 wanted",
  });
  map.close();
});

test("a part of a larger buffer is taken from where it begins", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  const buffer = new Uint8Array(32).map((_, index) => index);
  map.set(buffer.subarray(4, 8), buffer.subarray(10, 16));
  t.deepEqual(map.get(new Uint8Array([4, 5, 6, 7])), new Uint8Array([10, 11, 12, 13, 14, 15]));
  map.close();
});

test("a closed map refuses every use", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(array);
  map.close();
  map.close();
  const calls = [
    () => map.get(key(1)),
    () => map.set(key(1), value(1)),
    () => map.setBatch(key(1), value(1)),
    () => map.deleteBatch(key(1)),
    () => [...map.entries()],
    () => [...map.keys()],
    () => map.mmap(),
    () => map.pin("/nowhere"),
  ];
  for (const call of calls) t.throws(call, { message: 'Map "svc_test" is closed' });
});

test("a full map says how many entries it holds, and a batch how far it got", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  const error = t.throws(() => map.setBatch(keys(14), values(14)), { instanceOf: BpfError });
  t.is(error.message, "Cannot update svc_test: E2BIG, the map holds 10 entries");
  t.is(error.done, 10);
  t.is(count(map), 10);
  map.close();
});

test("batches set, list and delete as many elements as there are", (t) => {
  if (!hasRoot(t)) return;
  const kinds = [mapType.HASH, mapType.LRU_HASH, mapType.PERCPU_HASH];
  for (const type of kinds) {
    for (const flags of type === mapType.HASH ? [0, mapFlag.NO_PREALLOC] : [0]) {
      const map = BpfMap.create({ ...hash, type, flags, maxEntries: 20000 });
      const total = 1500;
      map.setBatch(keys(total), values(total, map.valueBytes));
      const seen = new Map<number, number>();
      for (const batch of map.entries(100)) {
        t.is(batch.keys.length, batch.count * 4);
        t.is(batch.values.length, batch.count * map.valueBytes);
        for (let index = 0; index < batch.count; index++) {
          seen.set(
            Buffer.from(batch.keys).readUInt32LE(index * 4),
            batch.values[index * map.valueBytes]!,
          );
        }
      }
      t.is(seen.size, total);
      t.true([...seen].every(([name, first]) => first === name % 251));
      t.is(map.deleteBatch(keys(total)), total);
      t.deepEqual([...map.entries()], []);
      map.close();
    }
  }
});

test("a batch grows until the largest bucket fits", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create({ ...hash, maxEntries: 2000 });
  map.setBatch(keys(2000), values(2000));
  t.is(count(map, 1), 2000);
  map.close();
});

test("deleting a batch passes over keys that are missing", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  map.setBatch(Buffer.concat([key(2), key(4)]), values(2));
  t.is(map.deleteBatch(keys(6)), 2);
  t.is(map.deleteBatch(keys(6)), 0);
  t.is(map.deleteBatch(new Uint8Array()), 0);
  map.close();
});

test("keys come one by one, and may be deleted meanwhile", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  map.setBatch(keys(10), values(10));
  const seen: number[] = [];
  for (const found of map.keys()) {
    seen.push(found[0]!);
    map.delete(found);
  }
  t.deepEqual(
    seen.toSorted((left, right) => left - right),
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9],
  );
  t.deepEqual([...map.keys()], []);
  map.close();
});

test("a trie, whose kernel code for batches is its own, is listed and emptied", (t) => {
  if (!hasRoot(t)) return;
  const trie = { ...hash, type: LPM_TRIE, keySize: 8, flags: mapFlag.NO_PREALLOC };
  const map = BpfMap.create(trie);
  const prefixes = Buffer.concat(
    [1, 2, 3].map((last) => Buffer.from([32, 0, 0, 0, 10, 0, 0, last])),
  );
  map.setBatch(prefixes, values(3));
  t.is(count(map, 2), 3);
  t.is(map.deleteBatch(prefixes), 3);
  map.close();
});

test("a map without batches is written, listed and emptied one by one", (t) => {
  if (!hasRoot(t)) return;
  const total = Math.min(2, possibleCpus());
  const map = BpfMap.create({ ...hash, type: CPUMAP, valueSize: 4, maxEntries: total });
  const queueLengths = new Uint8Array(new Uint32Array(total + 1).fill(8).buffer);
  const error = t.throws(() => map.setBatch(keys(total + 1), queueLengths), {
    instanceOf: BpfError,
  });
  t.is(error.done, total);
  t.is(count(map, 1), total);
  t.is(map.deleteBatch(keys(total)), total);
  t.is(count(map), 0);
  map.close();
});

test("an array is listed whole, zeros included", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(array);
  map.set(key(3), value(9));
  const [batch] = [...map.entries()];
  t.is(batch?.count, 10);
  t.deepEqual(batch?.values.subarray(18, 24), value(9));
  t.throws(() => map.delete(key(3)), { instanceOf: BpfError, message: /svc_test: EINVAL/ });
  t.throws(() => map.set(key(10), value(1)), { message: /E2BIG, the map holds 10 entries/ });
  map.close();
});

test("a per-CPU value is those of all CPUs, rounded up to 8 bytes", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create({ ...hash, type: mapType.PERCPU_ARRAY });
  t.is(map.valueBytes, 8 * possibleCpus());
  const wanted = new Uint8Array(map.valueBytes).map((_, index) => (index % 8 < 6 ? index + 1 : 0));
  map.set(key(2), wanted);
  t.deepEqual(map.get(key(2)), wanted);
  t.throws(() => map.set(key(2), value(1)), { instanceOf: RangeError });
  const [batch] = [...map.entries()];
  t.deepEqual(batch?.values.slice(2 * map.valueBytes, 3 * map.valueBytes), wanted);
  map.close();
});

test("an array in memory and the map are the same", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(array);
  const memory = map.mmap();
  const readOnly = map.mmap({ readOnly: true });
  t.is(memory.length, 8 * 10);
  map.set(key(1), value(5));
  t.deepEqual(memory.slice(8, 14), value(5));
  memory.set(value(6), 9 * 8);
  t.deepEqual(map.get(key(9)), value(6));
  t.deepEqual(readOnly, memory);
  map.close();
  memory[0] = 77;
  t.is(readOnly[0], 77);
});

test("an array is memory for the time of one call, again and again", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create({
    type: mapType.ARRAY,
    name: "svc_test",
    keySize: 4,
    valueSize: 8,
    maxEntries: 4096,
    flags: mapFlag.MMAPABLE,
  });
  for (let round = 1; round <= 50; round++) {
    const last = map.withMemory((memory) => {
      memory[8 * 4095] = round;
      return memory[8 * 4095];
    });
    t.is(last, round);
    t.is(map.get(key(4095))?.[0], round);
  }
  t.throws(
    () =>
      map.withMemory(() => {
        throw new Error("on the way");
      }),
    { message: "on the way" },
  );
  map.close();
});

test("only arrays made for it are mapped into memory", (t) => {
  if (!hasRoot(t)) return;
  for (const options of [hash, { ...array, flags: 0 }, { ...hash, type: mapType.PERCPU_ARRAY }]) {
    const map = BpfMap.create(options);
    t.throws(() => map.mmap(), {
      instanceOf: RangeError,
      message: "Cannot mmap svc_test: it is no array with BPF_F_MMAPABLE",
    });
    map.close();
  }
});

test("socket storage cannot be listed, which is an error", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.load();
  const map = object.map("svc_storage").toMap();
  t.like(map.info, storage);
  t.throws(() => [...map.entries()], { instanceOf: BpfError, message: /Cannot list svc_storage/ });
  map.close();
});

test("a pinned map outlives its descriptor", (t) => {
  if (!hasRoot(t)) return;
  const pin = path.join(bpffsFolder(t), "svc_test");
  const map = BpfMap.create(hash);
  map.pin(pin);
  t.throws(() => map.pin(pin), { instanceOf: BpfError, message: /svc_test": EEXIST/ });
  map.set(key(1), value(3));
  map.close();
  const again = BpfMap.openPinned(pin);
  t.deepEqual(again.get(key(1)), value(3));
  again.close();
});

test("what is not pinned cannot be opened, by name", (t) => {
  if (!hasRoot(t)) return;
  const absent = path.join(bpffsFolder(t), "absent");
  const error = t.throws(() => BpfMap.openPinned(absent), { instanceOf: BpfError });
  t.is(error.code, "ENOENT");
  t.is(error.message, `Cannot open pinned map "${absent}": ENOENT, it does not exist`);
  t.throws(() => BpfMap.openById(0xffffffff), { message: /id 4294967295": ENOENT/ });
  t.throws(() => BpfMap.openPinned("/dev/null"), { instanceOf: BpfError });
});

test("a pin outside a bpf file system is refused with the fix", (t) => {
  if (!hasRoot(t)) return;
  const map = BpfMap.create(hash);
  t.throws(() => map.pin("/tmp/svc_test"), { message: /EPERM, it must lie on a bpf file system/ });
  map.close();
});

test("a map that the kernel cannot make is an error with its name", (t) => {
  if (!hasRoot(t)) return;
  t.throws(() => BpfMap.create({ ...hash, maxEntries: 0 }), {
    instanceOf: BpfError,
    message: /Cannot create map svc_test: EINVAL/,
  });
  t.throws(() => BpfMap.create({ ...hash, name: "svc_sixteen_long" }), { instanceOf: RangeError });
});

function key(number: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(number).buffer);
}

function value(byte: number): Uint8Array {
  return new Uint8Array(6).fill(byte);
}

/** The keys 0 to `total`. */
function keys(total: number): Uint8Array {
  return new Uint8Array(Uint32Array.from({ length: total }, (_, index) => index).buffer);
}

/** For each key a value that begins with its number modulo 251. */
function values(total: number, bytes = 6): Uint8Array {
  const all = new Uint8Array(total * bytes);
  for (let index = 0; index < total; index++) all[index * bytes] = index % 251;
  return all;
}

function count(map: BpfMap, batchSize?: number): number {
  return [...map.entries(batchSize)].reduce((sum, batch) => sum + batch.count, 0);
}
