// Flags as they are typed: what they mean, and the sentence for each that means nothing.
import test from "ava";
import { type ProxyFlags, readProxyConfig } from "./config.ts";
import { UserError } from "./exit.ts";
import { formatRange } from "./model/address.ts";
import { DEFAULT_CONFIG } from "./model/config.ts";

test("without flags everything is as kube-proxy in nftables mode has it", (t) => {
  t.deepEqual(readProxyConfig({}), DEFAULT_CONFIG);
});

test("flags are read as kube-proxy reads them", (t) => {
  const config = readProxyConfig({
    nodeportAddresses: "192.168.50.9/24, 2001:db8::/64",
    detectLocalMode: "BridgeInterface",
    clusterCidr: "10.244.0.0/16,fd00:10:244::/56",
    podBridgeInterface: "cni0",
    masqueradeAll: true,
  });
  t.like(config, { bridgeInterface: "cni0", interfaceNamePrefix: "", masqueradeAll: true });
  const { nodePortAddresses, clusterCIDRs } = config;
  t.deepEqual(Array.from(nodePortAddresses === "primary" ? [] : nodePortAddresses, formatRange), [
    "192.168.50.0/24",
    "2001:db8::/64",
  ]);
  t.deepEqual(clusterCIDRs.map(formatRange), ["10.244.0.0/16", "fd00:10:244::/56"]);
});

test("primary is a word of its own, and nothing is every local address", (t) => {
  t.is(readProxyConfig({ nodeportAddresses: "primary" }).nodePortAddresses, "primary");
  t.deepEqual(readProxyConfig({ nodeportAddresses: "" }).nodePortAddresses, []);
});

const FAULTS: readonly (readonly [ProxyFlags, RegExp])[] = [
  [{ nodeportAddresses: "192.168.50.2" }, /--nodeport-addresses holds "192.168.50.2", which is no/],
  [{ nodeportAddresses: "primary,10.0.0.0/8" }, /write "primary" alone, or ranges alone/],
  [{ clusterCidr: "10.244.0.0/33" }, /--cluster-cidr holds "10.244.0.0\/33"/],
  [{ clusterCidr: "10.1.0.0/16,10.2.0.0/16" }, /with two IPv4 ranges: name the one/],
  [
    { detectLocalMode: "clustercidr" },
    /--detect-local-mode is "clustercidr": write one of Cluster/,
  ],
  [{ detectLocalMode: "BridgeInterface" }, /but --pod-bridge-interface is not given/],
  [{ detectLocalMode: "InterfaceNamePrefix" }, /but --pod-interface-name-prefix is not given/],
  [{ podBridgeInterface: "sixteencharacter" }, /no device's name has more than 15 characters/],
];

for (const [flags, message] of FAULTS) {
  test(`${JSON.stringify(flags)} is refused with what would be right`, (t) => {
    t.throws(() => readProxyConfig(flags), { instanceOf: UserError, message });
  });
}
