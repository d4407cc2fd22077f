import test from "ava";
import { parseVerifierStatistics } from "./verifier.ts";

test("the verifier's statistics are read, whatever stands around them", (t) => {
  const text = [
    "verification time 4711 usec",
    "stack depth 104+0+16",
    "processed 121034 insns (limit 1000000) max_states_per_insn 12 " +
      "total_states 5021 peak_states 840 mark_read 31",
    "",
  ].join("\n");
  t.deepEqual(parseVerifierStatistics(text), {
    instructions: 121_034,
    states: 5021,
    peakStates: 840,
  });
});

test("a log without them is shown", (t) => {
  t.throws(() => parseVerifierStatistics("R1 invalid mem access"), { message: /R1 invalid/ });
});
