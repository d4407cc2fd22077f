// KubeProxyConfiguration files as people write them, good and bad, and as they are written here.
import test from "ava";
import { UserError } from "../exit.ts";
import { formatConfigFile, formatConfigz, openConfigFile, readConfigFile } from "./file.ts";

const HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n";

function read(text: string): Record<string, unknown> {
  return Object.fromEntries(readConfigFile({ path: "kp.yaml", text }));
}

test("YAML and JSON give the same", (t) => {
  const expected = { clusterCIDR: "10.0.0.0/8", "conntrack.min": 0, "iptables.syncPeriod": "5s" };
  t.deepEqual(
    read(`${HEAD}clusterCIDR: 10.0.0.0/8\nconntrack: {min: 0}\niptables:\n  syncPeriod: 5s\n`),
    expected,
  );
  t.deepEqual(
    read(
      '{"apiVersion": "kubeproxy.config.k8s.io/v1alpha1", "kind": "KubeProxyConfiguration",\n' +
        '"clusterCIDR": "10.0.0.0/8", "conntrack": {"min": 0}, "iptables": {"syncPeriod": "5s"}}',
    ),
    expected,
  );
});

test("Go's zeros say nothing, where kube-proxy cannot tell them from silence", (t) => {
  t.deepEqual(
    read(`${HEAD}bindAddress: ""\nnodePortAddresses: []\niptables: {syncPeriod: 0s}`),
    {},
  );
  t.deepEqual(read(`${HEAD}oomScoreAdj: 0\nipvs: null`), { oomScoreAdj: 0 });
});

test("a field of a later Kubernetes that is not set does no harm", (t) => {
  t.deepEqual(read(`${HEAD}iptables: {snatNodeInternalIP: null}`), {});
});

test("at /configz the same stands as JSON, below its API group", (t) => {
  const values = new Map([["iptables.syncPeriod", "5s"]] as const);
  t.like(JSON.parse(formatConfigz(values)), {
    "kubeproxy.config.k8s.io": { kind: "KubeProxyConfiguration", iptables: { syncPeriod: "5s" } },
  });
});

test("what is written is read again as it was", (t) => {
  const values = readConfigFile({ path: "x", text: `${HEAD}mode: ipvs\nipvs: {syncPeriod: 1h}` });
  const text = formatConfigFile(values);
  t.true(text.startsWith(HEAD));
  t.deepEqual(readConfigFile({ path: "x", text }), values);
});

const FAULTS: readonly (readonly [string, RegExp])[] = [
  ["", /"kp.yaml" holds 0 documents/],
  [`${HEAD}---\n${HEAD}`, /"kp.yaml" holds 2 documents: write one/],
  ["- a\n", /"kp.yaml" is no map of fields: begin with/],
  [`${HEAD}mode: [`, /^Cannot read the configuration "kp.yaml": .* line 3, column .*; correct it/],
  [`${HEAD}mode: ""\nmode: ipvs`, /keys must be unique at line 4/],
  ["kind: KubeProxyConfiguration", /^apiVersion in "kp.yaml" is missing: write "kubeproxy/],
  [HEAD.replace("v1alpha1", "v1"), /^apiVersion in "kp.yaml" is "kubeproxy.config.k8s.io\/v1": /],
  [HEAD.replace("KubeProxy", "Kubelet"), /^kind in "kp.yaml" is "KubeletConfiguration": write/],
  [`${HEAD}udpIdleTimeout: 1s`, /^udpIdleTimeout in .* is no field of .*: remove or correct it/],
  [`${HEAD}iptables: {syncperiod: 1s}`, /: write iptables.syncPeriod, or remove it/],
  [`${HEAD}iptables: 5`, /^iptables in "kp.yaml" is 5: write the fields of this section below/],
  [`${HEAD}__proto__: 5`, /^__proto__ in "kp.yaml" is no field/],
];

for (const [text, message] of FAULTS) {
  test(`${JSON.stringify(text.replace(HEAD, "… "))} is refused with what would be right`, (t) => {
    t.throws(() => read(text), { instanceOf: UserError, message });
  });
}

test("a file that is not there is named", (t) => {
  const message = /^Cannot read the configuration "\/nowhere\/kp.yaml" of --config: ENOENT/;
  t.throws(() => openConfigFile("/nowhere/kp.yaml"), { instanceOf: UserError, message });
});
