// Traffic that goes on: echo flows over TCP and UDP that check every byte and note when they
// break, stall or lose. Runs in a helper's process, whose calls these are (helper.ts).
import dgram from "node:dgram";
import { once } from "node:events";
import net from "node:net";
import type { Address } from "./sockets.ts";

/** An answer that takes longer is a stall. */
const STALL_MS = 1000;
/** A datagram without an answer for so long is lost. */
const LOST_MS = 1100;

export interface FlowOptions extends Address {
  protocol: "TCP" | "UDP";
  /** To come from; any port and address unless given. */
  local?: Partial<Address>;
  /** How much is sent before all of it must have come back: 1000. */
  bytes?: number;
  /** How long to rest between an answer and the next question: 20. */
  pauseMs?: number;
}

/** What became of a flow so far. Moments are milliseconds as Date.now() gives them. */
export interface FlowReport {
  local: Address;
  /** Who answered, each once. Over TCP that is one. */
  identities: string[];
  /** Questions answered in full. */
  rounds: number;
  /** Questions that waited for more than a second, also for an answer yet to come. */
  stalls: { at: number; seconds: number }[];
  /** Datagrams that were never answered, or too late; each was a stall. */
  lost: number;
  /** Answers, or what came instead, that are not what was asked. */
  wrong: number;
  /** An errno's name, or "CLOSED" when the other side ended it in order. */
  broken?: { code: string; at: number };
}

/** The question of a round: never the same as another, since late answers may come, and different
 * at every place of it. */
function questionOf(round: number, bytes: number): Buffer {
  const question = Buffer.alloc(bytes);
  for (let place = 0; place < bytes; place++) question[place] = 35 + ((round + place * 7) % 57);
  question.write(`${round} `);
  return question;
}

/** Asks, rests and asks again, and keeps the record; subclasses send and hear. */
abstract class Flow {
  readonly #record: Omit<FlowReport, "local">;
  readonly #options: FlowOptions;
  #question: Buffer = Buffer.alloc(0);
  #askedAt: number | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FlowOptions) {
    this.#options = options;
    this.#record = { identities: [], rounds: 0, stalls: [], lost: 0, wrong: 0 };
  }

  /** Resolves with the first answer; rejects when there is none. */
  abstract start(): Promise<void>;
  protected abstract get local(): Address;
  protected abstract send(question: Buffer): void;
  protected abstract stop(): void;

  report(): FlowReport {
    const waiting = this.#waiting();
    const stalls = [...this.#record.stalls, ...(waiting === undefined ? [] : [waiting])];
    return { local: this.local, ...this.#record, stalls };
  }

  close(): void {
    clearTimeout(this.#timer);
    this.stop();
  }

  protected get question(): Buffer {
    return this.#question;
  }

  protected ask(): void {
    const { rounds, lost } = this.#record;
    this.#question = questionOf(rounds + lost, this.#options.bytes ?? 1000);
    this.#askedAt = Date.now();
    this.send(this.#question);
  }

  protected answered({ by, isRight = true }: { by: string; isRight?: boolean }): void {
    if (!this.#record.identities.includes(by)) this.#record.identities.push(by);
    if (!isRight) this.#record.wrong += 1;
    this.#record.rounds += 1;
    this.#settle();
  }

  /** Gives the question up. */
  protected missed(): void {
    this.#record.lost += 1;
    this.#settle();
  }

  protected failed(error: unknown): void {
    clearTimeout(this.#timer);
    const waiting = this.#waiting();
    if (waiting !== undefined) this.#record.stalls.push(waiting);
    this.#askedAt = undefined;
    this.#record.broken ??= { code: codeOf(error), at: Date.now() };
  }

  #settle(): void {
    const waiting = this.#waiting();
    if (waiting !== undefined) this.#record.stalls.push(waiting);
    this.#askedAt = undefined;
    this.#timer = setTimeout(() => this.ask(), this.#options.pauseMs ?? 20);
  }

  /** How long the question has been waiting, if that is a stall. */
  #waiting(): FlowReport["stalls"][number] | undefined {
    if (this.#askedAt === undefined) return undefined;
    const ms = Date.now() - this.#askedAt;
    return ms > STALL_MS ? { at: this.#askedAt, seconds: ms / 1000 } : undefined;
  }
}

function codeOf(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? String(error);
}

/** One connection to serveEcho(). */
class TcpFlow extends Flow {
  readonly #socket: net.Socket;
  #local: Address = { address: "", port: 0 };
  #identity: string | undefined;
  #received: Buffer = Buffer.alloc(0);

  constructor(options: FlowOptions) {
    super(options);
    const { address: host, port, local = {} } = options;
    this.#socket = net.connect({
      host,
      port,
      noDelay: true,
      ...(local.address === undefined ? {} : { localAddress: local.address }),
      ...(local.port === undefined ? {} : { localPort: local.port }),
    });
  }

  async start(): Promise<void> {
    this.#socket.on("error", (error) => this.failed(error));
    this.#socket.on("end", () => this.failed({ code: "CLOSED" }));
    await once(this.#socket, "connect");
    const { localAddress: address = "", localPort: port = 0 } = this.#socket;
    this.#local = { address, port };
    await new Promise<void>((resolve, reject) => {
      this.#socket.once("close", () => reject(new Error("The server closed at once")));
      this.#socket.on("data", (data: Buffer) => this.#hear(data, resolve));
    });
  }

  protected get local(): Address {
    return this.#local;
  }

  protected send(question: Buffer): void {
    this.#socket.write(question);
  }

  protected stop(): void {
    this.#socket.destroy();
  }

  #hear(data: Buffer, established: () => void): void {
    this.#received = Buffer.concat([this.#received, data]);
    if (this.#identity === undefined) {
      const line = this.#received.indexOf("\n");
      if (line < 0) return;
      this.#identity = this.#received.toString("utf8", 0, line);
      this.#received = this.#received.subarray(line + 1);
      this.ask();
      established();
    } else if (this.#received.length >= this.question.length) {
      const isRight = this.#received.equals(this.question);
      this.#received = Buffer.alloc(0);
      this.answered({ by: this.#identity, isRight });
    }
  }
}

/** One socket that asks serveUdp() of helper.ts. */
class UdpFlow extends Flow {
  readonly #options: FlowOptions;
  readonly #socket: dgram.Socket;
  /** Questions given up, whose answers may still come. */
  readonly #late = new Set<string>();
  #timer: NodeJS.Timeout | undefined;

  constructor(options: FlowOptions) {
    super(options);
    this.#options = options;
    this.#socket = dgram.createSocket(options.address.includes(":") ? "udp6" : "udp4");
  }

  async start(): Promise<void> {
    const { local = {} } = this.#options;
    const address = local.address === undefined ? {} : { address: local.address };
    this.#socket.bind({ port: local.port ?? 0, ...address });
    await once(this.#socket, "listening");
    this.#socket.on("error", (error) => this.failed(error));
    await new Promise<void>((resolve, reject) => {
      this.#socket.on("message", (data, from) => {
        this.#hear(String(data), from);
        resolve();
      });
      this.ask();
      setTimeout(() => reject(new Error("No answer within a second")), LOST_MS).unref();
    });
  }

  protected get local(): Address {
    const { address, port } = this.#socket.address();
    return { address, port };
  }

  protected send(question: Buffer): void {
    const { address, port } = this.#options;
    this.#socket.send(question, port, address, (error) => error && this.failed(error));
    this.#timer = setTimeout(() => {
      this.#late.add(String(question));
      this.missed();
    }, LOST_MS);
  }

  protected stop(): void {
    clearTimeout(this.#timer);
    this.#socket.close();
  }

  #hear(text: string, from: Address): void {
    const { identity, payload } = JSON.parse(text) as { identity: string; payload: string };
    if (this.#late.delete(payload)) return;
    clearTimeout(this.#timer);
    const { address, port } = this.#options;
    const isFromPeer = from.address === address && from.port === port;
    this.answered({ by: identity, isRight: isFromPeer && payload === String(this.question) });
  }
}

const flows = new Map<number, Flow>();
let lastId = 0;

/**
 * Starts a flow to serveEcho() over TCP, to serveUdp() over UDP, and gives its number once the
 * first question is answered or, over TCP, the connection is there. Fails with the errno's name.
 */
export async function startFlow(options: FlowOptions): Promise<number> {
  const flow = options.protocol === "TCP" ? new TcpFlow(options) : new UdpFlow(options);
  try {
    await flow.start();
  } catch (error) {
    flow.close();
    throw error;
  }
  lastId += 1;
  flows.set(lastId, flow);
  return lastId;
}

function flowOf(id: number): Flow {
  const flow = flows.get(id);
  if (flow === undefined) throw new Error(`There is no flow ${id}`);
  return flow;
}

/** What became of the flow so far. */
export function reportFlow(id: number): FlowReport {
  return flowOf(id).report();
}

/** Ends the flow and tells what became of it. */
export function stopFlow(id: number): FlowReport {
  const flow = flowOf(id);
  const report = flow.report();
  flow.close();
  flows.delete(id);
  return report;
}

/** Gives every connection its identity on a line, then every byte back that it sends. */
export async function serveEcho({
  identity,
  address,
  port,
}: Address & { identity: string }): Promise<Address> {
  const server = net.createServer({ noDelay: true }, (socket) => {
    socket.on("error", () => socket.destroy());
    socket.write(`${identity}\n`);
    socket.pipe(socket);
  });
  server.listen({ host: address, port, exclusive: true });
  await once(server, "listening");
  return { address, port: (server.address() as net.AddressInfo).port };
}
