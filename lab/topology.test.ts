// The lab's map, without making one.
import test from "ava";
import { planLab, twoNodes } from "./topology.ts";

test("every host of the plan has addresses of its own", (t) => {
  const { spaces } = planLab(twoNodes, (space) => space);
  t.is(spaces.size, 8);
  const all = [...spaces.values()].flatMap(({ addresses }) => Object.values(addresses));
  t.is(new Set(all).size, 16);
  t.deepEqual(spaces.get("node-a")?.addresses, { ipv4: "192.168.50.2", ipv6: "2001:db8:50::2" });
  t.deepEqual(spaces.get("pod-b2")?.addresses, { ipv4: "10.244.2.3", ipv6: "fd00:10:244:2::3" });
});

test("a name that no device can have, or that is there twice, is refused by name", (t) => {
  for (const name of ["Pod", "a name", "router", "thirteen-char", ""]) {
    const plan = () => planLab({ "node-a": [name] }, (space) => space);
    t.throws(plan, { message: new RegExp(`'${name}' cannot name a host`) });
  }
});
