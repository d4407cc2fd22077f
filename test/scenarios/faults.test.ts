// What goes wrong around a running agent: full maps and bad manifests. Each fault is named, and
// nothing else is lost.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, mkdtemp, rm, rmdir, symlink, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import test from "ava";
import { DumpReader } from "../../control/dataplane/dump.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { type Manifest, makeService, makeSlices } from "./objects.ts";
import { COMMAND, POD_PORT, Stage, whoTcp } from "./stage.ts";

const labTest = needsLab(test.serial);

/**
 * A Service at 10.96.0.N and 192.0.2.N with some endpoints, of which pod-b is the only one that
 * answers. For its external address it has a table of 251 slots.
 */
function numbered(stage: Stage, number: number, endpoints = 1): Manifest[] {
  const strangers = Array.from({ length: endpoints - 1 }, (_, index) => `10.99.0.${index + 1}`);
  return [
    makeService({
      name: `s${number}`,
      addresses: [`10.96.0.${number}`],
      ports: [{ port: 80 }],
      spec: { externalIPs: [`192.0.2.${number}`] },
    }),
    ...makeSlices({
      service: `s${number}`,
      ports: [{ port: POD_PORT }],
      endpoints: [stage.pod("pod-b").addresses.ipv4, ...strangers],
    }),
  ];
}

async function ask(stage: Stage, number: number): Promise<string> {
  const client = await stage.client(stage.pod("client"));
  return whoTcp(client, { address: `10.96.0.${number}`, port: 80 });
}

async function onStage(play: (stage: Stage) => Promise<void>): Promise<void> {
  if (whyNoLab() !== undefined) return;
  const stage = await Stage.open(["client", "pod-b"]);
  try {
    await play(stage);
  } finally {
    await stage.close();
  }
}

/**
 * A map's flag, a value with room for one Service of one endpoint, how the map is named, and what
 * becomes of the Service that finds no room: refused, since its cluster IP is known to be ours,
 * unless there is no room for that either.
 */
const SIZES = [
  ["--max-frontends", "3", "svc_frontends", "EACCES"],
  ["--max-services", "1", "svc_services", "ECONNREFUSED"],
  ["--max-backends", "1", "svc_backends", "ECONNREFUSED"],
  ["--max-slots", "252", "svc_slots", "ECONNREFUSED"],
] as const;

for (const [flag, size, map, error] of SIZES)
  labTest(`when ${map} is full the Service is named, and served once there is room`, (t) =>
    onStage(async (stage) => {
      await stage.apply("1", numbered(stage, 1));
      await stage.startAgent({ arguments: [flag, size] });
      await stage.apply("2", numbered(stage, 2));
      const named = new RegExp(`Cannot program "test/s2:/TCP/4": ${map} is full.*${size}`);
      await waitFor(() => named.test(stage.agentOutput()), { what: "the Service to be named" });
      t.is(await ask(stage, 1), "pod-b");
      t.is(await ask(stage, 2), error);
      await stage.withdraw("1");
      await waitFor(async () => (await ask(stage, 2)) === "pod-b", { what: "room to be used" });
      // The agent says so once it has written, and by then the Service may have been asked.
      const after = /Programmed "test\/s2:\/TCP\/4" after all/;
      await waitFor(() => after.test(stage.agentOutput()), { what: "the agent to say so" });
      t.regex(stage.agentOutput(), after);
    }),
  );

labTest("a Service that outgrows its map keeps the endpoints it had", (t) =>
  onStage(async (stage) => {
    await stage.apply("1", numbered(stage, 1, 2));
    await stage.startAgent({ arguments: ["--max-backends", "3"] });
    await stage.apply("1", numbered(stage, 1, 9));
    const named = /Cannot program "test\/s1:\/TCP\/4": svc_backends is full/;
    await waitFor(() => named.test(stage.agentOutput()), { what: "the Service to be named" });
    t.is((await stage.programmed("s1"))[0]!.endpoints.length, 2);
    await stage.apply("1", numbered(stage, 1, 3));
    await stage.withEndpoints("s1", 3);
  }),
);

const HUGE = "x".repeat(100_000);
const BOMB = ["a: &a [x,x,x,x,x,x,x,x,x]"]
  .concat(
    [..."bcdefghi"].map(
      (name, index) => `${name}: &${name} [${"*a,".replace("a", "abcdefgh"[index]!).repeat(9)}]`,
    ),
  )
  .join("\n");

/** A bad file each: what is in it, and what the agent says about it. */
const BAD_FILES: readonly [string, string | Buffer, RegExp][] = [
  ["broken YAML", "kind: Service\nspec: [1,\n", /bad\.yaml:\d+:\d+/],
  ["a file cut off in the middle", '{"kind": "Service", "metad', /bad\.yaml:1/],
  ["bytes that are no text", Buffer.from([0, 255, 254, 1, 7]), /bad\.yaml/],
  ["a YAML bomb", BOMB, /bad\.yaml.*alias/i],
  ["a document that is a number", "42\n", /bad\.yaml/],
  ["a Service whose name is far too long", service({ name: HUGE }, {}), /metadata\.name/],
  [
    "a Service without a spec",
    "apiVersion: v1\nkind: Service\nmetadata: {name: bad}\n",
    /"?test|default\/bad/,
  ],
  ["a Service with an absurd port", service({}, { ports: [{ port: 70000 }] }), /70000/],
  ["a Service with ports that are no list", service({}, { ports: "80" }), /spec\.ports/],
  [
    "a Service with an address that is none",
    service({}, { clusterIP: "10.96.0.300" }),
    /10\.96\.0\.300/,
  ],
  ["a Service with an address of the wrong family", service({}, { ipFamilies: ["IPv6"] }), /bad/],
];

function service(metadata: Manifest, spec: Manifest): string {
  return JSON.stringify({
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: "bad", namespace: "test", ...metadata },
    spec: { clusterIP: "10.96.0.99", ports: [{ port: 80 }], ...spec },
  });
}

labTest("bad manifests are each named with their place, and everything else is served", (t) =>
  onStage(async (stage) => {
    await stage.apply("good", numbered(stage, 1));
    await stage.startAgent();
    for (const [what, content, message] of BAD_FILES) {
      const before = stage.agentOutput().length;
      await writeFile(path.join(stage.folder, "bad.yaml"), content);
      await waitFor(() => message.test(stage.agentOutput().slice(before)), {
        what: `the agent to name ${what}, not only ${stage.agentOutput().slice(before)}`,
      });
      t.is(await ask(stage, 1), "pod-b", what);
      await rm(path.join(stage.folder, "bad.yaml"));
    }
    await stage.apply("last", numbered(stage, 2));
    await stage.programmed("s2");
    t.false(stage.agent.ended());
  }),
);

labTest("a file that becomes a folder, a dangling link or empty loses nothing but itself", (t) =>
  onStage(async (stage) => {
    await stage.apply("good", numbered(stage, 1));
    await stage.apply("odd", numbered(stage, 2));
    await stage.startAgent();
    const odd = path.join(stage.folder, "odd.yaml");
    await rm(odd);
    await mkdir(odd);
    await waitFor(() => /odd\.yaml.*folder/.test(stage.agentOutput()), { what: "the folder" });
    t.is(await ask(stage, 2), "pod-b", "the last good state is served");
    await rm(odd, { recursive: true });
    await symlink("/nowhere/at/all", odd);
    await waitFor(() => /odd\.yaml.*does not exist/.test(stage.agentOutput()), {
      what: "the link",
    });
    t.is(await ask(stage, 2), "pod-b");
    await rm(odd);
    await stage.apply("odd", numbered(stage, 2));
    await truncate(odd);
    await waitFor(async () => (await ask(stage, 2)) === "EACCES", { what: "an empty file" });
    t.is(await ask(stage, 1), "pod-b");
  }),
);

labTest("links and maps that somebody removed are put back, the same maps", (t) =>
  onStage(async (stage) => {
    await stage.apply("1", numbered(stage, 1));
    await stage.startAgent();
    const { pins } = stage.node;
    await rm(path.join(pins, "links", "connect4"));
    await rm(new Pins(pins).mapPath("svc_backends"));
    t.is(await ask(stage, 1), "EACCES");
    await waitFor(async () => (await ask(stage, 1)) === "pod-b", {
      what: "the link to be back",
      timeoutSeconds: 60,
    });
    t.regex(stage.agentOutput(), /Links of connect4 were gone: attaching/);
    t.regex(stage.agentOutput(), /Pins of svc_backends were gone/);
    t.truthy(DumpReader.open(new Pins(pins)));
    await stage.apply("2", numbered(stage, 2));
    await waitFor(async () => (await ask(stage, 2)) === "pod-b", { what: "a new Service" });
  }),
);

labTest("a cgroup that vanishes is named, and served again when it is back", (t) =>
  onStage(async (stage) => {
    await stage.apply("1", numbered(stage, 1));
    const cgroup = path.join(stage.node.cgroup, "passing");
    await mkdir(cgroup);
    await stage.startAgent({ arguments: ["--cgroup", cgroup] });
    await rmdir(cgroup);
    const named = /Not everything is served: Cgroup ".*passing" does not exist/;
    await waitFor(() => named.test(stage.agentOutput()), {
      what: "the cgroup to be named",
      timeoutSeconds: 60,
    });
    await mkdir(cgroup);
    const again = /Serving cgroup ".*passing" again/;
    await waitFor(() => again.test(stage.agentOutput()), {
      what: "the cgroup to be served",
      timeoutSeconds: 60,
    });
    t.is((await stage.dump()).services.length, 1);
  }),
);

labTest("an agent whose log's disk is full serves on, and says how much of the log is lost", (t) =>
  onStage(async (stage) => {
    const disk = await mkdtemp(path.join(tmpdir(), "bpfsvc-disk-"));
    t.is(spawnSync("mount", ["-t", "tmpfs", "-o", "size=64k", "bpfsvc", disk]).status, 0);
    const log = path.join(disk, "agent.log");
    const filler = path.join(disk, "filler");
    const run = [process.execPath, COMMAND, "run", ...stage.agentFlags];
    try {
      await writeFile(filler, Buffer.alloc(1 << 20)).catch(() => {});
      const agent = await stage.node.start(["sh", "-c", 'exec "$@" 2>"$0"', log, ...run]);
      await stage.apply("1", numbered(stage, 1));
      await waitFor(async () => (await ask(stage, 1)) === "pod-b", { what: "Service 1" });
      t.is(readFileSync(log, "utf8"), "");
      await rm(filler);
      await stage.apply("2", [...numbered(stage, 2), { kind: "Service" }]);
      await waitFor(() => /\d+ lines of this log are lost/.test(readFileSync(log, "utf8")), {
        what: "the log to go on",
      });
      await waitFor(async () => (await ask(stage, 2)) === "pod-b", { what: "Service 2" });
      await agent.stop();
    } finally {
      spawnSync("umount", [disk]);
      await rm(disk, { recursive: true });
    }
  }),
);

test("output to a full disk is an error of one line, and to a closed pipe none", (t) => {
  const manifests = path.resolve(import.meta.dirname, "../../../examples");
  const plan = [process.execPath, COMMAND, "plan", "--manifests", manifests, "--node", "node-a"];
  const sh = (script: string) => spawnSync("sh", ["-c", script, ...plan], { encoding: "utf8" });
  const full = sh('exec "$0" "$@" >/dev/full');
  t.is(full.status, 1);
  t.regex(full.stderr, /^bpfsvc: Cannot write the output: ENOSPC[^\n]*\n$/);
  const closed = sh('{ "$0" "$@"; echo "exit $?" >&2; } | true');
  t.is(closed.stderr, "exit 0\n");
});
