// An answer on its way to a client: in order, at the client's pace, and through whatever fault hits
// it. Knows bytes and one connection, not what the bytes mean.
import { randomBytes } from "node:crypto";
import type { ServerResponse } from "node:http";
import type { Http2ServerResponse } from "node:http2";
import type { Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import type { BodyEffect } from "./faults.ts";

const GARBAGE_BYTES = 64;
const SLOW_STEP_MS = 50;
/** Pieces are joined up to this size, so that a list of small objects is few writes. */
const BATCH_BYTES = 65_536;

let lastWrite = 0n;

/** process.hrtime() when bytes of any answer were last handed to their connection. */
export function timeOfLastWrite(): bigint {
  return lastWrite;
}

/** An answer under way. Bytes are sent in the order of the calls. */
export class Body {
  readonly #response: Http2ServerResponse;
  readonly #socket: Socket;
  #effect: BodyEffect | undefined;
  /** Bytes until the effect. */
  #left = 0;
  #isStarted = false;
  #isOver = false;
  #queue: Promise<void> = Promise.resolve();

  /** `socket`: the TCP socket below TLS, which cut and reset end. */
  constructor(response: Http2ServerResponse, socket: Socket) {
    this.#response = response;
    this.#socket = socket;
    response.on("close", () => {
      this.#isOver = true;
    });
    // A connection that breaks is the client's affair.
    response.on("error", () => {});
  }

  /** Whether nothing can reach the client any more. */
  get isOver(): boolean {
    return this.#isOver;
  }

  /** Whether the head was sent. */
  get isStarted(): boolean {
    return this.#isStarted;
  }

  /** Lets an effect happen to what is still to come, at once if it is due. */
  strike(effect: BodyEffect): void {
    this.#effect = effect;
    if (effect.kind === "slow") return;
    this.#left = effect.afterBytes ?? 0;
    const isBeforeHead = effect.kind !== "garbage" && effect.afterBytes === undefined;
    if (this.#isStarted || isBeforeHead) this.#due();
  }

  /** Sends the head. */
  start(status: number, headers: Readonly<Record<string, string>>): void {
    if (this.#isOver) return;
    this.#response.writeHead(status, headers);
    // HTTP/1 holds a head back until there is a body; HTTP/2 has no such method in Node's types.
    (this.#response as unknown as ServerResponse).flushHeaders();
    this.#isStarted = true;
    this.#due();
  }

  /** Sends bytes after all that was sent before; resolves when they are out, or never will be. */
  write(bytes: Buffer): Promise<void> {
    this.#queue = this.#queue.then(() => this.#deliver(bytes));
    return this.#queue;
  }

  /** Sends pieces in larger batches. */
  async writeAll(pieces: Iterable<Buffer>): Promise<void> {
    let batch: Buffer[] = [];
    let size = 0;
    for (const piece of pieces) {
      batch.push(piece);
      size += piece.length;
      if (size < BATCH_BYTES) continue;
      await this.write(Buffer.concat(batch));
      if (this.#isOver) return;
      batch = [];
      size = 0;
    }
    if (size > 0) await this.write(Buffer.concat(batch));
  }

  /** Ends the answer after all that was sent. */
  async end(): Promise<void> {
    await this.#queue;
    if (!this.#isOver) this.#response.end();
    this.#isOver = true;
  }

  async #deliver(bytes: Buffer): Promise<void> {
    if (this.#isOver) return;
    const effect = this.#effect;
    if (effect === undefined) return this.#pass(bytes);
    if (effect.kind === "slow") return this.#crawl(bytes, effect.bytesPerSecond);
    const before = bytes.subarray(0, this.#left);
    await this.#pass(before);
    this.#left -= before.length;
    this.#due();
    if (before.length < bytes.length) await this.#deliver(bytes.subarray(before.length));
  }

  /** Lets the effect happen if its time has come. */
  #due(): void {
    const effect = this.#effect;
    if (effect === undefined || effect.kind === "slow" || this.#left > 0) return;
    this.#effect = undefined;
    if (effect.kind === "garbage") this.#response.write(randomBytes(effect.bytes ?? GARBAGE_BYTES));
    else this.#isOver = true;
    if (effect.kind === "cut") this.#socket.destroy();
    if (effect.kind === "reset") this.#socket.resetAndDestroy();
  }

  async #crawl(bytes: Buffer, bytesPerSecond: number): Promise<void> {
    const step = Math.max(1, Math.floor((bytesPerSecond * SLOW_STEP_MS) / 1000));
    for (let start = 0; start < bytes.length && !this.#isOver; start += step) {
      await delay((step * 1000) / bytesPerSecond, undefined, { ref: false });
      await this.#pass(bytes.subarray(start, start + step));
    }
  }

  #pass(bytes: Buffer): Promise<void> {
    if (bytes.length === 0 || this.#isOver) return Promise.resolve();
    return new Promise((resolve) => {
      const done = () => {
        this.#response.off("close", done);
        resolve();
      };
      this.#response.once("close", done);
      lastWrite = process.hrtime.bigint();
      this.#response.write(bytes, done);
    });
  }
}
