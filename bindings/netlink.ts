// Netlink sockets: requests with their answers, dumps, and messages that the kernel sends unasked.
// Knows how messages and attributes lie in memory (netlink(7)), not what they are about.
import { closeSync } from "node:fs";
import { BpfError } from "./errors.ts";
import { lastErrno, loadLibc, type Watch, watchReadable } from "./libbpf.ts";

export const netlinkProtocol = { ROUTE: 0, GENERIC: 16 } as const;
export const netlinkFlag = {
  REQUEST: 1,
  ACK: 4,
  DUMP_INTERRUPTED: 0x10,
  REPLACE: 0x100,
  DUMP: 0x300,
  CREATE: 0x400,
} as const;

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC_NONBLOCK = 3 | 0x80000 | 0x800;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_NETLINK = 270;
const NETLINK_CAP_ACK = 10;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const MSG_TRUNC = 0x20;
const ADDRESS_BYTES = 12;
const HEADER_BYTES = 16;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const NLM_F_ACK_TLVS = 0x200;
const NLMSGERR_ATTR_MSG = 1;
const NLA_TYPE_MASK = 0x3fff;
const EAGAIN = 11;
const ENOBUFS = 105;
/** More than the kernel puts into a datagram of a dump. */
const BUFFER_BYTES = 65536;
/** How often a dump is taken again because something changed meanwhile. */
const DUMP_ATTEMPTS = 5;
/** Datagrams that are told in one turn of the event loop. */
const DATAGRAMS_TOLD = 1024;

/** A message as it lies in a receive buffer: to be read before the next one is received. */
export interface NetlinkMessage {
  type: number;
  view: DataView;
  /** Where the message's own struct begins, and where its last attribute ends. */
  at: number;
  end: number;
}

export interface NetlinkRequest {
  type: number;
  flags?: number;
  /** The struct that messages of this type begin with. */
  body: Uint8Array;
  attributes?: readonly Attribute[];
}

/** Its number and its content. */
export type Attribute = readonly [type: number, content: Uint8Array];

/** Calls for each attribute from `at` on with its number and where its content lies. */
export function eachAttribute(
  { view, end }: Pick<NetlinkMessage, "view" | "end">,
  at: number,
  visit: (type: number, at: number, length: number) => void,
): void {
  while (at + 4 <= end) {
    const length = view.getUint16(at, true);
    if (length < 4 || at + length > end) return;
    visit(view.getUint16(at + 2, true) & NLA_TYPE_MASK, at + 4, length - 4);
    at += align(length);
  }
}

/** Text that an attribute holds, with or without its NUL. */
export function attributeText(view: DataView, at: number, length: number): string {
  const bytes = new Uint8Array(view.buffer, view.byteOffset + at, length);
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/** A copy of the bytes that an attribute holds. */
export function attributeBytes(view: DataView, at: number, length: number): Uint8Array {
  // From Buffer's pool: an ArrayBuffer for each address is most of what a dump costs otherwise.
  const copy = Buffer.allocUnsafe(length);
  for (let index = 0; index < length; index++) copy[index] = view.getUint8(at + index);
  return copy;
}

/** The content of an attribute that is one number of 1, 4 or 8 bytes. */
export function numberAttribute(value: number, bytes: 1 | 4): Uint8Array {
  return bytes === 1 ? Uint8Array.of(value) : new Uint8Array(Uint32Array.of(value).buffer);
}

/** A socket for requests, in the network namespace that the caller is in. */
export class NetlinkSocket {
  readonly #subject: string;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #fd: number | undefined;
  #sequence = 0;

  /** `subject` is what errors call it. Throws BpfError. */
  constructor(protocol: number, subject = "netlink") {
    this.#subject = subject;
    this.#fd = openSocket(protocol, { groups: 0, subject });
    setOption(this.#fd, NETLINK_CAP_ACK);
    setOption(this.#fd, NETLINK_EXT_ACK);
    setOption(this.#fd, NETLINK_GET_STRICT_CHK);
  }

  /** Asks for something to be done. Throws BpfError naming `subject`, in the kernel's words. */
  request(request: NetlinkRequest, { operation, subject }: Subject): void {
    const flags = (request.flags ?? 0) | netlinkFlag.ACK;
    const sequence = this.#send({ ...request, flags });
    this.#receive(sequence, { operation, subject }, () => {});
  }

  /** Asks for one thing; undefined if there is none. Throws BpfError. */
  get<T>(
    request: NetlinkRequest,
    decode: (message: NetlinkMessage) => T,
    { operation, subject }: Subject,
  ): T | undefined {
    const found: T[] = [];
    const sequence = this.#send({ ...request, flags: netlinkFlag.ACK });
    this.#receive(sequence, { operation, subject }, (message) => found.push(decode(message)));
    return found[0];
  }

  /** All there is of a kind; what decodes to undefined is left out. Throws BpfError. */
  dump<T>(request: NetlinkRequest, decode: (message: NetlinkMessage) => T | undefined): T[] {
    for (let attempt = 1; ; attempt++) {
      const found: T[] = [];
      const sequence = this.#send({ ...request, flags: netlinkFlag.DUMP });
      const isWhole = this.#receive(
        sequence,
        { operation: "list", subject: this.#subject },
        (m) => {
          const value = decode(m);
          if (value !== undefined) found.push(value);
        },
      );
      if (isWhole || attempt === DUMP_ATTEMPTS) return found;
    }
  }

  close(): void {
    if (this.#fd !== undefined) closeSync(this.#fd);
    this.#fd = undefined;
  }

  #open(): number {
    if (this.#fd === undefined) throw new Error(`Netlink socket "${this.#subject}" is closed`);
    return this.#fd;
  }

  #send(request: NetlinkRequest): number {
    this.#sequence = (this.#sequence + 1) >>> 0 || 1;
    const message = encode(request, this.#sequence);
    if (loadLibc().send(this.#open(), message, message.length, 0) === message.length)
      return this.#sequence;
    throw new BpfError({ operation: "send to", subject: this.#subject, code: lastErrno() });
  }

  /** Takes answers to one request until the last. False if a dump is of no one moment. */
  #receive(
    sequence: number,
    { operation, subject }: Subject,
    visit: (message: NetlinkMessage) => void,
  ): boolean {
    const view = new DataView(this.#buffer.buffer);
    let isWhole = true;
    for (;;) {
      const length = receive(this.#open(), this.#buffer);
      // The kernel has answered before send() returned, or goes on when it is read.
      if (length < 0) throw new BpfError({ operation, subject, code: -length });
      for (const { header, message } of eachMessage(view, length)) {
        if (header.sequence !== sequence) continue;
        if (header.flags & netlinkFlag.DUMP_INTERRUPTED) isWhole = false;
        if (message.type === NLMSG_DONE || message.type === NLMSG_ERROR) {
          const code = view.getInt32(message.at, true);
          if (code === 0) return isWhole;
          const reason = explanation(message, header.flags);
          throw new BpfError({ operation, subject, code, reason });
        }
        visit(message);
      }
    }
  }
}

/** What is done to what, for errors. */
interface Subject {
  operation: string;
  subject: string;
}

export interface ListenOptions {
  protocol: number;
  /** Numbers of multicast groups, at most 32. */
  groups: readonly number[];
  /** Room for messages that were not read yet, in bytes. */
  bufferBytes: number;
  /** The least time from one call of onMessages to the next. */
  pauseMs: number;
  /**
   * Given what the kernel has sent. Once all are read, `missed` says whether there was no room for
   * some of it.
   */
  onMessages: (messages: Iterable<NetlinkMessage>, state: { readonly missed: boolean }) => void;
}

/** Messages that the kernel sends to groups, some together, in the caller's network namespace. */
export class NetlinkListener {
  readonly #options: ListenOptions;
  readonly #fd: number;
  readonly #watch: Watch;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** Listens from now on. Throws BpfError. */
  constructor(options: ListenOptions) {
    this.#options = options;
    const mask = options.groups.reduce((bits, group) => bits | (1 << (group - 1)), 0) >>> 0;
    this.#fd = openSocket(options.protocol, { groups: mask, subject: "netlink" });
    const bytes = new Uint8Array(Uint32Array.of(options.bufferBytes).buffer);
    loadLibc().setsockopt(this.#fd, SOL_SOCKET, SO_RCVBUFFORCE, bytes, bytes.length);
    this.#watch = watchReadable(this.#fd, () => this.#read());
  }

  /** Nothing is told after this. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#watch.close();
    // The event loop still has the descriptor until the end of its turn.
    setImmediate(() => closeSync(this.#fd));
  }

  #read(): void {
    if (this.#isClosed) return;
    const state = { missed: false };
    try {
      this.#options.onMessages(this.#messages(state), state);
    } finally {
      // What comes in a storm waits in the socket and is looked at together.
      if (!this.#isClosed)
        this.#timer = setTimeout(() => this.#watch.resume(), this.#options.pauseMs);
    }
  }

  *#messages(state: { missed: boolean }): Generator<NetlinkMessage> {
    const view = new DataView(this.#buffer.buffer);
    for (let count = 0; count < DATAGRAMS_TOLD; count++) {
      const length = receive(this.#fd, this.#buffer);
      if (length === -EAGAIN) return;
      if (length === -ENOBUFS || length > BUFFER_BYTES) state.missed = true;
      else if (length < 0)
        throw new BpfError({ operation: "listen to", subject: "netlink", code: -length });
      else for (const { message } of eachMessage(view, length)) yield message;
    }
  }
}

function openSocket(
  protocol: number,
  { groups, subject }: { groups: number; subject: string },
): number {
  const fd = loadLibc().socket(AF_NETLINK, SOCK_RAW_CLOEXEC_NONBLOCK, protocol);
  if (fd < 0) throw new BpfError({ operation: "open", subject, code: lastErrno() });
  const address = new DataView(new ArrayBuffer(ADDRESS_BYTES));
  address.setUint16(0, AF_NETLINK, true);
  address.setUint32(8, groups, true);
  if (loadLibc().bind(fd, new Uint8Array(address.buffer), ADDRESS_BYTES) === 0) return fd;
  const code = lastErrno();
  closeSync(fd);
  throw new BpfError({ operation: "bind", subject, code });
}

/** Options that this kernel does not know make answers less telling, and nothing else. */
function setOption(fd: number, option: number): void {
  const yes = new Uint8Array(Int32Array.of(1).buffer);
  loadLibc().setsockopt(fd, SOL_NETLINK, option, yes, yes.length);
}

/** The length of a datagram, more than there is room for if it was longer; or a negated errno. */
function receive(fd: number, buffer: Uint8Array): number {
  const length = loadLibc().recv(fd, buffer, buffer.length, MSG_TRUNC);
  return length < 0 ? -lastErrno() : length;
}

interface Header {
  flags: number;
  sequence: number;
}

function* eachMessage(
  view: DataView,
  received: number,
): Generator<{ header: Header; message: NetlinkMessage }> {
  const total = Math.min(received, view.byteLength);
  for (let at = 0; at + HEADER_BYTES <= total; ) {
    const length = view.getUint32(at, true);
    if (length < HEADER_BYTES || at + length > total) return;
    yield {
      header: {
        flags: view.getUint16(at + 6, true),
        sequence: view.getUint32(at + 8, true),
      },
      message: {
        type: view.getUint16(at + 4, true),
        view,
        at: at + HEADER_BYTES,
        end: at + length,
      },
    };
    at += align(length);
  }
}

/** The kernel's own words for an error, if it has any (NETLINK_EXT_ACK). */
function explanation(message: NetlinkMessage, flags: number): string | undefined {
  if (!(flags & NLM_F_ACK_TLVS)) return undefined;
  let text: string | undefined;
  // After the errno, in an error the header of what was asked.
  const attributes = message.at + 4 + (message.type === NLMSG_ERROR ? HEADER_BYTES : 0);
  eachAttribute(message, attributes, (type, at, length) => {
    if (type === NLMSGERR_ATTR_MSG) text = attributeText(message.view, at, length);
  });
  return text;
}

function encode({ type, flags = 0, body, attributes = [] }: NetlinkRequest, sequence: number) {
  const bodyBytes = align(body.length);
  const total = attributes.reduce((sum, [, content]) => sum + 4 + align(content.length), 0);
  const bytes = new Uint8Array(HEADER_BYTES + bodyBytes + total);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, bytes.length, true);
  view.setUint16(4, type, true);
  view.setUint16(6, flags | netlinkFlag.REQUEST, true);
  view.setUint32(8, sequence, true);
  bytes.set(body, HEADER_BYTES);
  let at = HEADER_BYTES + bodyBytes;
  for (const [number, content] of attributes) {
    view.setUint16(at, 4 + content.length, true);
    view.setUint16(at + 2, number, true);
    bytes.set(content, at + 4);
    at += 4 + align(content.length);
  }
  return bytes;
}

function align(length: number): number {
  return (length + 3) & ~3;
}
