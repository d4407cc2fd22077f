// A long-lived process in one network namespace and cgroup, asked over Node's IPC: clients and
// servers of TCP and UDP, made with Node's own sockets or, for the fine points, with sockets.ts.
// Knows nothing of the lab; host.ts starts it and holds the other end.
import dgram from "node:dgram";
import http from "node:http";
import net from "node:net";
import * as flows from "./flows.ts";
import type { Address } from "./sockets.ts";
import * as sockets from "./sockets.ts";

/** What a server of the lab answers: who it is and whom it saw. */
export interface Answer {
  identity: string;
  client: Address;
  payload: string;
}

/** One TCP connection: sends the payload, reads up to the first end of line or the end. */
export interface TcpQuestion extends Address {
  payload?: string;
  local?: Partial<Address>;
  timeoutSeconds?: number;
  /** Whether to end with a reset, which leaves the local port free at once. */
  reset?: boolean;
}

export interface TcpReply {
  reply: string;
  localAddress: string;
  localPort: number;
  peerAddress: string;
  peerPort: number;
}

/** An errno's name, or "ETIMEDOUT" when the time given was over. */
export interface Failure {
  error: string;
}

/** One UDP socket: sends all datagrams, then waits for as many replies or errors. */
export interface UdpQuestion {
  family?: 4 | 6;
  local?: Partial<Address>;
  connect?: Address;
  /** With `connect`, the addresses are left out. */
  datagrams: (Partial<Address> & { payload: string })[];
  timeoutSeconds?: number;
}

export interface UdpReplies {
  local: Address;
  /** getpeername of a connected socket. */
  peer: Address | undefined;
  replies: (Address & { payload: string })[];
  errors: string[];
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

function tcp(question: TcpQuestion): Promise<TcpReply | Failure> {
  return new Promise((resolve) => {
    const { address: host, port, local = {} } = question;
    const socket = net.connect({
      host,
      port,
      ...(local.address === undefined ? {} : { localAddress: local.address }),
      ...(local.port === undefined ? {} : { localPort: local.port }),
    });
    let reply = "";
    let names = { localAddress: "", localPort: 0, peerAddress: "", peerPort: 0 };
    const end = (result: TcpReply | Failure) => {
      resolve(result);
      if (question.reset) socket.resetAndDestroy();
      else socket.destroy();
    };
    socket.setTimeout((question.timeoutSeconds ?? 5) * 1000, () => end({ error: "ETIMEDOUT" }));
    socket.on("connect", () => {
      names = {
        localAddress: socket.localAddress ?? "",
        localPort: socket.localPort ?? 0,
        peerAddress: socket.remoteAddress ?? "",
        peerPort: socket.remotePort ?? 0,
      };
      socket.write(`${question.payload ?? "hello"}\n`);
    });
    socket.on("data", (data) => {
      reply += data;
      if (reply.includes("\n")) end({ reply: reply.trimEnd(), ...names });
    });
    socket.on("end", () => end({ reply, ...names }));
    socket.on("error", (error) => end({ error: codeOf(error) }));
  });
}

/** Many connections, `atOnce` (50) at a time; the outcomes in the order of the questions. */
async function tcpMany(
  questions: readonly TcpQuestion[],
  { atOnce = 50 }: { atOnce?: number } = {},
): Promise<(TcpReply | Failure)[]> {
  const outcomes: (TcpReply | Failure)[] = [];
  const waiting = questions.entries();
  const work = async () => {
    for (const [index, question] of waiting) outcomes[index] = await tcp(question);
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return outcomes;
}

async function openUdp({ family, local, connect }: UdpQuestion): Promise<dgram.Socket> {
  const socket = dgram.createSocket(family === 6 ? "udp6" : "udp4");
  await new Promise<void>((resolve, reject) => {
    socket.once("error", reject);
    const bound = () => {
      if (connect === undefined) resolve();
      else
        socket.connect(connect.port, connect.address, (error?: Error) => {
          if (error === undefined) resolve();
          else reject(error);
        });
    };
    socket.bind({ port: local?.port ?? 0, ...addressOf(local) }, bound);
  });
  return socket.removeAllListeners("error");
}

function addressOf(local: Partial<Address> | undefined): { address?: string } {
  return local?.address === undefined ? {} : { address: local.address };
}

async function udp(question: UdpQuestion): Promise<UdpReplies | Failure> {
  let socket: dgram.Socket;
  try {
    socket = await openUdp(question);
  } catch (error) {
    return { error: codeOf(error) };
  }
  const { address, port } = socket.address();
  const connected = question.connect === undefined ? undefined : socket.remoteAddress();
  const peer = connected && { address: connected.address, port: connected.port };
  const result: UdpReplies = { local: { address, port }, peer, replies: [], errors: [] };
  await new Promise<void>((resolve) => {
    const timer = setTimeout(() => fail({ code: "ETIMEDOUT" }, true), timeoutOf(question));
    const check = (over = false) => {
      const count = result.replies.length + result.errors.length;
      if (!over && count < question.datagrams.length) return;
      clearTimeout(timer);
      resolve();
    };
    const fail = (error: unknown, over = false) => {
      result.errors.push(codeOf(error));
      check(over);
    };
    socket.on("error", (error) => fail(error));
    socket.on("message", (data, from) => {
      result.replies.push({ payload: String(data), address: from.address, port: from.port });
      check();
    });
    for (const datagram of question.datagrams) {
      const sent = (error: Error | null) => error && fail(error);
      if (question.connect !== undefined) socket.send(datagram.payload, sent);
      else socket.send(datagram.payload, datagram.port, datagram.address, sent);
    }
  });
  socket.close();
  return result;
}

function timeoutOf({ timeoutSeconds }: { timeoutSeconds?: number }): number {
  return (timeoutSeconds ?? 5) * 1000;
}

/** Answers every chunk of every connection with one line, an Answer as JSON. */
function serveTcp({ identity, address, port }: Address & { identity: string }): Promise<Address> {
  const server = net.createServer((socket) => {
    const client = { address: socket.remoteAddress ?? "", port: socket.remotePort ?? 0 };
    socket.on("error", () => socket.destroy());
    socket.on("data", (data) => {
      const answer: Answer = { identity, client, payload: String(data).trimEnd() };
      socket.write(`${JSON.stringify(answer)}\n`);
    });
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port, exclusive: true }, () => {
      resolve({ address, port: (server.address() as net.AddressInfo).port });
    });
  });
}

/** Answers every datagram with an Answer as JSON. */
async function serveUdp({
  identity,
  address,
  port,
}: Address & { identity: string }): Promise<Address> {
  const socket = await openUdp({
    family: address.includes(":") ? 6 : 4,
    local: { address, port },
    datagrams: [],
  });
  socket.on("message", (data, from) => {
    const client = { address: from.address, port: from.port };
    const answer: Answer = { identity, client, payload: String(data) };
    socket.send(JSON.stringify(answer), from.port, from.address);
  });
  return { address, port: socket.address().port };
}

/** Answers every HTTP request with a line: its identity and the client's address. */
function serveWeb({ identity, address, port }: Address & { identity: string }): Promise<Address> {
  const server = http.createServer((request, response) => {
    response.end(`${identity} ${request.socket.remoteAddress}\n`);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen({ host: address, port, exclusive: true }, () => resolve({ address, port }));
  });
}

/** What a helper can be asked; host.ts gives these to its users as they stand here. */
const calls = { tcp, tcpMany, udp, serveTcp, serveUdp, serveWeb, ...flows };
export type Calls = typeof calls;
export type SocketCalls = Omit<typeof sockets, "SocketError">;

/** A request over IPC and what comes back for it. */
export interface Request {
  id: number;
  name: string;
  values: unknown[];
}
export interface Response {
  id: number;
  value?: unknown;
  error?: { message: string; code: string };
}

type AnyCall = (...values: unknown[]) => unknown;

async function respond({ id, name, values }: Request): Promise<void> {
  const call = { ...calls, ...sockets }[name as keyof Calls] as unknown as AnyCall;
  let response: Response;
  try {
    response = { id, value: await call(...values) };
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    response = { id, error: { message, code: codeOf(error) } };
  }
  process.send?.(response);
}

process.on("message", (request: Request) => void respond(request));
process.on("disconnect", () => process.exit());
process.send?.({ id: 0 } satisfies Response);
