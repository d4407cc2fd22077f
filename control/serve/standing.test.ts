// How long it is tried to open a server, and what is told of it, with time that passes when told.
import { setImmediate as nextTurn } from "node:timers/promises";
import test from "ava";
import { FakeClock } from "../fakeclock.ts";
import type { Listen } from "./http.ts";
import { explainRefusal, formatPlace, Standing } from "./standing.ts";

const PLACES = [
  { address: "192.168.50.2", port: 32000 },
  { address: "10.0.0.2", port: 32000 },
];

/** A server of two places, and a machine that has other uses for some. */
function makeStage() {
  const clock = new FakeClock();
  const taken = new Map<string, string>();
  const open = new Set<string>();
  const said: string[] = [];
  const listen: Listen = async (place) => {
    const name = formatPlace(place);
    const code = taken.get(name);
    if (code) throw Object.assign(new Error(`${code} ${name}`), { code });
    open.add(name);
    return { place, close: () => open.delete(name) };
  };
  const standing = new Standing({
    listen,
    clock,
    places: PLACES,
    maxConnections: 1,
    answer: () => ({ status: 200, headers: {}, body: "" }),
    onError: () => {},
    onListening: (places, { wasRefused }) => said.push(`${places.length} ${wasRefused}`),
    onRefused: (place, { code }) => said.push(`${formatPlace(place)} ${code}`),
  });
  const pass = async (milliseconds: number) => {
    clock.pass(milliseconds);
    await nextTurn();
  };
  return { standing, pass, taken, open, said };
}

test("one place that cannot be had closes all: tried every 5 s, told once", async (t) => {
  const { standing, pass, taken, open, said } = makeStage();
  taken.set("10.0.0.2:32000", "EADDRINUSE");
  await standing.start();
  t.false(standing.isListening);
  t.deepEqual([...open], []);
  for (let second = 0; second < 30; second++) await pass(1000);
  t.deepEqual(said, ["10.0.0.2:32000 EADDRINUSE"]);
  taken.clear();
  await pass(4000);
  t.false(standing.isListening);
  await pass(1000);
  t.true(standing.isListening);
  t.deepEqual(said, ["10.0.0.2:32000 EADDRINUSE", "2 true"]);
  standing.stop();
  t.deepEqual([...open], []);
});

test("another reason is told of anew", async (t) => {
  const { standing, pass, taken, said } = makeStage();
  taken.set("10.0.0.2:32000", "EADDRINUSE");
  await standing.start();
  taken.set("10.0.0.2:32000", "EADDRNOTAVAIL");
  await pass(5000);
  t.deepEqual(said, ["10.0.0.2:32000 EADDRINUSE", "10.0.0.2:32000 EADDRNOTAVAIL"]);
});

test("one that was stopped listens no more, also if it was just about to", async (t) => {
  const { standing, pass, taken, open, said } = makeStage();
  const starting = standing.start();
  standing.stop();
  await starting;
  t.deepEqual([[...open], said], [[], []]);
  const other = makeStage();
  other.taken.set("10.0.0.2:32000", "EADDRINUSE");
  await other.standing.start();
  other.standing.stop();
  other.taken.clear();
  await other.pass(60_000);
  t.deepEqual([...other.open], []);
  await pass(60_000);
  t.deepEqual([...open], [], taken.size.toString());
});

test("a refusal is explained by what can be done, or in the system's own words", (t) => {
  const place = { address: "::", port: 10256 };
  const explain = (code: string) =>
    explainRefusal(place, Object.assign(new Error("it is odd"), { code }));
  t.regex(explain("EADDRINUSE"), /another program has the port \("ss -ltnp sport = :10256"/);
  t.regex(explain("EADDRNOTAVAIL"), /no device/);
  t.is(explain("EODD"), "it is odd");
  t.is(formatPlace(place), "[::]:10256");
});
