// Every case of cases.ts, over IPv4 and IPv6: each packet through a program in the kernel, what
// comes out byte for byte as scapy writes it, checksums and lengths included.
import test from "ava";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Bed, type Family, formatMac, MACS } from "./bed.ts";
import { CASES, type Case, type Step, wordsOf } from "./cases.ts";
import { makeServices } from "./services.ts";

const ETHERNET_BYTES = 14;
const QUOTED = { 4: 28, 6: 48 } as const;

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

async function play(step: Step, { family }: { family: Family }): Promise<string[]> {
  const { hook, device = "eth0", packet, verdict, becomes = packet, to, reason } = step;
  const faults: string[] = [];
  const before = bed.reasons();
  const quoted = (text: string) => text.replaceAll("QUOTE", String(QUOTED[family]));
  const leaving = hook === "egress";
  const frame = await bed.frame(quoted(packet), { device, leaving });
  const wanted = await bed.frame(quoted(becomes), { device, leaving });
  const run = bed.run(frame, { hook, device });
  if (run.verdict !== verdict) faults.push(`it is ${run.verdict}, not ${verdict}`);
  const [got, expected] = [run.frame, wanted].map((each) => each.subarray(ETHERNET_BYTES));
  if (verdict !== "dropped" && Buffer.compare(got!, expected!) !== 0)
    faults.push(`it became\n${await summary(run.frame)}\nand not\n${await summary(wanted)}`);
  if (to !== undefined && hook === "xdp" && formatMac(run.frame.subarray(0, 6)) !== MACS[to])
    faults.push(`it goes to ${formatMac(run.frame.subarray(0, 6))}, not ${MACS[to]}`);
  const after = bed.reasons();
  const counted = Object.keys(after).filter((word) => after[word] !== before[word]);
  if (counted.join() !== (reason ?? "")) faults.push(`counted is "${counted}", not "${reason}"`);
  return faults;
}

async function playAll({ steps, rodata }: Case, family: Family): Promise<string[]> {
  bed.forget();
  if (rodata) bed.load({ rodata });
  const faults: string[] = [];
  for (const [index, step] of steps(wordsOf(family)).entries()) {
    const found = await play(step, { family });
    faults.push(...found.map((fault) => `${index + 1}. ${step.hook} ${step.packet}: ${fault}`));
  }
  if (rodata) bed.load();
  return faults;
}

for (const each of CASES)
  for (const family of each.families ?? ([4, 6] as const))
    labTest(`${each.title} (IPv${family})`, async (t) => {
      const faults = await playAll(each, family);
      if (faults.length > 0) t.log(faults.join("\n"));
      t.deepEqual(faults, []);
    });
