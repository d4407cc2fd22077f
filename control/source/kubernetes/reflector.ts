// Keeps a replica of one resource true to the API server: a list, then a watch that goes on where
// the last one ended, for ever. Knows when to list again and how long to wait, not what objects
// mean.
import type { Answer, ApiClient } from "./client.ts";
import { Decoder, type WatchEvent } from "./decode.ts";
import {
  ApiError,
  answerError,
  ConnectionError,
  contentError,
  type Subject,
  type Verb,
} from "./errors.ts";
import { addTo, type Listing, type Replica, removeFrom, versionNumber } from "./replica.ts";
import type { Resource } from "./resources.ts";
import { JSON_TYPE, type ListMeta, makeEventReader, makeListReader, PROTOBUF } from "./stream.ts";
import { Backoff, type BackoffOptions, type Clock } from "./time.ts";
import { DecodeError } from "./wire.ts";

const GONE = 410;
/** The server's answer to a version that it has not seen yet. */
const TOO_NEW = 504;
const NOT_ACCEPTABLE = 406;
/** Answers that tell that a server has no streamed lists: 422, and 400 of some in between. */
const NOT_STREAMED: readonly number[] = [400, 422];
const PAGE = 500;
/** A watch is ended by the server after this many seconds, to twice as many. */
const WATCH_SECONDS = 300;
/** A watch that ends sooner was no success. */
const SHORT_MS = 1000;
/** After so many refusals a list need no longer be as new as what is known. */
const MOST_TOO_NEW = 5;
/** So many bookmarks in a row that are older than what is known: then all is listed. */
const MOST_OLD_BOOKMARKS = 3;
/** Lists that are older than what is known for so long: then the server's state was set back. */
const SET_BACK_MS = 300_000;
/** A broken connection is reported only if so many attempts after it were in vain. */
const QUIET_FAILURES = 2;

export interface ReflectorOptions {
  resource: Resource;
  replica: Replica;
  client: ApiClient;
  clock: Clock;
  backoff: BackoffOptions;
  /** The replica holds a full list; may be called again. */
  onListed: () => void;
  /** A watch begins. */
  onWatch: () => void;
  /** Something of a watch has arrived: objects of the replica may have changed. */
  onChanged: () => void;
  /** An attempt failed; the next one is under way after a wait. */
  onFailed: (error: Error) => void;
  /** Attempts succeed again. */
  onWell: () => void;
}

/** Lists and watches one resource. */
export class Reflector {
  readonly #options: ReflectorOptions;
  readonly #decoder: Decoder;
  readonly #backoff: Backoff;
  readonly #closing = new AbortController();
  /** The version that a watch goes on from; empty if all must be listed. */
  #resume = "";
  /** The newest version that was seen; no list may be older. */
  #newest = "";
  /** Since when lists are older than what is known; undefined while they are not. */
  #staleSinceMs: number | undefined;
  #tooNew = 0;
  #oldBookmarks = 0;
  /** Attempts that failed since the last success. */
  #failures = 0;
  /** Since when the watch of the present attempt goes on; undefined before it does. */
  #watchingSinceMs: number | undefined;
  /** Whether the last watch that failed did so at once. */
  #hasFailedAtOnce = false;
  #isStreamed = true;
  #isJson = false;
  #isPaged = true;

  constructor(options: ReflectorOptions) {
    this.#options = options;
    this.#decoder = new Decoder(options.resource.kind);
    this.#backoff = new Backoff(options.backoff, () => options.clock.random());
  }

  /** Runs until `close`. Never rejects. */
  async run(): Promise<void> {
    const { clock, onFailed } = this.#options;
    const { signal } = this.#closing;
    while (!signal.aborted) {
      let waitMs = 0;
      try {
        await this.#attempt();
        if (this.#hasLasted) this.#restart();
        else waitMs = this.#backoff.next();
      } catch (error) {
        if (signal.aborted) return;
        // A watch that worked for a while is not one more failure in a row.
        if (this.#hasLasted) this.#restart();
        waitMs = this.#afterFailure(error as Error);
        if (this.#isWorthTelling(error as Error, waitMs)) onFailed(error as Error);
      }
      if (waitMs > 0) await clock.sleep(waitMs, signal).catch(() => {});
    }
  }

  /** Ends requests under way; nothing is reported after it. */
  close(): void {
    this.#closing.abort();
  }

  /** One list, and one watch after it. */
  async #attempt(): Promise<void> {
    this.#watchingSinceMs = undefined;
    if (this.#resume === "" && !this.#isStreamed) await this.#list();
    await this.#watch();
  }

  get #isWatching(): boolean {
    return this.#watchingSinceMs !== undefined;
  }

  /** Whether the watch went on for a while: until its initial events have ended it does not. */
  get #hasLasted(): boolean {
    const { clock } = this.#options;
    return this.#isWatching && clock.now() - this.#watchingSinceMs! >= SHORT_MS;
  }

  /** Watches break off and versions are forgotten: that is usual, unless it goes on. */
  #isWorthTelling(error: Error, waitMs: number): boolean {
    if (waitMs === 0) return false;
    const isGone = error instanceof ApiError && error.code === GONE;
    const isCut = this.#isWatching && error instanceof ConnectionError;
    return ++this.#failures > QUIET_FAILURES || !(isGone || isCut);
  }

  /** What is done differently next time, and how long that waits, in ms. */
  #afterFailure(error: Error): number {
    const code = error instanceof ApiError ? error.code : 0;
    const isListing = this.#resume === "";
    if (code === NOT_ACCEPTABLE && !this.#isJson) {
      this.#isJson = true;
      return 0;
    }
    if (isListing && this.#isStreamed && NOT_STREAMED.includes(code)) {
      this.#isStreamed = false;
      return 0;
    }
    if (code === GONE) {
      // Pages may be outlived by the state that they are of: the whole in one answer is not.
      if (isListing) this.#isPaged = false;
      this.#resume = "";
    }
    if (this.#isStuck(error)) this.#resume = "";
    if (code === TOO_NEW && isListing) this.#tooNew++;
    const waitMs = this.#backoff.next();
    return error instanceof ApiError ? Math.max(waitMs, error.retryAfterMs) : waitMs;
  }

  /** Whether watches that go on from here fail by what they say, which a list may get past. */
  #isStuck(error: Error): boolean {
    const isAgain = this.#hasFailedAtOnce;
    this.#hasFailedAtOnce = this.#isWatching && !this.#hasLasted;
    return isAgain && this.#hasFailedAtOnce && !(error instanceof ConnectionError);
  }

  #open(verb: Verb, query: Record<string, string>): Promise<Answer> {
    const { client, resource } = this.#options;
    const accept = this.#isJson ? JSON_TYPE : `${PROTOBUF}, ${JSON_TYPE};q=0.5`;
    return client.open({ verb, resource, query, accept }, this.#closing.signal);
  }

  /** What a list must not be older than, unless the server seems never to get there. */
  #freshness(): Record<string, string> {
    if (this.#newest === "" || this.#tooNew >= MOST_TOO_NEW) return {};
    return { resourceVersion: this.#newest, resourceVersionMatch: "NotOlderThan" };
  }

  async #list(): Promise<void> {
    const listing: Listing = new Map();
    let token = "";
    let version = "";
    do {
      const start = { ...(this.#isPaged && { limit: String(PAGE) }), ...this.#freshness() };
      const next = { limit: String(PAGE), continue: token };
      const { meta, subject } = await this.#listPage(token === "" ? start : next, listing);
      token = meta.continue;
      version = meta.resourceVersion;
      if (token === "") this.#take(listing, { version, subject });
    } while (token !== "");
  }

  async #listPage(
    query: Record<string, string>,
    listing: Listing,
  ): Promise<{ meta: ListMeta; subject: Subject }> {
    const { mediaType, subject, consume } = await this.#open("list", query);
    const reader = makeListReader(mediaType, this.#decoder, (version) => addTo(listing, version))!;
    await consume((piece) => understand(subject, () => reader.push(piece)));
    return { meta: understand(subject, () => reader.end()), subject };
  }

  /** Takes a full listing. Throws if it is older than what is known. */
  #take(listing: Listing, { version, subject }: { version: string; subject: Subject }): void {
    const { clock, replica, onListed, onWell } = this.#options;
    const isOlder = versionNumber(version) < versionNumber(this.#newest);
    if (isOlder) {
      this.#staleSinceMs ??= clock.now();
      const reason = `it shows resourceVersion "${version}" after "${this.#newest}"`;
      if (clock.now() - this.#staleSinceMs < SET_BACK_MS) throw contentError(subject, reason);
    }
    replica.replace(listing, { isSetBack: isOlder });
    this.#staleSinceMs = undefined;
    this.#tooNew = 0;
    this.#isPaged = true;
    this.#newest = version;
    this.#resume = version;
    onWell();
    onListed();
  }

  #restart(): void {
    this.#failures = 0;
    this.#hasFailedAtOnce = false;
    this.#backoff.reset();
  }

  #succeed(): void {
    this.#restart();
    this.#options.onWell();
  }

  async #watch(): Promise<void> {
    const { clock, onWatch, onChanged, onWell } = this.#options;
    const seconds = Math.round(WATCH_SECONDS * (1 + clock.random()));
    const query = {
      watch: "1",
      allowWatchBookmarks: "true",
      timeoutSeconds: String(seconds),
      ...this.#beginning(),
    };
    const { mediaType, subject, consume } = await this.#open("watch", query);
    onWatch();
    let isEmpty = true;
    let listing: Listing | undefined = this.#resume === "" ? new Map() : undefined;
    const reader = makeEventReader(mediaType, this.#decoder, (event) => {
      if (event.type === "ERROR")
        throw answerError(event.status.code, subject, { status: event.status });
      if (listing === undefined) this.#follow(event, subject);
      else if (this.#collect(event, { listing, subject })) {
        listing = undefined;
        this.#watchingSinceMs = clock.now();
      }
      isEmpty = false;
    })!;
    if (listing === undefined) {
      this.#watchingSinceMs = clock.now();
      // Of a watch that failed at once the next says nothing by its beginning.
      if (!this.#hasFailedAtOnce) onWell();
    }
    await consume((piece) => {
      try {
        understand(subject, () => reader.push(piece));
      } finally {
        // What came before a fault holds.
        onChanged();
      }
    });
    understand(subject, () => reader.end());
    if (listing !== undefined) throw contentError(subject, "the initial events did not end");
    if (isEmpty && !this.#hasLasted) throw contentError(subject, "it ended at once");
  }

  #beginning(): Record<string, string> {
    if (this.#resume !== "") return { resourceVersion: this.#resume };
    const freshness = { resourceVersionMatch: "NotOlderThan", ...this.#freshness() };
    return { sendInitialEvents: "true", ...freshness };
  }

  /** Takes an initial event; true if it was the last one. */
  #collect(
    event: Exclude<WatchEvent, { type: "ERROR" }>,
    { listing, subject }: { listing: Listing; subject: Subject },
  ): boolean {
    if (event.type === "DELETED") removeFrom(listing, event.version);
    else if (event.type !== "BOOKMARK") addTo(listing, event.version);
    else if (event.endsInitialEvents && event.resourceVersion !== "") {
      this.#take(listing, { version: event.resourceVersion, subject });
      return true;
    }
    return false;
  }

  /** Takes an event of a watch that goes on. */
  #follow(event: Exclude<WatchEvent, { type: "ERROR" }>, subject: Subject): void {
    const { replica } = this.#options;
    const isBookmark = event.type === "BOOKMARK";
    if (event.type === "DELETED") replica.remove(event.version);
    else if (!isBookmark) replica.apply(event.version);
    const { resourceVersion } = isBookmark ? event : event.version;
    const [present, known] = [versionNumber(resourceVersion), versionNumber(this.#resume)];
    if (isBookmark && present < known) this.#doubt(resourceVersion, subject);
    // Versions only go forward: what is repeated must not set back where to go on.
    if (present < known) return;
    this.#oldBookmarks = 0;
    this.#resume = resourceVersion;
    this.#newest = resourceVersion;
    this.#succeed();
  }

  /** A server may lag for a while; one whose state was set back sends nothing for very long. */
  #doubt(resourceVersion: string, subject: Subject): void {
    if (++this.#oldBookmarks < MOST_OLD_BOOKMARKS) return;
    this.#oldBookmarks = 0;
    const known = this.#resume;
    this.#resume = "";
    throw contentError(subject, `it is at resourceVersion "${resourceVersion}" after "${known}"`);
  }
}

/** Runs a reader; bytes that it cannot decode are an error of this request. */
function understand<T>(subject: Subject, read: () => T): T {
  try {
    return read();
  } catch (error) {
    if (error instanceof DecodeError) throw contentError(subject, error.message);
    throw error;
  }
}
