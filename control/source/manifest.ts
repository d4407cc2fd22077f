// From the text of one manifest file to the objects in it, with line and column of whatever cannot
// be read. Pure; knows nothing of files changing, nor of the same object in another file.
import { type Document, LineCounter, parseAllDocuments } from "yaml";
import { showObject, showValue } from "../model/fields.ts";
import { type KubernetesObject, objectKey } from "../model/objects.ts";
import { identify, readObject } from "../model/read.ts";
import { findDuplicateKey, findOffset, type JsonPath, linePosition } from "./json.ts";
import type { SourceProblem } from "./source.ts";

/** An alias may multiply a document's size this many times at most (yaml's maxAliasCount). */
const MAX_ALIASES = 100;
/** Broken JSON up to this length is read as YAML to find the line; a second per MiB. */
const MAX_JSON_AS_YAML = 1 << 20;
/** Finding a place reads the text again, so a file full of faults is not searched for each. */
const MAX_LOCATED = 100;
const UNKNOWN_PLACE = { line: 0, column: 0 };
const LISTS: Record<string, { kind: string; apiVersion: string } | undefined> = {
  List: undefined,
  ServiceList: { kind: "Service", apiVersion: "v1" },
  NodeList: { kind: "Node", apiVersion: "v1" },
  ServiceCIDRList: { kind: "ServiceCIDR", apiVersion: "networking.k8s.io/v1" },
  EndpointSliceList: { kind: "EndpointSlice", apiVersion: "discovery.k8s.io/v1" },
};

/** What a file holds, as far as it can be read. */
export interface Manifest {
  /** By objectKey. */
  objects: Map<string, KubernetesObject>;
  problems: SourceProblem[];
  /** Objects that are there but cannot be read: their last good version stays. */
  unreadable: Set<string>;
  /** False if part of the file gave nothing: objects that are not found may still be meant. */
  isWhole: boolean;
}

type Locate = (path: JsonPath) => { line: number; column: number };

interface Found {
  value: unknown;
  path: JsonPath;
}

function isList(value: unknown): value is { kind: string; items: unknown[] } {
  if (typeof value !== "object" || value === null) return false;
  const { kind, items } = value as { kind?: unknown; items?: unknown };
  return typeof kind === "string" && Object.hasOwn(LISTS, kind) && Array.isArray(items);
}

/** The objects in a document: itself, or the items of a list, however deep lists are nested. */
function flatten(value: unknown): Found[] {
  const found: Found[] = [];
  const seen = new Set<unknown>();
  const waiting: Found[] = [{ value, path: [] }];
  for (let next = waiting.pop(); next !== undefined; next = waiting.pop()) {
    const { value, path } = next;
    if (!isList(value)) {
      found.push(next);
      continue;
    }
    if (seen.has(value)) continue;
    seen.add(value);
    const defaults = LISTS[value.kind];
    for (let index = value.items.length - 1; index >= 0; index--) {
      const item = value.items[index];
      // Items of a typed list come from the API server without kind and apiVersion.
      const typed = defaults !== undefined && typeof item === "object" && !Array.isArray(item);
      const whole = typed ? { ...defaults, ...item } : item;
      waiting.push({ value: whole, path: [...path, "items", index] });
    }
  }
  return found;
}

/** "spec.ports[1].port" and 'metadata.labels["a/b"]' as keys and indexes. */
function fieldPath(field: string): JsonPath {
  const parts = field.matchAll(/\["([^"]*)"\]|\[(\d+)\]|([^.[\]]+)/g);
  return [...parts].map(([, quoted, index, name]) =>
    index === undefined ? (quoted ?? name ?? "") : Number(index),
  );
}

/** Collects what the documents of one file give. */
class Collector {
  readonly manifest: Manifest;
  readonly #file: string;
  #located = 0;

  constructor(file: string) {
    this.#file = file;
    this.manifest = {
      objects: new Map(),
      problems: [],
      unreadable: new Set(),
      isWhole: true,
    };
  }

  /** Notes that a part of the file, probably holding `value`, cannot be read at all. */
  addBroken(message: string, { value, at }: { value: unknown; at: ReturnType<Locate> }): void {
    const identity = identify(value);
    const known = identity.kind !== "" && identity.name !== "";
    const subject = known ? showObject(identity) : "A document";
    const fix = "correct it, until then its last good version is used";
    const text = `${subject} cannot be read: ${message}; ${fix}`;
    this.manifest.problems.push({ ...identity, field: "", message: text, file: this.#file, ...at });
    this.manifest.isWhole = false;
  }

  addDocument(document: unknown, find: Locate): void {
    if (document === null || document === undefined) return;
    const locate: Locate = (path) => (this.#located++ < MAX_LOCATED ? find(path) : UNKNOWN_PLACE);
    for (const { value, path } of flatten(document)) {
      const { object, problems } = readObject(value);
      for (const problem of problems) {
        const at = locate([...path, ...fieldPath(problem.field)]);
        this.manifest.problems.push({ ...problem, file: this.#file, ...at });
      }
      if (object !== undefined) this.#addObject(object, () => locate(path));
      else if (problems.length > 0) this.#addUnreadable(value);
    }
  }

  #addObject(object: KubernetesObject, locate: () => ReturnType<Locate>): void {
    const key = objectKey(object);
    if (!this.manifest.objects.has(key)) {
      this.manifest.objects.set(key, object);
      return;
    }
    const { kind, namespace, name } = object;
    const subject = showObject(object);
    const message = `${subject} is in this file twice; the first is used, remove the other`;
    const problem = { kind, namespace, name, field: "", message };
    this.manifest.problems.push({ ...problem, file: this.#file, ...locate() });
  }

  #addUnreadable(value: unknown): void {
    const identity = identify(value);
    if (identity.name === "") this.manifest.isWhole = false;
    else this.manifest.unreadable.add(objectKey(identity));
  }
}

/** A document's value as far as it can be had, to name the object in a message. */
function guessValue(document: Document): unknown {
  try {
    return document.toJS({ maxAliasCount: MAX_ALIASES });
  } catch {
    return undefined;
  }
}

/** Finds the place of the node at a path, or of the nearest one around it. */
function yamlLocator(document: Document, lines: LineCounter): Locate {
  return (path) => {
    for (let length = path.length; length >= 0; length--) {
      const node = length === 0 ? document.contents : nodeAt(document, path.slice(0, length));
      const range = (node as { range?: [number, number, number] } | null | undefined)?.range;
      if (range) {
        const { line, col } = lines.linePos(range[0]);
        return { line, column: col };
      }
    }
    return { line: 1, column: 1 };
  };
}

function nodeAt(document: Document, path: JsonPath): unknown {
  try {
    return document.getIn(path, true);
  } catch {
    return undefined;
  }
}

function readYaml(text: string, collector: Collector): void {
  const lines = new LineCounter();
  const options = { lineCounter: lines, prettyErrors: false, merge: true } as const;
  for (const document of parseAllDocuments(text, { ...options, logLevel: "silent" })) {
    const locate = yamlLocator(document as Document, lines);
    const [error] = document.errors;
    if (error !== undefined) {
      const { line, col } = lines.linePos(error.pos[0]);
      const value = guessValue(document as Document);
      collector.addBroken(error.message, { value, at: { line, column: col } });
      continue;
    }
    let value: unknown;
    try {
      value = document.toJS({ maxAliasCount: MAX_ALIASES });
    } catch (error) {
      const { message } = error as Error;
      collector.addBroken(message, { value: undefined, at: locate([]) });
      continue;
    }
    collector.addDocument(value, locate);
  }
}

function parseJson(text: string): { value: unknown } | { error: string } {
  try {
    return { value: JSON.parse(text) };
  } catch (error) {
    return { error: (error as Error).message };
  }
}

/** Reads JSON; false if it is none, and short enough for YAML to tell where. */
function readJson(text: string, collector: Collector): boolean {
  const parsed = parseJson(text);
  const locate: Locate = (path) => linePosition(text, findOffset(text, path));
  if ("error" in parsed) {
    if (text.length <= MAX_JSON_AS_YAML) return false;
    collector.addBroken(parsed.error, { value: undefined, at: { line: 0, column: 0 } });
    return true;
  }
  const duplicate = findDuplicateKey(text);
  if (duplicate === undefined) collector.addDocument(parsed.value, locate);
  else {
    const message = `the key ${showValue(duplicate.key)} is there twice`;
    const at = linePosition(text, duplicate.offset);
    collector.addBroken(message, { value: parsed.value, at });
  }
  return true;
}

/**
 * Reads a manifest: YAML with any number of documents, or JSON if the name of `file` ends so.
 * Never throws; `file` is what problems call it.
 */
export function readManifest(text: string, { file }: { file: string }): Manifest {
  const collector = new Collector(file);
  try {
    const isJson = file.endsWith(".json");
    const bare = text.startsWith("\ufeff") ? text.slice(1) : text;
    if (!isJson || !readJson(bare, collector)) readYaml(bare, collector);
  } catch (error) {
    // The parser recurses: a text nested deeply enough exhausts the stack.
    const { message } = error as Error;
    collector.addBroken(message, { value: undefined, at: { line: 1, column: 1 } });
  }
  return collector.manifest;
}
