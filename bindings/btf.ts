// The types, variables and map definitions that an object's BTF describes, as plain data.
// Pure functions on bytes; it knows neither libbpf nor what any struct means.
import { readSections, readSymbols } from "./elf.ts";
import { BtfError, Reader } from "./reader.ts";

/** One field of a struct; `offset` in bytes, `bits` is 0 unless it is a bit field. */
export interface Member {
  name: string;
  type: number;
  offset: number;
  bits: number;
}

/** A variable's place in its section, in bytes. */
export interface Variable {
  name: string;
  type: number;
  offset: number;
  size: number;
}

/** Types refer to each other by their index in Btf.types; index 0 is void. */
export type BtfType =
  | { kind: "void" | "other"; name: string }
  | { kind: "int"; name: string; size: number; signed: boolean }
  | { kind: "pointer"; name: string; type: number }
  | { kind: "array"; name: string; type: number; count: number }
  | { kind: "struct" | "union"; name: string; size: number; members: readonly Member[] }
  | { kind: "enum"; name: string; size: number; values: readonly EnumValue[] }
  | { kind: "typedef" | "qualifier" | "variable"; name: string; type: number }
  | { kind: "section"; name: string; variables: readonly Variable[] };

/** One enumerator; always a bigint, since enums may have 64 bits. */
export interface EnumValue {
  name: string;
  value: bigint;
}

/** Everything one object's BTF says; offsets in sections are already those of its symbols. */
export interface Btf {
  types: readonly BtfType[];
}

/** A map as written in C: sizes in bytes, numbers 0 where the definition is silent. */
export interface MapDefinition {
  name: string;
  type: number;
  keyBytes: number;
  valueBytes: number;
  maxEntries: number;
  flags: number;
  /** Types of key and value, undefined where only a size is given. */
  key: number | undefined;
  value: number | undefined;
}

const HEADER_MAGIC = 0xeb9f;
/** Deeper chains of typedefs and arrays are taken for a circle. */
const DEPTH_LIMIT = 64;
/** Bytes of a type's own data, per element where the header counts elements. */
const FIXED_BYTES: Readonly<Record<number, number>> = { 1: 4, 3: 12, 14: 4, 17: 4 };
const ELEMENT_BYTES: Readonly<Record<number, number>> = {
  4: 12,
  5: 12,
  6: 8,
  13: 8,
  15: 12,
  19: 12,
};
const KIND_LIMIT = 19;

/** Reads the BTF of an ELF object. Throws BtfError if it has none or it is malformed. */
export function readBtf(object: Uint8Array): Btf {
  const sections = readSections(object);
  const section = sections.find(({ name }) => name === ".BTF");
  if (section === undefined) {
    throw new BtfError("Cannot read the object file: it has no BTF, compile it with -g");
  }
  const types = readTypes(section.data);
  const symbols = readSymbols(sections);
  const indexes = new Map(sections.map(({ name, index }) => [name, index]));
  // Clang leaves the offsets of variables to the linker: the symbols have them.
  return nameVariables(types, (name, section) => {
    const index = indexes.get(section);
    return symbols.find((symbol) => symbol.name === name && symbol.section === index)?.offset;
  });
}

/** Reads bare BTF, as the kernel gives it back for what was loaded. Throws BtfError. */
export function readBareBtf(bytes: Uint8Array): Btf {
  return nameVariables(readTypes(new Reader(bytes, "BTF of the kernel")), () => undefined);
}

/** Puts names and types of variables into the sections that list them. */
function nameVariables(
  types: readonly BtfType[],
  offsetOf: (variable: string, section: string) => number | undefined,
): Btf {
  const named = types.map((type): BtfType => {
    if (type.kind !== "section") return type;
    const variables = type.variables.flatMap((variable) => {
      const own = types[variable.type];
      if (own === undefined) throw new BtfError(`Section "${type.name}" holds an unknown type`);
      // Functions of the kernel stand in sections too.
      if (own.kind !== "variable") return [];
      const offset = offsetOf(own.name, type.name) ?? variable.offset;
      return [{ ...variable, name: own.name, type: own.type, offset }];
    });
    return { ...type, variables };
  });
  return { types: named };
}

function readTypes(btf: Reader): BtfType[] {
  if (btf.u16(0) !== HEADER_MAGIC) throw btf.error("wrong magic, only little-endian is read");
  const header = btf.u32(4);
  const data = btf.slice(header + btf.u32(8), btf.u32(12), "BTF types");
  const strings = btf.slice(header + btf.u32(16), btf.u32(20), "BTF strings");
  const types: BtfType[] = [{ kind: "void", name: "void" }];
  let at = 0;
  while (at < data.bytes.length) {
    const info = data.u32(at + 4);
    const kind = (info >>> 24) & 0x1f;
    if (kind === 0 || kind > KIND_LIMIT) throw data.error(`kind ${kind} at ${at} is unknown`);
    const count = info & 0xffff;
    const length = (FIXED_BYTES[kind] ?? 0) + (ELEMENT_BYTES[kind] ?? 0) * count;
    types.push(readType(data.slice(at, 12 + length, "a BTF type"), strings));
    at += 12 + length;
  }
  return types;
}

function readType(data: Reader, strings: Reader): BtfType {
  const name = strings.text(data.u32(0));
  const info = data.u32(4);
  const sizeOrType = data.u32(8);
  const flag = info >>> 31 === 1;
  switch ((info >>> 24) & 0x1f) {
    case 1:
      return { kind: "int", name, size: sizeOrType, signed: ((data.u32(12) >>> 24) & 1) === 1 };
    case 2:
      return { kind: "pointer", name, type: sizeOrType };
    case 3:
      return { kind: "array", name, type: data.u32(12), count: data.u32(20) };
    case 4:
    case 5: {
      const kind = ((info >>> 24) & 0x1f) === 4 ? "struct" : "union";
      return { kind, name, size: sizeOrType, members: readMembers(data, strings, flag) };
    }
    case 6:
      return { kind: "enum", name, size: sizeOrType, values: readValues(data, strings, 8) };
    case 19:
      return { kind: "enum", name, size: sizeOrType, values: readValues(data, strings, 12) };
    case 8:
      return { kind: "typedef", name, type: sizeOrType };
    case 9:
    case 10:
    case 11:
    case 18:
      return { kind: "qualifier", name, type: sizeOrType };
    case 14:
      return { kind: "variable", name, type: sizeOrType };
    case 15:
      return { kind: "section", name, variables: readVariables(data) };
    default:
      return { kind: "other", name };
  }
}

function readMembers(data: Reader, strings: Reader, withBits: boolean): Member[] {
  return elements(data, 12).map((at) => {
    const place = data.u32(at + 8);
    const bits = withBits ? place >>> 24 : 0;
    const offset = (withBits ? place & 0xffffff : place) / 8;
    return { name: strings.text(data.u32(at)), type: data.u32(at + 4), offset, bits };
  });
}

/** Compilers of old cut values of 8 bytes down to 4, silently. */
function readValues(data: Reader, strings: Reader, bytes: 8 | 12): EnumValue[] {
  if (bytes === 8 && data.u32(8) > 4) {
    throw data.error(`enum "${strings.text(data.u32(0))}" needs a compiler that knows enum64`);
  }
  const signed = data.u32(4) >>> 31 === 1;
  return elements(data, bytes).map((at) => {
    const low = BigInt(data.u32(at + 4));
    const high = bytes === 12 ? BigInt(data.u32(at + 8)) : 0n;
    const bits = bytes === 12 ? 64 : 32;
    const raw = low | (high << 32n);
    return { name: strings.text(data.u32(at)), value: signed ? BigInt.asIntN(bits, raw) : raw };
  });
}

/** Variables with the type of their BTF entry; nameVariables() puts name and type in place. */
function readVariables(data: Reader): Variable[] {
  return elements(data, 12).map((at) => {
    return { name: "", type: data.u32(at), offset: data.u32(at + 4), size: data.u32(at + 8) };
  });
}

/** Offsets of the elements that follow a type's 12-byte header. */
function elements(data: Reader, bytes: number): number[] {
  return Array.from({ length: data.u32(4) & 0xffff }, (_, index) => 12 + index * bytes);
}

/** The type with this index. Throws BtfError if there is none. */
function typeAt(btf: Btf, type: number): BtfType {
  const found = btf.types[type];
  if (found === undefined) throw new BtfError(`BTF type ${type} does not exist`);
  return found;
}

/** The type behind typedefs and qualifiers, with the names of the typedefs passed. */
export function resolve(btf: Btf, type: number): { type: BtfType; typedefs: readonly string[] } {
  const typedefs: string[] = [];
  let current = typeAt(btf, type);
  for (let depth = 0; current.kind === "typedef" || current.kind === "qualifier"; depth++) {
    if (depth === DEPTH_LIMIT) throw new BtfError(`BTF type ${type} refers to itself`);
    if (current.kind === "typedef") typedefs.push(current.name);
    current = typeAt(btf, current.type);
  }
  return { type: current, typedefs };
}

/** Size of a type in bytes. Throws BtfError for what has none, such as functions. */
export function sizeOf(btf: Btf, type: number, depth = 0): number {
  if (depth === DEPTH_LIMIT) throw new BtfError(`BTF type ${type} contains itself`);
  const resolved = resolve(btf, type).type;
  switch (resolved.kind) {
    case "int":
    case "struct":
    case "union":
    case "enum":
      return resolved.size;
    case "pointer":
      return 8;
    case "array":
      return resolved.count * sizeOf(btf, resolved.type, depth + 1);
    default:
      throw new BtfError(`BTF type ${type} "${resolved.name}" has no size`);
  }
}

/** The type behind typedefs, qualifiers and arrays. Throws BtfError if it contains itself. */
export function innermost(btf: Btf, type: number): BtfType {
  let current = resolve(btf, type).type;
  for (let depth = 0; current.kind === "array"; depth++) {
    if (depth === DEPTH_LIMIT) throw new BtfError(`BTF type ${type} contains itself`);
    current = resolve(btf, current.type).type;
  }
  return current;
}

/** The variables of a section such as ".rodata" in order of offset, none if it is absent. */
export function sectionVariables(btf: Btf, section: string): readonly Variable[] {
  const found = btf.types.find((type) => type.kind === "section" && type.name === section);
  if (found?.kind !== "section") return [];
  return found.variables.toSorted((left, right) => left.offset - right.offset);
}

/** The maps that section .maps defines with __uint and __type. Throws BtfError. */
export function mapDefinitions(btf: Btf): MapDefinition[] {
  return sectionVariables(btf, ".maps").map(({ name, type }) => {
    const definition = resolve(btf, type).type;
    if (definition.kind !== "struct") throw new BtfError(`Map "${name}" is no struct`);
    const members = new Map(definition.members.map((member) => [member.name, member.type]));
    const number = (field: string) => uintMember(btf, members.get(field));
    const key = typeMember(btf, members.get("key"));
    const value = typeMember(btf, members.get("value"));
    return {
      name,
      type: number("type"),
      keyBytes: key === undefined ? number("key_size") : sizeOf(btf, key),
      valueBytes: value === undefined ? number("value_size") : sizeOf(btf, value),
      maxEntries: number("max_entries"),
      flags: number("map_flags"),
      key,
      value,
    };
  });
}

/** __uint(name, n) is `int (*name)[n]`. */
function uintMember(btf: Btf, type: number | undefined): number {
  if (type === undefined) return 0;
  const pointer = resolve(btf, type).type;
  const array = pointer.kind === "pointer" ? resolve(btf, pointer.type).type : pointer;
  if (array.kind !== "array") throw new BtfError(`BTF type ${type} is no __uint()`);
  return array.count;
}

/** __type(name, T) is `typeof(T) *name`. */
function typeMember(btf: Btf, type: number | undefined): number | undefined {
  if (type === undefined) return undefined;
  const pointer = resolve(btf, type).type;
  if (pointer.kind !== "pointer") throw new BtfError(`BTF type ${type} is no __type()`);
  return pointer.type;
}
