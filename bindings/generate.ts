// Writes layout.ts from the BTF of a BPF object: node build/generate.mjs OBJECT.o OUT.ts
// It turns what collect.ts found into TypeScript text, already formatted.
import { readFileSync, realpathSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { type MapDefinition, readBtf } from "./btf.ts";
import { collectLayouts, type Enum, type Field, type Shape, type Struct } from "./collect.ts";
import { BtfError } from "./reader.ts";

const HEADER = `\
// Generated from the BTF of bpf/maps.h by \`npm run generate\`. Do not edit.
// Structs are \`bytes\` long, each field at its \`offset\`, elements of an array \`stride\` apart.
// Ports are numbers, addresses raw bytes; read() copies. Reserved fields are written as zeros;
// locks, long arrays and arrays of structs are neither read nor written.
`;
const LINE_LIMIT = 100;
/** Longer arrays are for those who need one element at a time. */
const TUPLE_LIMIT = 12;
/** Spaces before the statements of read() and write(). */
const BODY_INDENT = 4;

/** How a field crosses: what TypeScript sees, and the text that moves it. */
interface Codec {
  type: string;
  read: (offset: number) => string;
  write: (offset: number, value: string) => string[];
}

/** A field that callers see, and how it crosses. */
type SeenField = Field & { codec: Codec };

/** The text of layout.ts for an object's bytes. Throws BtfError for what has no layout. */
export function generateLayout(object: Uint8Array): string {
  const { structs, enums, maps, hash } = collectLayouts(readBtf(object));
  const names = [...structs, ...enums].map(({ name }) => camel(name)).concat("maps", "layoutHash");
  const twice = names.find((name, index) => names.indexOf(name) !== index);
  if (twice !== undefined) throw new BtfError(`Two layouts would be called "${twice}"`);

  const body = [
    ...structs.map(printStruct),
    ...enums.map(printEnum),
    printMaps(maps),
    `/** Hash of all structs, enums and maps, sizes of maps left out. */
export const layoutHash = 0x${hash}n;`,
  ].join("\n\n");
  const helpers = ["readBytes", "writeBytes", "writePadded", "writeZeros"];
  const used = helpers.filter((helper) => body.includes(`${helper}(`));
  const imports = used.length > 0 ? `import { ${used.join(", ")} } from "./codec.ts";\n` : "";
  return `${HEADER}${imports}\n${body}\n`;
}

function printStruct({ name, bytes, fields }: Struct): string {
  const codecs = fields.map((field) => ({ ...field, codec: codecOf(field, name) }));
  const seen = codecs.flatMap(({ codec, ...field }) => (codec ? [{ ...field, codec }] : []));
  const placed = fields.filter(({ shape }) => shape.kind !== "reserved" && shape.kind !== "lock");
  const strides = fields.flatMap(({ name, shape }): [string, number][] =>
    shape.kind === "array" ? [[camel(name), shape.stride]] : [],
  );
  const writes = codecs.flatMap(({ name, offset, shape, codec }) => {
    if (shape.kind === "reserved") return [`writeZeros(view, ${plus(offset)}, ${shape.length});`];
    return codec?.write(offset, `value.${camel(name)}`) ?? [];
  });
  return [
    ...printInterface(name, seen),
    `/** struct ${name} */`,
    `export const ${camel(name)} = {`,
    ...indent([
      `bytes: ${bytes},`,
      ...printObject(
        "offset",
        placed.map(({ name, offset }) => [camel(name), offset]),
      ),
      ...printObject("stride", strides),
      ...printAccess(name, { seen, writes }),
    ]),
    "} as const;",
  ].join("\n");
}

/** A struct made of nothing but arrays of others has its place and size, and no value. */
function printInterface(name: string, seen: readonly SeenField[]): string[] {
  if (seen.length === 0) return [];
  const fields = seen.map(({ name, codec }) => `${camel(name)}: ${codec.type};`);
  return [`export interface ${pascal(name)} {`, ...indent(fields), "}", ""];
}

function printAccess(
  name: string,
  { seen, writes }: { seen: readonly SeenField[]; writes: readonly string[] },
): string[] {
  if (seen.length === 0) return [];
  const reads = seen.map(({ name, offset, codec }) => `${camel(name)}: ${codec.read(offset)},`);
  return [
    `read(view: DataView, at: number): ${pascal(name)} {`,
    "  return {",
    ...indent(indent(reads)),
    "  };",
    "},",
    `write(view: DataView, at: number, value: ${pascal(name)}): void {`,
    ...indent(writes),
    "},",
  ];
}

/** Undefined for what callers do not see, such as reserved bytes and long arrays. */
function codecOf({ name, shape }: Field, struct: string): Codec | undefined {
  if (shape.kind === "reserved" || shape.kind === "lock") return undefined;
  if (shape.kind !== "array") return valueCodec(shape, `${struct}.${name}`);
  const element = valueCodec(shape.element, `${struct}.${name}`);
  if (shape.element.kind === "struct" || element === undefined) return undefined;
  if (shape.count > TUPLE_LIMIT) return undefined;
  // A tuple, so that the length is part of the type.
  const indexes = Array.from({ length: shape.count }, (_, index) => index);
  const place = (start: number, index: number) => start + index * shape.stride;
  return {
    type: `readonly [${indexes.map(() => element.type).join(", ")}]`,
    read: (start) =>
      ["[", ...indent(indexes.map((index) => `${element.read(place(start, index))},`)), "]"].join(
        "\n",
      ),
    write: (start, value) =>
      indexes.flatMap((index) => element.write(place(start, index), `${value}[${index}]`)),
  };
}

function valueCodec(shape: Shape, subject: string): Codec | undefined {
  if (shape.kind === "number") return numberCodec(shape);
  if (shape.kind === "bytes") return bytesCodec(shape, subject);
  if (shape.kind !== "struct") return undefined;
  const codec = camel(shape.name);
  return {
    type: pascal(shape.name),
    read: (offset) => `${codec}.read(view, ${plus(offset)})`,
    write: (offset, value) => [`${codec}.write(view, ${plus(offset)}, ${value});`],
  };
}

function numberCodec({ bits, signed, networkOrder }: Shape & { kind: "number" }): Codec {
  const accessor = `${bits === 64 ? "Big" : ""}${signed ? "Int" : "Uint"}${bits}`;
  const order = bits === 8 || networkOrder ? "" : ", true";
  return {
    type: bits === 64 ? "bigint" : "number",
    read: (offset) => `view.get${accessor}(${plus(offset)}${order})`,
    write: (offset, value) => [`view.set${accessor}(${plus(offset)}, ${value}${order});`],
  };
}

function bytesCodec({ length, padded }: Shape & { kind: "bytes" }, subject: string): Codec {
  const write = padded ? "writePadded" : "writeBytes";
  return {
    type: "Uint8Array",
    read: (offset) => `readBytes(view, ${plus(offset)}, ${length})`,
    write: (offset, value) => {
      const options = [`bytes: ${value}`, `length: ${length}`, `field: "${subject}"`];
      const line = `${write}(view, ${plus(offset)}, { ${options.join(", ")} });`;
      if (line.length + BODY_INDENT <= LINE_LIMIT) return [line];
      return [
        `${write}(view, ${plus(offset)}, {`,
        ...indent(options.map((option) => `${option},`)),
        "});",
      ];
    },
  };
}

function printEnum({ name, values }: Enum): string {
  return [
    `/** enum ${name} */`,
    `export const ${camel(name)} = {`,
    ...indent(values.map(({ name, value }) => `${name}: ${printInteger(value)},`)),
    "} as const;",
  ].join("\n");
}

/** A number where that is exact, else a bigint. */
function printInteger(value: bigint): string {
  return Number.isSafeInteger(Number(value)) ? `${value}` : `${value}n`;
}

function printMaps(maps: readonly MapDefinition[]): string {
  const entries = maps.flatMap(({ name, type, keyBytes, valueBytes, maxEntries, flags }) =>
    printObject(name, Object.entries({ type, keyBytes, valueBytes, maxEntries, flags })),
  );
  return ["export const maps = {", ...indent(entries), "} as const;"].join("\n");
}

function printObject(name: string, entries: readonly (readonly [string, number])[]): string[] {
  if (entries.length === 0) return [];
  return [`${name}: {`, ...indent(entries.map(([key, value]) => `${key}: ${value},`)), "},"];
}

/** The text of `at + offset`. */
function plus(offset: number): string {
  return offset === 0 ? "at" : `at + ${offset}`;
}

function indent(lines: readonly string[]): string[] {
  return lines.flatMap((line) => line.split("\n")).map((line) => `  ${line}`);
}

function camel(name: string): string {
  return name.replace(/_+([a-z0-9])/g, (_, letter: string) => letter.toUpperCase());
}

function pascal(name: string): string {
  return camel(`_${name}`);
}

const started = process.argv[1];
if (started !== undefined && realpathSync(started) === fileURLToPath(import.meta.url)) {
  const [object, out] = process.argv.slice(2);
  if (object === undefined || out === undefined) {
    throw new Error("Usage: node build/generate.mjs OBJECT.o OUT.ts");
  }
  writeFileSync(out, generateLayout(readFileSync(object)));
}
