// Two nodes with agents in one of the lab's networks, Services that a client outside asks through
// both of them, and their trouble meanwhile: endpoints, MAC addresses and agents that change. Knows
// nothing of what clients then meet.
import { randomInt } from "node:crypto";
import { mkdtemp, rename, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import type { Family } from "../lab/addresses.ts";
import type { Network } from "../lab/cni.ts";
import type { Host, Running } from "../lab/host.ts";
import { Lab, type LabNode } from "../lab/lab.ts";
import { changeMac, prepareXdp, routeVips } from "../lab/links.ts";
import { SOAK_PORTS, type SoakTarget, serveSoak } from "../lab/soak.ts";
import { BPFSVC } from "./commands.ts";

const TOPOLOGY = { "node-a": ["pod-a1", "pod-a2"], "node-b": ["pod-b1", "pod-b2"] };
const FAMILIES = ["ipv4", "ipv6"] as const;
const POD_PREFIXES = "10.244.0.0/16,fd00:10:244::/56";

/** Ports of every Service by name; those of UDP beside TCP have names of their own. */
const PORTS = [
  { name: "web", protocol: "TCP", port: SOAK_PORTS.web, nodePort: 30_080 },
  { name: "dns", protocol: "UDP", port: SOAK_PORTS.dns, nodePort: 30_053 },
  { name: "dns-tcp", protocol: "TCP", port: SOAK_PORTS.dns, nodePort: 30_053 },
  { name: "echo", protocol: "TCP", port: SOAK_PORTS.echo, nodePort: 30_007 },
  { name: "echo-udp", protocol: "UDP", port: SOAK_PORTS.echo, nodePort: 30_007 },
  { name: "sctp", protocol: "SCTP", port: SOAK_PORTS.sctp, nodePort: 30_090 },
  { name: "speed", protocol: "TCP", port: SOAK_PORTS.speed, nodePort: 30_052 },
];
const NODE_PORTS = { web: 30_080, dns: 30_053, echo: 30_007, sctp: 30_090, speed: 0 };

/** The Service whose endpoints change, and those with one endpoint each, as iperf3 wants it. */
const CHANGING = 1;
const STEADY = [
  { number: 2, pod: "pod-a1" },
  { number: 3, pod: "pod-b1" },
] as const;

/** How often what changes: one after the other. */
const PAUSE_MS = 400;
/** Of so many changes one is of a MAC address, and one is an agent's end. */
const RARELY = 4;

function vipOf(number: number, family: Family): string {
  return family === "ipv4" ? `198.51.100.${number}` : `2001:db8:198::${number}`;
}

function clusterIpOf(number: number, family: Family): string {
  return family === "ipv4" ? `10.96.0.${number}` : `fd00:10:96::${number}`;
}

/** What is asked by which tools; only Services with one endpoint by iperf3. */
function targetsOf(node: LabNode): SoakTarget[] {
  return FAMILIES.flatMap((family) => [
    { what: `VIP, ${family}`, address: vipOf(CHANGING, family), ports: { speed: 0 } },
    { what: `node port, ${family}`, address: node.addresses[family], ports: NODE_PORTS },
    {
      what: `cluster IP, ${family}`,
      address: clusterIpOf(CHANGING, family),
      ports: { web: 0, dns: 0, sctp: 0, speed: 0 },
    },
    ...STEADY.map(({ number, pod }) => ({
      what: `VIP of ${pod}, ${family}`,
      address: vipOf(number, family),
      ports: { web: 0, dns: 0, echo: 0, sctp: 0 },
    })),
  ]);
}

function serviceOf(number: number): object {
  const clusterIPs = FAMILIES.map((family) => clusterIpOf(number, family));
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { name: `soak-${number}`, namespace: "bench" },
    spec: {
      type: "LoadBalancer",
      clusterIP: clusterIPs[0],
      clusterIPs,
      ipFamilies: ["IPv4", "IPv6"],
      ports: PORTS.map((port) => ({ ...port, nodePort: port.nodePort + (number - 1) * 100 })),
    },
    status: {
      loadBalancer: { ingress: FAMILIES.map((family) => ({ ip: vipOf(number, family) })) },
    },
  };
}

interface Member {
  pod: Host;
  node: string;
  conditions: { ready: boolean; serving: boolean; terminating: boolean };
}

const READY = { ready: true, serving: true, terminating: false };
const TERMINATING = { ready: false, serving: true, terminating: true };

function slicesOf(number: number, members: readonly Member[]): object[] {
  return FAMILIES.map((family) => ({
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      name: `soak-${number}-${family}`,
      namespace: "bench",
      labels: { "kubernetes.io/service-name": `soak-${number}` },
    },
    addressType: family === "ipv4" ? "IPv4" : "IPv6",
    ports: PORTS.map(({ name, protocol, port }) => ({ name, protocol, port })),
    endpoints: members.map(({ pod, node: nodeName, conditions }) => ({
      addresses: [pod.addresses[family]],
      nodeName,
      conditions,
    })),
  }));
}

function nodeObjectOf({ name, addresses }: LabNode): object {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name },
    status: {
      addresses: FAMILIES.map((family) => ({ type: "InternalIP", address: addresses[family] })),
    },
  };
}

export const CHANGES = ["endpoints", "MAC address", "agent"] as const;

/** One thing that changed, and what exactly; the moment is what Date.now() gave. */
export interface Change {
  what: (typeof CHANGES)[number];
  at: number;
  detail: string;
}

export class SoakBed {
  readonly lab: Lab;
  readonly targets: readonly SoakTarget[];
  readonly changes: Change[] = [];
  readonly #folder: string;
  readonly #agents = new Map<LabNode, Running>();

  private constructor(lab: Lab, folder: string) {
    this.lab = lab;
    this.#folder = folder;
    this.targets = targetsOf(lab.nodes["node-a"]!);
  }

  /**
   * A lab with agents that serve, XDP on node-a and TC on node-b. Service addresses are routed to
   * both nodes; which one a packet takes follows from its addresses and ports.
   */
  static async open(network: Network): Promise<SoakBed> {
    const lab = await Lab.create({
      name: "soak",
      topology: TOPOLOGY,
      network,
      rules: true,
      rpFilter: 2,
    });
    const bed = new SoakBed(lab, await mkdtemp(path.join(tmpdir(), "bpfsvc-soak-")));
    try {
      await bed.#fill();
    } catch (error) {
      await bed.close();
      throw error;
    }
    return bed;
  }

  async #fill(): Promise<void> {
    const { lab } = this;
    const nodes = Object.values(lab.nodes);
    await routeVips(lab, nodes);
    await prepareXdp(lab);
    await Promise.all(Object.values(lab.pods).map(serveSoak));
    await this.#write("nodes", nodes.map(nodeObjectOf));
    for (const { number, pod } of STEADY)
      await this.#write(`steady-${number}`, [
        serviceOf(number),
        ...slicesOf(number, this.#members([pod])),
      ]);
    await this.#write("changing", [
      serviceOf(CHANGING),
      ...slicesOf(CHANGING, this.#members(Object.keys(lab.pods))),
    ]);
    await Promise.all(nodes.map((node) => this.#startAgent(node)));
  }

  #members(pods: readonly string[], conditions = READY): Member[] {
    return pods.map((name) => {
      const node = Object.values(this.lab.nodes).find((each) => name in each.pods)!;
      return { pod: node.pods[name]!, node: node.name, conditions };
    });
  }

  async #write(name: string, objects: readonly object[]): Promise<void> {
    const file = path.join(this.#folder, `${name}.yaml`);
    await writeFile(`${file}.new`, objects.map((each) => JSON.stringify(each)).join("\n---\n"));
    await rename(`${file}.new`, file);
  }

  async #startAgent(node: LabNode): Promise<void> {
    const place = ["--node", node.name, "--cgroup", node.cgroup, "--pins", node.pins];
    const mode = node.name === "node-a" ? "xdp" : "tc";
    const flags = ["--cluster-cidr", POD_PREFIXES, "--device", `eth0=${mode}`];
    const command = [...BPFSVC, "run", "--manifests", this.#folder, ...place, ...flags];
    const agent = await node.start(command, { ready: /serving/, timeoutSeconds: 120 });
    this.#agents.set(node, agent);
  }

  /** Changes one thing after the other, each at least once, until the signal says: enough. */
  async churn(signal: AbortSignal): Promise<void> {
    for (let turn = 0; turn < RARELY || !signal.aborted; turn++) {
      await delay(PAUSE_MS);
      if (turn % RARELY === 1) await this.#changeMac();
      else if (turn % (2 * RARELY) === 3) await this.#restartAgent();
      else await this.#changeEndpoints();
    }
  }

  /** Any endpoints but none: all pods live on, whatever the slices say. */
  async #changeEndpoints(): Promise<void> {
    const states = Object.keys(this.lab.pods).map((pod) => ({ pod, state: randomInt(4) }));
    const named = (wanted: (state: number) => boolean) =>
      states.filter(({ state }) => wanted(state)).map(({ pod }) => pod);
    const ready = named((state) => state >= 2);
    const members = [
      ...this.#members(ready.length > 0 ? ready : [states[0]!.pod]),
      ...this.#members(
        named((state) => state === 1).filter((pod) => ready.length > 0 || pod !== states[0]!.pod),
        TERMINATING,
      ),
    ];
    this.#note("endpoints", members.map(({ pod }) => pod.name).join());
    await this.#write("changing", [serviceOf(CHANGING), ...slicesOf(CHANGING, members)]);
  }

  async #changeMac(): Promise<void> {
    const hosts = [...Object.values(this.lab.nodes), ...Object.values(this.lab.pods)];
    const host = hosts[randomInt(hosts.length)]!;
    this.#note("MAC address", host.name);
    await changeMac(host);
  }

  /** Ends an agent, at any moment or in order, and starts another. */
  async #restartAgent(): Promise<void> {
    const nodes = Object.values(this.lab.nodes);
    const node = nodes[randomInt(nodes.length)]!;
    const agent = this.#agents.get(node)!;
    const way = randomInt(2) === 0 ? "kill" : "stop";
    this.#note("agent", `${way} that of ${node.name}`);
    await agent[way]();
    await this.#startAgent(node);
    this.#note("agent", `started that of ${node.name}`);
  }

  #note(what: Change["what"], detail: string): void {
    this.changes.push({ what, at: Date.now(), detail });
  }

  /** What the agents wrote that is no information. */
  complaints(): string[] {
    const lines = [...this.#agents.values()].flatMap((agent) => agent.output().split("\n"));
    return lines.filter((line) => / (warn|error) /.test(line));
  }

  async close(): Promise<void> {
    await this.lab.close();
    await rm(this.#folder, { recursive: true, force: true });
  }
}
