// The soak in short, in all networks at once.
import test from "ava";
import { needsLab } from "../lab/needs.ts";
import { formatSoak } from "../lab/soak.ts";
import { brokenOf, soakAll } from "./soak.ts";
import { CHANGES } from "./soakbed.ts";

const SECONDS = 8;
const labTest = needsLab(test.serial);

labTest(
  "no connection from outside breaks while endpoints, MAC addresses and agents change",
  async (t) => {
    for (const { network, reports, changes, complaints } of await soakAll(SECONDS)) {
      const idle = reports.filter(({ done }) => done === 0);
      t.deepEqual(idle, [], `${network}: ${formatSoak(idle)}`);
      const broken = brokenOf(reports);
      t.deepEqual(broken, [], `${network}: ${formatSoak(broken)}`);
      t.deepEqual(complaints, [], network);
      t.deepEqual([...new Set(changes.map(({ what }) => what))].sort(), [...CHANGES].sort());
    }
  },
);
