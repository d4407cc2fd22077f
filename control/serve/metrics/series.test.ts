// Which service ports /metrics tells single numbers of.
import test from "ava";
import { chooseServices, parseChoice, type ServiceCounters, serviceLabels } from "./series.ts";

function counters(name: string, connections: number, refused = 0): ServiceCounters {
  return { key: `shop/${name}:http/TCP/4`, connections, refused, dropped: 0 };
}

const names = (chosen: readonly ServiceCounters[]) =>
  chosen.map(({ key }) => serviceLabels(key).service);

for (const [text, choice] of [
  ["100", { most: 100 }],
  ["0", { most: 0 }],
  ["shop/web", { names: new Set(["shop/web"]) }],
  ["shop/web, shop/dns", { names: new Set(["shop/web", "shop/dns"]) }],
  ["web", undefined],
  ["shop/web,", undefined],
  ["-1", undefined],
  ["", undefined],
] as const)
  test(`"${text}" chooses ${choice === undefined ? "nothing" : "what it says"}`, (t) => {
    t.deepEqual(parseChoice(text), choice);
  });

test("so many are those with the most, apart for connections and for what was refused", (t) => {
  const all = Array.from({ length: 1000 }, (_, index) => counters(`s${index}`, index, 999 - index));
  const { connected, refused } = chooseServices(all, { most: 3 });
  t.deepEqual(names(connected), ["s999", "s998", "s997"]);
  t.deepEqual(names(refused), ["s0", "s1", "s2"]);
});

test("what counted nothing is not among the busiest, and none are none", (t) => {
  const all = [counters("idle", 0), counters("busy", 5, 1)];
  t.deepEqual(names(chooseServices(all, { most: 10 }).connected), ["busy"]);
  t.deepEqual(chooseServices(all, { most: 0 }), { connected: [], refused: [] });
});

test("of equal ones the same stay, in whatever order they come", (t) => {
  const all = Array.from({ length: 60 }, (_, index) => counters(`s${10 + index}`, 5));
  const forwards = names(chooseServices(all, { most: 4 }).connected);
  t.deepEqual(names(chooseServices(all.toReversed(), { most: 4 }).connected), forwards);
  t.deepEqual(forwards, ["s10", "s11", "s12", "s13"]);
});

test("named Services are told of with all their ports, idle ones too", (t) => {
  const all = [counters("web", 0), counters("webhook", 9), counters("dns", 7)];
  all.push({ ...counters("web", 4), key: "shop/web:metrics/TCP/6" });
  const { connected } = chooseServices(all, { names: new Set(["shop/web"]) });
  t.deepEqual(
    connected.map(({ key }) => serviceLabels(key)),
    [
      { namespace: "shop", service: "web", port: "http", protocol: "TCP", ip_family: "IPv4" },
      { namespace: "shop", service: "web", port: "metrics", protocol: "TCP", ip_family: "IPv6" },
    ],
  );
});
