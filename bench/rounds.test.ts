import test from "ava";
import { interleave, of } from "./rounds.ts";

const context = {
  quick: false,
  rounds: (usual: number) => usual,
  progress: () => {},
  isLate: () => false,
};

test("all cases are measured in each round, and the first visit does not count", async (t) => {
  const calls: string[] = [];
  const makeCase = (name: string) => async () => {
    calls.push(name);
    return { [name]: calls.filter((call) => call === name).length };
  };
  const samples = await interleave(["a", "b", "c"].map(makeCase), { usual: 4, context });
  t.deepEqual(samples, { a: [2, 3, 4, 5], b: [2, 3, 4, 5], c: [2, 3, 4, 5] });
  t.is(calls.length, 15);
});

test("a bench whose cases take seconds does without the first visit", async (t) => {
  let calls = 0;
  const one = async () => ({ calls: ++calls });
  const samples = await interleave([one], { usual: 2, warmUp: false, context });
  t.deepEqual(samples, { calls: [1, 2] });
});

test("no case always follows the same other one", async (t) => {
  const order: string[] = [];
  const makeCase = (name: string) => async () => {
    order.push(name);
    return { [name]: 0 };
  };
  await interleave(["a", "b", "c"].map(makeCase), { usual: 6, context });
  const before = order.slice(1).map((name, index) => `${order[index]}${name}`);
  for (const name of ["a", "b", "c"])
    t.true(new Set(before.filter((pair) => pair[1] === name)).size > 1, `before ${name}`);
});

test("of several tries in a round the least counts", async (t) => {
  const values = [9, 5, 3, 4, 8, 7, 6];
  const one = async () => ({ time: values.shift()! });
  t.deepEqual(of(await interleave([one], { usual: 2, tries: 3, context }), "time"), [3, 6]);
});

test("a bench that is late makes three rounds and no more", async (t) => {
  const late = { ...context, isLate: () => true };
  const one = async () => ({ time: 1 });
  t.is(of(await interleave([one], { usual: 50, context: late }), "time").length, 3);
});

test("a misspelt case is named together with those that are there", (t) => {
  t.throws(() => of({ one: [1], two: [2] }, "tow"), { message: /"tow", only one, two/ });
});
