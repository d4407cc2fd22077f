import test from "ava";
import { flow as layout } from "../../bindings/layout.ts";
import { parsePlace } from "../model/place.ts";
import { matchesFlow } from "./flowfilter.ts";
import { addressBytes } from "./maps.ts";

function flowOf(client: string, frontend: string, backend: string): DataView {
  const view = new DataView(new ArrayBuffer(layout.bytes));
  layout.write(view, 0, {
    ...{ lock: 0, lastUsed: 0, hop: 0 },
    ...{ clientPort: 40_000, frontendPort: 80, backendPort: 8080, sourcePort: 40_001 },
    client: addressBytes(client),
    frontend: addressBytes(frontend),
    backend: addressBytes(backend),
  });
  return view;
}

const IPV4 = flowOf("203.0.113.10", "198.51.100.80", "10.244.1.2");
const IPV6 = flowOf("2001:db8:ffff::10", "2001:db8:198::80", "fd00:10:244:1::2");

for (const { text, ipv4 = false, ipv6 = false } of [
  { text: "203.0.113.10", ipv4: true },
  { text: "203.0.113.11" },
  { text: "203.0.113.10:40000", ipv4: true },
  { text: "203.0.113.10:40001" },
  { text: "203.0.113.99/24", ipv4: true },
  { text: "203.0.112.0/24" },
  { text: "203.0.112.0/23:40000", ipv4: true },
  { text: "0.0.0.0/0", ipv4: true },
  { text: "::ffff:203.0.113.10", ipv4: true },
  { text: ":40000", ipv4: true, ipv6: true },
  { text: ":80" },
  { text: "2001:db8:ffff::10", ipv6: true },
  { text: "[2001:db8:ffff::10]:40000", ipv6: true },
  { text: "[2001:db8:ffff::10]:80" },
  { text: "[2001:db8::/32]:40000", ipv6: true },
  { text: "2001:db8::/32", ipv6: true },
  { text: "2001:db8::/48" },
  { text: "::/0", ipv4: true, ipv6: true },
])
  test(`client "${text}" is ${ipv4 ? "" : "not "}of IPv4, ${ipv6 ? "" : "not "}of IPv6`, (t) => {
    const client = parsePlace(text);
    t.truthy(client);
    t.is(matchesFlow(IPV4, 0, { client }), ipv4);
    t.is(matchesFlow(IPV6, 0, { client }), ipv6);
  });

test("all that is asked for must be so", (t) => {
  const [client, frontend, endpoint] = ["203.0.113.10", ":80", "10.244.0.0/16"].map(parsePlace);
  t.true(matchesFlow(IPV4, 0, { client, frontend, endpoint }));
  t.false(matchesFlow(IPV4, 0, { client, frontend, endpoint: client }));
  t.false(matchesFlow(IPV4, 0, { client, frontend: endpoint }));
  t.true(matchesFlow(IPV4, 0, {}));
});

for (const text of ["", "nobody", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.0/33", "[::1]", "[]:80"])
  test(`"${text}" is no place`, (t) => {
    t.is(parsePlace(text), undefined);
  });
