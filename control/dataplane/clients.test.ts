import test from "ava";
import { client } from "../../bindings/layout.ts";
import { formatAddress } from "../model/address.ts";
import { type ClientRow, Clients, insideOf } from "./clients.ts";
import { MemoryHash } from "./memory.ts";
import { textToBytes } from "./table.ts";

const POD: ClientRow = { cookie: 7n, ipv4: "10.244.1.3", ipv6: "fd00:10:244::3", inside: [4, 6] };
const OTHER: ClientRow = { cookie: 2n ** 40n + 1n, ipv4: "10.244.1.4", inside: [] };

function makeHash(maxEntries = 8): MemoryHash {
  return new MemoryHash({ keyBytes: 8, valueBytes: client.bytes, maxEntries });
}

function read(hash: MemoryHash): Record<string, string> {
  return Object.fromEntries(
    [...hash.entriesByKey].map(([key, value]) => {
      const cookie = new DataView(textToBytes(key).buffer).getBigUint64(0, true);
      const row = client.read(new DataView(textToBytes(value).buffer), 0);
      const words = [formatAddress(row.ipv4), formatAddress(row.ipv6), insideOf(row)];
      return [String(cookie), row.cookie === cookie ? words.join(" ") : "another's"];
    }),
  );
}

test("the map holds just the clients that were given, as their own", (t) => {
  const hash = makeHash();
  const clients = new Clients(hash);
  t.deepEqual(clients.replace([POD, OTHER]), []);
  t.deepEqual(read(hash), {
    "7": "10.244.1.3 fd00:10:244::3 4,6",
    "1099511627777": "10.244.1.4 :: ",
  });
  t.deepEqual(clients.replace([OTHER]), []);
  t.deepEqual(Object.keys(read(hash)), ["1099511627777"]);
  t.is(clients.usage().entries, 1);
});

test("only what differs is written, also after a restart", (t) => {
  const hash = makeHash();
  new Clients(hash).replace([POD, OTHER]);
  const { writes } = hash;
  const clients = new Clients(hash);
  clients.replace([OTHER, { ...POD }]);
  t.is(hash.writes, writes);
  clients.replace([OTHER, { ...POD, inside: [6] }]);
  t.is(hash.writes, writes + 1);
});

test("clients beyond the last place are named, and a change of all fits", (t) => {
  const hash = makeHash(2);
  const clients = new Clients(hash);
  const third: ClientRow = { cookie: 9n, inside: [4] };
  const full = "svc_clients is full, it holds 2 entries: run fewer pods on this node";
  t.deepEqual(clients.replace([POD, OTHER, third]), [
    { key: "network namespace 9", message: full },
  ]);
  t.deepEqual(clients.replace([third, { ...POD, cookie: 10n }]), []);
  t.deepEqual(Object.keys(read(hash)).sort(), ["10", "9"]);
});

test("a client that cannot be written is named and tried again", (t) => {
  const hash = makeHash();
  const clients = new Clients(hash);
  hash.fails = () => true;
  t.deepEqual(clients.replace([POD]), [{ key: "10.244.1.3", message: "ENOMEM" }]);
  hash.fails = () => false;
  t.deepEqual(clients.replace([POD]), []);
  t.is(clients.usage().entries, 1);
});
