// What a case is: packets, one after the other, at the hooks of the packet path, and what becomes
// of each. Knows how to say it, not how to play it (cases.test.ts).
import type { Bed, HookName, NodeSettings, Verdict } from "../bed.ts";
import type { Family, MACS } from "../places.ts";
import type { Words } from "../words.ts";

/**
 * One packet and what becomes of it, in scapy's notation. "QUOTE" stands for how many bytes of a
 * packet without options an ICMP error quotes, and "<A>" to "<Z>" for a port that the programs
 * choose: where it is first met in `becomes`, it is the source port of what came out.
 */
export interface Step {
  hook: HookName;
  /** "eth0" unless given. */
  device?: "eth0" | "pod-a1";
  packet: string;
  /** The MAC address that it is sent to, if not the device's. */
  addressee?: string;
  /** It stands for segments with so many bytes each. */
  gsoSize?: number;
  verdict: Verdict;
  /** The packet that it becomes; itself unless given. */
  becomes?: string;
  /** It becomes one in a tunnel, which the endpoint's node opens. */
  isTunnelled?: boolean;
  /** Where XDP sends it; the MAC address of that neighbour. */
  to?: keyof typeof MACS;
  /** What is counted by it. */
  reason?: string;
}

/** Something else that happens between two packets. */
export interface Event {
  what: string;
  happens(bed: Bed): void | Promise<void>;
}

export interface Case {
  title: string;
  /** The programs' configuration, where it differs from the default. */
  rodata?: Readonly<Record<string, number>>;
  node?: NodeSettings;
  /** Left out where one family has no such thing. */
  families?: readonly Family[];
  steps(family: Words): (Step | Event)[];
}

/** Time passes without packets. */
export function pass(seconds: number): Event {
  return { what: `${seconds} s pass`, happens: (bed) => bed.age(seconds) };
}
