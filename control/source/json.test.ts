// Places in JSON texts, against what JSON.parse makes of the same texts.
import test from "ava";
import fc from "fast-check";
import { findDuplicateKey, findOffset, type JsonPath, linePosition } from "./json.ts";

/** Every path into a value, with the value there. */
function paths(value: unknown, prefix: JsonPath = []): [JsonPath, unknown][] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => {
    const path = [...prefix, Array.isArray(value) ? Number(key) : key];
    return [[path, inner] as [JsonPath, unknown], ...paths(inner, path)];
  });
}

test("every key and entry of any JSON text is found where it stands", (t) => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 4 }), fc.constantFrom(0, 1, "\t"), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      for (const [path, inner] of paths(JSON.parse(text))) {
        const last = path.at(-1)!;
        const expected = JSON.stringify(typeof last === "string" ? last : inner);
        const start = expected.slice(0, 1);
        const found = text.slice(findOffset(text, path));
        t.true(found.startsWith(typeof last === "string" ? expected : start), `${path}: ${text}`);
      }
      t.is(findDuplicateKey(text), undefined);
    }),
    { numRuns: 500 },
  );
});

test("a path that is not there gives the nearest place around it", (t) => {
  const text = '{\n  "spec": {\n    "ports": [{"port": 1}, {"name": "x"}]\n  }\n}';
  t.true(text.slice(findOffset(text, ["spec", "ports", 1, "port"])).startsWith('{"name"'));
  t.deepEqual(linePosition(text, findOffset(text, ["spec", "x"])), { line: 2, column: 3 });
  t.deepEqual(linePosition(text, findOffset(text, [])), { line: 1, column: 1 });
});

test("a key is repeated only within one map", (t) => {
  t.is(findDuplicateKey('[{"a":1},{"a":{"a":[{"a":"a"}]},"b":"a"}]'), undefined);
  t.deepEqual(findDuplicateKey('{"a":{"x":1},"\\u0061":2}'), { key: "a", offset: 13 });
  t.deepEqual(findDuplicateKey('{"a":{"x":[1,{}],"y":{},"x":3}}'), { key: "x", offset: 24 });
});
