// All benches, in the order in which they run: what is quick and steady first. Knows none of them.
// A bench that is not in this list does not exist.
import type { Bench } from "./bench.ts";
import { calls } from "./calls.ts";
import { change } from "./change.ts";
import { cluster } from "./cluster.ts";
import { connect } from "./connect.ts";
import { decode } from "./decode.ts";
import { dump } from "./dump.ts";
import { established } from "./established.ts";
import { memory } from "./memory.ts";
import { select } from "./select.ts";

export const BENCHES: readonly Bench[] = [
  calls,
  connect,
  established,
  dump,
  change,
  memory,
  select,
  decode,
  cluster,
];
