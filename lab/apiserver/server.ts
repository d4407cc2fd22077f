// An API server of Kubernetes for tests, demo and bench: it speaks the real protocol over TLS for
// the resources of resources.ts, and can be made to fail. Knows nothing of bpfsvc.
import { once } from "node:events";
import type { RequestListener } from "node:http";
import { createSecureServer, type Http2ServerRequest, type Http2ServerResponse } from "node:http2";
import { createServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
import type { Server, TLSSocket } from "node:tls";
import { Access } from "./access.ts";
import { answer, answerError, type Exchange, type Serving } from "./answer.ts";
import { Body } from "./body.ts";
import { Authority } from "./certificates.ts";
import { type Aim, type BodyEffect, Faults, isAimedAt } from "./faults.ts";
import { makeKubeconfig } from "./kubeconfig.ts";
import type { ApiObject, Identity } from "./objects.ts";
import { parseTarget, type Target } from "./request.ts";
import { Store, type StoreOptions } from "./store.ts";
import type { Watch } from "./watch.ts";

const LOGGED_REQUESTS = 1000;
/** As long as kube-apiserver keeps an idle connection. */
const KEEP_ALIVE_MS = 180_000;
const DEFAULT_USER = "system:kube-proxy";

export interface ApiServerOptions extends StoreOptions {
  /** Another server of the same cluster: objects, authority, tokens and rights are shared. */
  peer?: ApiServer;
  /** Where to listen; 127.0.0.1 and any free port if not given. */
  address?: string;
  port?: number;
  /** Further names that the server's certificate is good for. */
  hosts?: readonly string[];
  /** Who signs; a new one if not given. */
  authority?: Authority;
  /** Whether HTTP/2 is offered beside HTTP/1.1; true if not given. */
  http2?: boolean;
  /** Whether protobuf is offered beside JSON; true if not given. */
  protobuf?: boolean;
  /** Whether a watch may ask for initial events, as recent servers do; true if not given. */
  watchList?: boolean;
  /** Seconds between bookmarks; 60 if not given. */
  bookmarkSeconds?: number;
}

/** One request, as it came and was answered. */
export interface RequestRecord {
  /** performance.now() when it came. */
  time: number;
  method: string;
  path: string;
  query: Readonly<Record<string, string>>;
  accept: string;
  httpVersion: string;
  /** Undefined for a path that leads to no resource. */
  target: Target | undefined;
  /** "" until it is known. */
  user: string;
  /** 0 until it is answered. */
  status: number;
}

interface Open {
  target: Target | undefined;
  body: Body;
  watch: Watch | undefined;
}

export class ApiServer {
  readonly store: Store;
  readonly faults = new Faults();
  readonly access: Access;
  /** The last 1,000 requests, oldest first; `requestCount` counts all. */
  readonly requests: RequestRecord[] = [];
  /** Events that were reported, oldest first. */
  readonly events: ApiObject[] = [];
  /** A bearer token of the user "system:kube-proxy". */
  readonly token: string;
  readonly #options: ApiServerOptions;
  readonly #serving: Serving;
  readonly #server: Server;
  #requestCount = 0;
  readonly #sockets = new Map<string, Socket>();
  readonly #open = new Set<Open>();
  #authority: Authority;
  #url = "";
  #port: number;

  constructor(options: ApiServerOptions) {
    const { peer } = options;
    this.#options = options;
    this.#port = options.port ?? 0;
    this.store = peer?.store ?? new Store(options);
    this.access = peer?.access ?? new Access();
    this.token = peer?.token ?? this.access.issueToken(DEFAULT_USER);
    const { store, faults, access, events } = this;
    const { protobuf = true, watchList = true, bookmarkSeconds = 60 } = options;
    this.#serving = { store, faults, access, events, protobuf, watchList, bookmarkSeconds };
    this.#authority = peer ? peer.#authority : (options.authority ?? new Authority());
    this.#server = this.#makeServer();
    this.#server.on("connection", (socket: Socket) => this.#hold(socket));
    // A client that goes away during its handshake or answer is no fault of the server's.
    this.#server.on("tlsClientError", () => {});
    this.#server.on("sessionError", () => {});
    this.#server.on("clientError", (_, socket: Socket) => socket.destroy());
  }

  #makeServer(): Server {
    const { key, certificate } = this.#authority.server(this.#hosts());
    const options = {
      key,
      cert: certificate,
      ca: this.#authority.certificate,
      requestCert: true,
      rejectUnauthorized: false,
      keepAliveTimeout: KEEP_ALIVE_MS,
    };
    const handle = (request: Http2ServerRequest, response: Http2ServerResponse) =>
      void this.#handle(request, response);
    if (this.#options.http2 ?? true)
      return createSecureServer({ ...options, allowHTTP1: true }, handle);
    // What is used of requests and responses here is the same in both versions.
    return createServer(options, handle as unknown as RequestListener);
  }

  #hosts(): string[] {
    const { address = "127.0.0.1", hosts = [] } = this.#options;
    return [...new Set(["localhost", "kubernetes.default.svc", "127.0.0.1", address, ...hosts])];
  }

  /** Begins to answer; after `close` again, with the same objects at the same address. */
  async listen(): Promise<void> {
    const { address = "127.0.0.1" } = this.#options;
    this.#server.listen(this.#port, address);
    await once(this.#server, "listening");
    this.#port = (this.#server.address() as AddressInfo).port;
    const host = address.includes(":") ? `[${address}]` : address;
    this.#url = `https://${host}:${this.#port}`;
  }

  get requestCount(): number {
    return this.#requestCount;
  }

  /** "https://address:port". */
  get url(): string {
    return this.#url;
  }

  /** The certificate, in PEM, that vouches for the server. */
  get ca(): string {
    return this.#authority.certificate;
  }

  /** A kubeconfig with the server's token. */
  get kubeconfig(): string {
    return this.kubeconfigFor({ token: this.token });
  }

  /** A kubeconfig with another token, or with a client certificate for a user and its groups. */
  kubeconfigFor(who: { token: string } | { user: string; groups?: readonly string[] }): string {
    const common = { url: this.#url, authority: this.ca };
    if ("token" in who) return makeKubeconfig({ ...common, user: DEFAULT_USER, proof: who });
    const proof = this.#authority.client(who.user, who.groups);
    return makeKubeconfig({ ...common, user: who.user, proof });
  }

  /** Changes the authority: new connections see a certificate that the old one did not sign. */
  renewAuthority(): void {
    this.#authority = new Authority();
    const { key, certificate } = this.#authority.server(this.#hosts());
    this.#server.setSecureContext({ key, cert: certificate, ca: this.ca });
  }

  /** Creates or replaces an object; returns its resource version. Throws if it is refused. */
  apply(object: ApiObject): number {
    return this.store.apply(object).resourceVersion;
  }

  /** Deletes an object; returns the resource version of that. Throws if it is not there. */
  delete(identity: Identity): number {
    const change = this.store.delete(identity);
    if (change) return change.resourceVersion;
    const { kind, namespace = "", name } = identity;
    throw new Error(`${kind} '${namespace}/${name}' is not there to be deleted; apply it first`);
  }

  /** Forgets all events so far: who wants to go on from an older version is told 410. */
  compact(): void {
    this.store.compact();
  }

  /** Sends a bookmark to every watch that allows them. */
  bookmark(): void {
    for (const { watch } of this.#open) watch?.bookmark();
  }

  /** How many answers to requests of this kind are under way. */
  countOpen(aim: Aim = {}): number {
    return this.#aimed(aim).length;
  }

  /** Lets an effect happen to answers under way; returns how many those are. */
  strike(aim: Aim, effect: BodyEffect): number {
    const struck = this.#aimed(aim);
    for (const { body } of struck) body.strike(effect);
    return struck.length;
  }

  #aimed(aim: Aim): Open[] {
    return [...this.#open].filter(({ target }) => target && isAimedAt(aim, target));
  }

  /** Ends all connections and frees the port. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, "close");
    this.#server.close();
    for (const socket of this.#sockets.values()) socket.destroy();
    await closed;
  }

  #hold(socket: Socket): void {
    const key = `${socket.remoteAddress} ${socket.remotePort}`;
    this.#sockets.set(key, socket);
    // Node leaves this out where HTTP/1 is spoken by a server of HTTP/2: events would wait 40 ms.
    socket.setNoDelay(true);
    socket.on("error", () => {});
    socket.on("close", () => {
      if (this.#sockets.get(key) === socket) this.#sockets.delete(key);
    });
  }

  #record(request: Http2ServerRequest, url: URL): RequestRecord {
    const record: RequestRecord = {
      time: performance.now(),
      method: request.method,
      path: url.pathname,
      query: Object.fromEntries(url.searchParams),
      accept: request.headers.accept ?? "",
      httpVersion: request.httpVersion,
      target: parseTarget(url),
      user: "",
      status: 0,
    };
    this.#requestCount++;
    this.requests.push(record);
    if (this.requests.length > LOGGED_REQUESTS) this.requests.shift();
    return record;
  }

  async #handle(request: Http2ServerRequest, response: Http2ServerResponse): Promise<void> {
    const { remoteAddress, remotePort } = request.socket;
    const socket = this.#sockets.get(`${remoteAddress} ${remotePort}`);
    if (!socket) return;
    const url = new URL(request.url, this.#url);
    const record = this.#record(request, url);
    const { target } = record;
    const body = new Body(response, socket);
    const open: Open = { target, body, watch: undefined };
    const ended = new AbortController();
    this.#open.add(open);
    request.on("error", () => {});
    response.on("close", () => {
      this.#open.delete(open);
      ended.abort();
    });
    const exchange: Exchange = {
      request,
      url,
      target,
      body,
      certificateUser: certificateUser(request.socket as TLSSocket),
      ended: ended.signal,
      onUser: (user) => {
        record.user = user;
      },
      onStatus: (status) => {
        record.status = status;
      },
      onWatch: (watch) => {
        open.watch = watch;
      },
    };
    try {
      await answer(this.#serving, exchange);
    } catch (error) {
      await answerError(this.#serving, exchange, error);
    }
  }
}

/** The user that a client certificate of our authority names. */
function certificateUser(socket: TLSSocket): string | undefined {
  if (!socket.authorized) return undefined;
  const { subject } = socket.getPeerCertificate();
  return subject && String(subject.CN);
}

/** Starts a server; it answers when this resolves. */
export async function startApiServer(options: ApiServerOptions = {}): Promise<ApiServer> {
  const server = new ApiServer(options);
  await server.listen();
  return server;
}
