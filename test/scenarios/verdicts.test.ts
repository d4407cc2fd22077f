// What a socket is told where there is more to decide than which endpoint: ports and addresses that
// nobody has, sources that may not ask, and who is inside. Real sockets, rows written by hand.
import path from "node:path";
import test from "ava";
import { layoutHash, reason } from "../../bindings/layout.ts";
import { attachAll } from "../../control/dataplane/attach.ts";
import { Clients } from "../../control/dataplane/clients.ts";
import { Dataplane } from "../../control/dataplane/dataplane.ts";
import { DumpReader } from "../../control/dataplane/dump.ts";
import {
  kernelStorage,
  loadObject,
  Meta,
  type OpenMaps,
  openPinned,
} from "../../control/dataplane/kernel.ts";
import { Maps } from "../../control/dataplane/maps.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type {
  Family,
  FrontendRow,
  Protocol,
  ServiceRow,
  SourceRow,
} from "../../control/model/rows.ts";
import type { Helper, Host } from "../../lab/host.ts";
import { Lab, whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";

const labTest = needsLab(test.serial as typeof test);
const SYSTEM = path.resolve(import.meta.dirname, "../../bindings/system.js");
const PORT = 8080;
/** What the lab's network, or its silence, says where an address was not translated. */
const UNROUTED = ["EACCES", "ENETUNREACH", "EINPROGRESS"];
const UNTRANSLATED = "not translated";
const REFUSED = "ECONNREFUSED";
const DROPPED = "EHOSTUNREACH";
const CAPACITIES = { svc_services: 64, svc_names: 64, svc_backends: 256, svc_slots: 1024 };

interface PodsInside {
  pods_inside_ipv4: 0 | 1;
  pods_inside_ipv6: 0 | 1;
}

interface Stage {
  lab: Lab;
  dataplane: Dataplane;
  clients: Clients;
  maps: OpenMaps;
  /** Attaches the programs with other rodata. */
  attach: (rodata: PodsInside) => void;
  /** By the name of a host. */
  helpers: Record<string, Helper>;
  cookies: Record<string, bigint>;
}
let stage: Stage;

/** The cookie of a host's network namespace. */
async function cookieOf(host: Host): Promise<bigint> {
  const script = `import("${SYSTEM}").then(({ netnsCookie }) => console.log(netnsCookie()))`;
  const { stdout, stderr } = await host.run([process.execPath, "-e", script]);
  if (stdout === "") throw new Error(`No cookie of "${host.name}": ${stderr}`);
  return BigInt(stdout.trim().replace("n", ""));
}

async function openStage(): Promise<Stage> {
  const lab = await Lab.create({
    name: "verdicts",
    topology: { "node-a": ["client", "other", "server"] },
  });
  const node = lab.nodes["node-a"]!;
  const pins = new Pins(node.pins);
  const lock = pins.open();
  const hosts: Host[] = [node, ...Object.values(lab.pods)];
  const cookies: Record<string, bigint> = {};
  const helpers: Record<string, Helper> = {};
  for (const host of hosts) {
    cookies[host.name] = await cookieOf(host);
    helpers[host.name] = await host.helper();
  }
  for (const address of Object.values(lab.pods.server!.addresses))
    await helpers.server!.serveTcp({ identity: "server", address, port: PORT });
  const load = (rodata: PodsInside) =>
    loadObject(pins, {
      rodata: { remember_tcp: 0, node_netns: cookies["node-a"]!, ...rodata },
      capacities: CAPACITIES,
    });
  const loaded = load({ pods_inside_ipv4: 1, pods_inside_ipv6: 1 });
  const maps = openPinned(pins)!;
  const meta = new Meta(maps.svc_meta, { readOnly: false });
  const attach = (object: typeof loaded) => {
    attachAll(object, { pins, cgroup: node.cgroup, meta });
    object.object.close();
  };
  meta.layout = layoutHash;
  const storage = kernelStorage(maps, meta);
  attach(loaded);
  lock.release();
  return {
    lab,
    dataplane: new Dataplane(new Maps(storage)),
    clients: new Clients(storage.clients),
    maps,
    attach: (rodata) => attach(load(rodata)),
    helpers,
    cookies,
  };
}

test.before(async () => {
  if (whyNoLab() === undefined) stage = await openStage();
});

test.after.always(async () => {
  await stage?.lab.close();
});

/** One service port with the server as its endpoint; from outside nobody gets one. */
function makeRow(
  name: string,
  options: { frontends: FrontendRow[]; sources?: SourceRow; protocol?: Protocol },
): ServiceRow {
  const { frontends, sources, protocol = "TCP" } = options;
  const family = frontends[0]!.address.includes(":") ? 6 : 4;
  const { ipv4, ipv6 } = stage.lab.pods.server!.addresses;
  const all = { kind: "uniform", members: [0], whenEmpty: "refuse" } as const;
  return {
    key: `test/${name}:/${protocol}/${family}`,
    namespace: "test",
    name,
    port: "",
    protocol,
    family,
    type: "LoadBalancer",
    externalPolicy: "Local",
    affinitySeconds: 0,
    sources,
    frontends,
    backends: [
      {
        address: family === 4 ? ipv4 : ipv6,
        port: PORT,
        state: "ready",
        weight: 1,
        local: true,
      },
    ],
    internal: all,
    inside: all,
    outside: { kind: "uniform", members: [], whenEmpty: "drop" },
  };
}

const at = (kind: FrontendRow["kind"], address: string): FrontendRow => ({
  kind,
  address,
  port: 80,
});

/** Makes the maps say just this. */
function program(
  rows: ServiceRow[],
  rest: { addresses?: Parameters<Dataplane["replaceAddresses"]>[0]; ranges?: string[] } = {},
): void {
  stage.dataplane.replace(rows);
  stage.dataplane.replaceAddresses(rest.addresses ?? []);
  stage.dataplane.setServiceRanges(rest.ranges ?? []);
  const [error] = stage.dataplane.flush();
  if (error) throw new Error(`${error.key}: ${error.message}`);
}

interface Question {
  address: string;
  port?: number;
  protocol?: Protocol;
  /** Bound to before. */
  local?: string;
}

function codeOf(error: unknown): string {
  const { code } = error as { code: string };
  return UNROUTED.includes(code) ? UNTRANSLATED : code;
}

/** What connect() of a fresh socket says: "ok", or an errno. UDP connects to whoever is there. */
async function ask(from: string, question: Question): Promise<string> {
  const { address, port = 80, protocol = "TCP", local } = question;
  const { sockets } = stage.helpers[from]!;
  const family = address.includes(":") ? 6 : 4;
  const type = protocol === "UDP" ? "UDP" : "TCP";
  const fd = await sockets.open({ protocol: type, family, timeoutSeconds: 0.5 });
  try {
    if (local !== undefined) await sockets.bind(fd, { address: local, port: 0 });
    await sockets.connect(fd, { address, port });
    return "ok";
  } catch (error) {
    return codeOf(error);
  } finally {
    await sockets.close(fd);
  }
}

/** The same by sending one datagram from an unconnected socket. */
async function send(from: string, { address, port = 80 }: Question): Promise<string> {
  const { sockets } = stage.helpers[from]!;
  const fd = await sockets.open({ protocol: "UDP", family: address.includes(":") ? 6 : 4 });
  try {
    await sockets.sendTo(fd, { address, port, payload: "hello" });
    return "ok";
  } catch (error) {
    return codeOf(error);
  } finally {
    await sockets.close(fd);
  }
}

/** How often a reason came about, on all CPUs. */
function count(name: keyof typeof reason): number {
  const value = stage.maps.svc_reasons.get(new Uint8Array(Uint32Array.of(reason[name]).buffer))!;
  return Number(new BigUint64Array(value.buffer).reduce((sum, each) => sum + each, 0n));
}

labTest("an undefined port of a cluster IP refuses, TCP and UDP, both families", async (t) => {
  const addresses = ["10.96.0.20", "fd00:10:96::20"];
  program(
    addresses.map((address) => makeRow("web", { frontends: [at("clusterIP", address)] })),
    { addresses: addresses.map((address) => ({ address, action: "refuse" })) },
  );
  const before = count("REASON_UNDEFINED_PORT");
  for (const from of ["client", "node-a"])
    for (const address of [...addresses, "::ffff:10.96.0.20"]) {
      t.is(await ask(from, { address }), "ok", address);
      t.is(await ask(from, { address, port: 81 }), REFUSED, address);
      t.is(await ask(from, { address, protocol: "UDP" }), REFUSED, address);
      t.is(await send(from, { address }), REFUSED, address);
    }
  t.is(count("REASON_UNDEFINED_PORT") - before, 18);
});

labTest("an address of a Service range that nobody has drops, others are left alone", async (t) => {
  program([makeRow("web", { frontends: [at("clusterIP", "10.96.0.20")] })], {
    addresses: [
      { address: "10.96.0.30", action: "leave" },
      { address: "fd00:10:96::30", action: "leave" },
    ],
    ranges: ["10.96.0.0/16", "fd00:10:96::/112"],
  });
  const before = count("REASON_UNOWNED_ADDRESS");
  t.is(await ask("client", { address: "10.96.0.20" }), "ok");
  t.is(await ask("client", { address: "10.96.0.21" }), DROPPED);
  t.is(await ask("node-a", { address: "10.96.255.255", protocol: "UDP" }), DROPPED);
  t.is(await send("client", { address: "fd00:10:96::ffff" }), DROPPED);
  t.is(count("REASON_UNOWNED_ADDRESS") - before, 3);
  for (const address of ["10.96.0.30", "fd00:10:96::30", "10.97.0.0", "fd00:10:96::1:0"]) {
    t.is(await ask("client", { address }), UNTRANSLATED, address);
    t.true(["ok", UNTRANSLATED].includes(await send("client", { address })), address);
  }
  stage.dataplane.setServiceRanges([]);
  stage.dataplane.removeAddresses(["10.96.0.30", "fd00:10:96::30"]);
  stage.dataplane.flush();
  t.is(await ask("client", { address: "10.96.0.21" }), UNTRANSLATED);
});

labTest("other ports of an external address drop within a Service range alone", async (t) => {
  const addresses = ["10.96.0.40", "fd00:10:96::40"];
  const ranges = ["10.96.0.0/16", "fd00:10:96::/112"];
  const rows = addresses.map((address) =>
    makeRow("web", { frontends: [at("externalIP", address)] }),
  );
  for (const isWithin of [true, false]) {
    program(rows, {
      addresses: addresses.map((address) => ({ address, action: "answer" })),
      ranges: isWithin ? ranges : [],
    });
    for (const address of addresses) {
      t.is(await ask("client", { address }), "ok", address);
      const other = await ask("client", { address, port: 81 });
      t.is(other, isWithin ? DROPPED : UNTRANSLATED, address);
    }
  }
  stage.dataplane.removeAddresses(addresses);
  stage.dataplane.flush();
});

/** These pods are known, others are strangers. */
function knowPods(pods: readonly string[], inside: readonly Family[] = [4, 6]): void {
  const rows = pods.map((pod) => {
    const { ipv4, ipv6 } = stage.lab.pods[pod]!.addresses;
    return { cookie: stage.cookies[pod]!, ipv4, ipv6, inside };
  });
  stage.clients.replace(rows);
}

labTest(
  "source ranges let in whom they name: pods by their address, the node by verdict",
  async (t) => {
    const { client, other } = stage.lab.pods;
    knowPods(["client", "other"]);
    const vips = ["198.51.100.20", "2001:db8:f::20"] as const;
    const guard = (nodeAllowed: boolean) => {
      const ranges = [[`${client!.addresses.ipv4}/32`], [`${client!.addresses.ipv6}/128`]];
      program(
        vips.flatMap((vip, index) =>
          (["TCP", "UDP"] as const).map((protocol) =>
            makeRow("vip", {
              protocol,
              frontends: [
                at("loadBalancer", vip),
                at("externalIP", index === 0 ? "192.0.2.20" : "2001:db8:e::20"),
              ],
              sources: { ranges: ranges[index]!, nodeAllowed },
            }),
          ),
        ),
      );
    };
    guard(false);
    const before = count("REASON_SOURCE_RANGE");
    for (const address of [...vips, `::ffff:${vips[0]}`])
      for (const protocol of ["TCP", "UDP"] as const) {
        t.is(await ask("client", { address, protocol }), "ok", address);
        t.is(await ask("other", { address, protocol }), DROPPED, address);
        t.is(await ask("node-a", { address, protocol }), DROPPED, address);
      }
    t.is(count("REASON_SOURCE_RANGE") - before, 12);
    t.is(await ask("other", { address: "192.0.2.20" }), "ok", "only VIPs are guarded");
    const bound = { address: vips[0], protocol: "UDP", local: other!.addresses.ipv4 } as const;
    t.is(await ask("other", bound), DROPPED);
    guard(true);
    t.is(await ask("node-a", { address: vips[0] }), "ok");
    t.is(await ask("node-a", { address: vips[1] }), "ok");
    t.is(await ask("other", { address: vips[0] }), DROPPED);
  },
);

labTest("a bound socket's address decides, for node and pods alike", async (t) => {
  const node = stage.lab.nodes["node-a"]!;
  const extra = { other: "10.244.77.7", "node-a": "10.244.77.8" };
  for (const [name, address] of Object.entries(extra)) {
    const host = name === "other" ? stage.lab.pods.other! : node;
    await host.run(["ip", "addr", "add", `${address}/32`, "dev", "lo"]);
  }
  knowPods(["other"]);
  const vip = "198.51.100.21";
  const sources = { ranges: ["10.244.77.0/24"], nodeAllowed: false };
  program([makeRow("bound", { protocol: "UDP", frontends: [at("loadBalancer", vip)], sources })]);
  for (const [from, local] of Object.entries(extra)) {
    t.is(await ask(from, { address: vip, protocol: "UDP" }), DROPPED, from);
    t.is(await ask(from, { address: vip, protocol: "UDP", local }), "ok", from);
    const mapped = { address: `::ffff:${vip}`, protocol: "UDP" } as const;
    t.is(await ask(from, { ...mapped, local: `::ffff:${local}` }), "ok", from);
    t.is(await ask(from, mapped), DROPPED, from);
  }
  t.is(await ask("node-a", { address: vip, protocol: "UDP", local: node.addresses.ipv4 }), DROPPED);
});

labTest(
  "a dump shows who may ask, what other ports do, and how often it came to that",
  async (t) => {
    const sources = { ranges: ["10.244.0.0/16", "192.0.2.7/32"], nodeAllowed: true };
    const six = { ranges: ["2001:db8::/32"], nodeAllowed: false };
    const row = makeRow("dumped", { frontends: [at("loadBalancer", "198.51.100.29")], sources });
    const rowSix = makeRow("dumped", {
      frontends: [at("loadBalancer", "2001:db8:f::29"), at("clusterIP", "fd00:10:96::29")],
      sources: six,
    });
    program([row, rowSix], {
      addresses: [
        { address: "fd00:10:96::29", action: "refuse" },
        { address: "10.96.0.31", action: "leave" },
      ],
      ranges: ["fd00:10:96::/112", "10.96.0.0/16"],
    });
    await ask("client", { address: "fd00:10:96::29", port: 99 });
    const reader = DumpReader.open(new Pins(stage.lab.nodes["node-a"]!.pins))!;
    const whole = await reader.read();
    t.deepEqual(whole.serviceRanges, ["10.96.0.0/16", "fd00:10:96::/112"]);
    t.true(whole.addresses.some(({ address }) => address === "10.96.0.31"));
    t.is(whole.reasons.undefined_port, count("REASON_UNDEFINED_PORT"));
    t.true(whole.reasons.undefined_port! > 0);
    const dump = await reader.read({ name: "dumped" });
    t.deepEqual(
      dump.services.map((each) => each.sources),
      [sources, six],
    );
    t.deepEqual(dump.addresses, [{ address: "fd00:10:96::29", action: "refuse" }]);
    t.is(dump.services[0]!.frontends.length, 1);
    program([{ ...row, sources: undefined }]);
    t.false("sources" in (await reader.read({ name: "dumped" })).services[0]!);
  },
);

labTest("where nobody knows the source, a guarded VIP is left to the packet path", async (t) => {
  stage.clients.replace([
    { cookie: stage.cookies.client!, ipv6: stage.lab.pods.client!.addresses.ipv6, inside: [6] },
  ]);
  const sources = { ranges: ["10.0.0.0/8"], nodeAllowed: true };
  program([makeRow("unknown", { frontends: [at("loadBalancer", "198.51.100.22")], sources })]);
  const before = count("REASON_SOURCE_UNKNOWN");
  t.is(await ask("other", { address: "198.51.100.22" }), UNTRANSLATED);
  t.is(await ask("client", { address: "198.51.100.22" }), UNTRANSLATED, "no IPv4 address known");
  t.is(count("REASON_SOURCE_UNKNOWN") - before, 2);
  t.is(await ask("node-a", { address: "198.51.100.22" }), "ok");
});

labTest("a Service without endpoints drops a source that is not allowed", async (t) => {
  knowPods(["client", "other"]);
  const ranges = [`${stage.lab.pods.client!.addresses.ipv4}/32`];
  const row = makeRow("empty", {
    frontends: [at("loadBalancer", "198.51.100.23")],
    sources: { ranges, nodeAllowed: false },
  });
  const none = { kind: "uniform", members: [], whenEmpty: "refuse" } as const;
  program([{ ...row, backends: [], internal: none, inside: none, outside: none }]);
  t.is(await ask("client", { address: "198.51.100.23" }), REFUSED);
  t.is(await ask("other", { address: "198.51.100.23" }), DROPPED);
});

labTest("a UDP socket with an endpoint loses it when its source is shut out", async (t) => {
  knowPods(["client"]);
  const vip = "198.51.100.24";
  const row = makeRow("shut", { protocol: "UDP", frontends: [at("loadBalancer", vip)] });
  program([row]);
  const { sockets } = stage.helpers.client!;
  const fd = await sockets.open({ protocol: "UDP", family: 4 });
  await sockets.sendTo(fd, { address: vip, port: 80, payload: "hello" });
  program([{ ...row, sources: { ranges: ["192.0.2.0/24"], nodeAllowed: false } }]);
  const again = sockets.sendTo(fd, { address: vip, port: 80, payload: "hello" });
  t.is(codeOf(await t.throwsAsync(again)), DROPPED);
  await sockets.close(fd);
});

labTest("node and pods are inside, others outside; unknown ones as configured", async (t) => {
  const address = "192.0.2.25";
  const ipv6 = "2001:db8:192::25";
  program([
    makeRow("local", { frontends: [at("externalIP", address), at("clusterIP", "10.96.0.25")] }),
    makeRow("local", { frontends: [at("externalIP", ipv6)] }),
  ]);
  knowPods(["client"]);
  t.is(await ask("client", { address }), "ok");
  t.is(await ask("other", { address }), "ok", "not known, and pods are inside");
  t.is(await ask("node-a", { address }), "ok");
  knowPods(["client"], []);
  t.is(await ask("client", { address }), DROPPED, "the outside table is empty");
  t.is(await ask("client", { address: "10.96.0.25" }), "ok", "a cluster IP has but one list");
  knowPods(["client"], [6]);
  t.is(await ask("client", { address }), DROPPED, "pods are told from others over IPv6 alone");
  t.is(await ask("client", { address: ipv6 }), "ok");
  stage.attach({ pods_inside_ipv4: 0, pods_inside_ipv6: 1 });
  t.is(await ask("other", { address }), DROPPED);
  t.is(await ask("other", { address: ipv6 }), "ok");
  t.is(await ask("node-a", { address }), "ok");
  knowPods(["other"]);
  t.is(await ask("other", { address }), "ok");
});
