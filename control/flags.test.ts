// Flags as commander takes them and as Go's are written.
import test from "ava";
import { Command } from "commander";
import type { Flags } from "./config.ts";
import { addFlags, FLAGS, typedFlags } from "./flags.ts";

function type(...words: string[]): Flags {
  const command = addFlags(new Command("run"), FLAGS).exitOverride();
  command.configureOutput({ writeErr: () => {} });
  command.parse(words, { from: "user" });
  return typedFlags(command.opts());
}

const TYPED: readonly (readonly [string, Flags])[] = [
  ["", {}],
  ["--masquerade-all", { "masquerade-all": "true" }],
  ["--masquerade-all --node a", { "masquerade-all": "true", node: "a" }],
  ["--masquerade-all=false", { "masquerade-all": "false" }],
  ["-v 4", { v: "4" }],
  ["-v=4", { v: "=4" }],
  ["-v4", { v: "4" }],
  ["--v=4", { v: "4" }],
  ["--oom-score-adj -998", { "oom-score-adj": "-998" }],
  ["--oom-score-adj=-998", { "oom-score-adj": "-998" }],
  ["--nodeport-addresses=", { "nodeport-addresses": "" }],
  [
    "--nodeport-addresses 10.0.0.0/8 --nodeport-addresses 192.168.0.0/16",
    { "nodeport-addresses": "10.0.0.0/8,192.168.0.0/16" },
  ],
  ["--cluster-cidr 10.0.0.0/8 --cluster-cidr fd00::/8", { "cluster-cidr": "10.0.0.0/8,fd00::/8" }],
  ["--hostname-override a --hostname-override b", { "hostname-override": "b" }],
];

for (const [words, flags] of TYPED)
  test(`"${words}" is taken as it is in Go`, (t) => {
    t.deepEqual(type(...words.split(" ").filter((word) => word !== "")), flags);
  });

test("every flag of the table can be typed, and is found again under its own name", (t) => {
  for (const flag of FLAGS) t.deepEqual(type(`--${flag}=x`), { [flag]: "x" });
});

test("flags that have an effect are in --help, the others are not", (t) => {
  const help = addFlags(new Command("run"), FLAGS).helpInformation();
  for (const flag of ["--cluster-cidr", "--node ", "--healthz-bind-address", "-v, --v"])
    t.true(help.includes(flag), flag);
  for (const flag of ["--conntrack-min", "--ipvs-scheduler", "--profiling"])
    t.false(help.includes(flag), flag);
});
