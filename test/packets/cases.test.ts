// Every case of cases/, over IPv4 and IPv6: each packet through a program in the kernel, what comes
// out byte for byte as scapy writes it, checksums and lengths included; and what is sent on is left
// alone by the hooks that it meets then.
import { cpus } from "node:os";
import test, { type ExecutionContext } from "ava";
import type { BpfError } from "../../bindings/errors.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Bed, formatMac, type Run } from "./bed.ts";
import type { Case, Step } from "./cases/cases.ts";
import { DIRECT } from "./cases/direct.ts";
import { FRAGMENTS } from "./cases/fragments.ts";
import { ICMP } from "./cases/icmp.ts";
import { LIFE } from "./cases/life.ts";
import { PORTS } from "./cases/ports.ts";
import { REFUSALS } from "./cases/refusals.ts";
import { SIZES } from "./cases/sizes.ts";
import { TRANSLATED } from "./cases/translated.ts";
import { UNTOUCHED } from "./cases/untouched.ts";
import { FAMILIES, type Family, MACS } from "./places.ts";
import { EMPTY_PORT, makeServices, STICKY_NODE_PORT, STICKY_PORT } from "./services.ts";
import { KEPT, tcp, udp, wordsOf } from "./words.ts";

const CASES = [
  ...TRANSLATED,
  ...UNTOUCHED,
  ...REFUSALS,
  ...FRAGMENTS,
  ...SIZES,
  ...ICMP,
  ...PORTS,
  ...LIFE,
  ...DIRECT,
];
const ETHERNET_BYTES = 14;
const QUOTED = { 4: 28, 6: 48 } as const;
const NETWORK_BYTES = { 4: 20, 6: 40 } as const;

const labTest = needsLab(test.serial);

let bed: Bed;

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  bed = await Bed.open();
  bed.program(makeServices());
});

test.after.always(async () => {
  await bed?.close();
});

async function summary(frame: Uint8Array): Promise<string> {
  const hex = Buffer.from(frame).toString("hex");
  return `${hex} ${(await bed.packets.check([frame]))[0]!.join(", ")}`;
}

/** Plays steps, and keeps the ports that programs have chosen. */
class Player {
  readonly #family: Family;
  readonly #ports = new Map<string, number>();

  constructor(family: Family) {
    this.#family = family;
  }

  /** What is wrong with what becomes of a packet. */
  async play(step: Step): Promise<string[]> {
    const {
      hook,
      device = "eth0",
      packet,
      addressee,
      verdict,
      becomes = packet,
      to,
      gsoSize,
    } = step;
    const place = { device, leaving: hook === "egress", ...(addressee ? { to: addressee } : {}) };
    const arrival = { hook, device, ...(gsoSize ? { gsoSize } : {}) };
    const frame = await bed.frame(this.#fill(packet), place);
    const before = bed.reasons();
    const run = bed.run(frame, arrival);
    const faults = counted(before, bed.reasons(), step.reason);
    if (run.verdict !== verdict) faults.push(`it is ${run.verdict}, not ${verdict}`);
    if (verdict === "dropped") return faults;
    faults.push(...this.#learn(becomes, run));
    const wanted = await bed.frame(this.#fill(becomes), place);
    const [got, expected] = [run.frame, wanted].map((each) => each.subarray(ETHERNET_BYTES));
    if (Buffer.compare(got!, expected!) !== 0)
      faults.push(`it became\n${await summary(run.frame)}\nand not\n${await summary(wanted)}`);
    if (to !== undefined && hook === "xdp" && formatMac(run.frame.subarray(0, 6)) !== MACS[to])
      faults.push(`it goes to ${formatMac(run.frame.subarray(0, 6))}, not ${MACS[to]}`);
    if (verdict === "sent") faults.push(...left(run.frame, step));
    const isAnswer = step.reason !== undefined || becomes.includes("Reply(");
    if (step.becomes !== undefined && !isAnswer && hook !== "xdp")
      faults.push(...followed(frame, run, arrival));
    return faults;
  }

  #fill(text: string): string {
    return text
      .replaceAll("QUOTE", String(QUOTED[this.#family]))
      .replace(/<([A-Z])>/g, (_, name) => String(this.#ports.get(name) ?? 0));
  }

  /** Keeps the source port of what came out, if it is one that a placeholder stands for. */
  #learn(becomes: string, { frame }: Run): string[] {
    const name = /sport=<([A-Z])>/.exec(becomes)?.[1];
    if (name === undefined || this.#ports.has(name)) return [];
    const at = ETHERNET_BYTES + NETWORK_BYTES[this.#family];
    const port = (frame[at]! << 8) | frame[at + 1]!;
    const { natFirst, natCount } = bed.numbers;
    const isTaken = [...this.#ports.values()].includes(port);
    this.#ports.set(name, port);
    if (isTaken && natCount > 2) return [`port ${port} is another connection's`];
    const isOfRange = port >= natFirst && port < natFirst + natCount;
    return isOfRange ? [] : [`port ${port} is not of the range for it`];
  }
}

/** What was counted other than was to be. */
function counted(
  before: Record<string, number>,
  after: Record<string, number>,
  wanted = "",
): string[] {
  const words = Object.keys(after).filter((word) => after[word] !== before[word]);
  return words.join() === wanted ? [] : [`counted is "${words}", not "${wanted}"`];
}

/** A packet that is sent on meets the egress hook, and on another node all of them. */
function left(frame: Uint8Array, { isTunnelled = false }: Step): string[] {
  const hooks = ["egress", "xdp", ...(isTunnelled ? [] : (["ingress"] as const))] as const;
  return hooks.flatMap((hook) => {
    const run = bed.run(frame, { hook });
    const isLeft = run.verdict === "next" && Buffer.compare(run.frame, frame) === 0;
    return isLeft ? [] : [`what is sent on is ${run.verdict} by ${hook}, or changed`];
  });
}

/** Where a device has summed the packet, that sum follows. */
function followed(
  frame: Uint8Array,
  { verdict }: Run,
  arrival: Parameters<Bed["run"]>[1],
): string[] {
  let run: Run;
  try {
    run = bed.run(frame, { ...arrival, isSummed: true });
  } catch (error) {
    if ((error as BpfError).code !== "EBADMSG") throw error;
    return ["what a device has summed does not follow"];
  }
  return run.verdict === verdict ? [] : [`summed by a device it is ${run.verdict}, not ${verdict}`];
}

async function playAll({ steps, rodata, node }: Case, family: Family): Promise<string[]> {
  bed.forget();
  if (rodata) bed.load({ rodata });
  if (node) bed.describeNode(node);
  const player = new Player(family);
  const faults: string[] = [];
  for (const [index, step] of steps(wordsOf(family)).entries()) {
    if ("happens" in step) {
      await step.happens(bed);
      continue;
    }
    const found = await player.play(step);
    faults.push(...found.map((fault) => `${index + 1}. ${step.hook} ${step.packet}: ${fault}`));
  }
  if (node) bed.describeNode();
  if (rodata) bed.load();
  return faults;
}

function judge(t: ExecutionContext, faults: readonly string[]): void {
  if (faults.length > 0) t.fail(faults.join("\n"));
  else t.pass();
}

for (const each of CASES)
  for (const family of each.families ?? FAMILIES)
    labTest(`${each.title} (IPv${family})`, async (t) => judge(t, await playAll(each, family)));

labTest(
  "a client stays with its endpoint at every hook and frontend, other clients spread",
  async (t) => {
    for (const family of FAMILIES) {
      bed.forget();
      const { at, ip } = wordsOf(family);
      const clients = [at.client, at.other, ...(family === 4 ? NEIGHBOURS_4 : NEIGHBOURS_6)];
      const frontends = [
        { to: at.vip, port: STICKY_PORT },
        { to: at.clusterIP, port: STICKY_PORT },
        { to: at.node, port: STICKY_NODE_PORT },
      ];
      const drawn = new Set<string>();
      let sport = 2000;
      for (const client of clients) {
        const endpoints = new Set<string>();
        for (const hook of ["xdp", "ingress"] as const)
          for (const { to, port } of [...frontends, ...frontends])
            for (const transport of [tcp(++sport, port)]) {
              const { verdict, frame } = bed.run(
                await bed.frame(`${ip(client, to)}/${transport}`),
                {
                  hook,
                },
              );
              t.is(verdict, "sent");
              endpoints.add(destinationOf(frame, family));
            }
        t.is(endpoints.size, 1, `${client} was sent to ${[...endpoints]}`);
        drawn.add([...endpoints][0]!);
      }
      t.is(drawn.size, 2);
    }
  },
);

const NEIGHBOURS_4 = Array.from({ length: 10 }, (_, index) => `203.0.113.${100 + index}`);
const NEIGHBOURS_6 = Array.from({ length: 10 }, (_, index) => `2001:db8:ffff::1:${index + 1}`);

function destinationOf(frame: Uint8Array, family: Family): string {
  const at = ETHERNET_BYTES + (family === 4 ? 16 : 24);
  return Buffer.from(frame.subarray(at, at + (family === 4 ? 4 : 16))).toString("hex");
}

/** The programs' limit on answers of their own, on each CPU. */
const ANSWERS_AT_ONCE = 200;
const ANSWERS_PER_SECOND = 1000;

for (const transport of [tcp, udp])
  labTest(`answers to refused ${transport === tcp ? "TCP" : "UDP"} are limited`, async (t) => {
    bed.forget();
    const { at, ip } = wordsOf(4);
    const frame = await bed.frame(`${ip(at.client, at.vip)}/${transport(KEPT, EMPTY_PORT)}`);
    const tries = 5000;
    const start = performance.now();
    let sent = 0;
    for (let count = 0; count < tries; count++)
      if (bed.run(frame, { hook: "ingress" }).verdict === "sent") sent++;
    const seconds = (performance.now() - start) / 1000;
    const most = cpus().length * (ANSWERS_AT_ONCE + (seconds + 0.1) * ANSWERS_PER_SECOND);
    t.true(sent >= ANSWERS_AT_ONCE && sent <= most, `${sent} sent in ${seconds} s`);
    const { refused, answer_limit: limited = 0 } = bed.reasons();
    t.is(refused, tries);
    t.is(sent + limited, tries);
  });
