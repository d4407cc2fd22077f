// Puts the rules of kube-proxy's modes into the network namespace of a node of the lab, where they
// stay until the lab is gone, and says what that took. Knows no clock but its own.
import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { ServiceRow } from "../../control/model/rows.ts";
import type { Host } from "../../lab/host.ts";
import { iptablesRules } from "./iptables.ts";
import { nftablesRules } from "./nftables.ts";
import type { RuleNode } from "./shape.ts";

export const RIVALS = ["nftables", "iptables"] as const;
export type Rival = (typeof RIVALS)[number];

/**
 * Services to a transaction of nft: for each the kernel goes through all of the transaction so far,
 * so that 10,000 in one take a minute to five, with the same rules in the end.
 */
export const SERVICES_TO_A_TRANSACTION = 500;

/** The iptables that can load 10,000 Services: with nft behind it kube-proxy never got there. */
const COMMANDS = {
  nftables: ["nft", "-f", "-"],
  iptables: ["iptables-legacy-restore", "-w"],
} as const;
const PACKAGES = { nftables: "nftables", iptables: "iptables" } as const;
const LONGEST_MS = 120_000;
const MIB = 1024 * 1024;

/** What it took the kernel and the tool, but not us, who write the rules. */
export interface Loaded {
  wallMs: number;
  /** Unswappable memory that the kernel has more than before, in MiB. */
  kernelMib: number;
}

/** Slabs and vmalloc: where tables of either kind are, and few other things come and go. */
function kernelMib(): number {
  const text = readFileSync("/proc/meminfo", "utf8");
  const kilobytes = ["SUnreclaim", "VmallocUsed"].map((name) =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(text)?.[1]),
  );
  return (kilobytes.reduce((sum, value) => sum + value, 0) * 1024) / MIB;
}

async function feed(host: Host, rival: Rival, text: string): Promise<void> {
  const command = COMMANDS[rival];
  const child = host.spawn(command, {
    stdio: ["pipe", "ignore", "pipe"],
    timeout: LONGEST_MS,
    killSignal: "SIGKILL",
  });
  let errors = "";
  child.stderr!.setEncoding("utf8").on("data", (piece: string) => {
    errors += piece;
  });
  child.stdin!.on("error", () => {}).end(text);
  const [code, signal] = await once(child, "close");
  if (code === 0) return;
  const end = signal ? `took longer than ${LONGEST_MS / 1000} s` : errors.trim().slice(0, 2000);
  throw new Error(
    `'${command.join(" ")}' on '${host.name}': ${end} (Debian package ${PACKAGES[rival]})`,
  );
}

/** The inputs of the rival's tool, one after the other. */
export function rulesOf(
  rival: Rival,
  { rows, node, services }: { rows: Iterable<ServiceRow>; node: RuleNode; services?: number },
): string[] {
  if (rival === "iptables") return [iptablesRules(rows, node)];
  return [...nftablesRules(rows, node, services === undefined ? {} : { services })];
}

/** Loads inputs of rulesOf() on a node that has no rules yet. Throws what the tool says. */
export async function loadRules(
  host: Host,
  rival: Rival,
  inputs: readonly string[],
): Promise<Loaded> {
  const before = kernelMib();
  const start = performance.now();
  for (const text of inputs) await feed(host, rival, text);
  return { wallMs: performance.now() - start, kernelMib: kernelMib() - before };
}
