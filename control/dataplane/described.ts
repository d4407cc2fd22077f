// The maps that some build pinned, with the description of their layouts that the kernel keeps:
// read by the names of fields, so that this build understands another's. Decides nothing.
import { existsSync, readFileSync } from "node:fs";
import { readBtf } from "../../bindings/btf.ts";
import { collectLayouts, type Layouts, mapText } from "../../bindings/collect.ts";
import { type Decode, type DecodedStruct, makeDecode } from "../../bindings/decode.ts";
import { BpfMap, mapFlag, mapType } from "../../bindings/map.ts";
import { readKernelBtf } from "../../bindings/running.ts";
import { objectPath } from "./objects.ts";

/** One element of a map. The key of an array's is its index. */
export interface Element {
  key: DecodedStruct | number;
  value: DecodedStruct;
}

/** Maps of some build as migrate.ts reads them, in the kernel or made up by a test. */
export interface Content {
  readonly layouts: Layouts;
  /** Every element of a map, none if there is no such map; in arrays, all that are not zeros. */
  each(name: string, visit: (element: Element) => void): void;
  /** The bytes of a mapped array while `use` runs, which must keep nothing of them. */
  withMemory(name: string, use: (memory: Uint8Array) => void): void;
}

export class Described implements Content {
  readonly layouts: Layouts;
  readonly #maps: ReadonlyMap<string, BpfMap>;

  private constructor(layouts: Layouts, maps: ReadonlyMap<string, BpfMap>) {
    this.layouts = layouts;
    this.#maps = maps;
  }

  /**
   * Opens what is pinned. `pathOf` gives a map's path, svc_meta's above all: its BTF describes
   * them all unless layouts are given. Throws BpfError (EPERM without CAP_SYS_ADMIN) and BtfError.
   */
  static open(
    pathOf: (name: string) => string,
    layouts = readLayouts(pathOf("svc_meta")),
  ): Described {
    const maps = new Map<string, BpfMap>();
    for (const { name } of layouts.maps) {
      const file = pathOf(name);
      if (existsSync(file)) maps.set(name, BpfMap.openPinned(file));
    }
    return new Described(layouts, maps);
  }

  map(name: string): BpfMap | undefined {
    return this.#maps.get(name);
  }

  each(name: string, visit: (element: Element) => void): void {
    const map = this.#maps.get(name);
    const layout = this.layouts.maps.find((each) => each.name === name);
    if (map === undefined || layout === undefined) return;
    const decode = makeDecode(this.layouts, layout.valueShape);
    if (map.info.type === mapType.ARRAY)
      map.withMemory((memory) => eachUsed(memory, map.info.maxEntries, { decode, visit }));
    else eachListed(map, { decode, decodeKey: makeDecode(this.layouts, layout.keyShape), visit });
  }

  withMemory(name: string, use: (memory: Uint8Array) => void): void {
    const map = this.#maps.get(name);
    if (map && (map.info.flags & mapFlag.MMAPABLE) !== 0) map.withMemory(use);
  }

  close(): void {
    for (const map of this.#maps.values()) map.close();
  }
}

/** The layouts of this build, from the object that its programs come from. */
export function ownLayouts(): Layouts {
  return collectLayouts(readBtf(readFileSync(objectPath("sock.bpf.o"))));
}

/** The layouts that a pinned map was created with. Throws BpfError and BtfError. */
export function readLayouts(file: string): Layouts {
  const map = BpfMap.openPinned(file);
  try {
    return collectLayouts(readKernelBtf(map.info.btfId));
  } finally {
    map.close();
  }
}

/** Whether two builds can use one and the same map of this name. */
export function isShareable(name: string, [left, right]: readonly [Layouts, Layouts]): boolean {
  const text = mapText(left, name);
  return text !== undefined && text === mapText(right, name);
}

function eachUsed(
  memory: Uint8Array,
  count: number,
  { decode, visit }: { decode: Decode; visit: (element: Element) => void },
): void {
  const view = viewOf(memory);
  const words = new Uint32Array(memory.buffer, memory.byteOffset, memory.length / 4);
  const stride = words.length / count;
  for (let index = 0; index < count; index++)
    for (let at = index * stride; at < (index + 1) * stride; at++)
      if (words[at] !== 0) {
        visit({ key: index, value: decode(view, index * stride * 4) as DecodedStruct });
        break;
      }
}

function eachListed(
  map: BpfMap,
  options: { decodeKey: Decode; decode: Decode; visit: (element: Element) => void },
): void {
  const { keySize, valueSize } = map.info;
  for (const { keys, values, count } of map.entries())
    for (let index = 0; index < count; index++)
      options.visit({
        key: options.decodeKey(viewOf(keys), index * keySize) as Element["key"],
        value: options.decode(viewOf(values), index * valueSize) as DecodedStruct,
      });
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}
