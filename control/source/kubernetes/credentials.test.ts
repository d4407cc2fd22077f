// Credentials of a plugin that prints something else for once.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { Credentials } from "./credentials.ts";

test("what a plugin printed that is no credential is not kept", async (t) => {
  const folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-credentials-"));
  t.teardown(() => rmSync(folder, { recursive: true }));
  const printed = path.join(folder, "credential.json");
  const kubeconfig = path.join(folder, "kubeconfig");
  const apiVersion = "client.authentication.k8s.io/v1";
  const exec = { apiVersion, command: "cat", args: [printed] };
  const config = {
    clusters: [{ name: "c", cluster: { server: "https://api.example:6443" } }],
    users: [{ name: "u", user: { exec } }],
    contexts: [{ name: "x", context: { cluster: "c", user: "u" } }],
    "current-context": "x",
  };
  writeFileSync(kubeconfig, JSON.stringify(config));
  writeFileSync(printed, JSON.stringify({ apiVersion, kind: "ExecCredential" }));
  const credentials = new Credentials(kubeconfig);
  t.teardown(() => credentials.close());
  await t.throwsAsync(credentials.get(), { message: /Cannot use kubeconfig ".*kubeconfig"/ });
  const status = { token: "good" };
  writeFileSync(printed, JSON.stringify({ apiVersion, kind: "ExecCredential", status }));
  t.is((await credentials.get()).headers.authorization, "Bearer good");
});
