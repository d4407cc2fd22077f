// nodeport-addresses of the vectors against the model: which local addresses serve node ports.
import test from "ava";
import { canonicalAddress, isLoopback, parseRange } from "../../control/model/address.ts";
import { nodePortAddresses, restrictingRanges } from "../../control/model/nodeaddresses.ts";
import { NO_LOOPBACK_NODE_PORTS } from "./exceptions.ts";
import { readVectors } from "./vectors.ts";

interface FamilyExpectation {
  matchAll: boolean;
  addresses: string[];
  containsIPv4Loopback: boolean;
}

interface AddressCase {
  id: string;
  title: string;
  nodePortAddresses: string[];
  localAddresses: string[];
  expect: { IPv4: FamilyExpectation; IPv6: FamilyExpectation };
}

function canonical(addresses: readonly string[]): string[] {
  return addresses.map((address) => canonicalAddress(address)!).sort();
}

const cases = readVectors<AddressCase>("nodeport-addresses.json");
if (cases.length > 0) console.error(`Loopback is left out: ${NO_LOOPBACK_NODE_PORTS}`);

const isLocalhost = (address: string) => address === "127.0.0.1" || address === "::1";

for (const [given, localhostNodePorts] of [
  ...cases.map((each) => [each, false] as const),
  ...cases.map((each) => [each, true] as const),
]) {
  const suffix = localhostNodePorts ? ", with localhost" : "";
  test(`${given.id}: ${given.title}${suffix}`, (t) => {
    const ranges = given.nodePortAddresses.map((text) => parseRange(text)!);
    const local = given.localAddresses.map((address) => canonicalAddress(address)!);
    const primary = { ipv4: [], ipv6: [] };
    const config = { nodePortAddresses: ranges, localhostNodePorts };
    const found = nodePortAddresses(config, { primary, local });
    for (const [family, addresses, expected] of [
      [4, found.ipv4, given.expect.IPv4],
      [6, found.ipv6, given.expect.IPv6],
    ] as const) {
      t.is(restrictingRanges(ranges, { family }) === undefined, expected.matchAll);
      const wanted = canonical(expected.addresses).filter(
        (address) => !isLoopback(address) || (localhostNodePorts && isLocalhost(address)),
      );
      // If asked for, localhost is served whether the vector's kernel has it or not.
      const there = (address: string) => !localhostNodePorts || local.includes(address);
      t.deepEqual(addresses.filter(there).sort(), wanted);
    }
  });
}
