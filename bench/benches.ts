// All benches, in the order in which they run: what is quick and steady first, and what starts a
// process for each question before others have mapped gigabytes, which every fork pays for. Knows
// none of them. A bench that is not in this list does not exist.
import type { Bench } from "./bench.ts";
import { bulk } from "./bulk.ts";
import { calls } from "./calls.ts";
import { churn } from "./churn.ts";
import { connect } from "./connect.ts";
import { decode } from "./decode.ts";
import { devices } from "./devices.ts";
import { dump } from "./dump.ts";
import { established } from "./established.ts";
import { maglev } from "./maglev.ts";
import { metrics } from "./metrics.ts";
import { nodePort } from "./node-port.ts";
import { packet } from "./packet.ts";
import { program } from "./program.ts";
import { scale } from "./scale.ts";
import { select } from "./select.ts";
import { soak } from "./soak.ts";

export const BENCHES: readonly Bench[] = [
  program,
  soak,
  packet,
  maglev,
  select,
  decode,
  dump,
  calls,
  connect,
  established,
  bulk,
  nodePort,
  churn,
  devices,
  metrics,
  scale,
];
