// Reads keys and values of a map by a description that came with it, as another build left it:
// fields by the names they have in C. Slower than the generated layouts of this build.

import { readBytes } from "./codec.ts";
import type { Field, Layouts, Shape } from "./collect.ts";
import { BtfError } from "./reader.ts";

/** A struct's fields by name; reserved ones and locks are left out. */
export interface DecodedStruct {
  readonly [field: string]: Decoded;
}

/**
 * A number, a bigint if it has 64 bits, an enumerator's name (a number if it has none), bytes, an
 * array or a struct.
 */
export type Decoded = number | bigint | string | Uint8Array | readonly Decoded[] | DecodedStruct;

/** Reads one key or value at an offset. */
export type Decode = (view: DataView, at: number) => Decoded;

/** How keys and values of this shape are read. Throws BtfError for what cannot be. */
export function makeDecode(layouts: Layouts, shape: Shape | undefined): Decode {
  switch (shape?.kind) {
    case "number":
      return numberDecode(layouts, shape);
    case "bytes":
      return (view, at) => readBytes(view, at, shape.length);
    case "array":
      return arrayDecode(layouts, shape);
    case "struct":
      return structDecode(layouts, shape.name);
    default:
      throw new BtfError(`A value of kind "${shape?.kind ?? "unknown"}" cannot be read`);
  }
}

function numberDecode(layouts: Layouts, shape: Shape & { kind: "number" }): Decode {
  const { bits, signed, networkOrder } = shape;
  const named = layouts.enums.find(({ name }) => name === shape.enum);
  const names = new Map(named?.values.map(({ name, value }) => [BigInt(value), name]));
  const read = numberRead(bits, signed, !networkOrder);
  if (names.size === 0) return read;
  return (view, at) => {
    const value = read(view, at);
    return names.get(BigInt(value)) ?? value;
  };
}

function numberRead(
  bits: number,
  signed: boolean,
  little: boolean,
): (view: DataView, at: number) => number | bigint {
  switch (bits) {
    case 8:
      return (view, at) => (signed ? view.getInt8(at) : view.getUint8(at));
    case 16:
      return (view, at) => (signed ? view.getInt16(at, little) : view.getUint16(at, little));
    case 32:
      return (view, at) => (signed ? view.getInt32(at, little) : view.getUint32(at, little));
    default:
      return (view, at) => (signed ? view.getBigInt64(at, little) : view.getBigUint64(at, little));
  }
}

function arrayDecode(layouts: Layouts, shape: Shape & { kind: "array" }): Decode {
  const { count, stride } = shape;
  const decode = makeDecode(layouts, shape.element);
  return (view, at) =>
    Array.from({ length: count }, (_, index) => decode(view, at + index * stride));
}

function structDecode(layouts: Layouts, name: string): Decode {
  const struct = layouts.structs.find((each) => each.name === name);
  if (struct === undefined) throw new BtfError(`Struct "${name}" is not described`);
  const isSeen = ({ shape }: Field) => shape.kind !== "reserved" && shape.kind !== "lock";
  const fields = struct.fields
    .filter(isSeen)
    .map(({ name, offset, shape }) => ({ name, offset, decode: makeDecode(layouts, shape) }));
  return (view, at) => {
    const decoded: Record<string, Decoded> = {};
    for (const field of fields) decoded[field.name] = field.decode(view, at + field.offset);
    return decoded;
  };
}
