// Requests to the API server: keep-alive, fail-over from one server to the next, and an error that
// says what is wrong for every answer that is not the wanted one. Knows no objects.
import http from "node:http";
import https from "node:https";
import type { Socket } from "node:net";
import { checkServerIdentity, type PeerCertificate } from "node:tls";
import type { Access, Credentials } from "./credentials.ts";
import { decodeStatusBody, parseStatusBody, type Status } from "./decode.ts";
import {
  answerError,
  connectionError,
  isTrustError,
  type Subject,
  strangeAnswer,
  type Verb,
} from "./errors.ts";
import type { Place } from "./resources.ts";
import type { Servers } from "./servers.ts";
import { JSON_TYPE, PROTOBUF } from "./stream.ts";

/** A name that every API server's certificate has, whatever its address. */
const COMMON_NAME = "kubernetes.default.svc";
const MOST_ERROR_BYTES = 65536;
const KEEP_ALIVE_MS = 15_000;

export interface Timeouts {
  /** Until TCP and TLS stand. */
  connectMs: number;
  /** From the request to its answer's head, and between two pieces of a list. */
  answerMs: number;
  /** Between two pieces of a watch; servers send a bookmark about every minute. */
  silenceMs: number;
}

export const TIMEOUTS: Timeouts = { connectMs: 5000, answerMs: 30_000, silenceMs: 180_000 };

export interface ApiRequest {
  verb: Verb;
  resource: Place;
  query: Readonly<Record<string, string>>;
  accept: string;
  /** What is to be created, in JSON. */
  body?: string;
}

/** An answer of status 200 or 201, whose body is still to come. */
export interface Answer {
  subject: Subject;
  /** Without parameters. */
  mediaType: string;
  /** Hands over the body's pieces; resolves at its end. Rejects with what a piece makes throw. */
  consume(onPiece: (piece: Buffer) => void): Promise<void>;
}

export class ApiClient {
  readonly #credentials: Credentials;
  readonly #servers: Servers;
  readonly #timeouts: Timeouts;

  constructor(options: { credentials: Credentials; servers: Servers; timeouts: Timeouts }) {
    this.#credentials = options.credentials;
    this.#servers = options.servers;
    this.#timeouts = options.timeouts;
  }

  /**
   * Asks the present server, then the others if it cannot be reached. Rejects with ApiError,
   * ConnectionError or CredentialsError, or when the signal aborts.
   */
  async open(request: ApiRequest, signal: AbortSignal): Promise<Answer> {
    const access = await this.#credentials.get();
    this.#servers.configure(access.server, access);
    let last: unknown;
    let mayRepeat = true;
    for (let left = this.#servers.count; left > 0; left--) {
      const server = this.#servers.current;
      const subject: Subject = { ...request, host: server.host };
      try {
        const response = await this.#send(server, { request, access, signal });
        return await this.#accept(response, { request, subject, server });
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof NetworkError)) throw error;
        last = connectionError(subject, error);
        if (error.wasKept && mayRepeat) {
          // The server closed a kept connection while the request was on its way.
          mayRepeat = false;
          left++;
          continue;
        }
        // A certificate that is not trusted may be a new authority's, which is read again then.
        if (isTrustError(error)) this.#credentials.doubt();
        this.#servers.fail(server);
      }
    }
    throw last;
  }

  #send(
    server: URL,
    { request, access, signal }: { request: ApiRequest; access: Access; signal: AbortSignal },
  ): Promise<http.IncomingMessage> {
    const { resource, query } = request;
    const url = new URL(server);
    url.pathname = url.pathname.replace(/\/$/, "") + resource.path;
    url.search = new URLSearchParams({ ...resource.selectors, ...query }).toString();
    const { answerMs, connectMs } = this.#timeouts;
    const { accept, body } = request;
    const content = body === undefined ? {} : { "content-type": JSON_TYPE };
    const options: https.RequestOptions = {
      method: body === undefined ? "GET" : "POST",
      agent: access.agent,
      headers: { ...access.headers, ...content, accept },
      signal,
    };
    if (!this.#servers.isConfigured(server)) options.checkServerIdentity = checkLearned;
    return new Promise((resolve, reject) => {
      const scheme = url.protocol === "http:" ? http : https;
      const sent = scheme.request(url, options);
      watchConnecting(sent, connectMs);
      const timer = setTimeout(() => sent.destroy(silence(answerMs)), answerMs);
      sent.on("error", (error) => reject(new NetworkError(error, sent.reusedSocket)));
      sent.on("close", () => clearTimeout(timer));
      sent.on("response", (response) => {
        clearTimeout(timer);
        resolve(response);
      });
      sent.end(body);
    });
  }

  async #accept(
    response: http.IncomingMessage,
    { request, subject, server }: { request: ApiRequest; subject: Subject; server: URL },
  ): Promise<Answer> {
    const { answerMs, silenceMs } = this.#timeouts;
    const code = response.statusCode ?? 0;
    const [mediaType = ""] = (response.headers["content-type"] ?? "").split(";");
    const isKnown = mediaType === PROTOBUF || mediaType === JSON_TYPE;
    if ((code === 200 || code === 201) && isKnown) {
      const idleMs = request.verb === "watch" ? silenceMs : answerMs;
      // Connections break for many reasons, but one that stands and is silent is the server's.
      const onSilence = () => this.#servers.fail(server);
      return {
        subject,
        mediaType,
        consume: (onPiece) => consume(response, { idleMs, onSilence, onPiece, subject }),
      };
    }
    if (code >= 500) this.#servers.fail(server);
    if (code === 401) this.#credentials.doubt();
    const body = await readStart(response, { idleMs: answerMs, subject });
    const status = readStatus(mediaType, body);
    // Priority and fairness answers in plain text, and so do some errors.
    const isApi = status !== undefined || (code >= 400 && mediaType !== "text/html");
    if (code < 400 || !isApi) throw strangeAnswer(subject, { code, mediaType });
    throw answerError(code, subject, { status, retryAfter: response.headers["retry-after"] });
  }
}

/** A failure below HTTP. */
class NetworkError extends Error {
  /** Whether the connection had served another request before. */
  readonly wasKept: boolean;

  constructor(cause: Error, wasKept: boolean) {
    // Of a name with several addresses each has failed, and the whole has no message.
    const { errors } = cause as Partial<AggregateError>;
    super(errors?.map(({ message }) => message).join(", ") ?? cause.message, { cause });
    this.wasKept = wasKept;
    const { code } = cause as NodeJS.ErrnoException;
    if (code !== undefined) Object.assign(this, { code });
  }
}

function silence(milliseconds: number): Error {
  return new Error(`nothing came for ${milliseconds / 1000} s`);
}

/** Ends a request whose connection does not stand in time. */
function watchConnecting(sent: http.ClientRequest, connectMs: number): void {
  sent.on("socket", (socket: Socket & { encrypted?: boolean }) => {
    socket.setKeepAlive(true, KEEP_ALIVE_MS);
    socket.setNoDelay(true);
    if (!socket.connecting) return;
    const late = new Error(`no connection within ${connectMs / 1000} s`);
    const timer = setTimeout(() => sent.destroy(late), connectMs);
    const stop = () => clearTimeout(timer);
    socket.once(socket.encrypted ? "secureConnect" : "connect", stop);
    socket.once("close", stop);
  });
}

/** An endpoint of the API server's Service may lack its address in its certificate. */
function checkLearned(host: string, certificate: PeerCertificate): Error | undefined {
  const fault = checkServerIdentity(host, certificate);
  if (fault === undefined || checkServerIdentity(COMMON_NAME, certificate) === undefined)
    return undefined;
  return fault;
}

function readStatus(mediaType: string, body: Buffer): Status | undefined {
  return mediaType === PROTOBUF ? decodeStatusBody(body) : parseStatusBody(body);
}

interface Consumption {
  /** How long nothing may come, and what is done then, beside giving up. */
  idleMs: number;
  onSilence?: () => void;
  subject: Subject;
  onPiece: (piece: Buffer) => void;
}

function consume(
  response: http.IncomingMessage,
  { idleMs, onSilence, subject, onPiece }: Consumption,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      onSilence?.();
      response.destroy(silence(idleMs));
    }, idleMs);
    response.on("end", resolve);
    response.on("error", (error) => reject(connectionError(subject, error)));
    response.on("close", () => {
      clearTimeout(timer);
      reject(connectionError(subject, new Error("the connection was closed")));
    });
    response.on("data", (piece: Buffer) => {
      timer.refresh();
      try {
        onPiece(piece);
      } catch (error) {
        reject(error);
        response.destroy();
      }
    });
  });
}

/** The first bytes of a body that explains an error. */
async function readStart(
  response: http.IncomingMessage,
  options: Omit<Consumption, "onPiece">,
): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let length = 0;
  const onPiece = (piece: Buffer) => {
    pieces.push(piece);
    length += piece.length;
    if (length > MOST_ERROR_BYTES) response.destroy();
  };
  // What has come until it breaks off has to do.
  await consume(response, { ...options, onPiece }).catch(() => {});
  return Buffer.concat(pieces);
}
