// What happens to a lab's network while traffic goes on: cables pulled, MAC addresses changed,
// uplinks added, Service addresses routed. And what makes its veth pairs fit for XDP. Knows no
// Service.
import { randomBytes } from "node:crypto";
import path from "node:path";
import {
  type Addresses,
  families,
  nodeAddresses,
  outsideAddresses,
  routerAddresses,
  servicePrefixes,
  vipPrefixes,
  withLengths,
} from "./addresses.ts";
import { routesToPods, up } from "./cni.ts";
import type { Host } from "./host.ts";
import type { Lab, LabNode } from "./lab.ts";
import { prohibit } from "./topology.ts";

const PASS = path.join(import.meta.dirname, "pass.bpf.o");
const SECOND_UPLINK = 1;

async function run(host: Host, command: readonly string[]): Promise<void> {
  const { code, stderr } = await host.run(command);
  if (code !== 0) throw new Error(`'${command.join(" ")}' on '${host.name}': ${stderr}`);
}

/**
 * Routes load-balancer VIPs, external IPs and cluster IPs from outside to these nodes; to several
 * by the flow (ECMP over addresses and ports). No host prohibits cluster IPs any more: what no node
 * translates goes back to the router until its TTL ends it, as in such a cluster.
 */
export async function routeVips(lab: Lab, nodes: readonly LabNode[]): Promise<void> {
  const routes = families.flatMap((family) => {
    const hops = nodes.map(({ addresses }) => `nexthop via ${addresses[family]}`).join(" ");
    const prefixes = [servicePrefixes[family], ...vipPrefixes[family]];
    return prefixes.map((prefix) => `route replace ${prefix} ${hops}`);
  });
  const unprohibit = prohibit.map((line) => line.replace("replace", "del"));
  const hosts = [lab.router, ...Object.values(lab.nodes), ...Object.values(lab.pods)];
  // A route can be deleted for sure if it has just been put there.
  await Promise.all(hosts.map((host) => host.ip(...prohibit, ...unprohibit)));
  await lab.router.ip(...routes);
}

/**
 * Makes XDP programs on the nodes' uplinks able to send, by XDP_TX or redirect, as on a real NIC.
 * On veth such frames are polled by the other end, which does so only with an XDP program of its
 * own: without it the kernel counts them as sent, and they are gone (GRO would do for redirect
 * alone). So the router's ends get one that lets everything pass. Its price: uplinks cannot have
 * their segments cut by the other end (TSO) meanwhile, whatever else runs there.
 */
export async function prepareXdp({ router }: Lab): Promise<void> {
  const { stdout } = await router.run(["ip", "-brief", "link", "show", "type", "veth"]);
  const devices = [...stdout.matchAll(/^(t[o1]-[^@\s]+)/gm)].map(([, device]) => device ?? "");
  for (const device of devices) {
    const program = ["xdpdrv", "object", PASS, "section", "xdp.frags"];
    await run(router, ["ip", "-force", "link", "set", "dev", device, ...program]);
  }
}

/**
 * Gives a device another MAC address, and returns it. With `announce` (true) neighbours are told at
 * once, as by a failover; else they find out when the host asks for theirs, or when what they know
 * has gone stale (5 s or more).
 */
export async function changeMac(
  host: Host,
  { device = "eth0", announce = true }: { device?: string; announce?: boolean } = {},
): Promise<string> {
  const mac = ["02", ...[...randomBytes(5)].map((byte) => byte.toString(16).padStart(2, "0"))];
  const files = [`ipv4/conf/${device}/arp_notify`, `ipv6/conf/${device}/ndisc_notify`];
  const notify = files.map((file) => `echo ${announce ? 1 : 0} > /proc/sys/net/${file}`);
  await run(host, ["sh", "-ec", notify.join("\n")]);
  await host.ip(`link set ${device} address ${mac.join(":")}`);
  return mac.join(":");
}

/** The other end of the cable to a node's or pod's eth0. */
function otherEnd(lab: Lab, host: Host): { host: Host; device: string } {
  const node = Object.values(lab.nodes).find(({ pods }) => host.name in pods);
  if (node !== undefined) return { host: node, device: host.name };
  if (host === lab.outside) return { host: lab.router, device: "outside" };
  return { host: lab.router, device: `to-${host.name}` };
}

/** Pulls the cable of a host's eth0: its link goes down, its addresses and routes stay. */
export async function unplug(lab: Lab, target: Host): Promise<void> {
  const { host, device } = otherEnd(lab, target);
  await host.ip(`link set ${device} down`);
}

/** Plugs it in again. */
export async function plug(lab: Lab, target: Host): Promise<void> {
  const { host, device } = otherEnd(lab, target);
  await host.ip(`link set ${device} up`);
  await lab.restore(host);
}

/** The router's way to the client outside takes packets of so many bytes from then on. */
export async function narrowToClient({ router }: Lab, mtu: number): Promise<void> {
  const clients = families.map((family) => outsideAddresses[family]);
  await router.ip(
    ...clients.map((client) => `route replace ${client} dev outside mtu lock ${mtu}`),
  );
}

/**
 * A node's way to the pods of another one leads by the router from then on, whose way there takes
 * packets of so many bytes: the node learns that by ICMP alone. On a routed network.
 */
export async function narrowBetween(
  lab: Lab,
  { from, to, mtu }: { from: LabNode; to: LabNode; mtu: number },
): Promise<void> {
  const routes = routesToPods(Object.keys(lab.nodes).indexOf(to.name));
  await lab.router.ip(...routes.map((route) => `${route} mtu lock ${mtu}`));
  const around = families.map((family, index) => {
    const prefix = routes[index]!.replace(/ via .*/, "");
    return `${prefix} via ${routerAddresses()[family]} src ${from.addresses[family]}`;
  });
  await from.ip(...around);
}

/**
 * Gives a node eth1, an uplink to a second network of the router. Returns its addresses. It goes
 * with `node.ip("link del eth1")`.
 */
export async function addUplink(lab: Lab, node: LabNode): Promise<Addresses> {
  const index = Object.keys(lab.nodes).indexOf(node.name);
  const { router } = lab;
  const device = `t1-${node.name}`;
  const [router1, own] = [routerAddresses(SECOND_UPLINK), nodeAddresses(index, SECOND_UPLINK)];
  const { stdout } = await router.run(["ip", "-brief", "link", "show", "type", "bridge"]);
  if (!stdout.includes("second")) {
    await router.ip(
      "link add second type bridge mcast_snooping 0",
      ...up("second", [...withLengths(router1, [24, 64]), "fe80::1/64"]),
    );
  }
  const peer = `type veth peer name eth1 netns ${path.basename(node.netns)}`;
  // Ends of equal index look like one device: their carrier is told up to a second late.
  await router.ip(
    `link add name ${device} index ${200 + index} ${peer}`,
    `link set ${device} master second`,
    `link set ${device} up`,
  );
  await node.ip(...up("eth1", [...withLengths(own, [24, 64]), `fe80::${index + 2}/64`]));
  return own;
}
