// Sections and symbols of a 64-bit little-endian ELF object, as clang writes them for BPF.
// It does not know what the sections mean.
import { Reader } from "./reader.ts";

const SECTION_HEADER_BYTES = 64;
const SYMBOL_BYTES = 24;
const TYPE_SYMBOL_TABLE = 2;
const TYPE_NO_DATA = 8;

/** A named part of an object file. */
export interface Section {
  name: string;
  index: number;
  type: number;
  /** Index of a related section: a symbol table's names. */
  link: number;
  data: Reader;
}

/** A name's place: `offset` bytes into the section with index `section`. */
export interface Symbol {
  name: string;
  section: number;
  offset: number;
}

/** The sections of an ELF object in file order. Throws BtfError on anything else. */
export function readSections(object: Uint8Array): Section[] {
  const file = new Reader(object, "the object file");
  if (file.u32(0) !== 0x464c457f) throw file.error("it is no ELF file");
  if (file.u8(4) !== 2 || file.u8(5) !== 1) throw file.error("it is not 64-bit little-endian");
  const headers = file.u64(40);
  const count = file.u16(60);
  const namesIndex = file.u16(62);
  if (file.u16(58) !== SECTION_HEADER_BYTES) throw file.error("section headers of unknown size");

  const sections: (Section & { nameAt: number })[] = [];
  for (let index = 0; index < count; index++) {
    const at = headers + index * SECTION_HEADER_BYTES;
    const type = file.u32(at + 4);
    const hasData = type !== 0 && type !== TYPE_NO_DATA;
    const data = hasData
      ? file.slice(file.u64(at + 24), file.u64(at + 32), `section ${index}`)
      : file.slice(0, 0, `section ${index}`);
    sections.push({ name: "", nameAt: file.u32(at), index, type, link: file.u32(at + 40), data });
  }
  const names = sections[namesIndex];
  if (names === undefined) throw file.error("it names no sections");
  return sections.map(({ nameAt, ...section }) => {
    const name = section.type === 0 ? "" : names.data.text(nameAt);
    return { ...section, name, data: new Reader(section.data.bytes, `section "${name}"`) };
  });
}

/** The symbols of an object's symbol table, none if it was stripped of it. Throws BtfError. */
export function readSymbols(sections: readonly Section[]): Symbol[] {
  const table = sections.find((section) => section.type === TYPE_SYMBOL_TABLE);
  if (table === undefined) return [];
  const names = sections[table.link];
  if (names === undefined) throw table.data.error("its names are missing");
  const symbols: Symbol[] = [];
  for (let at = 0; at + SYMBOL_BYTES <= table.data.bytes.length; at += SYMBOL_BYTES) {
    const { data } = table;
    const name = data.u32(at) === 0 ? "" : names.data.text(data.u32(at));
    symbols.push({ name, section: data.u16(at + 6), offset: data.u64(at + 8) });
  }
  return symbols;
}
