// Answers lists: which objects, at which resource version, and which page of them. Knows the store,
// not how a list is encoded or sent.
import type { Version } from "./objects.ts";
import type { ListOptions, Target } from "./request.ts";
import { badRequest, continueExpired, listExpired, tooLargeResourceVersion } from "./status.ts";
import type { Store } from "./store.ts";
import type { List, ListMeta } from "./wire.ts";

const TOKEN_VERSION = "meta.k8s.io/v1";

interface Continuation {
  /** -1: whatever there is now. */
  resourceVersion: number;
  /** The first key of the next page, below the path of the list. */
  start: string;
}

/** The token that leads on to a page. */
function encodeToken({ resourceVersion, start }: Continuation): string {
  const token = JSON.stringify({ v: TOKEN_VERSION, rv: resourceVersion, start: `/${start}` });
  return Buffer.from(token).toString("base64url");
}

function decodeToken(text: string): Continuation {
  let token: { v?: unknown; rv?: unknown; start?: unknown };
  try {
    token = JSON.parse(Buffer.from(text, "base64url").toString());
  } catch {
    throw badRequest("continue key is not valid");
  }
  const { v, rv, start } = token;
  if (v !== TOKEN_VERSION || typeof rv !== "number" || rv === 0 || typeof start !== "string")
    throw badRequest("continue key is not valid");
  return { resourceVersion: rv, start: start.replace(/^\//, "") };
}

/** The objects of a target that match the options' selectors. */
export function select(
  versions: readonly Version[],
  { namespace, matches }: { namespace: string; matches: (version: Version) => boolean },
): readonly Version[] {
  return versions.filter((version) => {
    return (namespace === "" || version.namespace === namespace) && matches(version);
  });
}

/** Whether an object matches the label and field selectors. */
export function matcherOf(options: ListOptions): (version: Version) => boolean {
  if (!options.isSelective) return () => true;
  const { matchesLabels, matchesFields } = options;
  return (version) => matchesLabels(version.labels) && matchesFields(version.fields);
}

interface Snapshot {
  resourceVersion: number;
  versions: readonly Version[];
  /** Where the page begins, "" for the first. */
  start: string;
}

function snapshotOf(store: Store, target: Target, options: ListOptions): Snapshot {
  const { resource } = target;
  const { resourceVersion: asked, match, limit } = options;
  const current = store.resourceVersion;
  if (options.continue !== "") {
    const { resourceVersion, start } = decodeToken(options.continue);
    if (asked) throw badRequest("specifying resource version is not allowed when using continue");
    if (resourceVersion < 0)
      return { resourceVersion: current, versions: store.list(resource), start };
    const versions = store.listAt(resource, resourceVersion);
    if (!versions) throw continueExpired(encodeToken({ resourceVersion: -1, start }));
    return { resourceVersion, versions, start };
  }
  if (asked !== undefined && asked > current) throw tooLargeResourceVersion(asked, current);
  // Without a match, a limit makes the version exact: that is how it was before matches came.
  if (asked && (match === "Exact" || (match === undefined && limit > 0))) {
    const versions = store.listAt(resource, asked);
    if (!versions) throw listExpired();
    return { resourceVersion: asked, versions, start: "" };
  }
  return { resourceVersion: current, versions: store.list(resource), start: "" };
}

/** One list or page of a list. Throws the API's errors. */
export function answerList(store: Store, target: Target, options: ListOptions): List {
  const { resourceVersion, versions, start } = snapshotOf(store, target, options);
  const { resource, namespace } = target;
  const all = select(versions, { namespace, matches: matcherOf(options) });
  const keyOf = ({ key, name }: Version) => (namespace === "" ? key : name);
  const rest = start === "" ? all : all.filter((version) => keyOf(version) >= start);
  const metadata: ListMeta = { resourceVersion: String(resourceVersion) };
  // A list from the server's cache (version "0") has no pages.
  const limit = options.resourceVersion === 0 ? 0 : options.limit;
  if (limit === 0 || rest.length <= limit) return { resource, metadata, items: rest };
  const items = rest.slice(0, limit);
  metadata.continue = encodeToken({ resourceVersion, start: `${keyOf(items.at(-1)!)}\0` });
  if (!options.isSelective) metadata.remainingItemCount = rest.length - limit;
  return { resource, metadata, items };
}
