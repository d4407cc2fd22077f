// What programs are told of the node: addresses with an index for good, ports, and where pods are.
import test from "ava";
import { frontendKind, node as layout, limit, serviceRange } from "../../../bindings/layout.ts";
import { parseRange } from "../../model/address.ts";
import { filterBits, NodeFilter } from "../filter.ts";
import { addressBytes, encodeFrontend, encodeFrontendKey } from "../maps.ts";
import { MemoryHash } from "../memory.ts";
import { NodeMap, natPorts } from "./node.ts";
import { NodePortStore } from "./nodeports.ts";

const NONE = { first: 0, last: 0 };

for (const { title, host, nodePorts = NONE, expected } of [
  {
    title: "Linux's usual ports leave those below the node ports",
    host: { first: 32768, last: 60999 },
    expected: { first: 1024, count: 28_976 },
  },
  {
    title: "a wide range of the host leaves what is above it",
    host: { first: 1024, last: 60999 },
    expected: { first: 61000, count: 4536 },
  },
  {
    title: "node ports out of the usual range are left out too",
    host: { first: 32768, last: 60999 },
    nodePorts: { first: 2000, last: 25_000 },
    expected: { first: 25_001, count: 4999 },
  },
  {
    title: "a host that takes all leaves none",
    host: { first: 1024, last: 65535 },
    expected: { first: 0, count: 0 },
  },
  {
    title: "ports of servers with privileges are never taken",
    host: { first: 50_000, last: 60_000 },
    nodePorts: { first: 80, last: 443 },
    expected: { first: 1024, count: 28_976 },
  },
])
  test(`ports for rewritten sources: ${title}`, (t) => {
    t.deepEqual(natPorts(host, nodePorts), expected);
  });

test("an address keeps its index, also over a restart, until there is no room", (t) => {
  const bytes = new Uint8Array(layout.bytes);
  const node = new NodeMap(bytes);
  t.is(node.indexOf("192.0.2.1"), 1);
  t.is(node.indexOf("2001:db8::1"), 2);
  t.is(node.indexOf("192.0.2.1"), 1);
  const again = new NodeMap(bytes);
  t.deepEqual(again.addresses, ["192.0.2.1", "2001:db8::1"]);
  t.is(again.addressOf(2), "2001:db8::1");
  t.is(again.addressOf(3), undefined);
  for (let last = 2; last < limit.NODE_SOURCES - 1; last++)
    t.is(again.indexOf(`192.0.2.${last}`), last + 1);
  t.is(again.indexOf("203.0.113.9"), undefined);
  t.is(again.indexOf("2001:db8::1"), 2);
});

test("the key of the flows' hash is random, and set once", (t) => {
  const keyOf = (bytes: Uint8Array) => layout.read(new DataView(bytes.buffer), 0).hashKey;
  const [one, other] = [new Uint8Array(layout.bytes), new Uint8Array(layout.bytes)];
  new NodeMap(one).setHashKey();
  new NodeMap(other).setHashKey();
  const key = keyOf(one);
  t.is(new Set(key).size, key.length);
  t.notDeepEqual(keyOf(other), key);
  new NodeMap(one).setHashKey();
  t.deepEqual(keyOf(one), key);
});

test("host ports and pods are written, and each leaves the other as it is", (t) => {
  const bytes = new Uint8Array(layout.bytes);
  const node = new NodeMap(bytes);
  const read = () => layout.read(new DataView(bytes.buffer), 0);
  node.addNodePort(31_000);
  node.addNodePort(30_500);
  node.setHostPorts({ first: 32_768, last: 60_999 });
  t.like(read(), { natFirst: 1024, natCount: 28_976, hostFirst: 32_768, hostLast: 60_999 });
  const ranges = ["10.244.0.0/16", "fd00:10:244::/48"].map((text) => parseRange(text)!);
  node.setPods({ ranges, isByDevice: false });
  t.like(read(), { detectsIpv4: 1, detectsIpv6: 1, detectsDevices: 0 });
  const [ipv4, ipv6] = [0, 1].map((index) =>
    serviceRange.read(new DataView(bytes.buffer), layout.offset.pods + index * serviceRange.bytes),
  );
  t.is(Buffer.from(ipv4!.address).toString("hex"), "00000000000000000000ffff0af40000");
  t.is(Buffer.from(ipv4!.mask).toString("hex"), "ffffffffffffffffffffffffffff0000");
  t.is(Buffer.from(ipv6!.mask).toString("hex"), "ffffffffffff00000000000000000000");
  node.setPods({ ranges: ranges.slice(1), isByDevice: false });
  t.like(read(), { detectsIpv4: 0, detectsIpv6: 1, nodePortFirst: 30_500, nodePortLast: 31_000 });
  node.setPods({ ranges: [], isByDevice: true });
  t.like(read(), { detectsIpv4: 1, detectsIpv6: 1, detectsDevices: 1, hostLast: 60_999 });
});

test("node ports and ports at own addresses lie within the bounds before they are there", (t) => {
  const bytes = new Uint8Array(layout.bytes);
  const node = new NodeMap(bytes);
  const below = new MemoryHash({ keyBytes: 20, valueBytes: 8, maxEntries: 9 });
  const store = new NodePortStore(below, node);
  const add = (address: string, port: number, kind: number) => {
    const key = encodeFrontendKey({ address: addressBytes(address), port, protocol: 6 });
    store.setBatch(key, encodeFrontend(key, { service: 1, kind }));
  };
  let atWrite = NONE;
  below.afterWrite = () => {
    atWrite = node.nodePorts;
  };
  add("10.96.0.1", 80, frontendKind.FRONTEND_CLUSTER_IP);
  add("192.0.2.7", 8443, frontendKind.FRONTEND_EXTERNAL_IP);
  t.deepEqual(atWrite, NONE);
  add("192.0.2.2", 30_080, frontendKind.FRONTEND_NODE_PORT);
  t.deepEqual(atWrite, { first: 30_080, last: 30_080 });
  store.setOwnAddresses(["192.0.2.2", "10.96.0.1"]);
  t.deepEqual(node.nodePorts, { first: 30_080, last: 30_080 });
  store.setOwnAddresses(["192.0.2.2", "192.0.2.7"]);
  t.deepEqual(node.nodePorts, { first: 8443, last: 30_080 });
  add("192.0.2.7", 31_000, frontendKind.FRONTEND_LOAD_BALANCER);
  t.deepEqual(atWrite, { first: 8443, last: 31_000 });
  store.deleteBatch([...below.entriesByKey.keys()].map((key) => Buffer.from(key, "latin1"))[2]!);
  t.deepEqual(node.nodePorts, { first: 8443, last: 31_000 });
});

test("the filter's bits of the node are those of its addresses, and no other bit changes", (t) => {
  const bytes = new Uint8Array(1024);
  const words = new BigUint64Array(bytes.buffer);
  words.fill(0x7777777777777777n);
  const filter = new NodeFilter(bytes);
  const [one, two] = ["192.0.2.1", "2001:db8::2"].map(addressBytes) as [Uint8Array, Uint8Array];
  const has = (address: Uint8Array) => (filterBits(words, address) & limit.FILTER_NODE) !== 0;
  filter.set([one]);
  t.deepEqual([has(one), has(two)], [true, false]);
  new NodeFilter(bytes).set([one, two]);
  t.deepEqual([has(one), has(two)], [true, true]);
  filter.set([two]);
  t.deepEqual([has(one), has(two)], [false, true]);
  filter.set([]);
  t.true(words.every((word) => word === 0x7777777777777777n));
});
