// Reads single fields of values that may be anything, never throws, and collects a problem for
// each that is not what it should be. Knows no kind of object; read.ts says which fields matter.
import {
  type AddressRange,
  formatAddress,
  isUnusableForService,
  parseAddress,
  parseRange,
} from "./address.ts";
import { objectName, type Problem } from "./objects.ts";

/** More problems of one object than this are counted, not listed. */
const MAX_PROBLEMS = 16;
const SHOWN_LENGTH = 60;
/** Controls, separators of lines, and what has no shape or turns the direction of writing. */
const UNPRINTABLE = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu;
const MAX_PORT = 65535;
/** Of objects, and so of nodes. */
const LONGEST_NAME = 253;
/** Two names of Kubernetes, which have at most 63 characters each, fit. */
const MAX_NAME = 140;
const NO_FIELDS: FieldMap = {};
const NONE: readonly never[] = [];

export type FieldMap = Readonly<Record<string, unknown>>;

/** Text in quotes, with nothing in it that breaks a line or steers a terminal. */
export function quote(text: string): string {
  return JSON.stringify(text).replace(UNPRINTABLE, (character) => {
    return `\\u{${character.codePointAt(0)!.toString(16)}}`;
  });
}

/** A value as a message shows it: quoted if text, never longer than a line. */
export function showValue(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "a map";
  if (typeof value === "function") return "a function";
  if (typeof value !== "string") return String(value).slice(0, SHOWN_LENGTH);
  if (value.length <= SHOWN_LENGTH) return quote(value);
  return `${quote(value.slice(0, SHOWN_LENGTH))}… (${value.length} characters)`;
}

/** What a message names an object by, as far as it could be read, else empty. */
export interface ObjectLabel {
  kind: string;
  namespace: string;
  name: string;
}

/** An object as a message names it: Service "a/b"; the name is cut if it is absurdly long. */
export function showObject(identity: ObjectLabel): string {
  if (identity.kind === "" && identity.name === "") return "A document";
  const name = objectName(identity);
  const shown = name.length <= MAX_NAME ? name : `${name.slice(0, MAX_NAME)}…`;
  return `${identity.kind} ${quote(shown)}`;
}

/** True for absent values: Kubernetes reads null as absent. */
export function isAbsent(value: unknown): value is null | undefined {
  return value === undefined || value === null;
}

/** True for a map of fields, as opposed to a list or a scalar. */
export function isMap(value: unknown): value is FieldMap {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** An own field of a map: inherited names like "constructor" are absent. */
export function fieldOf(map: FieldMap, name: string): unknown {
  return Object.hasOwn(map, name) ? map[name] : undefined;
}

/** True if `text` can be part of an object's name: no separator of ours, 1 to `limit` bytes. */
export function isName(text: unknown, limit: number): text is string {
  if (typeof text !== "string" || text.length === 0 || text.length > limit) return false;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    const letter = (code | 0x20) >= 0x61 && (code | 0x20) <= 0x7a;
    const digit = code >= 0x30 && code <= 0x39;
    if (!letter && !digit && code !== 0x2d && code !== 0x2e && code !== 0x5f) return false;
  }
  return true;
}

/** Collects the problems of one object while its fields are read. */
export class Fields {
  readonly problems: Problem[] = [];
  readonly #identify: () => ObjectLabel;
  #omitted = 0;

  /** `identify` says whose fields these are; asked only if there is a problem. */
  constructor(identify: () => ObjectLabel) {
    this.#identify = identify;
  }

  /** Notes a problem; `rest` continues "Service "a/b": <field> …". */
  report(field: string, rest: string): void {
    if (this.problems.length >= MAX_PROBLEMS) {
      this.#omitted++;
      return;
    }
    const { kind, namespace, name } = this.#identify();
    const subject = showObject({ kind, namespace, name });
    this.problems.push({ kind, namespace, name, field, message: `${subject}: ${field} ${rest}` });
  }

  /** All problems, with the number of those left out added to the last. */
  finish(): Problem[] {
    const last = this.problems.at(-1);
    if (last !== undefined && this.#omitted > 0) {
      last.message += ` (and ${this.#omitted} more problems in this object)`;
      this.#omitted = 0;
    }
    return this.problems;
  }

  /** The map at a field; empty if absent or something else. */
  map(value: unknown, field: string): FieldMap {
    if (isMap(value)) return value;
    if (!isAbsent(value)) this.report(field, `is ${showValue(value)}, not a map; it is ignored`);
    return NO_FIELDS;
  }

  /** The list at a field; empty if absent or something else. */
  list(value: unknown, field: string): readonly unknown[] {
    if (Array.isArray(value)) return value;
    if (!isAbsent(value)) this.report(field, `is ${showValue(value)}, not a list; it is ignored`);
    return NONE;
  }

  /** The text at a field; "" if absent or something else. */
  text(value: unknown, field: string): string {
    if (typeof value === "string") return value;
    if (!isAbsent(value)) this.report(field, `is ${showValue(value)}, not text; it is ignored`);
    return "";
  }

  /** The name of a node or zone at a field; "" if absent or something else. */
  name(value: unknown, field: string): string {
    const text = this.text(value, field);
    if (text === "" || isName(text, LONGEST_NAME)) return text;
    const wanted = `not a name of at most ${LONGEST_NAME} letters, digits, "-", "." and "_"`;
    this.report(field, `is ${showValue(text)}, ${wanted}; it is ignored`);
    return "";
  }

  /** The boolean at a field; `fallback` if absent or something else. */
  flag(value: unknown, field: string, fallback: { default: boolean }): boolean {
    if (typeof value === "boolean") return value;
    if (!isAbsent(value)) {
      const used = `${fallback.default} is used`;
      this.report(field, `is ${showValue(value)}, not true or false; ${used}`);
    }
    return fallback.default;
  }

  /** One of `choices`, the first if absent, empty or something else. */
  choice<T extends string>(
    value: unknown,
    field: string,
    { choices }: { choices: readonly [T, ...T[]] },
  ): T {
    const found = choices.find((choice) => choice === value);
    if (found === undefined && !isAbsent(value) && value !== "") {
      const allowed = choices.map((choice) => JSON.stringify(choice)).join(", ");
      const used = `${JSON.stringify(choices[0])} is used`;
      this.report(field, `is ${showValue(value)}, not one of ${allowed}; ${used}`);
    }
    return found ?? choices[0];
  }

  /** A whole number within limits, or undefined with a problem; absent is undefined without. */
  integer(
    value: unknown,
    field: string,
    rule: { lowest: number; highest: number; otherwise: string },
  ): number | undefined {
    if (isAbsent(value)) return undefined;
    const { lowest, highest, otherwise } = rule;
    const whole = typeof value === "number" && Number.isInteger(value);
    if (whole && value >= lowest && value <= highest) return value;
    const wanted = `not a whole number from ${lowest} to ${highest}`;
    this.report(field, `is ${showValue(value)}, ${wanted}; ${otherwise}`);
    return undefined;
  }

  /** A port number; 0 if absent, 0 or unusable. */
  port(value: unknown, field: string, { otherwise }: { otherwise: string }): number {
    return this.integer(value, field, { lowest: 0, highest: MAX_PORT, otherwise }) ?? 0;
  }

  /** The canonical form of an address that a Service may have, or undefined with a problem. */
  serviceAddress(value: unknown, field: string): string | undefined {
    const parsed = typeof value === "string" ? parseAddress(value) : undefined;
    if (parsed !== undefined && !isUnusableForService(parsed.bytes)) {
      return formatAddress(parsed.bytes);
    }
    const fault = parsed === undefined ? "not an address" : "not an address a Service can have";
    this.report(field, `is ${showValue(value)}, ${fault}; it is skipped`);
    return undefined;
  }

  /** The ranges of a list; what is no range is skipped (§3.6). */
  ranges(value: unknown, field: string): readonly AddressRange[] {
    const list = this.list(value, field);
    if (list.length === 0) return NONE;
    const ranges: AddressRange[] = [];
    for (const [index, entry] of list.entries()) {
      const range = typeof entry === "string" ? parseRange(entry) : undefined;
      if (range !== undefined) ranges.push(range);
      else {
        const fault = 'not a range like "192.0.2.0/24"; it is skipped';
        this.report(`${field}[${index}]`, `is ${showValue(entry)}, ${fault}`);
      }
    }
    return ranges;
  }
}
