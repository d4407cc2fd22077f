// Packets at random through the programs, a million on CI, each judged: nothing leaves with a
// checksum or length that is wrong and was right, nothing is sent on that should not be, no reply
// reaches a stranger, and what has been sent on is left alone by every hook that it may meet next.
// FUZZ_SEED=… draws other packets, FUZZ_PACKETS=… more of them; rewritten ports are the kernel's
// draw.
import { setImmediate as nextTurn } from "node:timers/promises";
import test from "ava";
import type { BpfError } from "../../bindings/errors.ts";
import { parseRange } from "../../control/model/address.ts";
import { DEFAULT_CONFIG } from "../../control/model/config.ts";
import type { Serving } from "../../control/model/decision.ts";
import { makeDetector } from "../../control/model/detector.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Bed, type Run } from "./bed.ts";
import { type Fate, faultNames, Judge, type Judgement, Oracle } from "./fuzz/judge.ts";
import { Known } from "./fuzz/known.ts";
import { type Made, Maker, packetBytes, Random } from "./fuzz/make.ts";
import { isTunnel, readFrame } from "./fuzz/read.ts";
import { makeReport } from "./fuzz/report.ts";
import { reportOf } from "./fuzz/told.ts";
import { FAMILIES, PLACES } from "./places.ts";
import { makeServices } from "./services.ts";

const labTest = needsLab(test.serial);

const SEED = Number(process.env.FUZZ_SEED ?? 94);
/** All of them take a minute. */
const PACKETS = Number(process.env.FUZZ_PACKETS ?? (process.env.CI ? 1_050_000 : 280_000));
/** Each part has a seed and connections of its own. */
const PARTS = 7;
/** Errors about each packet that leaves in a tunnel. */
const REPORTS = 3;
/** What the programs of the last part do otherwise: direct server return. */
const LAST = { forwarding: 1 };
const PACKETS_A_TURN = 500;
/** Of those that came to something, one of so many is given to scapy as well. */
const CHECKED_BY_SCAPY = 997;
const FAULTS_SHOWN = 10;
/** Where what is sent on may come by next. */
const MET_NEXT = [
  { hook: "egress", device: "eth0" },
  { hook: "egress", device: "pod-a1" },
  { hook: "xdp", device: "eth0" },
  { hook: "ingress", device: "eth0" },
] as const;

let bed: Bed;
let oracle: Oracle;
/** The table of flows, and a copy of it from before the packet at hand. */
let flows: Uint8Array;
let flowsBefore: Uint8Array;
const own = new Set(
  FAMILIES.map((family) =>
    Buffer.from(packetBytes(PLACES[family].node, family)).toString("latin1"),
  ),
);

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  bed = await Bed.open();
  bed.program(makeServices());
  oracle = new Oracle(serving());
  flows = bed.maps.svc_flows.mmap();
  flowsBefore = Uint8Array.from(flows);
});

test.after.always(async () => {
  await bed?.close();
});

function serving(): Serving {
  const { services, addresses, serviceRanges } = makeServices();
  const clusterCIDRs = ["10.244.0.0/16", "fd00:10:244::/56"].map((text) => parseRange(text)!);
  return {
    rows: services,
    addresses,
    serviceRanges,
    localAddresses: FAMILIES.map((family) => PLACES[family].node),
    detector: makeDetector({ ...DEFAULT_CONFIG, clusterCIDRs }, { podRanges: [] }),
    masqueradeAll: false,
  };
}

/** One part of the packets, and what became of them. */
class Part {
  readonly known = new Known();
  readonly fates = new Map<Fate | "refused by the kernel", number>();
  readonly faults: string[] = [];
  readonly sample: Uint8Array[] = [];
  readonly #judge = new Judge({ oracle, known: this.known, own });
  readonly #random: Random;
  #number = 0;

  constructor(random: Random) {
    this.#random = random;
  }

  /** Must be called inside the node's network namespace. */
  play(made: Made): void {
    const { frame, arrival } = made;
    const number = this.#number++;
    if (arrival.isSummed) flowsBefore.set(flows);
    let run: Run;
    try {
      run = bed.runInside(frame, arrival);
    } catch (error) {
      this.#refused(made, error as BpfError);
      return;
    }
    const judgement = this.#judged(made, run);
    this.#note(judgement, () => `packet ${number}: ${describe(made, run)}`);
    if ("fault" in judgement) return;
    if (judgement.fate !== "passed") this.#goOn(judgement.fate, made, run);
    else if (arrival.hook === "xdp") this.play({ frame, arrival: { ...arrival, hook: "ingress" } });
    if (judgement.fate === "tunnel") this.#report(run.frame);
  }

  /** What routers say of a packet in a tunnel, and what nobody would. */
  #report(sent: Uint8Array): void {
    const random = this.#random;
    const packet = readFrame(sent)!;
    if (!isTunnel(packet)) return; // it has come out of one
    bed.allowAnswers();
    for (let count = 0; count < REPORTS; count++) {
      const frame = makeReport(sent, random);
      const hook = random.chance(0.95) ? "ingress" : random.of(["xdp", "egress"] as const);
      frame.set(bed.devices.eth0!.mac, hook === "egress" ? 6 : 0);
      const isIn = hook === "ingress";
      const arrival = { hook, device: "eth0", isSummed: isIn && random.chance(0.5) } as const;
      this.play({ frame, arrival, ...(isIn ? { about: packet.inner! } : {}) });
    }
  }

  #judged({ frame, arrival, about }: Made, run: Run): Judgement {
    return about
      ? this.#judge.judgeReport(frame, run, arrival, about)
      : this.#judge.judge(frame, run, arrival);
  }

  /**
   * The kernel takes no frames of some lengths; and says so where a sum does not follow, but not
   * what the packet became: another run tells, on the flows that the first one met.
   */
  #refused(made: Made, error: BpfError): void {
    const { frame, arrival } = made;
    if (error.code === "EINVAL") this.#count("refused by the kernel");
    else if (error.code !== "EBADMSG") throw error;
    else {
      bed.allowAnswers();
      flows.set(flowsBefore);
      const run = bed.runInside(frame, { ...arrival, isSummed: false });
      const judgement = this.#judged(made, run);
      const isExcused = "fault" in judgement || needsNoSum(judgement.fate, frame, run);
      const fault = { fault: "what a device has summed does not follow" };
      this.#note(isExcused ? judgement : fault, () => describe(made, run));
    }
  }

  #note(judgement: Judgement, say: () => string): void {
    if ("fate" in judgement) this.#count(judgement.fate);
    else if (this.faults.length < FAULTS_SHOWN) this.faults.push(`${judgement.fault}: ${say()}`);
  }

  #count(fate: Fate | "refused by the kernel"): void {
    this.fates.set(fate, (this.fates.get(fate) ?? 0) + 1);
  }

  /** What was translated meets another hook, here or on the next node, that leaves it alone. */
  #goOn(fate: Fate, made: Made, run: Run): void {
    if (fate === "dropped" || fate === "answered") return;
    const packet = readFrame(run.frame)!;
    if (this.#number % CHECKED_BY_SCAPY === 0 && packet.faults === 0) this.sample.push(run.frame);
    // Who asks from a Service's own address is answered there.
    if (oracle.isServed(packet.destination) || oracle.decide(packet).outcome !== "untouched")
      return;
    // So is one that another connection's replies are like: here no socket keeps that port taken.
    if (this.known.replied(packet)) return;
    const arrival = MET_NEXT[this.#number % MET_NEXT.length]!;
    const again = bed.runInside(run.frame, arrival);
    if (again.verdict === "next" && Buffer.compare(again.frame, run.frame) === 0) return;
    const where = `${arrival.hook} of ${arrival.device} after ${made.arrival.device}`;
    const say = () => `${describe(made, run)}\n   then ${again.verdict} ${hex(again.frame)}`;
    this.#note({ fault: `translated twice, by ${where}` }, say);
  }
}

/**
 * Whether nobody asks for the sum of what came out: it was dropped, or it is an answer that has
 * less of what it answers, and the kernel forgets the sum of what it cuts.
 */
function needsNoSum(fate: Fate, frame: Uint8Array, { frame: out }: Run): boolean {
  if (fate !== "answered" && fate !== "told") return fate === "dropped";
  const { inner, network } = readFrame(out)!;
  const about = reportOf(readFrame(frame))?.packet ?? { network };
  return out.length - (inner ?? { network }).network < frame.length - about.network;
}

const hex = (frame: Uint8Array) => Buffer.from(frame).toString("hex");

function describe({ frame, arrival }: Made, { verdict, frame: out }: Run): string {
  const wrong = faultNames(readFrame(frame)?.faults ?? 0) || "nothing";
  const became = `${hex(frame)}\n   ${verdict} ${hex(out)}`;
  return `${JSON.stringify(arrival)}, wrong is ${wrong}\n   ${became}`;
}

async function playPart(part: Part, seed: number): Promise<void> {
  bed.forget();
  const macs = Object.fromEntries(
    Object.entries(bed.devices).map(([name, { mac }]) => [name, mac]),
  );
  const random = new Random(seed);
  const build = (packets: string) => bed.packets.build(packets);
  const maker = await Maker.open({ random, known: part.known, macs, build });
  const count = Math.ceil(PACKETS / PARTS);
  for (let done = 0; done < count; done += PACKETS_A_TURN) {
    bed.allowAnswers();
    bed.inside(() => {
      for (let turn = 0; turn < PACKETS_A_TURN; turn++) part.play(maker.next());
    });
    await nextTurn();
    if (part.faults.length >= FAULTS_SHOWN) return;
  }
}

const FATES: readonly Fate[] = ["dropped", "answered", "request", "reply", "error", "fragment"];
/** Of direct server return. */
const DIRECT_FATES: readonly Fate[] = ["tunnel", "told"];

for (let index = 0; index < PARTS; index++)
  labTest(`packets at random come to nothing bad, part ${index + 1} of ${PARTS}`, async (t) => {
    t.timeout(600_000);
    const isLast = index === PARTS - 1;
    if (isLast) bed.load({ rodata: LAST });
    const part = new Part(new Random(~(SEED + index)));
    await playPart(part, SEED + index);
    const fates = JSON.stringify(Object.fromEntries(part.fates));
    t.log(`FUZZ_SEED=${SEED}: ${fates}, ${part.known.size} connections`);
    t.deepEqual((await bed.packets.check(part.sample)).flat(), []);
    if (part.faults.length > 0) t.fail(`FUZZ_SEED=${SEED}\n${part.faults.join("\n")}`);
    // All kinds of fates are met, or the packets are not what they should be.
    for (const fate of isLast ? [...FATES, ...DIRECT_FATES] : FATES)
      t.true((part.fates.get(fate) ?? 0) > 20, `${fate} is too rare: ${fates}`);
  });
