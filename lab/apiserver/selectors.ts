// Label and field selectors: their text, and whether an object's labels and fields match. Knows no
// object and no request.
import type { Resource } from "./resources.ts";
import { type ApiError, badRequest } from "./status.ts";

/** Whether labels or fields, by name, match. */
export type Matches = (values: Readonly<Record<string, string>>) => boolean;

const KEY = "[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?";
const VALUE = "[-A-Za-z0-9_.]*";
const EXISTS = new RegExp(`^(!?)\\s*(${KEY})$`);
const EQUALS = new RegExp(`^(${KEY})\\s*(=|==|!=)\\s*(${VALUE})$`);
const SET = new RegExp(`^(${KEY})\\s+(in|notin)\\s*\\(([^()]*)\\)$`);

/** One requirement of a label selector. Names `text` as a whole if it cannot be read. */
function parseRequirement(part: string, text: string): Matches {
  const [, not, existing] = EXISTS.exec(part) ?? [];
  if (existing !== undefined) return (labels) => Object.hasOwn(labels, existing) === (not === "");
  const [, key, operator, value] = EQUALS.exec(part) ?? [];
  if (key !== undefined) {
    if (operator === "!=") return (labels) => labels[key] !== value;
    return (labels) => labels[key] === value;
  }
  const [, name, word, list] = SET.exec(part) ?? [];
  if (name !== undefined) {
    const values = new Set(list!.split(",").map((entry) => entry.trim()));
    const isListed = (labels: Readonly<Record<string, string>>) => values.has(labels[name] ?? "");
    if (word === "in") return (labels) => Object.hasOwn(labels, name) && isListed(labels);
    return (labels) => !(Object.hasOwn(labels, name) && isListed(labels));
  }
  throw badRequest(`unable to parse requirement: '${part}' in label selector '${text}'`);
}

function all(requirements: readonly Matches[]): Matches {
  return (values) => requirements.every((matches) => matches(values));
}

/**
 * A label selector: `a`, `!a`, `a=b`, `a==b`, `a!=b`, `a in (b, c)`, `a notin (b)`, joined by
 * commas. Throws the API's 400 if it cannot be read.
 */
export function parseLabelSelector(text: string): Matches {
  const parts = text.split(/,(?![^(]*\))/).map((part) => part.trim());
  return all(parts.filter((part) => part !== "").map((part) => parseRequirement(part, text)));
}

/** Resources with fields of their own have their own wording. */
function unknownField(name: string, { selectable }: Resource): ApiError {
  if (selectable.length > 0) return badRequest(`field label not supported: ${name}`);
  return badRequest(
    `"${name}" is not a known field selector: only "metadata.name", "metadata.namespace"`,
  );
}

/**
 * A field selector: `name=value`, `==` or `!=`, joined by commas. Throws the API's 400 for what
 * cannot be read and for fields that the resource cannot be selected by.
 */
export function parseFieldSelector(text: string, resource: Resource): Matches {
  const known = ["metadata.name", "metadata.namespace", ...resource.selectable];
  const requirements = text.split(",").flatMap((part): Matches[] => {
    if (part.trim() === "") return [];
    const [, name, operator, value] = /^([^=!]+)(=|==|!=)([^=]*)$/.exec(part.trim()) ?? [];
    if (name === undefined) throw badRequest(`invalid selector: '${part}'; can't understand it`);
    if (!known.includes(name)) throw unknownField(name, resource);
    if (operator === "!=") return [(fields) => fields[name] !== value];
    return [(fields) => fields[name] === value];
  });
  return all(requirements);
}
