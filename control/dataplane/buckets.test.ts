import test from "ava";
import fc from "fast-check";
import { frontendBucket, frontendKey, limit } from "../../bindings/layout.ts";
import { BucketStore } from "./buckets.ts";
import { filterBits as readFilter } from "./filter.ts";
import { encodeFrontend, encodeFrontendKey, frontendCheck, frontendHash } from "./maps.ts";
import { MemoryHash } from "./memory.ts";
import { bytesToText } from "./table.ts";

/** A frontend of an address, every fifth a wildcard. Five keys have one address. */
function makeKey(host: number): Uint8Array {
  const address = new Uint8Array(16);
  address.set([255, 255, 10, 96, 0, Math.floor(host / 5)], 10);
  const port = host % 5;
  return encodeFrontendKey({ address, port, protocol: port === 0 ? 0 : 6 });
}

interface Memory {
  bytes: Uint8Array;
  filter: Uint8Array;
  rest: MemoryHash;
}

/** So few filter words that addresses share positions. */
function makeStore(buckets: number, overflow = 64): Memory & { store: BucketStore } {
  const bytes = new Uint8Array(buckets * frontendBucket.bytes);
  const filter = new Uint8Array(8);
  const rest = new MemoryHash({ keyBytes: 20, valueBytes: 8, maxEntries: overflow });
  return { bytes, filter, rest, store: openStore({ bytes, filter, rest }) };
}

function openStore({ bytes, filter, rest }: Memory): BucketStore {
  return new BucketStore({ bytes, filter, overflow: rest });
}

function filterBits(filter: Uint8Array, key: Uint8Array): number {
  return readFilter(new BigUint64Array(filter.buffer), key);
}

/** Finds a key as frontend_find() in bpf/balance.h does: its service id, or undefined. */
function find({ bytes, filter, rest }: Memory, key: Uint8Array): number | undefined {
  const isWildcard = key[frontendKey.offset.protocol] === 0;
  const bit = isWildcard ? limit.FILTER_WILDCARD : limit.FILTER_FRONTEND;
  if (!(filterBits(filter, key) & bit)) return undefined;
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
      const model = new Map<number, number>();
      for (const { host, service } of changes) {
        const key = makeKey(host);
        if (service === undefined) store.deleteBatch(key);
        else store.setBatch(key, encodeFrontend(key, { service, kind: 1 }));
        if (service === undefined) model.delete(host);
        else model.set(host, service);
        for (let other = 0; other <= 40; other++)
          t.is(find(made, makeKey(other)), model.get(other));
        if (restart) store = openStore(made);
      }
      let count = 0;
      for (const entries of store.entries()) count += entries.count;
      t.is(count, model.size);
      for (const host of model.keys()) store.deleteBatch(makeKey(host));
      t.deepEqual(made.filter, new Uint8Array(8), "no bit stays without a key");
    }),
    { numRuns: 60 },
  );
});

test("a batch that meets a full overflow says how far it got, and the rest is as before", (t) => {
  const made = makeStore(1, 2);
  const { store, filter } = made;
  const keys = Array.from({ length: 8 }, (_, host) => makeKey(host * 5 + 1));
  const values = keys.map((key) => encodeFrontend(key, { service: 7, kind: 1 }));
  const error = t.throws(() => store.setBatch(Buffer.concat(keys), Buffer.concat(values)));
  t.is((error as { done?: number } | undefined)?.done, 4);
  t.deepEqual(
    keys.map((key) => find(made, key)),
    [7, 7, 7, 7, undefined, undefined, undefined, undefined],
  );
  store.deleteBatch(Buffer.concat(keys));
  t.deepEqual(filter, new Uint8Array(8));
});

test("a value is replaced in its place, in one store", (t) => {
  const made = makeStore(1);
  const { store, bytes } = made;
  const key = makeKey(1);
  store.setBatch(key, encodeFrontend(key, { service: 1, kind: 1 }));
  const before = Buffer.from(bytes);
  store.setBatch(key, encodeFrontend(key, { service: 2, kind: 4 }));
  const changed = [...bytes.keys()].filter((index) => bytes[index] !== before[index]);
  t.deepEqual(changed, [0, 4]);
  t.is(find(made, key), 2);
});

test("counts of overflowing frontends that a kill left wrong are put right", (t) => {
  const made = makeStore(2);
  const view = new DataView(made.bytes.buffer);
  view.setUint32(frontendBucket.offset.overflow, 9, true);
  openStore(made);
  t.is(view.getUint32(frontendBucket.offset.overflow, true), 0);
});

test("a bit of the filter is set before its key is there, and cleared after it is gone", (t) => {
  const { store, filter, rest } = makeStore(1);
  const put = (host: number) =>
    store.setBatch(makeKey(host), encodeFrontend(makeKey(host), { service: host, kind: 1 }));
  for (const host of [1, 2]) put(host);
  const isSeen: boolean[] = [];
  const last = makeKey(96);
  rest.afterWrite = () => isSeen.push(filterBits(filter, last) === limit.FILTER_FRONTEND);
  t.is(filterBits(filter, last), 0);
  put(96);
  store.deleteBatch(last);
  t.deepEqual(isSeen, [true, true]);
  t.is(filterBits(filter, last), 0);
});

test("bits of frontends that a kill left are cleared, missing ones set, by the next agent", (t) => {
  const made = makeStore(1);
  const key = makeKey(1);
  made.store.setBatch(key, encodeFrontend(key, { service: 1, kind: 1 }));
  const whole = made.filter.slice();
  made.filter.fill(0x33);
  openStore(made);
  t.deepEqual(made.filter, whole);
  made.filter.fill(0);
  openStore(made);
  t.deepEqual(made.filter, whole);
});

test("an address that was an endpoint's is marked for good", (t) => {
  const made = makeStore(1);
  const key = makeKey(1);
  const { FILTER_ENDPOINT, FILTER_FRONTEND } = limit;
  made.store.markEndpoint(key.subarray(0, 16));
  made.store.setBatch(key, encodeFrontend(key, { service: 1, kind: 1 }));
  t.is(filterBits(made.filter, key), FILTER_FRONTEND | FILTER_ENDPOINT);
  made.store.deleteBatch(key);
  t.is(filterBits(made.filter, key), FILTER_ENDPOINT);
  openStore(made);
  t.is(filterBits(made.filter, key), FILTER_ENDPOINT);
});

test("a place that was given up is another's only after the grace period", (t) => {
  const made = makeStore(1);
  const { store, bytes, rest } = made;
  const put = (host: number) =>
    store.setBatch(makeKey(host), encodeFrontend(makeKey(host), { service: host, kind: 1 }));
  for (const host of [1, 2]) put(host);
  const keys = bytes.slice(frontendBucket.offset.key);
  store.deleteBatch(makeKey(1));
  const reuse = store.giveUp();
  put(5);
  t.is(rest.entriesByKey.size, 1, "the bucket has no place for it yet");
  t.deepEqual(
    bytes.slice(frontendBucket.offset.key, frontendBucket.offset.overflow),
    keys.slice(0, limit.FRONTEND_PLACES * frontendKey.bytes),
  );
  t.is(store.giveUp(), undefined);
  reuse?.();
  put(6);
  t.is(rest.entriesByKey.size, 1);
  t.deepEqual(
    [5, 6].map((host) => find(made, makeKey(host))),
    [5, 6],
  );
});
