// An SCTP-shaped exchange in the lab, by sctp.py: this kernel may have no SCTP of its own. Knows
// how its processes are started and what they print.
import path from "node:path";
import type { FlowReport } from "./flows.ts";
import type { Host, Running } from "./host.ts";
import type { Address } from "./sockets.ts";
import { waitFor } from "./wait.ts";

const COMMAND = ["/usr/bin/python3", path.resolve(import.meta.dirname, "../../lab/sctp.py")];

/** Answers associations to an address of this host with an identity, until it is stopped. */
export function serveSctp(
  host: Host,
  { identity, address, port }: Address & { identity: string },
): Promise<Running> {
  return host.start([...COMMAND, "serve", address, String(port), identity], { ready: /ready/ });
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
 * answered. Throws with the report if that does not come to pass in 10 seconds.
 */
export async function startSctp(
  host: Host,
  options: Address & { local: Partial<Address> & { port: number }; pauseMs?: number },
): Promise<SctpFlow> {
  const { address, port, local, pauseMs = 20 } = options;
  const { ipv4, ipv6 } = host.addresses;
  const source = local.address ?? (address.includes(":") ? ipv6 : ipv4);
  const values = [address, String(port), source, String(local.port), String(pauseMs / 1000)];
  const running = await host.start([...COMMAND, "ask", ...values], {
    ready: /associated/,
    timeoutSeconds: 15,
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
