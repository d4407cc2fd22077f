// Whether ava.ts judges as AVA does: each assertion is made through both, where it holds and where
// it does not. What runs in guests would prove nothing if a failure passed there.
import test, { type ExecutionContext } from "ava";
import { Context } from "./ava.ts";

class Special extends TypeError {}

function fail(error: unknown): never {
  throw error;
}

const coded = Object.assign(new Special("ENOENT, no such file"), { code: "ENOENT" });
/** A value of any type where TypeScript knows that it cannot be right. */
const other = (value: unknown) => value as never;
const bytes = (...values: number[]) => Uint8Array.from(values);

/** Each assertion with what it does for it to hold and to fail. */
const CASES: Readonly<Record<string, readonly ((t: ExecutionContext) => unknown)[]>> = {
  is: [(t) => t.is(1n, 1n), (t) => t.is(Number.NaN, Number.NaN), (t) => t.is(1, other("1"))],
  "is of zeros": [(t) => t.is(0, -0), (t) => t.is({}, {})],
  not: [(t) => t.not(1, 2), (t) => t.not(1, 1)],
  deepEqual: [
    (t) => t.deepEqual({ a: [1, { b: 2n }] }, { a: [1, { b: 2n }] }),
    (t) => t.deepEqual({ a: [1, { b: 2n }] }, other({ a: [1, { b: 2 }] })),
    (t) => t.deepEqual({ a: undefined }, other({})),
    (t) => t.deepEqual(bytes(1, 2), bytes(1, 2)),
    (t) => t.deepEqual(bytes(1, 2), bytes(1, 3)),
    (t) => t.deepEqual(bytes(1, 2), other([1, 2])),
    (t) => t.deepEqual(new Map([["a", 1]]), new Map([["a", 1]])),
    (t) => t.deepEqual(new Map([["a", 1]]), new Map([["a", 2]])),
    (t) => t.deepEqual(new Special("a"), other(new TypeError("a"))),
  ],
  notDeepEqual: [(t) => t.notDeepEqual([1], [2]), (t) => t.notDeepEqual([1], [1])],
  like: [
    (t) => t.like({ a: 1, b: { c: 2, d: 3 } }, { b: { c: 2 } }),
    (t) => t.like({ a: 1, b: { c: 2 } }, { b: { c: 3 } }),
    (t) => t.like({ a: 1 }, other({ b: undefined })),
    (t) => t.like({ a: 1 }, other({ a: undefined })),
    (t) => t.like({ a: [{ b: 1, c: 2 }] }, { a: [{ b: 1 }] }),
    (t) => t.like({ a: [1, 2] }, { a: [1] }),
    (t) => t.like({ a: [1] }, other({ a: [1, 2] })),
    (t) => t.like({ a: [1] }, { a: [2] }),
    (t) => t.like({ a: bytes(1) }, { a: bytes(1) }),
    (t) => t.like({ a: bytes(1) }, { a: bytes(2) }),
    (t) => t.like(other(undefined), { a: 1 }),
  ],
  true: [(t) => t.true(true), (t) => t.true(1), (t) => t.true(false)],
  false: [(t) => t.false(false), (t) => t.false(0), (t) => t.false(true)],
  truthy: [(t) => t.truthy("a"), (t) => t.truthy("")],
  falsy: [(t) => t.falsy(0), (t) => t.falsy([])],
  regex: [(t) => t.regex("abc", /b/), (t) => t.regex("abc", /d/)],
  notRegex: [(t) => t.notRegex("abc", /d/), (t) => t.notRegex("abc", /b/)],
  pass: [(t) => t.pass()],
  fail: [(t) => t.fail()],
  "no assertion": [() => {}],
  "an error": [(t) => t.pass() && fail(coded), async (t) => t.pass() && fail(coded)],
  "a caught failure": [
    (t) => {
      try {
        t.is(1, 2 as number);
      } catch {}
    },
  ],
  throws: [
    (t) => t.throws(() => fail(coded)),
    (t) => t.throws(() => 1),
    (t) => t.throws(() => fail(coded), { instanceOf: TypeError, code: "ENOENT" }),
    (t) => t.throws(() => fail(coded), { instanceOf: RangeError }),
    (t) => t.throws(() => fail(coded), { code: "EPERM" }),
    (t) => t.throws(() => fail(coded), { name: "TypeError" }),
    (t) => t.throws(() => fail(coded), { name: "Special" }),
    (t) => t.throws(() => fail(coded), { message: /^ENOENT/ }),
    (t) => t.throws(() => fail(coded), { message: /^no such/ }),
    (t) => t.throws(() => fail(coded), { message: "ENOENT, no such file" }),
    (t) => t.throws(() => fail(coded), { message: "ENOENT" }),
    (t) => t.throws(() => fail(coded), { message: (text) => text.length > 3 }),
    (t) => t.throws(() => fail(coded), { message: (text) => text.length > 99 }),
    (t) => t.throws(() => fail("text")),
    (t) =>
      t.is(
        t.throws(() => fail(coded)),
        coded,
      ),
  ],
  throwsAsync: [
    (t) => t.throwsAsync(async () => fail(coded)),
    (t) => t.throwsAsync(Promise.reject(coded), { message: /ENOENT/ }),
    (t) => t.throwsAsync(Promise.reject(coded), { message: /EPERM/ }),
    (t) => t.throwsAsync(async () => 1),
    async (t) => t.is(await t.throwsAsync(Promise.reject(coded)), coded),
  ],
  notThrows: [(t) => t.notThrows(() => 1), (t) => t.notThrows(() => fail(coded))],
  notThrowsAsync: [
    (t) => t.notThrowsAsync(Promise.resolve(1)),
    (t) => t.notThrowsAsync(async () => fail(coded)),
  ],
  teardown: [
    (t) => t.pass() && t.teardown(() => {}),
    (t) => t.pass() && t.teardown(async () => fail(coded)),
  ],
};

for (const [assertion, cases] of Object.entries(CASES))
  for (const [index, work] of cases.entries())
    test(`${assertion}, case ${index + 1}: guests judge as AVA does`, async (t) => {
      const attempt = await t.try(async (own) => void (await work(own)));
      attempt.discard();
      const context = new Context("case");
      const failure = await context.run(async () => work(context as unknown as ExecutionContext), {
        asserts: true,
      });
      t.is(failure === undefined, attempt.passed);
    });
