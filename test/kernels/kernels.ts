// The kernels that test:kernels boots, what each is known to lack, and which of the real tests run
// on it. A further file of tests is one line of SUBSET. Knows nothing of packages and machines.

/** What not every kernel since the floor has; features.ts holds this table against them. */
export interface Features {
  /** bpf_sock_destroy() for programs that walk sockets: Linux 6.5. */
  socketDestroy: boolean;
}

export interface Kernel {
  name: string;
  /** The suite of Debian whose linux-image-cloud package it is. */
  suite: string;
  features: Features;
  /** Features of a CPU that QEMU does not give it. */
  cpuLacks?: readonly string[];
}

export const KERNELS: readonly Kernel[] = [
  { name: "oldest", suite: "bookworm", features: { socketDestroy: false } },
  // 6.12 crashes under QEMU 7.2 with cx16. From Linux 6.19 on sockets get no storage without it.
  { name: "stable", suite: "trixie", features: { socketDestroy: true }, cpuLacks: ["cx16"] },
  { name: "newest", suite: "testing", features: { socketDestroy: true } },
];

interface Part {
  /** Below build/. */
  file: string;
  /** Where the kernel must have, or must lack, these features. */
  on?: Partial<Features>;
  /** Only on these, to save time: what the two ends can do, the middle can. */
  kernels?: readonly string[];
  /** The tests of the file whose titles match, or else do not: others would take minutes. */
  only?: RegExp;
  without?: RegExp;
}

const CANNOT_BREAK = /^on a kernel that cannot break sockets/;
/** Tests of udpstale that build another source, open thousands of sockets, or start more agents. */
const SLOW_STALE =
  /^(on a kernel that cannot|thousands of|an endpoint that left while|a node's agent sees)/;

/** Packets of each protocol and family at each hook; every case takes minutes. */
const PASSAGE = /^(TCP|UDP|SCTP) to |^node port |\(BIG TCP\)/;

const SUBSET: readonly Part[] = [
  { file: "test/kernels/features.js" },
  // Before others load it: Debian's connection tracking is a module, whose functions programs call.
  { file: "test/scenarios/replies.test.js", kernels: ["oldest"] },
  { file: "bindings/iterator.test.js" },
  { file: "bindings/link.test.js" },
  { file: "bindings/map.test.js" },
  { file: "bindings/object.test.js" },
  { file: "bindings/running.test.js" },
  { file: "bindings/system.test.js" },
  { file: "test/packets/settings.test.js" },
  { file: "test/packets/cases.test.js", only: PASSAGE },
  { file: "test/scenarios/tcp.test.js" },
  { file: "test/scenarios/udp.test.js", kernels: ["oldest", "newest"] },
  { file: "test/scenarios/verdicts.test.js", kernels: ["oldest"] },
  { file: "test/scenarios/udpstale.test.js", on: { socketDestroy: false }, only: CANNOT_BREAK },
  { file: "test/scenarios/udpstale.test.js", on: { socketDestroy: true }, without: SLOW_STALE },
];

/** Every file of the subset. */
export const FILES: readonly string[] = [...new Set(SUBSET.map(({ file }) => file))];

/** What runs on a kernel. */
export function partsOf(kernel: Kernel): readonly Part[] {
  const features = Object.entries(kernel.features);
  return SUBSET.filter(
    ({ on = {}, kernels = [kernel.name] }) =>
      kernels.includes(kernel.name) &&
      features.every(([name, has]) => (on[name as keyof Features] ?? has) === has),
  );
}

/** The kernel of this name. Throws if there is none. */
export function kernelNamed(name: string): Kernel {
  const found = KERNELS.find((kernel) => kernel.name === name);
  if (!found)
    throw new Error(`No kernel "${name}": there are ${KERNELS.map((k) => k.name).join()}`);
  return found;
}
