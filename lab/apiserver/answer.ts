// Answers one request: who asks, may they, which fault hits it, and then get, list, watch or an
// error, in the encoding that was accepted. Knows no socket.
import type { Http2ServerRequest } from "node:http2";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import type { Access } from "./access.ts";
import type { Body } from "./body.ts";
import { discoveryDocument } from "./discovery.ts";
import { eventNamespace, readEvent } from "./events.ts";
import { type Effect, type Faults, isBodyEffect } from "./faults.ts";
import { answerList } from "./list.ts";
import { type ApiObject, toJson, type Version } from "./objects.ts";
import { type ListOptions, negotiate, parseOptions, type Target } from "./request.ts";
import * as errors from "./status.ts";
import type { Store } from "./store.ts";
import { beginWatch, Watch } from "./watch.ts";
import { type Encoding, listBody, MEDIA_TYPES, objectBody, statusBody } from "./wire.ts";

/** kube-apiserver compresses bodies that are larger than this. */
const GZIP_BYTES = 128 * 1024;
const PROXY_PAGE =
  "<!DOCTYPE html>\n<html><head><title>Sign in</title></head>" +
  "<body>Sign in to go on</body></html>\n";
const COMMON_HEADERS = {
  "cache-control": "no-cache, private",
  "x-content-type-options": "nosniff",
};

/** What the server is made of, as far as answers need it. */
export interface Serving {
  store: Store;
  faults: Faults;
  access: Access;
  /** Those that were reported, oldest first. */
  events: ApiObject[];
  protobuf: boolean;
  watchList: boolean;
  bookmarkSeconds: number;
}

/** A request and where its answer goes. */
export interface Exchange {
  request: Http2ServerRequest;
  url: URL;
  /** Undefined for a path that leads to no resource. */
  target: Target | undefined;
  body: Body;
  /** The user that the client's certificate names. */
  certificateUser: string | undefined;
  /** Ends a watch. */
  ended: AbortSignal;
  onUser: (user: string) => void;
  onStatus: (status: number) => void;
  onWatch: (watch: Watch) => void;
}

function offered({ protobuf }: Serving): readonly Encoding[] {
  return protobuf ? ["json", "protobuf"] : ["json"];
}

function start(
  exchange: Exchange,
  status: number,
  headers: Readonly<Record<string, string>>,
): void {
  exchange.onStatus(status);
  exchange.body.start(status, { ...COMMON_HEADERS, ...headers });
}

interface Whole {
  status: number;
  type: string;
  bytes: Buffer;
  headers?: Readonly<Record<string, string>>;
}

async function sendWhole(exchange: Exchange, whole: Whole): Promise<void> {
  const { status, type, bytes, headers } = whole;
  const length = String(bytes.length);
  start(exchange, status, { "content-type": type, "content-length": length, ...headers });
  await exchange.body.write(bytes);
  await exchange.body.end();
}

/** Answers with an error, in the encoding that the client accepts, else in JSON. */
export async function answerError(
  serving: Serving,
  exchange: Exchange,
  error: unknown,
): Promise<void> {
  if (exchange.body.isStarted) throw error;
  const { status } =
    error instanceof errors.ApiError ? error : errors.internalError((error as Error).message);
  const { accept } = exchange.request.headers;
  const encoding = negotiate(accept, offered(serving)) ?? "json";
  const seconds = status.details?.retryAfterSeconds;
  await sendWhole(exchange, {
    status: status.code,
    type: MEDIA_TYPES[encoding],
    bytes: statusBody(status, encoding),
    ...(seconds !== undefined && { headers: { "retry-after": String(seconds) } }),
  });
}

/** Answers in place of what was asked; false if the effect is of another sort. */
async function answerInstead(
  exchange: Exchange,
  { effect, user, target }: { effect: Effect; user: string; target: Target },
): Promise<boolean> {
  if (effect.kind === "html") {
    const status = effect.code ?? 200;
    await sendWhole(exchange, { status, type: "text/html", bytes: Buffer.from(PROXY_PAGE) });
    return true;
  }
  if (effect.kind !== "status") return false;
  const { code, retryAfterSeconds } = effect;
  if (code === 401) throw errors.unauthorized();
  if (code === 403) throw errors.forbidden({ user, ...target });
  if (code === 500) throw errors.internalError("etcdserver: request timed out");
  if (code === 503) throw errors.unavailable(retryAfterSeconds);
  // Priority and fairness answers in plain text, before any negotiation.
  await sendWhole(exchange, {
    status: 429,
    type: "text/plain; charset=utf-8",
    bytes: Buffer.from("Too many requests, please try again later.\n"),
    headers: { "retry-after": String(retryAfterSeconds ?? 1) },
  });
  return true;
}

/** What an effect makes of the objects of a list. */
function distort(effect: Effect | undefined, versions: readonly Version[]): readonly Version[] {
  if (effect?.kind === "duplicate") return versions.flatMap((version) => [version, version]);
  if (effect?.kind === "reorder") return [...versions].reverse();
  return versions;
}

interface Asked {
  target: Target;
  encoding: Encoding;
  effect: Effect | undefined;
}

async function sendList(
  { store }: Serving,
  exchange: Exchange,
  { target, encoding, effect, options }: Asked & { options: ListOptions },
): Promise<void> {
  if (effect?.kind === "stale") {
    const before = Math.max(store.compacted, store.resourceVersion - effect.versions, 1);
    options = { ...options, resourceVersion: before, match: "Exact", continue: "" };
  }
  const list = answerList(store, target, options);
  const { length, pieces } = listBody({ ...list, items: distort(effect, list.items) }, encoding);
  const headers = { "content-type": MEDIA_TYPES[encoding] };
  const accepted = String(exchange.request.headers["accept-encoding"] ?? "");
  if (length > GZIP_BYTES && /\bgzip\b/.test(accepted)) {
    const bytes = await promisify(gzip)(Buffer.concat([...pieces]), { level: 1 });
    start(exchange, 200, { ...headers, "content-encoding": "gzip", vary: "Accept-Encoding" });
    await exchange.body.write(bytes);
  } else {
    start(exchange, 200, headers);
    await exchange.body.writeAll(pieces);
  }
  await exchange.body.end();
}

async function sendWatch(
  { store, bookmarkSeconds }: Serving,
  exchange: Exchange,
  { target, encoding, effect, options }: Asked & { options: ListOptions },
): Promise<void> {
  const beginning = beginWatch(store, options);
  const type = MEDIA_TYPES[encoding];
  const { body, ended } = exchange;
  const watch = new Watch({
    store,
    target,
    options,
    encoding,
    body,
    bookmarkSeconds,
    distort: (versions) => distort(effect, versions),
  });
  start(exchange, 200, { "content-type": encoding === "json" ? type : `${type};stream=watch` });
  exchange.onWatch(watch);
  await watch.run(beginning, ended);
  await body.end();
}

async function sendObject({ store }: Serving, exchange: Exchange, asked: Asked): Promise<void> {
  const { target, encoding } = asked;
  const { resource, namespace, name } = target;
  const version = store.get(resource, namespace === "" ? name : `${namespace}/${name}`);
  if (!version) throw errors.notFound(resource, name);
  const bytes = objectBody(version, encoding);
  await sendWhole(exchange, { status: 200, type: MEDIA_TYPES[encoding], bytes });
}

async function sendDocument(exchange: Exchange): Promise<void> {
  const document = discoveryDocument(exchange.url.pathname);
  if (document === undefined) throw errors.unknownPath();
  const isText = typeof document === "string";
  const bytes = Buffer.from(isText ? document : `${toJson(document)}\n`);
  const type = isText ? "text/plain; charset=utf-8" : "application/json";
  await sendWhole(exchange, { status: 200, type, bytes });
}

/** Answers a request. Throws the API's errors, for `answerError`. */
export async function answer(serving: Serving, exchange: Exchange): Promise<void> {
  const { request, target, url, body } = exchange;
  const { access, faults, watchList } = serving;
  const user = access.authenticate(request.headers.authorization, exchange.certificateUser);
  exchange.onUser(user);
  const namespace = request.method === "POST" ? eventNamespace(url.pathname) : undefined;
  if (namespace !== undefined) {
    const event = await readEvent(request, { access, user, namespace });
    serving.events.push(event);
    const bytes = Buffer.from(`${toJson(event)}\n`);
    return sendWhole(exchange, { status: 201, type: MEDIA_TYPES.json, bytes });
  }
  if (!target) return sendDocument(exchange);
  const effect = faults.take(target);
  if (effect && isBodyEffect(effect)) body.strike(effect);
  if (body.isOver) return;
  if (effect && (await answerInstead(exchange, { effect, user, target }))) return;
  access.authorize(user, target);
  if (request.method !== "GET") throw errors.methodNotAllowed();
  const encoding = negotiate(request.headers.accept, offered(serving));
  if (!encoding) throw errors.notAcceptable(offered(serving).map((each) => MEDIA_TYPES[each]));
  const asked = { target, encoding, effect };
  if (target.verb === "get") return sendObject(serving, exchange, asked);
  const { resource, verb } = target;
  const options = parseOptions(url.searchParams, { resource, verb, watchList });
  const send = verb === "watch" ? sendWatch : sendList;
  return send(serving, exchange, { ...asked, options });
}
