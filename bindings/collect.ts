// Which structs and enums a BPF object's maps are made of, and a hash of them all.
// Everything is sorted by name, so that the result depends on what the maps hold and not on the
// order in which a compiler met it. It knows no struct by name and nothing of TypeScript.
import { createHash } from "node:crypto";
import {
  type Btf,
  type BtfType,
  type EnumValue,
  innermost,
  type MapDefinition,
  type Member,
  mapDefinitions,
  resolve,
  sizeOf,
} from "./btf.ts";
import { BtfError } from "./reader.ts";

const HASH_DIGITS = 16;

/**
 * What a field holds: `bits` 8, 16, 32 or 64, `enum` for one of its numbers; a struct made of one
 * __be32 array is "bytes".
 */
export type Shape =
  | { kind: "number"; bits: number; signed: boolean; networkOrder: boolean; enum?: string }
  | { kind: "bytes"; length: number; padded: boolean }
  | { kind: "struct"; name: string }
  | { kind: "array"; element: Shape; count: number; stride: number }
  | { kind: "reserved"; length: number }
  | { kind: "lock" };

export interface Field {
  name: string;
  offset: number;
  shape: Shape;
}

export interface Struct {
  name: string;
  bytes: number;
  fields: readonly Field[];
}

export interface Enum {
  name: string;
  values: readonly EnumValue[];
}

/** A map with what its keys and values are, undefined where the C source gives only a size. */
export interface MapLayout extends MapDefinition {
  keyShape: Shape | undefined;
  valueShape: Shape | undefined;
}

export interface Layouts {
  structs: readonly Struct[];
  enums: readonly Enum[];
  maps: readonly MapLayout[];
  /**
   * First 64 bits of the SHA-256 of all the above as hexadecimal digits: what two builds must
   * agree on to share pinned maps.
   */
  hash: string;
}

/**
 * Everything that an object's maps hold, and the enums of its variables, sorted by name. Throws
 * BtfError, naming the field, for what has no place in a shared struct: unnamed padding, unions,
 * bit fields, pointers.
 */
export function collectLayouts(btf: Btf): Layouts {
  const shapeOf = (type: number | undefined) =>
    type === undefined ? undefined : typeShape(btf, type);
  const maps = mapDefinitions(btf).map(
    (map): MapLayout => ({ ...map, keyShape: shapeOf(map.key), valueShape: shapeOf(map.value) }),
  );
  const structs = new Map<string, Struct>();
  const enums = new Map<string, Enum>();
  for (const { key, value } of maps) {
    if (key !== undefined) visit(key);
    if (value !== undefined) visit(value);
  }
  for (const type of btf.types) {
    if (type.kind !== "section" || type.name === ".maps") continue;
    for (const variable of type.variables) visitEnum(innermost(btf, variable.type));
  }
  const layouts = {
    structs: [...structs.values()].toSorted(byName),
    enums: [...enums.values()].toSorted(byName),
    maps: maps.toSorted(byName),
  };
  return { ...layouts, hash: hashOf(layouts) };

  function visit(id: number): void {
    const type = innermost(btf, id);
    visitEnum(type);
    if (type.kind !== "struct" || structs.has(type.name) || isOpaque(btf, type)) return;
    structs.set(type.name, readStruct(btf, type));
    for (const member of type.members) visit(member.type);
  }

  function visitEnum(type: BtfType): void {
    if (type.kind === "enum" && type.name !== "") enums.set(type.name, type);
  }
}

/**
 * All that two builds must agree on to share this one map: its kind, its keys and its values, in
 * lines of text that are equal then. Undefined if there is no such map.
 */
export function mapText(layouts: Layouts, name: string): string | undefined {
  const map = layouts.maps.find((each) => each.name === name);
  if (map === undefined) return undefined;
  const names = new Set<string>();
  const visit = (shape: Shape | undefined): void => {
    if (shape?.kind === "array") visit(shape.element);
    if (shape?.kind === "number" && shape.enum !== undefined) names.add(shape.enum);
    if (shape?.kind !== "struct" || names.has(shape.name)) return;
    names.add(shape.name);
    const struct = layouts.structs.find((each) => each.name === shape.name);
    for (const field of struct?.fields ?? []) visit(field.shape);
  };
  visit(map.keyShape);
  visit(map.valueShape);
  const has = ({ name }: { name: string }) => names.has(name);
  return linesOf({
    structs: layouts.structs.filter(has),
    enums: layouts.enums.filter(has),
    maps: [map],
  }).join("\n");
}

/** Whether an enum has the same enumerators in two builds. */
export function sameEnum(name: string, [left, right]: readonly [Layouts, Layouts]): boolean {
  const [one, other] = [left, right].map(({ enums }) => {
    const found = enums.find((each) => each.name === name);
    return found && linesOf({ structs: [], enums: [found], maps: [] }).join("\n");
  });
  return one !== undefined && one === other;
}

function hashOf(layouts: Omit<Layouts, "hash">): string {
  return createHash("sha256")
    .update(linesOf(layouts).join("\n"))
    .digest("hex")
    .slice(0, HASH_DIGITS);
}

/** Sizes of maps are left out: they may be configured. */
function linesOf({ structs, enums, maps }: Omit<Layouts, "hash">): string[] {
  return [
    ...structs.flatMap(({ name, bytes, fields }) => [
      `struct ${name} ${bytes}`,
      ...fields.map((field) => `${field.name} ${field.offset} ${JSON.stringify(field.shape)}`),
    ]),
    ...enums.flatMap(({ name, values }) => [
      `enum ${name}`,
      ...values.map((entry) => `${entry.name} ${entry.value}`),
    ]),
    ...maps.flatMap(({ name, type, flags, keyBytes, valueBytes, keyShape, valueShape }) => [
      `map ${name} ${type} ${flags}`,
      `key ${keyBytes} ${JSON.stringify(keyShape)}`,
      `value ${valueBytes} ${JSON.stringify(valueShape)}`,
    ]),
  ];
}

function readStruct(
  btf: Btf,
  { name, size, members }: BtfType & { kind: "struct" | "union" },
): Struct {
  let end = 0;
  const fields = members.map((member) => {
    if (member.bits !== 0) throw new BtfError(`Field "${name}.${member.name}" is a bit field`);
    if (member.offset !== end) throw unnamed(name, { from: end, to: member.offset });
    end = member.offset + sizeOf(btf, member.type);
    return { name: member.name, offset: member.offset, shape: memberShape(btf, name, member) };
  });
  if (end !== size) throw unnamed(name, { from: end, to: size });
  return { name, bytes: size, fields };
}

function unnamed(struct: string, { from, to }: { from: number; to: number }): BtfError {
  const bytes = `Bytes ${from} to ${to} of struct "${struct}"`;
  return new BtfError(`${bytes} have no name, add a reserved field`);
}

function memberShape(btf: Btf, struct: string, member: Member): Shape {
  if (/^reserved(_\d+)?$/.test(member.name)) {
    return { kind: "reserved", length: sizeOf(btf, member.type) };
  }
  const shape = typeShape(btf, member.type);
  if (shape !== undefined) return shape;
  const { kind } = resolve(btf, member.type).type;
  throw new BtfError(`Field "${struct}.${member.name}" is of kind "${kind}", which has no layout`);
}

function typeShape(btf: Btf, id: number): Shape | undefined {
  const { type, typedefs } = resolve(btf, id);
  if (type.kind === "struct") {
    if (isLock(type)) return { kind: "lock" };
    if (isAddress(btf, type)) return { kind: "bytes", length: type.size, padded: false };
    return { kind: "struct", name: type.name };
  }
  if (type.kind === "array") {
    const element = typeShape(btf, type.type);
    if (element === undefined) return undefined;
    const stride = sizeOf(btf, type.type);
    if (stride === 1) return { kind: "bytes", length: type.count, padded: true };
    return { kind: "array", element, count: type.count, stride };
  }
  if (type.kind !== "int" && type.kind !== "enum") return undefined;
  const bits = type.size * 8;
  if (![8, 16, 32, 64].includes(bits)) return undefined;
  const signed = type.kind === "int" && type.signed;
  const networkOrder = typedefs.some((name) => /^__be\d+$/.test(name));
  const named = type.kind === "enum" && type.name !== "" ? { enum: type.name } : {};
  return { kind: "number", bits, signed, networkOrder, ...named };
}

/** Structs that need no layout of their own. */
function isOpaque(btf: Btf, type: BtfType): boolean {
  return isLock(type) || isAddress(btf, type);
}

function isLock(type: BtfType): boolean {
  return type.kind === "struct" && type.name === "bpf_spin_lock";
}

/** A struct that is nothing but one array of __be32. */
function isAddress(btf: Btf, type: BtfType): boolean {
  if (type.kind !== "struct" || type.members.length !== 1) return false;
  const only = resolve(btf, type.members[0]!.type).type;
  return only.kind === "array" && resolve(btf, only.type).typedefs.includes("__be32");
}

function byName(left: { name: string }, right: { name: string }): number {
  return left.name < right.name ? -1 : 1;
}
