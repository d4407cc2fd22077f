// What the demo asks: each question is one command of a real client, from one place, and what its
// output must look like. Follows examples/; knows nothing of how questions are put.
import type { Host } from "./host.ts";
import type { Lab, LabNode } from "./lab.ts";
import { askCommand } from "./shop.ts";

export interface Question {
  what: string;
  from: Host;
  command: readonly string[];
  /** Matches the output when all is right; the first group is who answered. */
  expected: RegExp;
}

function literal(text: string): string {
  return text.replaceAll(".", "\\.");
}

function askWeb(
  what: string,
  from: Host,
  { authority, seenAs = [from] }: { authority: string; seenAs?: readonly Host[] },
): Question {
  const isIpv6 = authority.startsWith("[") && !authority.startsWith("[::ffff:");
  const clients = seenAs.map(({ addresses }) => addresses[isIpv6 ? "ipv6" : "ipv4"]);
  const client = `(?:${clients.map(literal).join("|")})`;
  return {
    what: `web, ${what}: http://${authority}`,
    from,
    command: ["curl", "-sSg", "--max-time", "5", `http://${authority}/`],
    expected: new RegExp(`^(web-[123]): hello ${client}, store(?:-2)? has visits = \\d+$`),
  };
}

function askLine(
  what: string,
  from: Host,
  question: {
    address: string;
    port: number;
    text?: string;
    expected: RegExp;
  },
): Question {
  const { address, port, text = "add questions", expected } = question;
  const shown = address.includes(":") ? `[${address}]` : address;
  const command = askCommand(address, port, text);
  return { what: `${what}: ${shown}:${port}`, from, command, expected };
}

function askDns(from: Host, address: string, protocol: "UDP" | "TCP"): Question {
  const options = ["+short", "+tries=1", "+time=3", ...(protocol === "TCP" ? ["+tcp"] : [])];
  return {
    what: `dns over ${protocol}: ${address}`,
    from,
    command: ["dig", ...options, `@${address}`, "TXT", "whoami.shop"],
    expected: /^"(dns-[12])"$/,
  };
}

/** The store, as this pod or node process sees it; `name` is who should answer. */
export function askStore(from: Host, name: string): Question {
  const expected = new RegExp(`^(${name}) has questions = \\d+$`);
  return askLine("store", from, { address: "10.96.0.63", port: 6379, expected });
}

/** What everyone on a node can ask: cluster IPs of all kinds. */
export function askEssentials(from: Host): Question[] {
  return [
    askWeb("cluster IP", from, { authority: "10.96.0.80" }),
    askWeb("cluster IP", from, { authority: "[fd00:10:96::80]" }),
    askWeb("mapped", from, { authority: "[::ffff:10.96.0.80]" }),
    ...askDnsBothWays(from),
  ];
}

function askDnsBothWays(from: Host): Question[] {
  return [
    askDns(from, "10.96.0.53", "UDP"),
    askDns(from, "fd00:10:96::53", "UDP"),
    askDns(from, "10.96.0.53", "TCP"),
    askDns(from, "fd00:10:96::53", "TCP"),
  ];
}

function askSpeed(from: Host): Question {
  return {
    what: "speed, 20 MB over TCP: 10.96.0.52:5201",
    from,
    command: ["iperf3", "--client", "10.96.0.52", "--bytes", "20M", "--format", "m"],
    expected: /([\d.]+ Mbits\/sec) +receiver/,
  };
}

function askExternals(from: Host, { addresses }: LabNode): Question[] {
  return [
    askWeb("node port", from, { authority: `${addresses.ipv4}:30080` }),
    askWeb("node port", from, { authority: `[${addresses.ipv6}]:30080` }),
    askWeb("external IP", from, { authority: "192.0.2.80" }),
    askWeb("external IP", from, { authority: "[2001:db8:192::80]" }),
    askWeb("load-balancer VIP", from, { authority: "198.51.100.80" }),
    askWeb("load-balancer VIP", from, { authority: "[2001:db8:198::80]" }),
  ];
}

function askRefused(from: Host): Question[] {
  const refused = { port: 80, expected: /^ECONNREFUSED$/ };
  return [
    askLine("reports, refused", from, { address: "10.96.0.99", ...refused }),
    askLine("reports, refused", from, { address: "fd00:10:96::99", ...refused }),
    {
      what: "reports, refused over UDP: 10.96.0.99:53",
      from,
      command: ["dig", "+tries=1", "+time=3", "@10.96.0.99", "TXT", "whoami.shop"],
      expected: /connection (refused)/,
    },
  ];
}

/**
 * What a client outside can ask, of each node and by routes to any. An endpoint on another node than
 * the one that was asked sees that one in the client's place.
 */
export function askFromOutside({ outside: from, nodes }: Lab): Question[] {
  const seenAs = [from, ...Object.values(nodes)];
  const web = (what: string, authority: string) => askWeb(what, from, { authority, seenAs });
  const ping = (address: string) => ({
    what: `ping of a VIP: ${address}`,
    from,
    command: ["ping", "-c", "1", "-W", "3", address],
    expected: /(1) received/,
  });
  return [
    ...Object.values(nodes).flatMap(({ addresses }) => [
      web("node port", `${addresses.ipv4}:30080`),
      web("node port", `[${addresses.ipv6}]:30080`),
    ]),
    web("external IP", "192.0.2.80"),
    web("external IP", "[2001:db8:192::80]"),
    web("load-balancer VIP", "198.51.100.80"),
    web("load-balancer VIP", "[2001:db8:198::80]"),
    ping("198.51.100.80"),
    ping("2001:db8:198::80"),
    web("routed cluster IP", "10.96.0.80"),
    ...askDnsBothWays(from),
    ...askRefused(from),
    askSpeed(from),
  ];
}

/** Outside the node's cgroup nothing is translated, and Service addresses lead nowhere. */
function askUntranslated(from: Host): Question[] {
  const untranslated = { port: 80, expected: /^EACCES$/ };
  return [
    askLine("web, not translated", from, { address: "10.96.0.80", ...untranslated }),
    askLine("web, not translated", from, { address: "fd00:10:96::80", ...untranslated }),
  ];
}

function askOnce(from: Host): Question[] {
  const seeAll = "for i in $(seq 40); do curl -sS 10.96.0.80; done | cut -d: -f1 | sort -u | xargs";
  const database = { address: "10.96.0.54", port: 5432, expected: /^(database) has questions/ };
  return [
    {
      what: "web, 40 times: every endpoint takes part",
      from,
      command: ["sh", "-c", seeAll],
      expected: /^(web-1 web-2 web-3)$/,
    },
    askLine("database, slice by hand", from, database),
    // The endpoint of a headless Service is asked by its own address, as its clients do.
    askLine("peers, headless", from, {
      address: "10.244.2.4",
      port: 7000,
      expected: /^(store) has questions/,
    }),
    askSpeed(from),
    {
      what: "speed, 1 MB over UDP: 10.96.0.52:5201",
      from,
      command: ["iperf3", "--client", "10.96.0.52", "--udp", "--bytes", "1M", "--bitrate", "100M"],
      expected: /([\d.]+ Mbits\/sec) .* receiver/,
    },
  ];
}

/** Everything the demo asks while both agents run; each group from one place. */
export function allQuestions(lab: Lab): Question[][] {
  const groups: Question[][] = [];
  for (const node of Object.values(lab.nodes)) {
    const pods = Object.values(node.pods).filter(({ name }) => name.startsWith("client"));
    for (const host of [...pods, node]) {
      const essentials = [...askEssentials(host), askStore(host, "store")];
      groups.push([...essentials, ...askExternals(host, node), ...askRefused(host)]);
    }
    groups.push(...pods.map(askOnce), askUntranslated(node.bystander));
  }
  return groups;
}
