// A process that looks up frontends without end, through a twin program on the maps of a pin
// folder. Started by readers.ts; ends when its parent does.
import path from "node:path";
import { BpfMap } from "../../bindings/map.ts";
import { BpfObject } from "../../bindings/object.ts";

/** Lookups of one test run: the program holds the RCU read lock meanwhile. */
const LOOKUPS = 1000;
/** An Ethernet frame's header: the least that the kernel gives to such a program. */
const FRAME = new Uint8Array(14);

/** What a reader is told, as its first message. */
export interface ReaderOrders {
  /** The object in testdata, "twin" or "slow", or the path of one elsewhere. */
  object: string;
  /** Folders where the maps of the object are pinned, by the maps' names. */
  folders: string[];
  rodata: Record<string, number>;
  /** Lookups of one test run. */
  repeat?: number;
}

function load({ object: name, folders, rodata }: ReaderOrders): BpfObject {
  const file = path.resolve(import.meta.dirname, "testdata", `${name}.bpf.o`);
  const object = BpfObject.open(file);
  for (const [variable, value] of Object.entries(rodata)) object.setRodata(variable, value);
  for (const map of object.maps()) {
    const pinned = folders.map((folder) => openPinned(path.join(folder, map.name)));
    const found = pinned.find((candidate) => candidate !== undefined);
    if (found !== undefined) map.reuse(found);
  }
  object.load();
  return object;
}

function openPinned(file: string): BpfMap | undefined {
  try {
    return BpfMap.openPinned(file);
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return undefined;
    throw error;
  }
}

process.once("disconnect", () => process.exit());
process.once("message", (orders: ReaderOrders) => {
  const program = load(orders).program("look");
  const repeat = orders.repeat ?? LOOKUPS;
  const run = () => {
    if (program.testRun({ data: FRAME, repeat }) !== 0) throw new Error("A map is too small");
    setImmediate(run);
  };
  process.send?.("ready");
  run();
});
