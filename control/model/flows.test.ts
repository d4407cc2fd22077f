// First packets against rows: the conformance cases of packet-flows.json as far as rows decide
// them. Source ranges, ServiceCIDRs, detection of pods and node-port CIDRs are decided elsewhere.
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import { existsSync, readFileSync } from "node:fs";
// biome-ignore lint/style/noRestrictedImports: the conformance cases are files.
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { canonicalAddress } from "./address.ts";
import { Cluster } from "./cluster.ts";
import type { ObjectIdentity, ServiceObject } from "./objects.ts";
import { readObject } from "./read.ts";
import type { FrontendRow, ServiceRow, TableRow } from "./rows.ts";

interface Packet {
  id: string;
  from: "pod" | "node" | "external";
  protocol: string;
  dst: string;
  dstPort: number;
  expect: { outcome: string; endpoints?: string[] };
}

interface Step {
  apply?: unknown[];
  delete?: ObjectIdentity[];
  packets: Packet[];
}

interface Case {
  id: string;
  title: string;
  config: { detectLocalMode: string; nodePortAddresses: string[] };
  node: { metadata: { name: string } };
  services: unknown[];
  endpointSlices: unknown[];
  packets: Packet[];
  then?: Step[];
}

interface Hit {
  row: ServiceRow;
  frontend: FrontendRow;
}

/** Objects and rows as they are after a step. */
class World {
  readonly cluster: Cluster;
  readonly services = new Map<string, ServiceObject>();
  readonly usesDetector: boolean;

  constructor({ node, config }: Case) {
    const nodeName = node.metadata.name;
    this.cluster = new Cluster({ nodeName, fallbackNodeAddresses: [] });
    this.usesDetector = config.detectLocalMode !== "None";
  }

  apply(value: unknown): void {
    const { object } = readObject(value);
    if (object === undefined) return;
    this.cluster.apply(object);
    if (object.kind === "Service") this.services.set(`${object.namespace}/${object.name}`, object);
  }

  find({ dst, dstPort, protocol }: Packet): Hit | undefined {
    const address = canonicalAddress(dst);
    for (const row of this.cluster.rows()) {
      const frontend = row.frontends.find(
        (each) => each.address === address && each.port === dstPort && row.protocol === protocol,
      );
      if (frontend !== undefined) return { row, frontend };
    }
    return undefined;
  }

  /** Why rows alone do not decide a packet, or undefined if they do. */
  undecided({ from, expect }: Packet, hit: Hit | undefined): string | undefined {
    if (hit === undefined) {
      return expect.outcome === "untouched" ? undefined : "no frontend: cluster IP or ServiceCIDR";
    }
    const { row, frontend } = hit;
    const service = this.services.get(`${row.namespace}/${row.name}`);
    const guarded = frontend.kind === "loadBalancer" && service!.sourceRanges.length > 0;
    if (guarded) return "source ranges";
    const external = frontend.kind !== "clusterIP";
    return external && from === "pod" && !this.usesDetector ? "no detector" : undefined;
  }
}

function tableFor({ from }: Packet, { row, frontend }: Hit): TableRow {
  if (frontend.kind === "clusterIP") return row.internal;
  return from === "external" ? row.outside : row.inside;
}

function outcome(packet: Packet, hit: Hit | undefined): { outcome: string; endpoints?: string[] } {
  if (hit === undefined) return { outcome: "untouched" };
  const { members, whenEmpty } = tableFor(packet, hit);
  if (members.length === 0) return { outcome: whenEmpty === "refuse" ? "reject" : "drop" };
  const endpoints = members.map((member) => {
    const { address, port } = hit.row.backends[member]!;
    return hit.row.family === 6 ? `[${address}]:${port}` : `${address}:${port}`;
  });
  return { outcome: "endpoints", endpoints: endpoints.sort() };
}

function checkPackets(t: ExecutionContext, world: World, { packets }: Step): void {
  world.cluster.takeDirty();
  for (const packet of packets) {
    const hit = world.find(packet);
    const why = world.undecided(packet, hit);
    if (why !== undefined) {
      t.log(`${packet.id} is not decided by rows: ${why}`);
      continue;
    }
    const { outcome: expected, endpoints } = packet.expect;
    const sorted = endpoints && { endpoints: [...endpoints].sort() };
    t.deepEqual(outcome(packet, hit), { outcome: expected, ...sorted }, packet.id);
  }
}

const root = path.resolve(import.meta.dirname, "../../..");
const folder = path.resolve(root, process.env.BPFSVC_VECTORS ?? "../shared/vectors");
const file = path.join(folder, "packet-flows.json");

if (existsSync(file)) {
  const cases: Case[] = JSON.parse(readFileSync(file, "utf8")).cases;
  for (const given of cases) {
    test(`${given.id}: ${given.title}`, (t) => {
      if (given.config.nodePortAddresses.join() !== "primary") {
        t.log("left out here: node-port addresses given as ranges are not the model's yet");
        t.pass();
        return;
      }
      const world = new World(given);
      for (const value of [...given.endpointSlices, ...given.services, given.node]) {
        world.apply(value);
      }
      checkPackets(t, world, given);
      for (const step of given.then ?? []) {
        for (const value of step.apply ?? []) world.apply(value);
        for (const identity of step.delete ?? []) world.cluster.remove(identity);
        checkPackets(t, world, step);
      }
      t.pass();
    });
  }
} else {
  test("the conformance cases for packets are there", (t) => {
    t.log(`LEFT OUT: "${file}" does not exist; set BPFSVC_VECTORS to the folder of the cases`);
    t.falsy(process.env.CI, "on CI nothing may be left out");
  });
}
