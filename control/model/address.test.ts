// Addresses against what the platform accepts and writes, and the tolerance of §3.6.
// biome-ignore lint/style/noRestrictedImports: the platform's own parser is what we compare with.
import { isIP } from "node:net";
import test from "ava";
import fc from "fast-check";
import {
  addressFamily,
  canonicalAddress,
  formatAddress,
  isUnusableForEndpoint,
  isUnusableForService,
  parseAddress,
  parseRange,
} from "./address.ts";

const ipv4 = fc.ipV4();
const ipv6 = fc.ipV6();
const noise = fc.stringMatching(/^[0-9a-fA-F:.]{0,24}$/);

test("whatever the platform takes for an address is read, and nothing else", (t) => {
  fc.assert(
    fc.property(fc.oneof(noise, ipv4, ipv6, fc.string()), (text) => {
      const expected = isIP(text);
      const parsed = parseAddress(text);
      if (expected === 4) return parsed?.family === 4;
      if (expected === 6) return text.includes("%") ? !parsed : parsed !== undefined;
      // What is left is the tolerance: octets with leading zeros.
      return parsed === undefined || isIP(text.replace(/(^|[.:])0+(?=\d+(\.|$))/g, "$1")) !== 0;
    }),
    { numRuns: 5000 },
  );
  t.pass();
});

test("canonical text is what the platform writes, and reads back as the same bytes", (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 16, maxLength: 16 }), fc.nat(16), (bytes, zeros) => {
      bytes.fill(0, 16 - zeros);
      const text = formatAddress(bytes);
      const parsed = parseAddress(text);
      t.deepEqual(parsed?.bytes, bytes);
      t.is(isIP(text), parsed!.family);
      t.is(addressFamily(text), parsed!.family);
      if (parsed!.family === 6) t.is(new URL(`http://[${text}]/`).hostname, `[${text}]`);
    }),
  );
});

for (const [text, expected] of [
  ["10.96.0.041", "10.96.0.41"],
  ["::ffff:10.1.2.3", "10.1.2.3"],
  ["::FFFF:0a01:0203", "10.1.2.3"],
  ["::ffff:010.001.2.3", "10.1.2.3"],
  ["64:ff9b::192.0.2.33", "64:ff9b::c000:221"],
  ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
  ["0:0:0:0:0:0:0:0", "::"],
  ["1:0:2:3:4:5:6:7", "1:0:2:3:4:5:6:7"],
  ["1::", "1::"],
  ["1:2:3:4:5:6:7::", "1:2:3:4:5:6:7:0"],
  ["1:2:3:4:5:6:7:8::", undefined],
  ["::1:2:3:4:5:6:7:8", undefined],
  ["1::2::3", undefined],
  [":1::", undefined],
  ["1:2:3:4:5:6:7", undefined],
  ["::1.2.3", undefined],
  ["1.2.3.4.5", undefined],
  ["1.2.3.4.", undefined],
  ["256.1.1.1", undefined],
  ["fe80::1%eth0", undefined],
  [" 10.0.0.1", undefined],
  ["", undefined],
] as const) {
  test(`"${text}" is ${expected ?? "no address"}`, (t) => {
    t.is(canonicalAddress(text), expected);
  });
}

for (const [text, expected] of [
  ["10.1.2.3/8", { family: 4, address: "10.0.0.0", prefixLength: 8 }],
  [" 192.0.2.0/24\t", { family: 4, address: "192.0.2.0", prefixLength: 24 }],
  ["010.0.0.0/9", { family: 4, address: "10.0.0.0", prefixLength: 9 }],
  ["0.0.0.0/0", { family: 4, address: "0.0.0.0", prefixLength: 0 }],
  ["2001:db8:ffff::1/33", { family: 6, address: "2001:db8:8000::", prefixLength: 33 }],
  ["::/0", { family: 6, address: "::", prefixLength: 0 }],
  ["::ffff:10.0.0.0/104", { family: 4, address: "10.0.0.0", prefixLength: 8 }],
  ["::ffff:10.0.0.0/64", undefined],
  ["10.0.0.0/33", undefined],
  ["10.0.0.0/", undefined],
  ["10.0.0.0", undefined],
  ["10.0.0.0/+8", undefined],
] as const) {
  test(`"${text}" is ${expected ? "a range" : "no range"}`, (t) => {
    t.deepEqual(parseRange(text), expected);
  });
}

test("loopback, unspecified and multicast addresses serve nobody, link-local no endpoint", (t) => {
  const bytes = (text: string) => parseAddress(text)!.bytes;
  for (const text of ["0.0.0.0", "127.1.2.3", "224.0.0.1", "::", "::1", "ff02::1"]) {
    t.true(isUnusableForService(bytes(text)), text);
    t.true(isUnusableForEndpoint(bytes(text)), text);
  }
  for (const text of ["169.254.1.1", "fe80::1", "febf::1"]) {
    t.false(isUnusableForService(bytes(text)), text);
    t.true(isUnusableForEndpoint(bytes(text)), text);
  }
  for (const text of ["10.0.0.1", "240.0.0.1", "2001:db8::1", "fec0::1", "::2"]) {
    t.false(isUnusableForEndpoint(bytes(text)), text);
  }
});
