// Objects that are opened, configured, loaded, refused by the verifier and closed.
import path from "node:path";
import test from "ava";
import { BpfError } from "./errors.ts";
import { BpfMap, mapFlag, mapType } from "./map.ts";
import { BpfObject, readProgramInfo } from "./object.ts";
import { bpffsFolder, hasRoot, testdata } from "./testing.ts";

const hits = { type: mapType.ARRAY, name: "svc_hits", keySize: 4, valueSize: 8, maxEntries: 5 };

test("an object's maps and programs are known before it is loaded", (t) => {
  const object = BpfObject.open(testdata("connect"));
  const programs = object.programs().map(({ name, section }) => [name, section]);
  t.deepEqual(programs, [
    ["redirect", "cgroup/connect4"],
    ["add", "syscall"],
  ]);
  t.deepEqual(
    object.maps().map(({ name }) => name),
    ["svc_hits", "svc_storage"],
  );
  const map = object.map("svc_hits");
  t.like(map, { type: 2, keySize: 4, valueSize: 8, maxEntries: 2, flags: mapFlag.MMAPABLE });
  t.throws(() => object.map("svc_misses"), { message: /has no map "svc_misses"/ });
  t.throws(() => object.program("subtract"), { message: /has no program "subtract"/ });
  t.throws(() => object.program("add").fd, { message: /its object is not loaded/ });
  t.throws(() => map.toMap(), { message: /its object is not loaded/ });
  object.close();
});

test("rodata is what the program sees", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.setRodata("offset", -50);
  object.setRodata("bytes", new Uint8Array([42, 0, 8]));
  object.setRodata("asked_port", 65535n);
  object.load();
  const context = new Uint8Array(8);
  new DataView(context.buffer).setUint32(0, 10, true);
  t.is(object.program("add").testRun({ context }), 42);
  t.is(new DataView(context.buffer).getInt32(4, true), 10 - 50 + 8);
  t.throws(() => object.setRodata("offset", 1), { message: /is loaded already/ });
});

test("a value that does not fit its variable is refused", (t) => {
  const object = BpfObject.open(testdata("connect"));
  const wrong: [string, number | bigint | Uint8Array][] = [
    ["asked_port", 65536],
    ["asked_port", -1],
    ["asked_port", 1.5],
    ["asked_port", new Uint8Array(4)],
    ["offset", 2n ** 31n],
    ["bytes", new Uint8Array(2)],
    ["absent", 1],
  ];
  for (const [name, value] of wrong) {
    t.throws(() => object.setRodata(name, value), {
      instanceOf: RangeError,
      message: new RegExp(name),
    });
  }
  object.setRodata("offset", -(2 ** 31));
  object.close();
});

test("a program that the verifier refuses is named, with its log", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("rejected"));
  t.teardown(() => object.close());
  const error = t.throws(() => object.load(), { instanceOf: BpfError });
  t.is(error.code, "EACCES");
  t.is(error.subject, "careless");
  t.regex(error.message, /^Cannot load program careless: EACCES/);
  t.regex(error.message, /invalid mem access 'map_value_or_null'/);
  t.regex(error.log ?? "", /processed \d+ insns/);
  t.throws(() => object.load(), { instanceOf: BpfError });
});

test("the verifier's statistics come with a load that asks for them, by program", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  const statistics = object.loadWithStatistics();
  t.deepEqual([...statistics.keys()], ["redirect", "add"]);
  for (const text of statistics.values()) t.regex(text, /processed \d+ insns .*total_states \d+/);
  t.true(object.program("add").fd > 0);
  const refused = BpfObject.open(testdata("rejected"));
  t.teardown(() => refused.close());
  t.throws(() => refused.loadWithStatistics(), { instanceOf: BpfError });
});

test("a program left out of the load is no hindrance", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("rejected"));
  t.teardown(() => object.close());
  object.program("careless").setAutoload(false);
  object.load();
  t.is(object.program("fine").testRun(), 0);
  t.throws(() => object.program("careless").fd, { instanceOf: BpfError });
});

test("a loaded program is described by the kernel, also by its id", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.load();
  const info = object.program("redirect").info();
  t.is(info.name, "redirect");
  t.regex(info.tag, /^[0-9a-f]{16}$/);
  t.true(info.id > 0 && info.xlatedBytes > 0 && info.verifiedInstructions > 0);
  t.deepEqual(readProgramInfo(info.id), info);
  t.throws(() => readProgramInfo(0xffffffff), { instanceOf: BpfError, message: /id 4294967295/ });
});

test("a loaded object's map outlives it by a descriptor of its own", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  object.map("svc_hits").setMaxEntries(7);
  object.load();
  const map = object.map("svc_hits").toMap();
  object.close();
  t.is(map.info.maxEntries, 7);
  t.is(map.get(new Uint8Array(4))?.length, 8);
  map.close();
});

test("a program is run on a frame as often as wanted", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("frame"));
  t.teardown(() => object.close());
  object.load();
  const program = object.program("measure");
  t.is(program.testRun({ data: new Uint8Array(60) }), 60);
  t.is(program.testRun({ data: new Uint8Array(100), repeat: 5 }), 100);
  const map = object.map("svc_runs").toMap();
  t.is(new DataView(map.get(new Uint8Array(4))!.buffer).getBigUint64(0, true), 6n);
  map.close();
  t.throws(() => program.testRun({ data: new Uint8Array(13) }), {
    instanceOf: BpfError,
    message: /^Cannot run measure: EINVAL/,
  });
});

test("an object takes over a map that exists, unless its shape differs", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  const map = BpfMap.create({ ...hits, flags: mapFlag.MMAPABLE });
  const wrong = [hits, { ...hits, valueSize: 16 }, { ...hits, type: mapType.HASH }];
  for (const options of wrong) {
    const other = BpfMap.create(options);
    t.throws(() => object.map("svc_hits").reuse(other), {
      instanceOf: RangeError,
      message: /Cannot reuse svc_hits as svc_hits: it has type/,
    });
    other.close();
  }
  object.map("svc_hits").reuse(map);
  object.load();
  const used = object.map("svc_hits").toMap();
  t.deepEqual(used.info, map.info);
  used.close();
  map.close();
});

test("a pin path is filled by the first load and reused by the second", (t) => {
  if (!hasRoot(t)) return;
  const pin = path.join(bpffsFolder(t), "svc_hits");
  const ids = [1, 2].map(() => {
    const object = BpfObject.open(testdata("connect"));
    object.map("svc_hits").setPinPath(pin);
    object.load();
    const map = object.map("svc_hits").toMap();
    map.close();
    object.close();
    return map.info.id;
  });
  t.is(ids[0], ids[1]);
});

test("a pinned map of another size is refused with libbpf's words", (t) => {
  if (!hasRoot(t)) return;
  const pin = path.join(bpffsFolder(t), "svc_hits");
  const map = BpfMap.create({ ...hits, flags: mapFlag.MMAPABLE });
  map.pin(pin);
  map.close();
  const object = BpfObject.open(testdata("connect"));
  t.teardown(() => object.close());
  object.map("svc_hits").setPinPath(pin);
  const error = t.throws(() => object.load(), { instanceOf: BpfError });
  t.regex(error.message, /couldn't reuse pinned map/);
});

test("a closed object refuses every use of it and its parts", (t) => {
  const object = BpfObject.open(testdata("connect"));
  const map = object.map("svc_hits");
  const program = object.program("add");
  object.close();
  object.close();
  const calls = [
    () => object.load(),
    () => object.maps(),
    () => object.programs(),
    () => object.setRodata("offset", 1),
    () => map.maxEntries,
    () => map.toMap(),
    () => map.setMaxEntries(4),
    () => program.fd,
    () => program.info(),
    () => program.testRun(),
  ];
  for (const call of calls) t.throws(call, { message: /connect\.bpf\.o" is closed/ });
});

test("a file that is absent or no object is refused, by path", (t) => {
  t.throws(() => BpfObject.open("/absent.bpf.o"), {
    instanceOf: BpfError,
    message: /Cannot open BPF object "\/absent\.bpf\.o": ENOENT/,
  });
  t.throws(() => BpfObject.open("/etc/passwd"), {
    instanceOf: BpfError,
    message: /"\/etc\/passwd": LIBBPF_FORMAT, .*not a proper ELF/,
  });
});
