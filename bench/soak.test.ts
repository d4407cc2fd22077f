// The soak in short, in one network after the other.
import test from "ava";
import { needsLab } from "../lab/needs.ts";
import { formatSoak } from "../lab/soak.ts";
import { brokenOf, NETWORKS, soakNetwork } from "./soak.ts";
import { CHANGES } from "./soakbed.ts";

/** On a slow machine the first change of each kind takes four. */
const SECONDS = 8;
const labTest = needsLab(test.serial);

for (const network of NETWORKS)
  labTest(
    `${network}: no connection breaks while endpoints, MAC addresses and agents change`,
    async (t) => {
      const { reports, changes, complaints } = await soakNetwork(network, SECONDS);
      const idle = reports.filter(({ done }) => done === 0);
      t.deepEqual(idle, [], formatSoak(idle));
      const broken = brokenOf(reports);
      t.deepEqual(broken, [], formatSoak(broken));
      t.deepEqual(complaints, []);
      t.deepEqual([...new Set(changes.map(({ what }) => what))].sort(), [...CHANGES].sort());
    },
  );
