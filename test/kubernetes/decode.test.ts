// Kubernetes' bytes to objects of the model: the recordings of a real API server, any object in
// both encodings, bodies in any pieces, and damage of every kind.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";
import fc from "fast-check";
import {
  Decoder,
  decodeStatusBody,
  parseStatusBody,
  type Version,
  type WatchEvent,
  type WatchedKind,
} from "../../control/source/kubernetes/decode.ts";
import {
  JSON_TYPE,
  type ListMeta,
  makeEventReader,
  makeListReader,
  PROTOBUF,
} from "../../control/source/kubernetes/stream.ts";
import { DecodeError } from "../../control/source/kubernetes/wire.ts";
import { encodeMessage } from "../../lab/apiserver/protobuf.ts";

const root = path.resolve(import.meta.dirname, "../../..");
const fixtures = path.resolve(root, process.env.BPFSVC_FIXTURES ?? "../shared/fixtures");
const folder = path.join(fixtures, "apiserver-1.36");
const hasFixtures = existsSync(folder);
if (!hasFixtures) console.error(`Left out, what was recorded: "${folder}" does not exist`);
// Without them these tests fail on CI, where nothing may be left out.
const recorded = hasFixtures || (process.env.CI ?? "") !== "" ? test : test.skip;
const read = (file: string) => readFileSync(path.join(folder, file));

function typeOf(file: string): string {
  return file.endsWith(".pb") ? PROTOBUF : JSON_TYPE;
}

/** Pieces of `size` bytes. */
function* cut(bytes: Buffer, size: number): Generator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size);
}

function readList(
  kind: WatchedKind,
  { type, bytes, size = 65536 }: { type: string; bytes: Buffer; size?: number },
): { versions: Version[]; meta: ListMeta } {
  const versions: Version[] = [];
  const reader = makeListReader(type, new Decoder(kind), (version) => versions.push(version))!;
  for (const piece of cut(bytes, size)) reader.push(piece);
  return { meta: reader.end(), versions };
}

function readEvents(
  kind: WatchedKind,
  { type, bytes, size = 65536 }: { type: string; bytes: Buffer; size?: number },
): WatchEvent[] {
  const events: WatchEvent[] = [];
  const reader = makeEventReader(type, new Decoder(kind), (event) => events.push(event))!;
  for (const piece of cut(bytes, size)) reader.push(piece);
  reader.end();
  return events;
}

for (const [name, kind, count] of [
  ["services-list", "Service", 6],
  ["services-list-all", "Service", 8],
  ["endpointslices-list", "EndpointSlice", 6],
  ["node", "Node", 1],
  ["servicecidrs-list", "ServiceCIDR", 1],
] as const)
  recorded(`the recorded ${name} gives the same in protobuf, in any pieces, and in JSON`, (t) => {
    const json = readList(kind, { type: JSON_TYPE, bytes: read(`${name}.json`) });
    t.is(json.versions.length, count);
    t.true(json.versions.every(({ name, resourceVersion }) => name && resourceVersion));
    for (const size of [1, 2, 3, 7, 100, 1000, 65536])
      t.deepEqual(readList(kind, { type: PROTOBUF, bytes: read(`${name}.pb`), size }), json);
  });

for (const [name, kind, types] of [
  ["endpointslices-watch", "EndpointSlice", "MODIFIED MODIFIED ADDED DELETED DELETED ADDED"],
  ["services-watchlist", "Service", "ADDED ADDED ADDED ADDED ADDED ADDED BOOKMARK"],
  ["services-watch-410", "Service", "ERROR"],
] as const)
  recorded(`the recorded ${name} gives these events in protobuf and in JSON`, (t) => {
    for (const extension of ["pb", "json"])
      for (const size of [1, 5, 1000, 65536]) {
        const file = `${name}.${extension}`;
        const events = readEvents(kind, { type: typeOf(file), bytes: read(file), size });
        t.true(
          events
            .map(({ type }) => type)
            .join(" ")
            .startsWith(types),
          file,
        );
      }
  });

recorded("a streamed list has the objects of the list, and a bookmark that ends it", (t) => {
  for (const extension of ["pb", "json"]) {
    const list = readList("Service", { type: JSON_TYPE, bytes: read("services-list.json") });
    const file = `services-watchlist.${extension}`;
    const events = readEvents("Service", { type: typeOf(file), bytes: read(file) });
    const added = events.flatMap((event) => (event.type === "ADDED" ? [event.version] : []));
    t.deepEqual(added, list.versions);
    const bookmark = events.find(({ type }) => type === "BOOKMARK");
    t.like(bookmark, { type: "BOOKMARK", endsInitialEvents: true });
  }
});

recorded("errors keep code, reason and message, on their own and as events", (t) => {
  t.like(decodeStatusBody(read("error-401.pb")), { code: 401, reason: "Unauthorized" });
  t.like(decodeStatusBody(read("error-404.pb")), { code: 404, reason: "NotFound" });
  t.is(decodeStatusBody(read("node.pb")), undefined);
  const expired = { code: 410, reason: "Expired", retryAfterSeconds: 0 };
  for (const file of ["services-watch-410.pb", "services-watch-410.json"]) {
    const [event] = readEvents("Service", { type: typeOf(file), bytes: read(file) });
    t.like(event, { type: "ERROR", status: expired });
  }
  const text = JSON.stringify({ kind: "Status", code: 429, details: { retryAfterSeconds: 3 } });
  t.like(parseStatusBody(Buffer.from(text)), { code: 429, retryAfterSeconds: 3 });
  t.is(parseStatusBody(Buffer.from("<html>")), undefined);
});

recorded("pages lead from one to the next", (t) => {
  const first = readList("Service", { type: PROTOBUF, bytes: read("services-page1.pb") });
  const second = readList("Service", { type: PROTOBUF, bytes: read("services-page2.pb") });
  t.deepEqual([first.versions.length, first.meta.continue.length > 20], [3, true]);
  t.deepEqual([second.versions.length, second.meta.continue.length > 20], [3, true]);
});

const word = fc.constantFrom("web", "a", "node-a", "zone-a", "shop", "x/y", "täglich", "");
const name = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom("web", "db-1", "node-a.example", "x".repeat(70)) },
  word,
);
const address = fc.oneof(
  { weight: 4, arbitrary: fc.ipV4() },
  { weight: 2, arbitrary: fc.ipV6() },
  fc.constantFrom("10.1.2.3", "10.1.2.03", "::ffff:10.1.2.3", "fe80::1", "127.0.0.1", "x", ""),
);
const port = fc.oneof({ weight: 4, arbitrary: fc.integer({ min: 1, max: 65535 }) }, fc.integer());
const protocol = fc.constantFrom("TCP", "UDP", "SCTP", "QUIC", "");
const optional = { requiredKeys: [] as never[] };

const metadata = fc.record({
  name,
  namespace: fc.constantFrom("shop", "default", "x".repeat(64)),
  resourceVersion: fc.constantFrom("1", "123456", ""),
  creationTimestamp: fc.constantFrom("2026-01-31T12:00:00Z", "2001-02-03T04:05:06Z"),
  labels: fc.dictionary(
    fc.constantFrom(
      "app",
      "kubernetes.io/service-name",
      "service.kubernetes.io/headless",
      "service.kubernetes.io/service-proxy-name",
      "topology.kubernetes.io/zone",
    ),
    word,
  ),
  annotations: fc.dictionary(
    fc.constantFrom("note", "endpoints.kubernetes.io/last-change-trigger-time"),
    fc.oneof(
      fc
        .date({ noInvalidDate: true, min: new Date(0), max: new Date("9999-12-31") })
        .map((date) => date.toISOString()),
      fc.constantFrom("2026-1-31T12:00:00Z", "2999-01-01T12:00:00Z", "2999-13-01T12:00:00Z"),
      fc.constantFrom("2999-01-01T12:00:00.5+01:00", "2999", "x", "Z", ""),
    ),
  ),
});

const hints = fc.array(fc.record({ name: word }), { maxLength: 3 });

const slice = fc.record({
  metadata,
  addressType: fc.constantFrom("IPv4", "IPv4", "IPv6", "FQDN", "IPv9"),
  endpoints: fc.array(
    fc.record(
      {
        addresses: fc.array(address, { maxLength: 3 }),
        conditions: fc.record(
          { ready: fc.boolean(), serving: fc.boolean(), terminating: fc.boolean() },
          optional,
        ),
        nodeName: word,
        zone: word,
        hints: fc.record({ forZones: hints, forNodes: hints }, optional),
        targetRef: fc.record({ kind: fc.constant("Pod"), name }),
      },
      { requiredKeys: ["addresses", "conditions"] },
    ),
    { maxLength: 5 },
  ),
  ports: fc.array(fc.record({ name, protocol, port }, optional), { maxLength: 3 }),
});

const service = fc.record({
  metadata,
  spec: fc.record(
    {
      type: fc.constantFrom("ClusterIP", "NodePort", "LoadBalancer", "ExternalName", "x"),
      clusterIP: fc.oneof(address, fc.constant("None")),
      clusterIPs: fc.array(address, { maxLength: 2 }),
      ipFamilies: fc.array(fc.constantFrom("IPv4", "IPv6", "x"), { maxLength: 2 }),
      ports: fc.array(fc.record({ name, protocol, port, nodePort: port }), { maxLength: 3 }),
      externalIPs: fc.array(address, { maxLength: 2 }),
      loadBalancerSourceRanges: fc.array(fc.constantFrom("10.0.0.0/8", " ::/0", "x")),
      sessionAffinity: fc.constantFrom("None", "ClientIP", "x"),
      sessionAffinityConfig: fc.record({ clientIP: fc.record({ timeoutSeconds: fc.integer() }) }),
      externalTrafficPolicy: fc.constantFrom("Cluster", "Local", "x"),
      internalTrafficPolicy: fc.constantFrom("Cluster", "Local", "x"),
      healthCheckNodePort: port,
      selector: fc.dictionary(word, word),
    },
    optional,
  ),
  status: fc.record({
    loadBalancer: fc.record({
      ingress: fc.array(
        fc.record(
          { ip: address, hostname: word, ipMode: fc.constantFrom("VIP", "Proxy", "x") },
          optional,
        ),
        { maxLength: 2 },
      ),
    }),
  }),
});

const node = fc.record({
  metadata,
  spec: fc.record({ podCIDRs: fc.array(fc.constantFrom("10.0.0.0/24", "fd00::/64", "x")) }),
  status: fc.record({
    addresses: fc.array(
      fc.record({ type: fc.constantFrom("InternalIP", "Hostname", "ExternalIP"), address }),
    ),
  }),
});

const values = { EndpointSlice: slice, Service: service, Node: node } as const;

for (const kind of ["EndpointSlice", "Service", "Node"] as const)
  test(`any ${kind} is the same object, with the same problems, in protobuf and in JSON`, (t) => {
    const [binary, plain] = [new Decoder(kind), new Decoder(kind)];
    let used = 0;
    fc.assert(
      fc.property(values[kind], (value: object) => {
        const decoded = binary.decode(encodeMessage(kind, value));
        t.deepEqual(decoded, plain.read(JSON.parse(JSON.stringify(value))));
        if (decoded.object !== undefined) used++;
      }),
      { numRuns: 1500 },
    );
    t.true(used > 100, `${used} of them could be used`);
  });

const good = {
  metadata: {
    name: "web",
    namespace: "shop",
    resourceVersion: "7",
    creationTimestamp: "2026-01-31T12:00:00Z",
    labels: { "kubernetes.io/service-name": "web" },
  },
  addressType: "IPv4",
  endpoints: [
    { addresses: ["10.1.2.3"], conditions: { ready: true }, nodeName: "node-a" },
    { addresses: ["10.1.2.4"], conditions: { ready: false }, nodeName: "node-b", zone: "z" },
  ],
  ports: [{ name: "http", protocol: "TCP", port: 80 }],
};

const LATER = new Date(Math.ceil(Date.now() / 1000) * 1000 + 3_600_000).toISOString();
const LATER_MS = Date.parse(LATER);

for (const [title, text, milliseconds] of [
  ["of the future", LATER, LATER_MS],
  ["of the future, to the second", LATER.replace(".000Z", "Z"), LATER_MS],
  ["of the future, to the nanosecond", LATER.replace(".000Z", ".123456789Z"), LATER_MS + 123],
  ["of a zone west of here", LATER.replace(".000Z", "-01:00"), LATER_MS + 3_600_000],
  ["of a zone east of here, and so past", LATER.replace(".000Z", "+02:00"), 0],
  ["from before this process", "2026-01-31T12:00:00Z", 0],
  ["that is none", "yesterday", 0],
  ["that is not there", undefined, 0],
] as const)
  test(`a time ${title} is taken from a slice's annotation alike, however it is read`, (t) => {
    const annotations = {
      "example.com/note": "x",
      ...(text && { "endpoints.kubernetes.io/last-change-trigger-time": text }),
    };
    const slice = { ...good, metadata: { ...good.metadata, annotations } };
    // An odd one is read by the general reader.
    const odd = { ...slice, endpoints: [{ addresses: ["127.0.0.1"], conditions: {} }] };
    for (const value of [slice, odd]) {
      const decoder = new Decoder("EndpointSlice");
      t.is(decoder.decode(encodeMessage("EndpointSlice", value)).triggeredMs, milliseconds);
      t.is(decoder.read(value).triggeredMs, milliseconds);
    }
  });

test("every truncation of a slice is a DecodeError, or ends between two of its fields", (t) => {
  const bytes = encodeMessage("EndpointSlice", good);
  let whole = 0;
  for (let length = 0; length < bytes.length; length++) {
    try {
      new Decoder("EndpointSlice").decode(bytes.subarray(0, length));
      whole++;
    } catch (error) {
      t.true(error instanceof DecodeError);
    }
  }
  // Nothing, metadata, two endpoints and the port: only there can no length tell.
  t.is(whole, 5);
});

test("mutated bytes throw nothing but DecodeError", (t) => {
  const bytes = encodeMessage("EndpointSlice", good);
  const decoder = new Decoder("EndpointSlice");
  const change = fc.tuple(fc.nat(bytes.length - 1), fc.integer({ min: 0, max: 255 }));
  let damaged = 0;
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 4 }), (changes) => {
      const copy = Buffer.from(bytes);
      for (const [at, byte] of changes) copy[at] = byte;
      try {
        decoder.decode(copy);
      } catch (error) {
        damaged++;
        t.true(error instanceof DecodeError);
      }
    }),
    { numRuns: 5000 },
  );
  t.true(damaged > 1000);
});

recorded("a body cut anywhere is a DecodeError, for lists and for watches", (t) => {
  for (const [file, kind] of [
    ["services-list.pb", "Service"],
    ["services-list.json", "Service"],
    ["endpointslices-list.pb", "EndpointSlice"],
  ] as const) {
    const bytes = read(file);
    const type = typeOf(file);
    // What comes after the list in its wrapping is of no use, and a newline neither.
    const needed = bytes.length - 5;
    for (let length = 0; length < needed; length += type === PROTOBUF ? 1 : 37) {
      const error = t.throws(() => readList(kind, { type, bytes: bytes.subarray(0, length) }));
      t.true(error instanceof DecodeError, `${file} ${length}`);
    }
  }
  const bytes = read("endpointslices-watch.pb");
  const whole = readEvents("EndpointSlice", { type: PROTOBUF, bytes }).length;
  let between = 0;
  for (let length = 0; length < bytes.length; length++) {
    try {
      readEvents("EndpointSlice", { type: PROTOBUF, bytes: bytes.subarray(0, length) });
      between++;
    } catch (error) {
      t.true(error instanceof DecodeError);
    }
  }
  t.is(between, whole);
});

recorded("nonsense in a body is a DecodeError, wherever it comes", (t) => {
  const nonsense = Buffer.from("<html><body>Bad gateway</body></html>");
  for (const [file, kind] of [
    ["services-list.pb", "Service"],
    ["endpointslices-list.pb", "EndpointSlice"],
  ] as const) {
    const bytes = read(file);
    for (let at = 0; at < bytes.length - 10; at += 11) {
      const damaged = Buffer.concat([bytes.subarray(0, at), nonsense, bytes.subarray(at)]);
      const error = t.throws(() => readList(kind, { type: PROTOBUF, bytes: damaged }));
      t.true(error instanceof DecodeError, `${file} ${at}`);
    }
  }
});

test("a list of another kind, or with an object of another kind, is a DecodeError", (t) => {
  const list = JSON.stringify({ kind: "NodeList", metadata: { resourceVersion: "1" }, items: [] });
  t.throws(() => readList("Service", { type: JSON_TYPE, bytes: Buffer.from(list) }), {
    instanceOf: DecodeError,
    message: 'Cannot decode a list of Service: it is a "NodeList"',
  });
  const event = '{"type":"ADDED","object":{"kind":"Node"}}\n';
  t.throws(() => readEvents("Service", { type: JSON_TYPE, bytes: Buffer.from(event) }), {
    instanceOf: DecodeError,
  });
});
