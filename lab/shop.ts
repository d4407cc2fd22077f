// The application of examples/ in a lab: which pods it needs and what runs in them. Knows nothing
// of the agent: without one the pods run, but reach each other only at their own addresses.
import path from "node:path";
import type { Host } from "./host.ts";
import type { Lab } from "./lab.ts";
import type { Topology } from "./topology.ts";

export const checkout = path.resolve(import.meta.dirname, "../..");
export const examples = path.join(checkout, "examples");
const app = path.join(examples, "app");

/** The pods in the order of their addresses in examples/: the first is 10.244.1.2. */
export const shopTopology: Topology = {
  "node-a": ["web-1", "dns-1", "client-a", "store-2"],
  "node-b": ["web-2", "web-3", "store", "dns-2", "client-b"],
};

/** The command that sends a line over TCP and prints the reply or the error's code. */
export function askCommand(address: string, port: number, text: string): string[] {
  return [process.execPath, path.join(app, "ask.mjs"), address, String(port), text];
}

function storeCommand(name: string, port: number): string[] {
  return [process.execPath, path.join(app, "store.mjs"), name, String(port)];
}

/** The command of a DNS server that answers the TXT question for whoami.shop with its name. */
export function dnsCommand(name: string): string[] {
  const settings = "--keep-in-foreground --conf-file=/dev/null --pid-file= --user=root";
  const answers = `--no-resolv --no-hosts --log-facility=- --txt-record=whoami.shop,${name}`;
  return ["dnsmasq", ...settings.split(" "), ...answers.split(" ")];
}

function serverCommand(name: string): string[] {
  if (name.startsWith("web")) {
    return [process.execPath, path.join(app, "web.mjs"), name, "8080", "10.96.0.63", "6379"];
  }
  return name.startsWith("dns") ? dnsCommand(name) : storeCommand(name, 7000);
}

/** Starts all servers of the shop, and returns when each is ready. */
export async function startShop(lab: Lab): Promise<void> {
  const servers = Object.values(lab.pods).filter(({ name }) => !name.startsWith("client"));
  const start = (host: Host) =>
    host.start(serverCommand(host.name), { ready: /ready|started/, timeoutSeconds: 20 });
  await Promise.all([
    ...servers.map(start),
    lab.outside.start(storeCommand("database", 5432), { ready: /ready/ }),
    lab.pods["web-3"]?.start(["iperf3", "--server", "--forceflush"], { ready: /listening/ }),
  ]);
}
