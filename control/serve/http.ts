// One HTTP server at one address, bounded in all that a client could use up: connections, headers
// and time. Knows nothing of what is answered, and nothing that happens here can throw elsewhere.
import http from "node:http";
import type { AddressInfo } from "node:net";
import type { BindAddress } from "../config/kinds.ts";

/** An answer; its length is added to the headers. */
export interface Reply {
  status: number;
  headers: Readonly<Record<string, string>>;
  body: string;
}

/** Answers a request for a path, without its query, whatever the method. May throw. */
export type Answerer = (path: string) => Reply | Promise<Reply>;

export interface ListenOptions {
  answer: Answerer;
  /** What is more is closed at once; from half of it on, no answer keeps its connection. */
  maxConnections: number;
  /** The wildcard "::" of IPv6 alone; else it stands for both families. */
  isIPv6Only?: boolean;
  /** Told of what an answerer threw; the client gets a 500. */
  onError: (error: Error) => void;
}

export interface Listening {
  /** With the port that is listened on. */
  readonly place: BindAddress;
  /** At once, connections too: who waits for an answer gets none. */
  close(): void;
}

/** Opens a server. Rejects if it cannot listen there, with the system's code on the error. */
export type Listen = (place: BindAddress, options: ListenOptions) => Promise<Listening>;

/** A request is a line and a few headers; a health check's or Prometheus' have less than 1 KiB. */
const LIMITS: http.ServerOptions = {
  maxHeaderSize: 8192,
  headersTimeout: 5000,
  requestTimeout: 10_000,
  connectionsCheckingInterval: 5000,
  keepAliveTimeout: 10_000,
};
const MOST_HEADERS = 64;
/** No byte in either direction for so long ends a connection, a slow reader's too. */
const SILENCE_MS = 30_000;
const TEXT = { "Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff" };

/** A reply in plain text. */
export function textReply(status: number, body: string): Reply {
  return { status, headers: TEXT, body };
}

/** Listens with Node's own server. */
export const listenHttp: Listen = (
  place,
  { maxConnections, isIPv6Only = false, answer, onError },
) => {
  let open = 0;
  const server = http.createServer(LIMITS, (request, response) => {
    // Clients that keep idle connections must not keep others out.
    if (open > maxConnections / 2) response.shouldKeepAlive = false;
    respond(request, response, answer).catch((error: Error) => {
      onError(error);
      if (!response.headersSent) response.writeHead(500);
      response.end();
    });
  });
  server.on("connection", (socket) => {
    open++;
    socket.once("close", () => open--);
  });
  server.maxConnections = maxConnections;
  server.maxHeadersCount = MOST_HEADERS;
  server.timeout = SILENCE_MS;
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    const { address: host, port } = place;
    server.listen({ host, port, ipv6Only: isIPv6Only }, () => {
      server.off("error", reject);
      server.on("error", onError);
      const { port } = server.address() as AddressInfo;
      const close = () => {
        server.close();
        server.closeAllConnections();
      };
      resolve({ place: { ...place, port }, close });
    });
  });
};

async function respond(
  request: http.IncomingMessage,
  response: http.ServerResponse,
  answer: Answerer,
): Promise<void> {
  const [path = ""] = (request.url ?? "").split("?", 1);
  const { status, headers, body } = await answer(path);
  // Nobody reads the body of a request: the rest of it goes with its connection.
  if (request.method !== "GET" && request.method !== "HEAD") response.shouldKeepAlive = false;
  response.writeHead(status, { ...headers, "Content-Length": Buffer.byteLength(body) });
  response.end(body);
}
