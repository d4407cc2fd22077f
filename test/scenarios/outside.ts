// Stages that traffic from outside comes to: node-a takes it in, with XDP or TC, and its Services
// have endpoints on either node. Knows how such Services are asked, not what is right.
import type { Answer, Failure } from "../../lab/helper.ts";
import type { Helper, Host } from "../../lab/host.ts";
import type { LabNode } from "../../lab/lab.ts";
import { prepareXdp, routeVips } from "../../lab/links.ts";
import type { Address } from "../../lab/sockets.ts";
import type { LabOptions } from "../../lab/topology.ts";
import { type Manifest, makeService, makeSlices, type SliceEndpoint } from "./objects.ts";
import { type AgentOptions, POD_PORT, Stage } from "./stage.ts";

export const FAMILIES = ["ipv4", "ipv6"] as const;
export type Family = (typeof FAMILIES)[number];
export const PROTOCOLS = ["TCP", "UDP"] as const;
export type Protocol = (typeof PROTOCOLS)[number];

/** The port of every Service, over TCP and UDP, and that of long-lived TCP. */
export const PORT = 80;
export const ECHO_PORT = 7;

/** A pod whose sockets no hook sees. */
export const UNSEEN_POD = "kata";
const TOPOLOGY = { "node-a": ["pod-a1", UNSEEN_POD], "node-b": ["pod-b1"] };

export interface Bed extends Pick<LabOptions, "network" | "rpFilter" | "rules" | "topology"> {
  /** How the uplink of node-a is served. */
  mode: "xdp" | "tc";
  arguments?: readonly string[];
}

/** Flags of an agent that tells pods from others. */
export const CLUSTER_FLAGS = ["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/56"] as const;

/** Flags of the agent that takes in what comes from outside. */
export function agentOptions({ mode, arguments: rest = [] }: Bed): AgentOptions {
  return { arguments: [...CLUSTER_FLAGS, "--device", `eth0=${mode}`, ...rest] };
}

/** A lab whose outside leads Service addresses to node-a. Its agent is still to be started. */
export async function openOutside(bed: Bed): Promise<Stage> {
  const { network, rpFilter, rules, topology = TOPOLOGY, mode } = bed;
  const unseen = Object.values(topology)
    .flat()
    .filter((name) => name === UNSEEN_POD);
  const stage = await Stage.open({
    topology,
    sandboxed: unseen,
    ...(network === undefined ? {} : { network }),
    ...(rpFilter === undefined ? {} : { rpFilter }),
    ...(rules === undefined ? {} : { rules }),
  });
  await routeVips(stage.lab, [stage.node]);
  if (mode === "xdp") await prepareXdp(stage.lab);
  await Promise.all(Object.values(stage.lab.pods).map(serveEcho));
  return stage;
}

/** What `dump flows` prints of the node. */
export async function dumpFlows(stage: Stage, ...flags: string[]): Promise<string> {
  const args = ["dump", "flows", "--pins", stage.node.pins, ...flags];
  const { stdout, stderr, code } = await stage.command(...args);
  if (code !== 0) throw new Error(stderr);
  return stdout;
}

async function serveEcho(pod: Host): Promise<void> {
  const helper = await pod.helper();
  for (const address of Object.values(pod.addresses))
    await helper.serveEcho({ identity: pod.name, address, port: ECHO_PORT });
}

export const FRONTENDS = ["vip", "externalIP", "clusterIP", "nodePort"] as const;
export type Frontend = (typeof FRONTENDS)[number];

/** Where the Service with this number, of at most two digits, is asked. */
export function frontendOf(
  number: number,
  { frontend, family, node }: { frontend: Frontend; family: Family; node: LabNode },
): Address {
  const isIPv4 = family === "ipv4";
  switch (frontend) {
    case "vip":
      return { address: isIPv4 ? `198.51.100.${number}` : `2001:db8:198::${number}`, port: PORT };
    case "externalIP":
      return { address: isIPv4 ? `192.0.2.${number}` : `2001:db8:192::${number}`, port: PORT };
    case "clusterIP":
      return { address: isIPv4 ? `10.96.0.${number}` : `fd00:10:96::${number}`, port: PORT };
    case "nodePort":
      return { address: node.addresses[family], port: nodePortOf(number) };
  }
}

function nodePortOf(number: number): number {
  return 30_000 + number;
}

/** Where a pod of a stage is and how it is; ready unless conditions are given. */
export interface Placed {
  host: Host;
  conditions?: Manifest;
}

/** Endpoints at both addresses of each host, pods or a node's own, on their nodes. */
export function endpointsOf(stage: Stage, hosts: readonly (Host | Placed)[]): SliceEndpoint[] {
  return hosts.flatMap((each) => {
    const { host, ...rest } = "host" in each ? each : { host: each };
    const node = Object.values(stage.lab.nodes).find(
      ({ pods, name }) => name === host.name || host.name in pods,
    );
    const place = node === undefined ? rest : { ...rest, nodeName: node.name };
    return Object.values(host.addresses).map((address: string) => ({ address, ...place }));
  });
}

/** A load balancer's Service over TCP and UDP and both families, with all kinds of frontends. */
export function makeOutside(
  name: string,
  options: { number: number; endpoints: readonly SliceEndpoint[]; spec?: Manifest },
): Manifest[] {
  const { number, endpoints, spec = {} } = options;
  const both = (ipv4: string, ipv6: string) => [`${ipv4}.${number}`, `${ipv6}::${number}`];
  const nodePort = nodePortOf(number);
  const ports = [
    { name: "tcp", protocol: "TCP" as const, port: PORT, nodePort },
    { name: "udp", protocol: "UDP" as const, port: PORT, nodePort },
    { name: "echo", protocol: "TCP" as const, port: ECHO_PORT },
  ];
  return [
    makeService({
      name,
      addresses: both("10.96.0", "fd00:10:96"),
      ports,
      spec: { type: "LoadBalancer", externalIPs: both("192.0.2", "2001:db8:192"), ...spec },
      status: {
        loadBalancer: {
          ingress: both("198.51.100", "2001:db8:198").map((ip) => ({ ip })),
        },
      },
    }),
    ...makeSlices({
      service: name,
      ports: ports.map(({ nodePort: _, ...each }) => ({
        ...each,
        port: each.port === PORT ? POD_PORT : each.port,
      })),
      endpoints,
    }),
  ];
}

/** Who answered and whom it saw, or an errno's name. */
export type Seen = Pick<Answer, "identity" | "client"> | Failure;

export interface AskOptions {
  protocol: Protocol;
  /** To come from; chosen by the kernel unless given. */
  local?: Partial<Address>;
  timeoutSeconds?: number;
  payload?: string;
}

/** One connection, or one datagram of a connected socket, and its answer. */
export async function askFrom(
  client: Helper,
  target: Address,
  { protocol, local, timeoutSeconds = 5, payload = "hello" }: AskOptions,
): Promise<Seen> {
  const from = { timeoutSeconds, ...(local === undefined ? {} : { local }) };
  if (protocol === "TCP") {
    const result = await client.tcp({ ...target, ...from, payload });
    return "error" in result ? result : checked(result.reply, payload);
  }
  const family = target.address.includes(":") ? 6 : 4;
  const result = await client.udp({ ...from, family, connect: target, datagrams: [{ payload }] });
  if ("error" in result) return result;
  const [reply] = result.replies;
  return reply ? checked(reply.payload, payload) : { error: result.errors[0] ?? "nothing" };
}

function checked(reply: string, payload: string): Seen {
  const { identity, client, payload: echoed } = JSON.parse(reply) as Answer;
  return echoed === payload ? { identity, client } : { error: "another payload" };
}
