// Pods told from others in the four modes of kube-proxy, and without a usable one.
import test from "ava";
import { parseRange } from "./address.ts";
import { DEFAULT_CONFIG, type ProxyConfig } from "./config.ts";
import { makeDetector } from "./detector.ts";

const range = (text: string) => parseRange(text)!;

function detector(config: Partial<ProxyConfig>, podRanges: string[] = []) {
  const whole = { ...DEFAULT_CONFIG, ...config };
  return makeDetector(whole, { podRanges: podRanges.map(range) });
}

test("mode ClusterCIDR knows pods by the first range of their family", (t) => {
  const clusterCIDRs = ["10.244.0.0/16", "10.245.0.0/16"].map(range);
  const { isPod, isUsable } = detector({ clusterCIDRs });
  t.true(isPod({ source: "10.244.7.7" }));
  t.true(isPod({ source: "10.244.7.7", device: "eth0" }), "pods of other nodes count");
  t.false(isPod({ source: "10.245.0.1" }));
  t.false(isPod({ source: "fd00::1" }));
  t.true(isUsable(4));
  t.false(isUsable(6));
});

test("mode ClusterCIDR without a range is no detector", (t) => {
  const { isPod, isUsable } = detector({});
  t.false(isUsable(4) || isUsable(6));
  t.false(isPod({ source: "10.244.7.7" }));
});

test("mode NodeCIDR knows the pods of this node alone", (t) => {
  const config = { detectLocalMode: "NodeCIDR", clusterCIDRs: [range("10.244.0.0/16")] } as const;
  const { isPod, isUsable } = detector(config, ["10.244.1.0/24", "fd00:10:244:1::/64"]);
  t.true(isPod({ source: "10.244.1.7" }));
  t.false(isPod({ source: "10.244.7.7" }));
  t.true(isPod({ source: "fd00:10:244:1::7" }));
  t.true(isUsable(6));
  t.false(detector(config).isUsable(4), "a Node without podCIDRs tells nothing");
});

test("modes by device know pods by where a packet came in, and no process of the node", (t) => {
  const bridge = detector({ detectLocalMode: "BridgeInterface", bridgeInterface: "cni0" });
  t.true(bridge.isPod({ source: "10.244.1.7", device: "cni0" }));
  t.false(bridge.isPod({ source: "10.244.1.7", device: "cni01" }));
  t.false(bridge.isPod({ source: "10.244.1.7" }));
  const prefix = detector({ detectLocalMode: "InterfaceNamePrefix", interfaceNamePrefix: "veth" });
  t.true(prefix.isPod({ source: "fd00::7", device: "veth12ab" }));
  t.false(prefix.isPod({ source: "fd00::7", device: "eth0" }));
  t.true(bridge.isUsable(4) && bridge.isUsable(6) && prefix.isUsable(4) && prefix.isUsable(6));
});
