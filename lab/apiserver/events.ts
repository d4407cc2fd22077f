// Events that clients report: taken and kept as they came, for tests to look at, and served to
// nobody. Knows no store.
import type { Access } from "./access.ts";
import type { ApiObject } from "./objects.ts";
import type { Resource } from "./resources.ts";
import { badRequest } from "./status.ts";

const PATH = /^\/apis\/events\.k8s\.io\/v1\/namespaces\/([^/]+)\/events$/;
const EVENTS: Resource = {
  plural: "events",
  group: "events.k8s.io",
  version: "v1",
  kind: "Event",
  isNamespaced: true,
  selectable: [],
  shortNames: ["ev"],
  empty: {},
};
/** As the API server wants a time to the microsecond. */
const MICRO_TIME = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/;
const REQUIRED = ["action", "reason", "reportingController", "reportingInstance", "type"];

/** The namespace that a path reports an event in; undefined for other paths. */
export function eventNamespace(path: string): string | undefined {
  return PATH.exec(path)?.[1];
}

/** Checks who reports and what, as kube-apiserver does. Throws its 400 and 403. */
export async function readEvent(
  request: AsyncIterable<unknown>,
  { access, user, namespace }: { access: Access; user: string; namespace: string },
): Promise<ApiObject> {
  access.authorize(user, { verb: "create", resource: EVENTS, namespace, name: "" });
  const pieces: Buffer[] = [];
  for await (const piece of request) pieces.push(piece as Buffer);
  const event = JSON.parse(Buffer.concat(pieces).toString("utf8")) as ApiObject;
  if (event.kind !== "Event" || event.metadata?.namespace !== namespace)
    throw badRequest("the namespace of the provided object does not match the request");
  if (!MICRO_TIME.test(String(event.eventTime))) throw badRequest("eventTime: Required value");
  for (const field of REQUIRED)
    if (typeof event[field] !== "string" || event[field] === "")
      throw badRequest(`${field}: Required value`);
  return event;
}
