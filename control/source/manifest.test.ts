// One manifest's text: what is found, and where what cannot be read is.
import test from "ava";
import fc from "fast-check";
import { type Manifest, readManifest } from "./manifest.ts";
import { formatProblem } from "./source.ts";

const web = `apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.1
  ports:
    - port: 80
`;

function read(text: string, file = "a.yaml"): Manifest {
  return readManifest(text, { file });
}

function keys({ objects }: Manifest): string[] {
  return [...objects.keys()];
}

function lines({ problems }: Manifest): string[] {
  return problems.map(formatProblem);
}

test("documents, lists, typed lists and lists in lists give their objects", (t) => {
  const typed = {
    apiVersion: "v1",
    kind: "ServiceList",
    items: [{ metadata: { name: "b" }, spec: { clusterIP: "None" } }],
  };
  const service = { kind: "Service", metadata: { name: "c" }, spec: { clusterIP: "10.96.0.3" } };
  const list = {
    kind: "List",
    items: [service, { kind: "List", items: [typed] }, { kind: "Pod" }],
  };
  const text = `${web}---\n# nothing\n---\nkind: Deployment\n---\n${JSON.stringify(list)}\n`;
  const manifest = read(text);
  t.deepEqual(lines(manifest), []);
  t.deepEqual(keys(manifest), ["Service default/web", "Service default/c", "Service default/b"]);
  t.true(manifest.isWhole);
  t.deepEqual(keys(read(JSON.stringify(list), "a.json")), keys(manifest).slice(1));
});

test("a problem in an object has file, line, column, object and field", (t) => {
  const manifest = read(`---\n${web}---\n${web.replace("web", "api").replace("80", "http")}`);
  t.deepEqual(keys(manifest), ["Service default/web", "Service default/api"]);
  t.deepEqual(lines(manifest), [
    'a.yaml:16:13: Service "default/api": spec.ports[0].port is "http", ' +
      "not a whole number from 1 to 65535; the port is skipped",
  ]);
});

test("a problem in JSON has file, line and column too", (t) => {
  const value = {
    kind: "List",
    items: [
      { kind: "Service", metadata: { name: "web" }, spec: { clusterIP: "10.96.0.1", ports: [{}] } },
    ],
  };
  const [line] = lines(read(JSON.stringify(value, null, 2), "a.json"));
  t.regex(line!, /^a\.json:12:\d+: Service "default\/web": spec\.ports\[0\]\.port is missing/);
});

test("a document that is broken leaves the others, and says which object it is", (t) => {
  const broken = web.replace("web", "api").replace("10.96.0.1", "[10.96.0.1");
  const manifest = read(`${web}---\n${broken}`);
  t.deepEqual(keys(manifest), ["Service default/web"]);
  t.false(manifest.isWhole);
  t.regex(lines(manifest)[0]!, /^a\.yaml:\d+:\d+: Service "default\/api" cannot be read: /);
});

test("a repeated key makes its document unreadable, in YAML and in JSON", (t) => {
  const yaml = read(`${web}---\n${web}kind: Node\n`);
  t.false(yaml.isWhole);
  t.regex(lines(yaml)[0]!, /^a\.yaml:16:1: .*Map keys must be unique/);
  const json = read('{"kind": "Service",\n "metadata": {"name": "x"},\n "kind": "Node"}', "a.json");
  t.false(json.isWhole);
  t.regex(lines(json)[0]!, /^a\.json:3:2: Node "x" cannot be read: the key "kind" is there twice/);
});

test("JSON that is none says where", (t) => {
  const manifest = read('{"kind": "Service",\n "metadata": {"name": "x"', "a.json");
  t.false(manifest.isWhole);
  t.regex(lines(manifest)[0]!, /^a\.json:2:\d+: Service "default\/x" cannot be read/);
});

test("an object that is in a file twice is read once and named", (t) => {
  const manifest = read(`${web}---\n${web}`);
  t.is(manifest.objects.size, 1);
  t.regex(lines(manifest)[0]!, /^a\.yaml:9:1: Service "default\/web" is in this file twice/);
});

test("an object that cannot be used as a whole is known by name, if it has one", (t) => {
  const unnamed = read(web.replace("name: web", ""));
  t.false(unnamed.isWhole);
  const manifest = read(web.replace("10.96.0.1", "10.96"));
  t.true(manifest.isWhole);
  t.deepEqual([...manifest.unreadable], ["Service default/web"]);
});

test("aliases that multiply without end are refused", (t) => {
  const levels = Array.from(
    { length: 12 },
    (_, n) => `a${n + 1}: &a${n + 1} [${`*a${n}, `.repeat(9)}]`,
  );
  const manifest = read(`a0: &a0 x\n${levels.join("\n")}\n`);
  t.regex(lines(manifest)[0]!, /Excessive alias count/);
});

test("a list that holds itself ends", (t) => {
  t.notThrows(() => read("&a\nkind: List\nitems: [*a, *a]\n"));
});

test("text nested as deeply as you like never throws", (t) => {
  for (const open of ["[", "{a: ", "- ", "&x ["]) {
    t.notThrows(() => read(open.repeat(20_000)));
    t.notThrows(() => read(open.repeat(20_000), "a.json"));
  }
  const json = `${"[".repeat(50_000)}${"]".repeat(50_000)}`;
  t.is(read(json, "a.json").objects.size, 0);
});

test("neither any text nor any JSON value throws, and a good document beside it is read", (t) => {
  const values = fc.oneof(
    fc.jsonValue().map((value) => JSON.stringify(value)),
    fc
      .record({ kind: fc.constantFrom("Service", "List", "Node"), items: fc.jsonValue() })
      .map((value) => JSON.stringify(value)),
  );
  fc.assert(
    fc.property(values, (text) => {
      const manifest = read(`${web}---\n${text}\n`);
      return manifest.objects.has("Service default/web");
    }),
    { numRuns: 300 },
  );
  fc.assert(
    fc.property(fc.string({ unit: "binary" }), (text) => {
      read(text);
      read(text, "a.json");
    }),
    { numRuns: 500 },
  );
  t.pass();
});

test("of very many faults in one file the first are found, and none is lost", (t) => {
  const items = Array.from({ length: 300 }, (_, index) => ({
    kind: "Service",
    metadata: { name: `s${index}` },
  }));
  const { problems } = readManifest(JSON.stringify({ kind: "List", items }), { file: "a.json" });
  t.is(problems.length, 300);
  t.true(problems.slice(0, 100).every(({ line }) => line === 1));
  t.true(problems.slice(100).every(({ line }) => line === 0));
});
