// Kubernetes objects as the API server of the lab keeps them: one immutable version each, with its
// bytes in both encodings, made once. Knows nothing of requests and of other versions.
import { encodeMessage } from "./protobuf.ts";
import { apiVersionOf, type Resource, resourceOfKind } from "./resources.ts";

/** The JSON form of an object. */
export interface ApiObject {
  apiVersion?: string;
  kind?: string;
  metadata: ObjectMeta;
  [field: string]: unknown;
}

export interface ObjectMeta {
  name: string;
  namespace?: string;
  labels?: Record<string, string>;
  resourceVersion?: string;
  [field: string]: unknown;
}

/** What tells objects apart; the namespace is "" or absent for those that have none. */
export interface Identity {
  kind: string;
  namespace?: string;
  name: string;
}

/** Go writes these characters escaped. */
const ESCAPED: Readonly<Record<string, string>> = {
  "<": "\\u003c",
  ">": "\\u003e",
  "&": "\\u0026",
  "\u2028": "\\u2028",
  "\u2029": "\\u2029",
};

/** JSON text as Go's encoder writes it. */
export function toJson(value: unknown): string {
  return JSON.stringify(value).replace(/[<>&\u2028\u2029]/g, (character) => ESCAPED[character]!);
}

/** One version of an object; never changed. */
export class Version {
  readonly resource: Resource;
  readonly resourceVersion: number;
  readonly namespace: string;
  readonly name: string;
  /** The order of lists: "namespace/name", or "name". */
  readonly key: string;
  /** Without kind and apiVersion, as in the items of a list. */
  readonly object: ApiObject;
  /** The bytes of the message, without any envelope. */
  readonly protobuf: Buffer;
  #json: Buffer | undefined;

  /** Throws, naming the object, if it has a field that the schema lacks. */
  constructor(resource: Resource, object: ApiObject) {
    const { apiVersion: _, kind: __, ...rest } = object;
    this.resource = resource;
    this.object = rest;
    this.namespace = resource.isNamespaced ? (rest.metadata.namespace ?? "") : "";
    this.name = rest.metadata.name;
    this.key = this.namespace === "" ? this.name : `${this.namespace}/${this.name}`;
    this.resourceVersion = Number(rest.metadata.resourceVersion);
    try {
      this.protobuf = encodeMessage(resource.kind, rest);
    } catch (error) {
      const reason = (error as Error).message;
      throw new Error(`${resource.kind} '${this.key}' cannot be stored: ${reason}`, {
        cause: error,
      });
    }
  }

  /** The JSON text without kind and apiVersion. */
  get json(): Buffer {
    this.#json ??= Buffer.from(toJson(this.object));
    return this.#json;
  }

  get labels(): Readonly<Record<string, string>> {
    return this.object.metadata.labels ?? {};
  }

  /** The values of the fields that field selectors may name. */
  get fields(): Record<string, string> {
    const fields: Record<string, string> = {
      "metadata.name": this.name,
      "metadata.namespace": this.namespace,
    };
    for (const path of this.resource.selectable) fields[path] = this.#field(path);
    return fields;
  }

  #field(path: string): string {
    const [group, field] = path.split(".") as [string, string];
    const value = (this.object[group] as Record<string, unknown> | undefined)?.[field];
    if (value !== undefined) return String(value);
    return field === "unschedulable" ? "false" : "";
  }

  /** The same state with another resource version, as events of deletion carry it. */
  withResourceVersion(resourceVersion: number): Version {
    const metadata = { ...this.object.metadata, resourceVersion: String(resourceVersion) };
    return new Version(this.resource, { ...this.object, metadata });
  }
}

/** The resource of an object; throws if kind, apiVersion, name or namespace are not right. */
export function resourceOf(object: ApiObject): Resource {
  const { kind, apiVersion, metadata } = object;
  const subject = `${kind ?? "An object"} '${metadata?.name ?? ""}'`;
  if (kind === undefined || apiVersion === undefined || !metadata?.name)
    throw new Error(`${subject} lacks kind, apiVersion or metadata.name; give all three`);
  const resource = resourceOfKind(kind);
  if (apiVersion !== apiVersionOf(resource))
    throw new Error(`${subject} has apiVersion '${apiVersion}', not '${apiVersionOf(resource)}'`);
  if (resource.isNamespaced !== Boolean(metadata.namespace)) {
    const fix = resource.isNamespaced ? "needs a metadata.namespace" : "can have no namespace";
    throw new Error(`${subject} ${fix}`);
  }
  return resource;
}
