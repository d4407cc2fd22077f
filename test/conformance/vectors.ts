// The behaviour vectors: where they are, and what their files hold as far as suites that play them
// on the running dataplane need it. Knows no expectation of its own.
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import test from "ava";
import { canonicalAddress } from "../../control/model/address.ts";

/** The node of all vectors. */
const NODE = "node-a";

/** A Kubernetes object as the API server holds it. */
export interface ClusterObject {
  kind: string;
  metadata: { namespace?: string; name: string; labels?: Record<string, string> };
  [field: string]: unknown;
}

export interface FlowConfig {
  detectLocalMode: "ClusterCIDR" | "None";
  clusterCIDRs: string[];
  masqueradeAll: boolean;
  nodePortAddresses: string[];
  localhostNodePorts: boolean;
}

export interface FlowExpectation {
  outcome: "endpoints" | "reject" | "drop" | "untouched";
  endpoints?: string[];
  masqueraded?: boolean | "by-endpoint";
  masqueradedFor?: string[];
}

export interface FlowPacket {
  id: string;
  from: "pod" | "node" | "external";
  src: string;
  protocol: "TCP" | "UDP" | "SCTP";
  dst: string;
  dstPort: number;
  expect: FlowExpectation;
  iptablesModeDiffers?: FlowExpectation;
}

/** A case of packet-flows.json. */
export interface FlowCase {
  id: string;
  title: string;
  config: FlowConfig;
  serviceCIDRs: string[];
  localAddresses: string[];
  node: ClusterObject;
  services: ClusterObject[];
  endpointSlices: ClusterObject[];
  packets: FlowPacket[];
  then?: {
    apply?: ClusterObject[];
    delete?: { kind: string; namespace: string; name: string }[];
    packets: FlowPacket[];
  }[];
}

export interface AffinityExpectation {
  sameAs?: string;
  notAllSameAs?: string;
  sameAsExceptLost?: string;
  anyOf?: string[];
  distinctAtLeast?: number;
  pinTo?: string;
}

export type Conditions = Record<"ready" | "serving" | "terminating", boolean>;

export interface AffinityEvent {
  /** In seconds since the case began. */
  t: number;
  do: string;
  label?: string;
  client?: string;
  clients?: string[];
  times?: number;
  frontend?: string;
  protocol?: "TCP" | "UDP";
  holdOpenUntil?: number;
  endpoint?: string | { chosenBy: string; client: string };
  conditions?: Conditions;
  port?: { name: string; port: number; protocol: string };
  timeoutSeconds?: number;
  expect?: AffinityExpectation;
}

/** A case of session-affinity.json. */
export interface AffinityCase {
  id: string;
  title: string;
  service: { sessionAffinity: string; timeoutSeconds?: number; frontends: Record<string, string> };
  endpoints: string[];
  events: AffinityEvent[];
}

/** An address and a port, as the vectors write both at once. */
export interface Authority {
  address: string;
  port: number;
}

/** An endpoint as the vectors write it. */
export function authority({ address, port }: Authority): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

/** The address and port of an endpoint as the vectors write it. */
export function parseAuthority(text: string): Authority {
  const [, address = "", port = ""] = /^\[?(.*?)\]?:(\d+)$/.exec(text) ?? [];
  return { address, port: Number(port) };
}

const FOLDER =
  process.env.BPFSVC_VECTORS ?? path.resolve(import.meta.dirname, "../../../../shared/vectors");

/** A whole vector file. One that is missing is left out aloud, and fails on CI: undefined. */
export function readVectorFile<File>(file: string): File | undefined {
  const full = path.join(FOLDER, file);
  if (existsSync(full)) return JSON.parse(readFileSync(full, "utf8")) as File;
  const reason = `Left out, the vectors of ${file}: there is none in the folder BPFSVC_VECTORS`;
  console.error(reason);
  // A file without any test would be a failure of its own.
  const declare = (process.env.CI ?? "") === "" ? test.skip : test;
  declare(`the vectors of ${file} are there`, (t) => t.fail(reason));
  return undefined;
}

/** The cases of a vector file, none if it is missing. */
export function readVectors<Case>(file: string): Case[] {
  return readVectorFile<{ cases: Case[] }>(file)?.cases ?? [];
}

function keyOf(kind: string, { namespace = "", name }: ClusterObject["metadata"]): string {
  return `${kind} ${namespace}/${name}`;
}

/** The states that a case goes through, each with all objects of it and its packets. */
export function stepsOf(flowCase: FlowCase): { objects: ClusterObject[]; packets: FlowPacket[] }[] {
  const { node, services, endpointSlices, packets, then = [] } = flowCase;
  const objects = new Map<string, ClusterObject>();
  const put = (object: ClusterObject) => objects.set(keyOf(object.kind, object.metadata), object);
  for (const object of [node, ...services, ...endpointSlices]) put(object);
  const steps = [{ objects: [...objects.values()], packets }];
  for (const step of then) {
    for (const object of step.apply ?? []) put(object);
    for (const { kind, ...identity } of step.delete ?? []) objects.delete(keyOf(kind, identity));
    steps.push({ objects: [...objects.values()], packets: step.packets });
  }
  return steps;
}

/** The objects of a step and the ServiceCIDR of its case. */
export function objectsOf({ serviceCIDRs }: FlowCase, objects: ClusterObject[]): ClusterObject[] {
  return [
    ...objects,
    {
      apiVersion: "networking.k8s.io/v1",
      kind: "ServiceCIDR",
      metadata: { name: "kubernetes" },
      spec: { cidrs: serviceCIDRs },
    },
  ];
}

interface Slice {
  endpoints?: { addresses?: string[]; nodeName?: string }[];
}

/** The addresses of endpoints on the vectors' node (§4.7), as the vectors write them. */
export function localEndpoints(objects: readonly ClusterObject[]): Set<string> {
  const slices = objects.filter(({ kind }) => kind === "EndpointSlice");
  const endpoints = slices.flatMap((slice) => (slice as ClusterObject & Slice).endpoints ?? []);
  const local = endpoints.filter(({ nodeName }) => nodeName === NODE);
  const addresses = local.map(({ addresses: [first = ""] = [] }) => first);
  return new Set(addresses.flatMap((address) => canonicalAddress(address) ?? []));
}
