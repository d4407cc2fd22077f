// The command as it is typed: what is no verb, flag or value ends with code 2 and says what would
// be right, and --help tells the truth. Needs no kernel: nothing of what is asked here runs.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { limit, maps } from "../bindings/layout.ts";
import { MAP_SIZES } from "../control/command/capacities.ts";

const COMMAND = path.resolve(import.meta.dirname, "../../dist/bpfsvc.js");

function bpfsvc(words: readonly string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [COMMAND, ...words], {
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}

const WRONG: readonly (readonly [string, RegExp])[] = [
  ["serve", /unknown command 'serve'/],
  ["dumpp", /Did you mean dump\?/],
  ["run --manifest x", /Did you mean --manifests\?/],
  ["run here", /too many arguments for 'run'/],
  ["run --max-flows 0", /'0' is invalid\. It must be a whole number from 1 to 33554432\./],
  ["run --max-flows 1e3", /'1e3' is invalid\. It must be a whole number/],
  ["run --max-backends 4194305", /It must be a whole number from 1 to 4194304\./],
  ["dump flows --client nobody", /It must be like "10\.0\.0\.1"/],
  ["dump flows --protocol icmp", /It must be one of TCP, UDP, SCTP\./],
  ["run --manifests=", /'' is invalid\. It must not be empty\./],
  ["cleanup --pins=", /'' is invalid\. It must not be empty\./],
  ["run --cleanup=maybe", /'maybe' is invalid\. It must be true or false\./],
  ["run --device eth0=fast", /After "=" it must be one of auto, xdp, tc, generic\./],
  ["run --metrics-services shop/web,shop", /It must be a number, or names such as/],
  ["run --cluster-cidr 10.0.0.0/33", /--cluster-cidr holds "10\.0\.0\.0\/33", which is no range/],
  ["plan", /required option '--manifests <path>' not specified/],
  ["dump -o csv", /Allowed choices are table, wide, json, yaml/],
  ["dump devices eth0", /too many arguments for 'devices'/],
  ["dump devices -n shop", /Devices are of no namespace: leave out --namespace/],
  ["dump flows --all", /unknown option '--all'/],
  ["dump shop/web/http", /"shop\/web\/http" is no name: write NAME or NAMESPACE\/NAME/],
  ["dump shop/", /"shop\/" is no name/],
  ["dump shop/web -n other", /"shop\/web" and --namespace "other" exclude each other/],
];

for (const [words, says] of WRONG)
  test(`"bpfsvc ${words}" is wrong usage, and told so`, (t) => {
    const { status, stdout, stderr } = bpfsvc(words.split(" "));
    t.is(status, 2);
    t.is(stdout, "");
    t.regex(stderr, says);
  });

test("--cleanup and --init-only may be given a value, as to kube-proxy", (t) => {
  const only = (value: string) => bpfsvc(["run", "--manifests=x", `--init-only${value}`]);
  t.regex(only("").stderr, /--init-only ends here/);
  t.regex(only("=true").stderr, /--init-only ends here/);
  const off = ["--cleanup=false", "--init-only", "--manifests=x"];
  t.regex(bpfsvc(["run", ...off]).stderr, /--init-only ends here/);
  const { status, stderr } = bpfsvc(["run", "--cleanup=true", "--pins=/nowhere"]);
  t.is(status, 3);
  t.regex(stderr, /^bpfsvc: Nothing of bpfsvc is pinned in "\/nowhere"/);
});

test("lines of the log are for people, or objects with their level by name", (t) => {
  const told = (...flags: string[]) =>
    bpfsvc(["run", "--manifests=x", "--init-only", ...flags]).stderr;
  const time = /\d{4}-\d\d-\d\dT[\d:.]{12}Z/;
  t.regex(told(), new RegExp(`^${time.source} info  There is nothing to set up ahead: .*\n$`));
  const { level, time: at, msg, ...rest } = JSON.parse(told("--log-format", "json"));
  t.is(level, "info");
  t.regex(at, new RegExp(`^${time.source}$`));
  t.regex(msg, /^There is nothing to set up ahead/);
  t.deepEqual(rest, {});
});

for (const [words, help] of [
  ["serve", "bpfsvc --help"],
  ["run --typo", "bpfsvc run --help"],
  ["dump -o csv", "bpfsvc dump --help"],
  ["dump flows --all", "bpfsvc dump flows --help"],
] as const)
  test(`"bpfsvc ${words}" names the help that says what may be given`, (t) => {
    t.regex(bpfsvc(words.split(" ")).stderr, new RegExp(`\\nRun "${help}" for all`));
  });

for (const words of ["dump", "dump shop/web", "dump flows", "dump devices", "cleanup"])
  test(`"bpfsvc ${words}" without an agent says that nothing is pinned`, (t) => {
    const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-pins-"));
    t.teardown(() => rmSync(folder, { recursive: true }));
    const { status, stderr } = bpfsvc([...words.split(" "), "--pins", path.join(folder, "none")]);
    t.is(status, 3);
    t.regex(stderr, /^bpfsvc: Nothing (of bpfsvc )?is pinned in ".*none"/);
  });

test("the usual sizes in --help are those of the maps, and every id has its bits", (t) => {
  const { stdout } = bpfsvc(["run", "--help"]);
  const made: Record<string, number> = {
    "max-frontends": maps.svc_overflow.maxEntries,
    "max-services": maps.svc_services.maxEntries,
    "max-backends": maps.svc_backends.maxEntries,
    "max-slots": maps.svc_slots.maxEntries * 2,
    "max-flows": (maps.svc_flows.maxEntries * limit.FLOW_WAYS) / 2,
  };
  for (const [flag, { usual }] of Object.entries(MAP_SIZES)) {
    t.is(made[flag], usual, flag);
    t.regex(stdout, new RegExp(`--${flag} <count> .*\\(default: ${usual}\\)`), flag);
  }
  t.is(MAP_SIZES["max-backends"].most, 2 ** limit.SLOT_BACKEND_BITS);
});
