// The lab's map, without making one.
import test from "ava";
import { planLab, twoNodes } from "./topology.ts";

test("every host of the plan has addresses of its own", (t) => {
  const { spaces } = planLab({ topology: twoNodes }, (space) => space);
  t.is(spaces.size, 8);
  const all = [...spaces.values()].flatMap(({ addresses }) => Object.values(addresses));
  t.is(new Set(all).size, 16);
  t.deepEqual(spaces.get("node-a")?.addresses, { ipv4: "192.168.50.2", ipv6: "2001:db8:50::2" });
  t.deepEqual(spaces.get("pod-b2")?.addresses, { ipv4: "10.244.2.3", ipv6: "fd00:10:244:2::3" });
});

test("a name that no device can have, or that is there twice, is refused by name", (t) => {
  for (const name of ["Pod", "a name", "router", "thirteen-char", ""]) {
    const plan = () => planLab({ topology: { "node-a": [name] } }, (space) => space);
    t.throws(plan, { message: new RegExp(`'${name}' cannot name a host`) });
  }
});

test("a sandboxed pod's addresses of Services leave it; what is sandboxed must be a pod", (t) => {
  const { spaces } = planLab({ sandboxed: ["pod-a2"] }, (space) => space);
  const prohibits = (pod: string) => spaces.get(pod)?.setup.some((line) => /prohibit/.test(line));
  t.is(prohibits("pod-a1"), true);
  t.is(prohibits("pod-a2"), false);
  const plan = () => planLab({ sandboxed: ["node-a"] }, (space) => space);
  t.throws(plan, { message: "'node-a', to be sandboxed, is no pod" });
});

test("pods on a bridge find their node at number 1, and their tunnel's end at number 0", (t) => {
  const { spaces } = planLab({ network: "vxlan" }, (space) => space);
  const node = spaces.get("node-b")?.setup ?? [];
  t.true(node.includes("address replace 10.244.2.1/24 dev cni0"));
  t.true(node.includes("address replace fd00:10:244:2::/128 dev flannel-v6.1 nodad"));
  t.true(spaces.get("pod-b1")?.setup.includes("route replace default via 10.244.2.1"));
});
