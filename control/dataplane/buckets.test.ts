import test from "ava";
import fc from "fast-check";
import { frontendBucket, frontendKey, limit } from "../../bindings/layout.ts";
import { BucketStore } from "./buckets.ts";
import { encodeFrontend, encodeFrontendKey, frontendCheck, frontendHash } from "./maps.ts";
import { MemoryHash } from "./memory.ts";
import { bytesToText } from "./table.ts";

function makeKey(host: number): Uint8Array {
  const address = new Uint8Array(16);
  address.set([255, 255, 10, 96, host >> 8, host & 255], 10);
  return encodeFrontendKey({ address, port: 80, protocol: 6 });
}

function makeStore(buckets: number, overflow = 64) {
  const bytes = new Uint8Array(buckets * frontendBucket.bytes);
  const rest = new MemoryHash({ keyBytes: 20, valueBytes: 8, maxEntries: overflow });
  return { bytes, rest, store: new BucketStore(bytes, rest) };
}

/** Finds a frontend as frontend_find() in bpf/balance.h does: its service id, or undefined. */
function find(bytes: Uint8Array, rest: MemoryHash, key: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer);
  const buckets = bytes.length / frontendBucket.bytes;
  const bucket = (frontendHash(key) % buckets) * frontendBucket.bytes;
  for (let place = 0; place < limit.FRONTEND_PLACES; place++) {
    const word = view.getBigUint64(bucket + place * 8, true);
    const at = bucket + frontendBucket.offset.key + place * frontendKey.bytes;
    const isKey = Buffer.from(bytes.buffer, at, frontendKey.bytes).equals(key);
    if (word !== 0n && Number(word >> 40n) === frontendCheck(key) && isKey)
      return Number(word & 0xffffffffn);
  }
  if (view.getUint32(bucket + frontendBucket.offset.overflow, true) === 0) return undefined;
  const value = rest.entriesByKey.get(bytesToText(key));
  return value === undefined ? undefined : value.charCodeAt(0) + value.charCodeAt(1) * 256;
}

test("any writes leave just what was written, for readers and the next agent", (t) => {
  const change = fc.record({
    host: fc.integer({ min: 0, max: 40 }),
    service: fc.option(fc.integer({ min: 0, max: 500 }), { nil: undefined }),
  });
  fc.assert(
    fc.property(fc.array(change, { maxLength: 150 }), fc.boolean(), (changes, restart) => {
      const made = makeStore(4);
      let { store } = made;
      const { bytes, rest } = made;
      const model = new Map<number, number>();
      for (const { host, service } of changes) {
        const key = makeKey(host);
        if (service === undefined) store.deleteBatch(key);
        else store.setBatch(key, encodeFrontend(key, { service, kind: 1 }));
        if (service === undefined) model.delete(host);
        else model.set(host, service);
        for (let other = 0; other <= 40; other++)
          t.is(find(bytes, rest, makeKey(other)), model.get(other));
        if (restart) store = new BucketStore(bytes, rest);
      }
      let count = 0;
      for (const entries of store.entries()) count += entries.count;
      t.is(count, model.size);
    }),
    { numRuns: 60 },
  );
});

test("a batch that meets a full overflow says how far it got, and the rest is as before", (t) => {
  const { store, bytes, rest } = makeStore(1, 2);
  const keys = Array.from({ length: 8 }, (_, host) => makeKey(host));
  const values = keys.map((key) => encodeFrontend(key, { service: 7, kind: 1 }));
  const error = t.throws(() => store.setBatch(Buffer.concat(keys), Buffer.concat(values)));
  t.is((error as { done?: number } | undefined)?.done, 6);
  t.deepEqual(
    keys.map((key) => find(bytes, rest, key)),
    [7, 7, 7, 7, 7, 7, undefined, undefined],
  );
});

test("a value is replaced in its place, in one store", (t) => {
  const { store, bytes, rest } = makeStore(1);
  const key = makeKey(1);
  store.setBatch(key, encodeFrontend(key, { service: 1, kind: 1 }));
  const before = Buffer.from(bytes);
  store.setBatch(key, encodeFrontend(key, { service: 2, kind: 4 }));
  const changed = [...bytes.keys()].filter((index) => bytes[index] !== before[index]);
  t.deepEqual(changed, [0, 4]);
  t.is(find(bytes, rest, key), 2);
});

test("counts of overflowing frontends that a kill left wrong are put right", (t) => {
  const { bytes, rest } = makeStore(2);
  const view = new DataView(bytes.buffer);
  view.setUint32(frontendBucket.offset.overflow, 9, true);
  new BucketStore(bytes, rest);
  t.is(view.getUint32(frontendBucket.offset.overflow, true), 0);
});

test("a place that was given up is another's only after the grace period", (t) => {
  const { store, bytes, rest } = makeStore(1);
  const put = (host: number) =>
    store.setBatch(makeKey(host), encodeFrontend(makeKey(host), { service: host, kind: 1 }));
  for (const host of [1, 2, 3, 4]) put(host);
  const keys = bytes.slice(frontendBucket.offset.key);
  store.deleteBatch(makeKey(1));
  const reuse = store.giveUp();
  put(5);
  t.is(rest.entriesByKey.size, 1, "the bucket has no place for it yet");
  t.deepEqual(
    bytes.slice(frontendBucket.offset.key, frontendBucket.offset.overflow),
    keys.slice(0, 80),
  );
  t.is(store.giveUp(), undefined);
  reuse?.();
  put(6);
  t.is(rest.entriesByKey.size, 1);
  t.deepEqual(
    [5, 6].map((host) => find(bytes, rest, makeKey(host))),
    [5, 6],
  );
});
