// The part of AVA that our tests use, for all files in one process: AVA itself starts a process a
// file, which takes seconds in an emulated guest. bundle.ts puts it in AVA's place; ava.test.ts
// holds it against AVA. Writes TAP. Tests run one after another, as if all were serial.
import { inspect, isDeepStrictEqual } from "node:util";
import { PATIENCE } from "../../lab/wait.ts";

type Hook = (t: Context) => unknown;
interface Test {
  title: string;
  implementation: Hook;
  isSkipped: boolean;
}
interface File {
  tests: Test[];
  before: Hook[];
  after: Hook[];
}
interface Expectation {
  instanceOf?: abstract new (...values: never[]) => unknown;
  message?: string | RegExp | ((message: string) => boolean);
  name?: string;
  code?: string | number;
}

const TIMEOUT_MS = 120_000 * PATIENCE;
let file: File = { tests: [], before: [], after: [] };

class Failure extends Error {
  override readonly name = "Failure";
}

function show(value: unknown): string {
  return inspect(value, { depth: 6, breakLength: 90 });
}

/** Whether `value` has all of `selector`'s keys, with like values. */
function isLike(value: unknown, selector: unknown): boolean {
  if (typeof selector !== "object" || selector === null) return Object.is(value, selector);
  const isPlain = Array.isArray(selector) || Object.getPrototypeOf(selector) === Object.prototype;
  if (!isPlain) return isDeepStrictEqual(value, selector);
  if (typeof value !== "object" || value === null) return false;
  return Object.entries(selector).every(([key, wanted]) =>
    isLike((value as Record<string, unknown>)[key], wanted),
  );
}

function whyNotExpected(error: unknown, expected: Expectation): string | undefined {
  if (!(error instanceof Error)) return `threw ${show(error)}, which is no error`;
  const { instanceOf, message, name, code } = expected;
  if (instanceOf && !(error instanceof instanceOf)) return `is no ${instanceOf.name}`;
  if (name !== undefined && error.name !== name) return `is not named ${name}`;
  if (code !== undefined && (error as { code?: unknown }).code !== code) return `has no ${code}`;
  const isWanted =
    message === undefined ||
    (typeof message === "string" && error.message === message) ||
    (message instanceof RegExp && message.test(error.message)) ||
    (typeof message === "function" && message(error.message));
  return isWanted ? undefined : `has another message than ${String(message)}`;
}

/** What a test gets, as AVA's ExecutionContext: a failed assertion throws. */
export class Context {
  readonly title: string;
  readonly #teardowns: (() => unknown)[] = [];
  readonly #lines: string[] = [];
  #assertions = 0;
  #failure: unknown;
  #limit = TIMEOUT_MS;

  constructor(title: string) {
    this.title = title;
  }

  #check(holds: boolean, what: () => string, message?: string): true {
    this.#assertions++;
    if (holds) return true;
    const text = message === undefined ? what() : `${message}: ${what()}`;
    const failure = new Failure(text);
    // A failure counts also if the test catches it, as in a callback.
    this.#failure ??= failure;
    throw failure;
  }

  is(actual: unknown, expected: unknown, message?: string): true {
    const what = () => `${show(actual)} is not ${show(expected)}`;
    return this.#check(Object.is(actual, expected), what, message);
  }
  not(actual: unknown, expected: unknown, message?: string): true {
    return this.#check(!Object.is(actual, expected), () => `both are ${show(actual)}`, message);
  }
  deepEqual(actual: unknown, expected: unknown, message?: string): true {
    const what = () => `${show(actual)} does not equal ${show(expected)}`;
    return this.#check(isDeepStrictEqual(actual, expected), what, message);
  }
  notDeepEqual(actual: unknown, expected: unknown, message?: string): true {
    const what = () => `both equal ${show(actual)}`;
    return this.#check(!isDeepStrictEqual(actual, expected), what, message);
  }
  like(actual: unknown, selector: unknown, message?: string): true {
    const what = () => `${show(actual)} is not like ${show(selector)}`;
    return this.#check(isLike(actual, selector), what, message);
  }
  true(actual: unknown, message?: string): true {
    return this.is(actual, true, message);
  }
  false(actual: unknown, message?: string): true {
    return this.is(actual, false, message);
  }
  truthy(actual: unknown, message?: string): true {
    return this.#check(Boolean(actual), () => `${show(actual)} is not truthy`, message);
  }
  falsy(actual: unknown, message?: string): true {
    return this.#check(!actual, () => `${show(actual)} is not falsy`, message);
  }
  regex(text: string, pattern: RegExp, message?: string): true {
    const what = () => `${show(text)} does not match ${String(pattern)}`;
    return this.#check(new RegExp(pattern).test(text), what, message);
  }
  notRegex(text: string, pattern: RegExp, message?: string): true {
    const what = () => `${show(text)} matches ${String(pattern)}`;
    return this.#check(!new RegExp(pattern).test(text), what, message);
  }
  pass(): true {
    return this.#check(true, () => "");
  }
  fail(message = "failed by t.fail()"): never {
    return this.#check(false, () => message) as never;
  }

  throws(work: () => unknown, expected: Expectation = {}, message?: string): unknown {
    try {
      work();
    } catch (error) {
      return this.#expect(error, expected, message);
    }
    return this.#check(false, () => "did not throw", message);
  }
  async throwsAsync(
    work: PromiseLike<unknown> | (() => PromiseLike<unknown>),
    expected: Expectation = {},
    message?: string,
  ): Promise<unknown> {
    try {
      await (typeof work === "function" ? work() : work);
    } catch (error) {
      return this.#expect(error, expected, message);
    }
    return this.#check(false, () => "did not reject", message);
  }
  notThrows(work: () => unknown, message?: string): void {
    let error: unknown;
    try {
      work();
    } catch (thrown) {
      error = thrown ?? "nothing";
    }
    this.#check(error === undefined, () => `threw ${show(error)}`, message);
  }
  async notThrowsAsync(
    work: PromiseLike<unknown> | (() => PromiseLike<unknown>),
    message?: string,
  ): Promise<void> {
    let error: unknown;
    try {
      await (typeof work === "function" ? work() : work);
    } catch (thrown) {
      error = thrown ?? "nothing";
    }
    this.#check(error === undefined, () => `rejected with ${show(error)}`, message);
  }
  #expect(error: unknown, expected: Expectation, message?: string): unknown {
    const why = whyNotExpected(error, expected);
    this.#check(why === undefined, () => `${show(error)} ${why}`, message);
    return error;
  }

  log(...values: unknown[]): void {
    this.#lines.push(
      values.map((value) => (typeof value === "string" ? value : show(value))).join(" "),
    );
  }
  timeout(milliseconds: number): void {
    this.#limit = Math.max(this.#limit, milliseconds);
  }
  teardown(work: () => unknown): void {
    this.#teardowns.push(work);
  }

  /** Runs a test or a hook to its end with its teardowns; the failure, if it fails. */
  async run(implementation: Hook, { asserts }: { asserts: boolean }): Promise<unknown> {
    try {
      await this.#inTime(implementation);
      if (asserts && this.#assertions === 0) throw new Failure("it asserts nothing");
    } catch (error) {
      this.#failure ??= error;
    }
    for (const work of this.#teardowns.reverse())
      try {
        await work();
      } catch (error) {
        this.#failure ??= error;
      }
    return this.#failure;
  }

  get lines(): readonly string[] {
    return this.#lines;
  }

  async #inTime(implementation: Hook): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      const check = (started: number) => {
        const left = this.#limit - (performance.now() - started);
        if (left <= 0) reject(new Failure(`did not end within ${this.#limit / 1000} s`));
        else timer = setTimeout(check, left, started);
      };
      check(performance.now());
    });
    try {
      await Promise.race([implementation(this), late]);
    } finally {
      clearTimeout(timer);
    }
  }
}

function declare(title: string, implementation: Hook): void {
  file.tests.push({ title, implementation, isSkipped: false });
}
function skip(title: string, implementation: Hook): void {
  file.tests.push({ title, implementation, isSkipped: true });
}
const before = (implementation: Hook) => void file.before.push(implementation);
const after = (implementation: Hook) => void file.after.push(implementation);
const test = Object.assign(declare, {
  skip,
  serial: Object.assign((title: string, work: Hook) => declare(title, work), { skip }),
  before,
  after: Object.assign(after, { always: after }),
});
export default test;

let count = 0;
let failures = 0;

function report(title: string, options: { failure?: unknown; lines?: readonly string[] }): void {
  const { failure, lines = [] } = options;
  const detail = failure instanceof Error ? (failure.stack ?? failure.message) : show(failure);
  const cause = failure instanceof Error && failure.cause ? `\nCause: ${show(failure.cause)}` : "";
  const text = failure === undefined ? [] : `${detail}${cause}`.split("\n");
  if (failure !== undefined) failures++;
  console.log(`${failure === undefined ? "" : "not "}ok ${++count} - ${title}`);
  for (const line of [...lines, ...text]) console.log(`    ${line}`);
}

/** A file of tests: its name in titles, how to load it, and which of its tests are wanted. */
export interface TestFile {
  name: string;
  load: () => Promise<unknown>;
  isWanted: (title: string) => boolean;
}

async function runFile({ name, load, isWanted }: TestFile): Promise<void> {
  file = { tests: [], before: [], after: [] };
  const { tests, before, after } = file;
  const hook = async (what: string, implementation: Hook) => {
    const failure = await new Context(what).run(implementation, { asserts: false });
    if (failure !== undefined) report(`${name} › ${what}`, { failure });
    return failure === undefined;
  };
  let ready = await hook("load", load);
  for (const implementation of before) ready &&= await hook("before", implementation);
  for (const { title, implementation, isSkipped } of tests.filter(({ title }) => isWanted(title))) {
    if (isSkipped) console.log(`ok ${++count} - ${name} › ${title} # SKIP`);
    else if (ready) {
      const t = new Context(title);
      const failure = await t.run(implementation, { asserts: true });
      report(`${name} › ${title}`, { failure, lines: t.lines });
    } else report(`${name} › ${title}`, { failure: new Failure("what it needs has failed") });
  }
  for (const implementation of after) await hook("after", implementation);
}

/** Loads and runs test files in turn, and returns how many tests failed. An empty file fails. */
export async function runFiles(files: readonly TestFile[]): Promise<number> {
  for (const file of files) {
    const before = count;
    await runFile(file);
    if (count === before)
      report(file.name, { failure: new Failure("it has no test that is wanted") });
  }
  console.log(`1..${count}`);
  return failures;
}
