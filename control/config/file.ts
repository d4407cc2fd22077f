// A KubeProxyConfiguration as text: what a file gives, field by field, and the text of a whole one.
// Knows which fields there are, not what their values mean.
import { readFileSync } from "node:fs";
import { parseAllDocuments, stringify } from "yaml";
import { ExitCode, UserError } from "../exit.ts";
import { FIELD_LIST, FIELDS, type FieldName, isUnset } from "./fields.ts";

const TYPE = { apiVersion: "kubeproxy.config.k8s.io/v1alpha1", kind: "KubeProxyConfiguration" };

/** A configuration file as it was read. */
export interface ConfigFile {
  path: string;
  text: string;
}

/** Values as a file has them, unchecked. */
export type RawValues = ReadonlyMap<FieldName, unknown>;

/** Reads the text of a file. Throws UserError with the fix. */
export function openConfigFile(path: string): ConfigFile {
  try {
    return { path, text: readFileSync(path, "utf8") };
  } catch (error) {
    const { message } = error as Error;
    const subject = `Cannot read the configuration "${path}" of --config`;
    const fault = new UserError(
      `${subject}: ${message}; give a file that is there`,
      ExitCode.usage,
    );
    throw Object.assign(fault, { cause: error });
  }
}

function refuse(message: string): never {
  throw new UserError(message, ExitCode.usage);
}

function parse({ path, text }: ConfigFile): unknown {
  const documents = parseAllDocuments(text);
  const problem = "empty" in documents ? undefined : documents[0]?.errors[0];
  if (problem !== undefined) {
    const [line = ""] = problem.message.split("\n");
    refuse(`Cannot read the configuration "${path}": ${line.replace(/:$/, "")}; correct it there`);
  }
  if (documents.length === 1) return documents[0]!.toJS() as unknown;
  const fix = `write one document of kind ${TYPE.kind}`;
  return refuse(`The configuration "${path}" holds ${documents.length} documents: ${fix}`);
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isSection(name: string): boolean {
  return FIELD_LIST.some(([field]) => field.startsWith(`${name}.`));
}

/** What a field that does not exist was perhaps meant to be. */
function suggestion(name: string): string {
  const last = name.split(".").at(-1)!.toLowerCase();
  const known = FIELD_LIST.map(([field]) => field);
  const similar = known.find((field) => field.toLowerCase().split(".").at(-1) === last);
  return similar === undefined ? "remove or correct it" : `write ${similar}, or remove it`;
}

function collect(section: Record<string, unknown>, place: Place): void {
  for (const [key, value] of Object.entries(section)) {
    const name = `${place.prefix}${key}`;
    const subject = `${name} in "${place.path}"`;
    if (Object.hasOwn(FIELDS, name)) {
      const field = name as FieldName;
      if (!isUnset(value, FIELDS[field])) place.found.set(field, value);
    } else if (value === null) {
      // What is not set harms nobody, even where a later Kubernetes has such a field.
    } else if (!isSection(name)) {
      refuse(`${subject} is no field of ${TYPE.kind} ${TYPE.apiVersion}: ${suggestion(name)}`);
    } else if (isMap(value)) {
      collect(value, { ...place, prefix: `${name}.` });
    } else {
      refuse(`${subject} is ${JSON.stringify(value)}: write the fields of this section below it`);
    }
  }
}

interface Place {
  path: string;
  prefix: string;
  found: Map<FieldName, unknown>;
}

/**
 * The fields that a YAML or JSON file sets; Go's zeros set nothing, as for kube-proxy. Throws
 * UserError that names the file and the field, for what is no such configuration or has a field
 * that does not exist.
 */
export function readConfigFile(file: ConfigFile): RawValues {
  const { path } = file;
  const document = parse(file);
  if (!isMap(document))
    return refuse(
      `The configuration "${path}" is no map of fields: begin with "kind: ${TYPE.kind}"`,
    );
  const { apiVersion, kind, ...fields } = document;
  for (const [name, value] of Object.entries({ apiVersion, kind })) {
    const wanted = TYPE[name as keyof typeof TYPE];
    const found = value === undefined ? "missing" : JSON.stringify(value);
    if (value !== wanted) refuse(`${name} in "${path}" is ${found}: write "${wanted}"`);
  }
  const found = new Map<FieldName, unknown>();
  collect(fields, { path, prefix: "", found });
  return found;
}

/** The YAML text of a KubeProxyConfiguration, from its fields' values as a file has them. */
export function formatConfigFile(values: RawValues): string {
  return stringify(makeDocument(values));
}

/** A KubeProxyConfiguration as kube-proxy shows it at /configz: JSON. */
export function formatConfigz(values: RawValues): string {
  return JSON.stringify({ [TYPE.apiVersion.split("/")[0]!]: makeDocument(values) });
}

/** The fields as they are nested in a file. */
function makeDocument(values: RawValues): Record<string, unknown> {
  const root: Record<string, unknown> = { ...TYPE };
  for (const [name] of FIELD_LIST) {
    const parts = name.split(".");
    const last = parts.pop()!;
    let section = root;
    for (const part of parts) {
      section[part] ??= {};
      section = section[part] as Record<string, unknown>;
    }
    section[last] = values.get(name);
  }
  return root;
}
