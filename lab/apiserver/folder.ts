// Objects out of folders of manifests, for the API server of the lab to begin with. Reads YAML and
// JSON; what the server has no resource for is left out and named.
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseAllDocuments } from "yaml";
import type { ApiObject } from "./objects.ts";
import { RESOURCES } from "./resources.ts";

/** The objects of a folder, and the kinds in it that are not served. */
export interface FolderContents {
  objects: ApiObject[];
  leftOut: string[];
}

function* flatten(value: unknown): Generator<ApiObject> {
  if (typeof value !== "object" || value === null) return;
  const { kind = "", apiVersion, items } = value as { [name: string]: unknown };
  if (!Array.isArray(items)) {
    yield value as ApiObject;
    return;
  }
  const itemKind = String(kind).replace(/List$/, "");
  for (const item of items)
    yield* flatten(itemKind === "" ? item : { kind: itemKind, apiVersion, ...item });
}

/**
 * All objects in the .yaml, .yml and .json files of a folder; without a namespace they are in
 * "default". Throws if the folder or a file cannot be read.
 */
export function readFolder(folder: string): FolderContents {
  const objects: ApiObject[] = [];
  const leftOut = new Set<string>();
  for (const name of readdirSync(folder).sort()) {
    if (!/\.(ya?ml|json)$/.test(name)) continue;
    const file = path.join(folder, name);
    for (const document of parseAllDocuments(readFileSync(file, "utf8"))) {
      if ("errors" in document && document.errors[0])
        throw new Error(`'${file}' cannot be read: ${document.errors[0].message}`);
      for (const object of flatten(document.toJS())) {
        const resource = RESOURCES.find(({ kind }) => kind === object.kind);
        if (!resource) leftOut.add(String(object.kind));
        else if (!resource.isNamespaced || object.metadata.namespace) objects.push(object);
        else objects.push({ ...object, metadata: { ...object.metadata, namespace: "default" } });
      }
    }
  }
  return { objects, leftOut: [...leftOut] };
}
