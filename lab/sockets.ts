// The socket calls of libc, for what Node's own sockets cannot show: a UDP socket connected twice,
// getpeername, SO_BINDTODEVICE, the exact errno. All other koffi lives in bindings/; this
// one place is the lab's own, because the calls must run in a helper's process (helper.ts).
// Knows nothing of Services. Every call blocks its process for at most the socket's timeout.
import os from "node:os";
import koffi from "koffi";

/** An address in text and a port in host order. */
export interface Address {
  address: string;
  port: number;
}

/** A failed socket call: `code` is the errno's name, such as "ECONNREFUSED". */
export class SocketError extends Error {
  override readonly name = "SocketError";
  readonly code: string;

  constructor(operation: string, subject: string, code: string) {
    super(`Cannot ${operation} ${subject}: ${code}`);
    this.code = code;
  }
}

// Linux's numbers on x86-64 and arm64.
const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_RCVTIMEO = 20;
const SO_SNDTIMEO = 21;
const SO_BINDTODEVICE = 25;
const MSG_NOSIGNAL = 0x4000;
const SOCKADDR_BYTES = 28;

const errnoNames = new Map(
  Object.entries(os.constants.errno).map(([name, code]) => [code, name] as const),
).set(os.constants.errno.EAGAIN, "EAGAIN");

const libc = koffi.load("libc.so.6");
const calls = {
  socket: libc.func("int socket(int family, int type, int protocol)"),
  bind: libc.func("int bind(int fd, const void *address, uint32_t length)"),
  connect: libc.func("int connect(int fd, const void *address, uint32_t length)"),
  send: libc.func("int64_t send(int fd, const void *data, size_t length, int flags)"),
  sendto: libc.func(
    "int64_t sendto(int fd, const void *data, size_t length, int flags, const void *a, uint32_t l)",
  ),
  recvfrom: libc.func(
    "int64_t recvfrom(int fd, void *data, size_t length, int flags, void *a, void *l)",
  ),
  getsockname: libc.func("int getsockname(int fd, void *address, void *length)"),
  getpeername: libc.func("int getpeername(int fd, void *address, void *length)"),
  setsockopt: libc.func(
    "int setsockopt(int fd, int level, int name, const void *value, uint32_t length)",
  ),
  close: libc.func("int close(int fd)"),
  inet_pton: libc.func("int inet_pton(int family, const char *text, void *address)"),
  inet_ntop: libc.func("void *inet_ntop(int family, const void *address, void *text, uint32_t n)"),
};

function checked(result: number | bigint, operation: string, subject: string): number {
  if (result >= 0) return Number(result);
  const code = koffi.errno();
  throw new SocketError(operation, subject, errnoNames.get(code) ?? `errno ${code}`);
}

function show({ address, port }: Address): string {
  return address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
}

function encode({ address, port }: Address): Uint8Array {
  const family = address.includes(":") ? AF_INET6 : AF_INET;
  const bytes = new Uint8Array(family === AF_INET6 ? SOCKADDR_BYTES : 16);
  new Uint16Array(bytes.buffer, 0, 1)[0] = family;
  new DataView(bytes.buffer).setUint16(2, port);
  if (calls.inet_pton(family, address, bytes.subarray(family === AF_INET6 ? 8 : 4)) !== 1) {
    throw new TypeError(`'${address}' is no IPv4 or IPv6 address`);
  }
  return bytes;
}

function decode(bytes: Uint8Array): Address {
  const family = new Uint16Array(bytes.buffer, 0, 1)[0];
  const text = Buffer.alloc(64);
  calls.inet_ntop(family, bytes.subarray(family === AF_INET6 ? 8 : 4), text, text.length);
  const address = text.toString("latin1", 0, text.indexOf(0));
  return { address, port: new DataView(bytes.buffer).getUint16(2) };
}

function setOption(fd: number, name: number, value: ArrayBufferView): void {
  const result = calls.setsockopt(fd, SOL_SOCKET, name, value, value.byteLength);
  checked(result, `set option ${name} of`, `socket ${fd}`);
}

/** Opens a socket of this family; every later call on it waits at most `timeoutSeconds` (2). */
export function open(options: {
  protocol: "TCP" | "UDP";
  family: 4 | 6;
  timeoutSeconds?: number;
}): number {
  const type = options.protocol === "TCP" ? SOCK_STREAM : SOCK_DGRAM;
  const family = options.family === 4 ? AF_INET : AF_INET6;
  const opened = calls.socket(family, type | SOCK_CLOEXEC, 0);
  const fd = checked(opened, "open", `a ${options.protocol} socket`);
  const milliseconds = Math.round((options.timeoutSeconds ?? 2) * 1000);
  const timeout = BigInt64Array.of(
    BigInt(Math.trunc(milliseconds / 1000)),
    BigInt((milliseconds % 1000) * 1000),
  );
  setOption(fd, SO_RCVTIMEO, timeout);
  setOption(fd, SO_SNDTIMEO, timeout);
  return fd;
}

/** Binds to a local address; port 0 lets the kernel choose. */
export function bind(fd: number, local: Address): void {
  setOption(fd, SO_REUSEADDR, Int32Array.of(1));
  const bytes = encode(local);
  checked(calls.bind(fd, bytes, bytes.length), "bind to", show(local));
}

/** Binds to a network interface (SO_BINDTODEVICE). */
export function bindToDevice(fd: number, device: string): void {
  setOption(fd, SO_BINDTODEVICE, Buffer.from(`${device}\0`));
}

/** Connects, also a connected UDP socket again. EINPROGRESS means that the timeout is over. */
export function connect(fd: number, peer: Address): void {
  const bytes = encode(peer);
  checked(calls.connect(fd, bytes, bytes.length), "connect to", show(peer));
}

/** Sends text on a connected socket. */
export function send(fd: number, payload: string): void {
  const data = Buffer.from(payload);
  checked(calls.send(fd, data, data.length, MSG_NOSIGNAL), "send on", `socket ${fd}`);
}

/** Sends one datagram to this address. */
export function sendTo(fd: number, { payload, ...peer }: Address & { payload: string }): void {
  const data = Buffer.from(payload);
  const bytes = encode(peer);
  const sent = calls.sendto(fd, data, data.length, MSG_NOSIGNAL, bytes, bytes.length);
  checked(sent, "send to", show(peer));
}

/** Receives at most 64 KiB of text and, on UDP, its sender. EAGAIN means: nothing in time. */
export function receive(fd: number): { payload: string; from: Address | undefined } {
  const data = Buffer.alloc(65536);
  const bytes = new Uint8Array(SOCKADDR_BYTES);
  const length = Uint32Array.of(bytes.length);
  const received = calls.recvfrom(fd, data, data.length, 0, bytes, length);
  const count = checked(received, "receive on", `socket ${fd}`);
  const from = length[0] === 0 ? undefined : decode(bytes);
  return { payload: data.toString("utf8", 0, count), from };
}

/** The address and port that this socket is bound to. */
export function localAddress(fd: number): Address {
  const bytes = new Uint8Array(SOCKADDR_BYTES);
  const got = calls.getsockname(fd, bytes, Uint32Array.of(bytes.length));
  checked(got, "get the local address of", `socket ${fd}`);
  return decode(bytes);
}

/** The peer as getpeername shows it. ENOTCONN if there is none. */
export function peerAddress(fd: number): Address {
  const bytes = new Uint8Array(SOCKADDR_BYTES);
  const got = calls.getpeername(fd, bytes, Uint32Array.of(bytes.length));
  checked(got, "get the peer of", `socket ${fd}`);
  return decode(bytes);
}

/** Closes the socket. */
export function close(fd: number): void {
  checked(calls.close(fd), "close", `socket ${fd}`);
}
