// Answers watches: initial events, changes as they happen, bookmarks and the end. Knows the store
// and a body to write to, not how the request came.
import type { Body } from "./body.ts";
import { matcherOf, select } from "./list.ts";
import type { Version } from "./objects.ts";
import type { ListOptions, Target } from "./request.ts";
import { type ApiError, tooLargeResourceVersion, watchExpired } from "./status.ts";
import type { Change, Store } from "./store.ts";
import { bookmarkFrame, type Encoding, errorFrame, eventFrame } from "./wire.ts";

const DEFAULT_TIMEOUT_SECONDS = 1800;
/** kube-apiserver sends a last bookmark so long before a watch ends. */
const LAST_BOOKMARK_MS = 2000;

export interface WatchOptions {
  store: Store;
  target: Target;
  options: ListOptions;
  encoding: Encoding;
  body: Body;
  /** Seconds between bookmarks. */
  bookmarkSeconds: number;
  /** What a fault makes of the initial events. */
  distort: (versions: readonly Version[]) => readonly Version[];
}

/** Where a watch begins: with all that there is, or after a version. */
interface Beginning {
  hasInitial: boolean;
  after: number;
  error: ApiError | undefined;
}

/** Decides where a watch begins; throws the API's 504 for a version to come. */
export function beginWatch(store: Store, options: ListOptions): Beginning {
  const { resourceVersion: current, compacted } = store;
  const { resourceVersion: asked = 0, sendInitialEvents } = options;
  const hasInitial = sendInitialEvents ?? asked === 0;
  if (hasInitial && asked > current) throw tooLargeResourceVersion(asked, current);
  const after = hasInitial || asked === 0 ? current : asked;
  const error = after < compacted ? watchExpired(after, compacted) : undefined;
  return { hasInitial, after, error };
}

/** One watch that goes on. */
export class Watch {
  readonly #options: WatchOptions;
  readonly #matches: (version: Version) => boolean;
  #lastBookmarkMs = 0;
  #after = 0;
  /** Whether changes are sent as they happen. */
  #isLive = false;

  constructor(options: WatchOptions) {
    this.#options = options;
    this.#matches = matcherOf(options.options);
  }

  /** Sends events until the time is over, the client is gone or `aborted` says so. */
  async run({ hasInitial, after, error }: Beginning, aborted: AbortSignal): Promise<void> {
    const { store, target, body, encoding } = this.#options;
    this.#after = after;
    if (error) {
      await body.write(errorFrame(error.status, encoding));
      return;
    }
    // What happens while the initial events go out is waiting behind them.
    const initial = hasInitial ? this.#initialFrames() : [];
    const missed = hasInitial ? [] : store.changesAfter(target.resource, after);
    const waiting: Change[] = [];
    const stop = store.listen((change) => {
      if (this.#isLive) this.#send(change);
      else waiting.push(change);
    });
    try {
      await body.writeAll(initial);
      for (const change of missed) this.#send(change);
      for (const change of waiting) this.#send(change);
      this.#isLive = true;
      await this.#untilEnd(aborted);
    } finally {
      stop();
    }
  }

  /** One event for each object there is and, if the list was asked for, the bookmark after them. */
  *#initialFrames(): Generator<Buffer> {
    const { store, target, encoding, distort, options } = this.#options;
    const { resource, namespace } = target;
    const { resourceVersion } = store;
    const versions = select(store.list(resource), { namespace, matches: this.#matches });
    for (const version of distort(versions)) yield eventFrame("ADDED", version, encoding);
    if (options.sendInitialEvents !== true || !options.allowBookmarks) return;
    this.#lastBookmarkMs = Date.now();
    yield bookmarkFrame(resource, { resourceVersion, isInitialEnd: true, encoding });
  }

  /** Sends a change as this watch sees it: by its selectors an object may come or go. */
  #send(change: Change): void {
    const { target, body, encoding } = this.#options;
    const { current, previous, resourceVersion, type } = change;
    const { resource, namespace } = target;
    if (current.resource !== resource || resourceVersion <= this.#after) return;
    if (namespace !== "" && current.namespace !== namespace) return;
    const matched = previous !== undefined && this.#matches(previous);
    const matches = type !== "DELETED" && this.#matches(current);
    if (!matched && !matches) return;
    // What leaves a selector is shown as it was when it last matched.
    const isShownAsIs = type === "DELETED" || matches;
    const seen = isShownAsIs ? current : previous!.withResourceVersion(resourceVersion);
    const event = !matches ? "DELETED" : matched ? "MODIFIED" : "ADDED";
    void body.write(eventFrame(event, seen, encoding));
  }

  /** Sends a bookmark, whether or not its time has come; none before all that it vouches for. */
  bookmark(): void {
    const { store, target, encoding, body, options } = this.#options;
    if (!options.allowBookmarks || !this.#isLive) return;
    const { resourceVersion } = store;
    this.#lastBookmarkMs = Date.now();
    void body.write(
      bookmarkFrame(target.resource, { resourceVersion, isInitialEnd: false, encoding }),
    );
  }

  #untilEnd(aborted: AbortSignal): Promise<void> {
    const { options, bookmarkSeconds } = this.#options;
    const seconds = options.timeoutSeconds || DEFAULT_TIMEOUT_SECONDS;
    return new Promise((resolve) => {
      const regular = setInterval(() => this.bookmark(), bookmarkSeconds * 1000).unref();
      const last = setTimeout(
        () => {
          if (Date.now() - this.#lastBookmarkMs >= LAST_BOOKMARK_MS) this.bookmark();
        },
        Math.max(0, seconds * 1000 - LAST_BOOKMARK_MS),
      ).unref();
      const end = () => {
        clearInterval(regular);
        clearTimeout(last);
        clearTimeout(over);
        aborted.removeEventListener("abort", end);
        resolve();
      };
      const over = setTimeout(end, seconds * 1000).unref();
      aborted.addEventListener("abort", end);
      if (aborted.aborted) end();
    });
  }
}
