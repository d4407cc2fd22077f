// What the encoder makes of JSON objects, read back by a decoder that goes by the wire alone; the
// bytes themselves are held against a real server's in fixtures.test.ts.
import test from "ava";
import fc from "fast-check";
import { decodeMessage, readWire } from "./client.ts";
import { encodeMessage } from "./protobuf.ts";

test("a field that the schema lacks is refused with its path", (t) => {
  const spec = { ports: [{ port: 80, protocoll: "TCP" }] };
  t.throws(() => encodeMessage("Service", { metadata: {}, spec }), {
    message: /^'spec\.ports\[0\]\.protocoll' is no field of 'ServicePort'; .*add it to the schema/,
  });
  t.throws(() => encodeMessage("Service", { metdata: {} }), { message: /^'metdata' is no field/ });
});

const WRONG: readonly (readonly [object, RegExp])[] = [
  [{ spec: { clusterIP: 7 } }, /^'spec\.clusterIP' is 7, but the schema wants a string/],
  [{ spec: { healthCheckNodePort: "1" } }, /^'spec\.healthCheckNodePort' is "1", .*whole number/],
  [{ spec: { publishNotReadyAddresses: 1 } }, /NotReadyAddresses' is 1, .*true or false/],
  [{ spec: { externalIPs: "1.2.3.4" } }, /^'spec\.externalIPs' is "1\.2\.3\.4", .*a list/],
  [{ spec: [] }, /^'spec' is \[\], .*a map/],
  [{ metadata: { labels: { a: 1 } } }, /^'metadata\.labels\[a\]' is 1, .*a string/],
  [{ metadata: { creationTimestamp: "today" } }, /creationTimestamp' is "today", .*a time like/],
  [{ spec: { ports: [{ targetPort: true }] } }, /targetPort' is true, .*number or a string/],
];

test("a value of the wrong type is refused with its path", (t) => {
  for (const [value, message] of WRONG)
    t.throws(() => encodeMessage("Service", value), { message });
});

test("after a refusal the next object is encoded as if nothing had been", (t) => {
  const bytes = encodeMessage("ServiceCIDRSpec", { cidrs: ["10.96.0.0/16"] });
  t.throws(() => encodeMessage("Service", { spec: { clusterIP: 7 }, status: {} }));
  t.deepEqual(encodeMessage("ServiceCIDRSpec", { cidrs: ["10.96.0.0/16"] }), bytes);
});

test("fields that are absent or null are written only where Go writes their zero", (t) => {
  const port = { name: null, port: undefined, nodePort: 30000 };
  const numbers = [...readWire(encodeMessage("ServicePort", port))].map(({ number }) => number);
  t.deepEqual(numbers, [1, 2, 3, 4, 5]);
  t.deepEqual([...readWire(encodeMessage("EndpointPort", { name: null }))], []);
});

test("any whole number and any text comes back as it was", (t) => {
  fc.assert(
    fc.property(fc.maxSafeInteger(), fc.string({ unit: "binary" }), (generation, name) => {
      const text = Buffer.from(name).toString();
      const bytes = encodeMessage("ObjectMeta", { generation, name: text });
      const decoded = decodeMessage("ObjectMeta", bytes);
      t.is(decoded.generation, generation);
      t.is(decoded.name, text);
    }),
  );
});

test("maps are written by key, quantities and labels alike", (t) => {
  const capacity = { pods: "110", cpu: "2", memory: "4Gi" };
  const decoded = decodeMessage("NodeStatus", encodeMessage("NodeStatus", { capacity }));
  t.deepEqual(Object.entries(decoded.capacity as object), [
    ["cpu", "2"],
    ["memory", "4Gi"],
    ["pods", "110"],
  ]);
  const labels = { b: "2", a: "" };
  const meta = decodeMessage("ObjectMeta", encodeMessage("ObjectMeta", { labels }));
  t.deepEqual(Object.entries(meta.labels as object), [
    ["a", ""],
    ["b", "2"],
  ]);
});

test("an object larger than the encoder's buffer is whole", (t) => {
  const addresses = Array.from({ length: 20_000 }, (_, index) => `fd00::${index.toString(16)}`);
  const decoded = decodeMessage("Endpoint", encodeMessage("Endpoint", { addresses }));
  t.deepEqual(decoded.addresses, addresses);
});
