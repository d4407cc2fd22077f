// The generated layouts against C: a BPF program fills structs, TypeScript reads them. It needs
// root for that; the rest is about what writers refuse.
import test from "ava";
import {
  backend,
  backendState,
  frontend,
  frontendKey,
  frontendKind,
  maps,
  service,
} from "./layout.ts";
import { BpfObject } from "./object.ts";
import { hasRoot, testdata } from "./testing.ts";

const PLACE_BYTES = 512;
const address = new Uint8Array([0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 10, 11, 12, 13]);

const key = { address, port: 8443, protocol: 17 };
const row = {
  address,
  port: 53,
  state: backendState.BACKEND_TERMINATING,
  listed: 5,
  service: 70000,
  local: 1,
  hop: 3,
  hopUsed: 0,
  generation: 9,
  connections: 2n ** 40n,
};
const values = [
  { codec: frontendKey, value: key },
  {
    codec: frontend,
    value: {
      service: 70000,
      kind: frontendKind.FRONTEND_NODE_PORT,
      check: new Uint8Array([1, 0, 3]),
    },
  },
  { codec: backend, value: row },
  {
    codec: service,
    value: {
      table: [3n << 32n, 0n, 2n ** 63n + 1n] as const,
      affinitySeconds: 10800,
      refused: 1n,
      externalLocal: 1,
      dropped: 2n,
      departed: 3n,
    },
  },
];

test("what a program writes as C structs, TypeScript reads, and writes back alike", (t) => {
  if (!hasRoot(t)) return;
  const object = BpfObject.open(testdata("mirror"));
  t.teardown(() => object.close());
  for (const map of object.maps()) {
    if (map.maxEntries > 0) map.setMaxEntries(1);
  }
  object.load();
  const context = new Uint8Array(values.length * PLACE_BYTES);
  object.program("fill").testRun({ context });

  const written = new Uint8Array(context.length);
  const view = new DataView(written.buffer);
  for (const [index, { codec, value }] of values.entries()) {
    const at = index * PLACE_BYTES;
    t.like(codec.read(new DataView(context.buffer), at), value);
    codec.write(view, at, value as never);
  }
  t.deepEqual(written, context);
});

test("reserved bytes are written as zeros", (t) => {
  const view = new DataView(new ArrayBuffer(frontendKey.bytes));
  view.setUint8(frontendKey.bytes - 1, 255);
  frontendKey.write(view, 0, key);
  t.is(view.getUint8(frontendKey.bytes - 1), 0);
});

test("what is read is a copy", (t) => {
  const view = new DataView(new ArrayBuffer(frontendKey.bytes));
  frontendKey.write(view, 0, key);
  const read = frontendKey.read(view, 0);
  view.setUint8(0, 99);
  t.deepEqual(read.address, address);
});

test("an address of a wrong length is refused, by name", (t) => {
  const view = new DataView(new ArrayBuffer(backend.bytes));
  t.throws(() => backend.write(view, 0, { ...row, address: address.subarray(4) }), {
    instanceOf: RangeError,
    message: "Cannot write backend.address: 12 bytes given, it holds 16",
  });
});

test("short bytes are padded with zeros and long ones are refused", (t) => {
  const view = new DataView(new ArrayBuffer(frontend.bytes));
  const value = { service: 1, kind: 2, check: new Uint8Array([9]) };
  view.setUint8(frontend.offset.check + 1, 255);
  frontend.write(view, 0, value);
  t.deepEqual(frontend.read(view, 0).check, new Uint8Array([9, 0, 0]));
  t.throws(() => frontend.write(view, 0, { ...value, check: new Uint8Array(4) }), {
    instanceOf: RangeError,
    message: /frontend\.check/,
  });
});

test("maps have the sizes of their structs", (t) => {
  t.is(maps.svc_overflow.keyBytes, frontendKey.bytes);
  t.is(maps.svc_backends.valueBytes, backend.bytes);
});
