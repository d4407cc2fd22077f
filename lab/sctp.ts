// An SCTP-shaped exchange in the lab, by sctp.py: this kernel may have no SCTP of its own. Knows
// how its processes are started and what they print.
import path from "node:path";
import type { FlowReport } from "./flows.ts";
import type { Host, Running } from "./host.ts";
import type { Address } from "./sockets.ts";
import { waitFor } from "./wait.ts";

/** Loading scapy is half a second of CPU, which many of them at once have to share. */
const START_SECONDS = 90;
const COMMAND = ["/usr/bin/python3", path.resolve(import.meta.dirname, "../../lab/sctp.py")];

/** Answers associations to an address of this host with an identity, until it is stopped. */
export function serveSctp(
  host: Host,
  { identity, address, port }: Address & { identity: string },
): Promise<Running> {
  const command = [...COMMAND, "serve", address, String(port), identity];
  return host.start(command, { ready: /ready/, timeoutSeconds: START_SECONDS });
}

/** An association that asks over and over. */
export interface SctpFlow {
  /** Ends it and tells what became of it. `lost` counts what was sent anew. */
  stop(): Promise<FlowReport>;
  /** Whether it has ended by itself, since it broke. */
  ended(): boolean;
}

/**
 * Starts an association from a source port of your choice, and returns when the first question is
 * answered. Throws with the report if that does not come to pass in 10 seconds of asking.
 */
export async function startSctp(
  host: Host,
  options: Address & { local: Partial<Address> & { port: number }; pauseMs?: number },
): Promise<SctpFlow> {
  const { pauseMs = 20 } = options;
  const values = [...waysOf(host, options), String(pauseMs / 1000)];
  const running = await host.start([...COMMAND, "ask", ...values], {
    ready: /associated/,
    timeoutSeconds: START_SECONDS,
  });
  return {
    ended: () => running.ended(),
    stop: async () => {
      await running.stop();
      await waitFor(() => running.ended(), { what: "the report of an association" });
      const report = running.output().trim().split("\n").at(-1) ?? "";
      return JSON.parse(report) as FlowReport;
    },
  };
}

/**
 * Asks one question over each of `count` associations, from source ports that follow each other,
 * and gives who answered. Ends with the code of the first that breaks, "ETIMEDOUT" after 10
 * seconds.
 */
export async function surveySctp(
  host: Host,
  { count, ...options }: Address & { local: Partial<Address> & { port: number }; count: number },
): Promise<({ identity: string } | { error: string })[]> {
  const values = [...waysOf(host, options), String(count)];
  const { stdout, stderr } = await host.run([...COMMAND, "survey", ...values], {
    timeoutSeconds: 15 + count,
  });
  if (stdout === "") throw new Error(stderr);
  return (JSON.parse(stdout) as FlowReport[]).map(({ identities: [identity = ""], broken }) =>
    broken === undefined ? { identity } : { error: broken.code },
  );
}

/** Where to and where from, as sctp.py reads it. */
function waysOf(
  host: Host,
  { address, port, local }: Address & { local: Partial<Address> & { port: number } },
): string[] {
  const { ipv4, ipv6 } = host.addresses;
  const source = local.address ?? (address.includes(":") ? ipv6 : ipv4);
  return [address, String(port), source, String(local.port)];
}
