// Where node ports are served: what the vectors of nodeport-addresses leave open.
import test from "ava";
import { parseRange } from "./address.ts";
import { groupByFamily, listenAddresses, nodePortAddresses } from "./nodeaddresses.ts";

const LOCAL = ["127.0.0.1", "::1", "192.168.50.2", "192.168.51.2", "2001:db8:50::2"];

function serve(
  wanted: "primary" | string[],
  { primary = [] as string[], local = LOCAL, localhostNodePorts = false } = {},
) {
  const ranges = wanted === "primary" ? wanted : wanted.map((text) => parseRange(text)!);
  const addresses = { primary: groupByFamily(primary), local };
  return nodePortAddresses({ nodePortAddresses: ranges, localhostNodePorts }, addresses);
}

test("without ranges every local address serves node ports, loopback never", (t) => {
  t.deepEqual(serve([]), { ipv4: ["192.168.50.2", "192.168.51.2"], ipv6: ["2001:db8:50::2"] });
  t.deepEqual(serve(["127.0.0.0/8", "::1/128"]), { ipv4: [], ipv6: [] });
});

for (const [title, wanted, expected] of [
  ["beside the primary address", "primary", ["127.0.0.1", "::1"]],
  ["without ranges", [], ["127.0.0.1", "::1"]],
  ["if a range has it", ["192.168.50.0/24", "127.0.0.0/8", "2001:db8::/32"], ["127.0.0.1"]],
  ["not if the ranges leave it out", ["192.168.50.0/24", "2001:db8::/32"], []],
] as const)
  test(`localhost serves node ports where that is asked for: ${title}`, (t) => {
    const ranges = wanted === "primary" ? wanted : [...wanted];
    const primary = ["192.168.50.2", "2001:db8:50::2"];
    const { ipv4, ipv6 } = serve(ranges, { primary, localhostNodePorts: true });
    const beside = serve(ranges, { primary });
    t.deepEqual([...ipv4, ...ipv6].sort(), [...beside.ipv4, ...beside.ipv6, ...expected].sort());
  });

test("primary is one address of each family, whether the kernel has it or not", (t) => {
  const primary = ["192.168.50.2", "2001:db8:9::9"];
  t.deepEqual(serve("primary", { primary }), {
    ipv4: ["192.168.50.2"],
    ipv6: ["2001:db8:9::9"],
  });
});

test("a family without a primary address is unrestricted", (t) => {
  t.deepEqual(serve("primary", { primary: ["192.168.50.2"] }), {
    ipv4: ["192.168.50.2"],
    ipv6: ["2001:db8:50::2"],
  });
});

for (const [title, wanted, listened] of [
  ["primary", "primary", { ipv4: ["192.168.50.2"], ipv6: ["::"] }],
  ["without ranges", [], { ipv4: ["0.0.0.0"], ipv6: ["::"] }],
  ["with a range of one family", ["192.168.51.0/24"], { ipv4: ["192.168.51.2"], ipv6: ["::"] }],
  ["with everything", ["0.0.0.0/0", "::/0"], { ipv4: ["0.0.0.0"], ipv6: ["::"] }],
  ["on loopback alone", ["127.0.0.0/8", "::1/128"], { ipv4: [], ipv6: [] }],
] as const)
  test(`${title}, health checks are answered at ${JSON.stringify(listened)}`, (t) => {
    const ranges = wanted === "primary" ? wanted : wanted.map((text) => parseRange(text)!);
    const primary = groupByFamily(["192.168.50.2"]);
    const config = { nodePortAddresses: ranges, localhostNodePorts: true };
    const served = nodePortAddresses(config, { primary, local: LOCAL });
    t.deepEqual(listenAddresses(config, { primary, served }), listened);
  });
