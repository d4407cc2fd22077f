// The soak in short: on a network that is well, on one that changes, and on one that breaks.
import { setTimeout as delay } from "node:timers/promises";
import test from "ava";
import { Lab } from "./lab.ts";
import { changeMac, plug, unplug } from "./links.ts";
import { needsLab } from "./needs.ts";
import { formatSoak, type SoakReport, serveSoak, soak, type Tool } from "./soak.ts";

const labTest = needsLab(test.serial);
const TOOLS: readonly Tool[] = ["curl", "dig", "iperf3", "SCTP", "TCP", "UDP"];

let opened: Promise<Lab> | undefined;
function open(): Promise<Lab> {
  opened ??= (async () => {
    const lab = await Lab.create({ name: "soak", rules: true, rpFilter: 2 });
    await serveSoak(lab.pods["pod-b1"]!);
    return lab;
  })();
  return opened;
}
test.after.always(async () => (await opened)?.close());

function targetsOf(lab: Lab) {
  const { ipv4, ipv6 } = lab.pods["pod-b1"]!.addresses;
  return [
    { what: "IPv4", address: ipv4 },
    { what: "IPv6", address: ipv6 },
  ];
}

/** The kinds of faults that a tool met. */
function kindsOf(reports: readonly SoakReport[], tool: Tool): string[] {
  const faults = reports
    .filter((report) => report.tool === tool)
    .flatMap((report) => report.faults);
  return [...new Set(faults.map(({ kind }) => kind))].sort();
}

labTest(
  "every tool is answered, and none breaks or is told wrong, while the node's MAC address changes",
  async (t) => {
    const lab = await open();
    const node = lab.nodes["node-b"]!;
    let changes = 0;
    const reports = await soak({
      client: lab.outside,
      targets: targetsOf(lab),
      seconds: 3,
      churn: async (signal) => {
        while (!signal.aborted) {
          await changeMac(node);
          changes += 1;
          await delay(500);
        }
      },
    });
    t.true(changes > 1);
    t.deepEqual([...new Set(reports.map(({ tool }) => tool))].sort(), [...TOOLS].sort());
    for (const report of reports) {
      t.true(report.done > 0, formatSoak([report]));
      // A first packet lost in the very moment of a change is repeated after a second only.
      const faults = report.faults.filter(({ kind }) => kind !== "stall");
      t.deepEqual(faults, [], formatSoak([report]));
      if (report.tool !== "iperf3") t.deepEqual(report.identities, ["pod-b1"]);
    }
  },
);

labTest("a pulled cable is a stall to what lasts, and a dead pod breaks it", async (t) => {
  const lab = await open();
  const pod = lab.pods["pod-b1"]!;
  const [target] = targetsOf(lab);
  const stalled = await soak({
    client: lab.outside,
    targets: [target!],
    seconds: 4,
    churn: async () => {
      await unplug(lab, pod);
      await delay(1500);
      await plug(lab, pod);
    },
  });
  for (const tool of ["TCP", "UDP", "SCTP"] as const)
    t.deepEqual(kindsOf(stalled, tool), ["stall"], formatSoak(stalled));
  const broken = await soak({
    client: lab.outside,
    targets: [target!],
    seconds: 2,
    churn: async () => {
      await pod.run(["sh", "-c", 'kill -9 $(grep -v $$ "$0/cgroup.procs")', pod.cgroup]);
    },
  });
  for (const tool of ["TCP", "SCTP"] as const)
    t.true(kindsOf(broken, tool).includes("broken"), formatSoak(broken));
  for (const tool of ["curl", "dig", "iperf3"] as const)
    t.true(kindsOf(broken, tool).includes("failed"), formatSoak(broken));
  const faults = broken.flatMap((report) => (report.tool === "TCP" ? report.faults : []));
  t.is(faults[0]?.identity, "pod-b1");
});
