// Reads a request of the Kubernetes API: what its path and query ask for, and which encoding its
// Accept header prefers. Knows no store and no connection.
import { apiVersionOf, RESOURCES, type Resource } from "./resources.ts";
import { type Matches, parseFieldSelector, parseLabelSelector } from "./selectors.ts";
import { badRequest, invalidOptions } from "./status.ts";
import { type Encoding, MEDIA_TYPES } from "./wire.ts";

export type Verb = "get" | "list" | "watch" | "create";

/** What a path leads to. */
export interface Target {
  resource: Resource;
  verb: Verb;
  /** "" for all namespaces and for what has none. */
  namespace: string;
  /** "" unless the verb is get. */
  name: string;
}

/** Options of list and watch, checked. */
export interface ListOptions {
  resourceVersion: number | undefined;
  match: "Exact" | "NotOlderThan" | undefined;
  /** 0 for no limit. */
  limit: number;
  continue: string;
  timeoutSeconds: number | undefined;
  allowBookmarks: boolean;
  /** Undefined if not asked either way. */
  sendInitialEvents: boolean | undefined;
  matchesLabels: Matches;
  matchesFields: Matches;
  /** Whether a selector was given at all. */
  isSelective: boolean;
}

function isTrue(value: string | null): boolean {
  return value !== null && value !== "0" && value !== "false";
}

/** What a path asks for; undefined if it leads to no resource. */
export function parseTarget(url: URL): Target | undefined {
  for (const resource of RESOURCES) {
    const version = apiVersionOf(resource);
    const prefix = resource.group === "" ? `/api/${version}/` : `/apis/${version}/`;
    if (!url.pathname.startsWith(prefix)) continue;
    const parts = url.pathname.slice(prefix.length).split("/").map(decodeURIComponent);
    const isScoped = resource.isNamespaced && parts[0] === "namespaces" && parts.length > 2;
    const [plural, name = "", ...more] = isScoped ? parts.slice(2) : parts;
    if (plural !== resource.plural || more.length > 0) continue;
    if (name !== "" && resource.isNamespaced && !isScoped) continue;
    const verb = isTrue(url.searchParams.get("watch")) ? "watch" : "list";
    const namespace = isScoped ? parts[1]! : "";
    return { resource, verb: name === "" ? verb : "get", namespace, name };
  }
  return undefined;
}

function wholeNumber(query: URLSearchParams, name: string): number | undefined {
  const text = query.get(name);
  if (text === null || text === "") return undefined;
  if (/^\d+$/.test(text)) return Number(text);
  if (name !== "resourceVersion")
    throw badRequest(`strconv.ParseInt: parsing "${text}": invalid syntax`);
  throw badRequest(
    `Invalid value: "${text}": strconv.ParseUint: parsing "${text}": invalid syntax`,
  );
}

/** The rules that kube-apiserver has for options that go together; throws its 422. */
function checkTogether(query: URLSearchParams, options: { verb: Verb; watchList: boolean }): void {
  const match = query.get("resourceVersionMatch") ?? "";
  const faults: { field: string; message: string }[] = [];
  const forbid = (field: string, message: string) => faults.push({ field, message });
  const isAsked = query.has("sendInitialEvents");
  const field = "resourceVersionMatch";
  if (options.verb === "watch") {
    if (isAsked && match !== "NotOlderThan")
      forbid(field, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
    if (isAsked && !options.watchList)
      forbid(
        "sendInitialEvents",
        "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled",
      );
    if (match !== "" && !isAsked)
      forbid(
        field,
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
      );
  } else {
    if (match !== "" && !query.get("resourceVersion"))
      forbid(field, "resourceVersionMatch is forbidden unless resourceVersion is provided");
    if (match !== "" && query.get("continue"))
      forbid(field, "resourceVersionMatch is forbidden when continue is provided");
    if (match === "Exact" && query.get("resourceVersion") === "0")
      forbid(field, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"');
    if (isAsked) forbid("sendInitialEvents", "sendInitialEvents is forbidden for list");
  }
  if (match !== "" && match !== "Exact" && match !== "NotOlderThan")
    forbid(field, `Unsupported value: "${match}": supported values: "Exact", "NotOlderThan", ""`);
  if (faults.length > 0) throw invalidOptions(faults);
}

/**
 * The options of a list or watch. `watchList`: whether this server streams lists. Throws the
 * API's 400 or 422 for what is wrong.
 */
export function parseOptions(
  query: URLSearchParams,
  { resource, verb, watchList }: { resource: Resource; verb: Verb; watchList: boolean },
): ListOptions {
  checkTogether(query, { verb, watchList });
  const labels = query.get("labelSelector") ?? "";
  const fields = query.get("fieldSelector") ?? "";
  const initial = query.get("sendInitialEvents");
  const match = query.get("resourceVersionMatch");
  return {
    resourceVersion: wholeNumber(query, "resourceVersion"),
    match: match === "Exact" || match === "NotOlderThan" ? match : undefined,
    limit: wholeNumber(query, "limit") ?? 0,
    continue: query.get("continue") ?? "",
    timeoutSeconds: wholeNumber(query, "timeoutSeconds"),
    allowBookmarks: isTrue(query.get("allowWatchBookmarks")),
    sendInitialEvents: initial === null ? undefined : isTrue(initial),
    matchesLabels: parseLabelSelector(labels),
    matchesFields: parseFieldSelector(fields, resource),
    isSelective: labels !== "" || fields !== "",
  };
}

interface Clause {
  type: string;
  parameters: ReadonlyMap<string, string>;
  quality: number;
}

function parseClause(text: string): Clause {
  const [type = "", ...rest] = text.split(";").map((part) => part.trim());
  const parameters = new Map(
    rest.map((part) => {
      const [name = "", value = ""] = part.split("=");
      return [name.trim(), value.trim()] as const;
    }),
  );
  const quality = Number(parameters.get("q") ?? 1);
  return { type, parameters, quality: Number.isNaN(quality) ? 0 : quality };
}

/** Whether a clause allows a plain answer or, of streams, a watch. */
function isPlain({ parameters }: Clause): boolean {
  if (["as", "g", "v"].some((name) => parameters.has(name))) return false;
  return ["", "watch"].includes(parameters.get("stream") ?? "");
}

/**
 * The encoding that an Accept header prefers out of those offered, first offered first for `*`;
 * undefined if it accepts none.
 */
export function negotiate(
  accept: string | undefined,
  offered: readonly Encoding[],
): Encoding | undefined {
  if (!accept) return offered[0];
  const clauses = accept.split(",").map(parseClause);
  for (const clause of clauses.sort((a, b) => b.quality - a.quality)) {
    if (clause.quality <= 0 || !isPlain(clause)) continue;
    const found = offered.find((encoding) => {
      return [MEDIA_TYPES[encoding], "application/*", "*/*"].includes(clause.type);
    });
    if (found) return found;
  }
  return undefined;
}
