// What clients can do to a server, and cannot: over real connections of loopback.
import { once } from "node:events";
import net from "node:net";
import test, { type ExecutionContext } from "ava";
import { type Answerer, type Listening, listenHttp, textReply } from "./http.ts";

interface Stage {
  listening: Listening;
  /** Messages of errors that were told of. */
  errors: string[];
}

async function listen(
  t: ExecutionContext,
  {
    answer = () => textReply(200, "ok"),
    maxConnections = 8,
  }: { answer?: Answerer; maxConnections?: number } = {},
): Promise<Stage> {
  const errors: string[] = [];
  const place = { address: "127.0.0.1", port: 0 };
  const onError = ({ message }: Error) => errors.push(message);
  const listening = await listenHttp(place, { answer, maxConnections, onError });
  t.teardown(() => listening.close());
  return { listening, errors };
}

/** Resolves when a connection has ended, however it did. */
function ended(socket: net.Socket): Promise<void> {
  socket.on("error", () => {});
  return new Promise((resolve) => {
    socket.on("close", () => resolve());
  });
}

/** Opens a connection and sends text; all that comes back until its end. */
async function talk({ place }: Listening, text: string): Promise<string> {
  const socket = net.connect(place.port, place.address);
  const end = ended(socket);
  let received = "";
  socket.setEncoding("latin1").on("data", (piece: string) => {
    received += piece;
  });
  socket.write(text);
  await end;
  return received;
}

const REQUEST = (method: string, path: string, headers = "") =>
  `${method} ${path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n${headers}\r\n`;

test("any method is answered by the path, without its query; HEAD without a body", async (t) => {
  const { listening } = await listen(t, { answer: (path) => textReply(200, path) });
  for (const method of ["GET", "POST", "PUT", "OPTIONS"])
    t.regex(
      await talk(listening, REQUEST(method, "/a/b?c=d")),
      /^HTTP\/1\.1 200 [\s\S]*\r\n\r\n\/a\/b$/,
    );
  t.regex(await talk(listening, REQUEST("HEAD", "/a")), /Content-Length: 2\r\n[\s\S]*\r\n\r\n$/);
});

test("an answerer that throws is told of, and its client alone gets a 500", async (t) => {
  const answer: Answerer = (path) => {
    if (path === "/bad") throw new Error("it broke");
    return textReply(200, "ok");
  };
  const { listening, errors } = await listen(t, { answer });
  t.regex(await talk(listening, REQUEST("GET", "/bad")), /^HTTP\/1\.1 500 /);
  t.deepEqual(errors, ["it broke"]);
  t.regex(await talk(listening, REQUEST("GET", "/good")), /200 OK/);
});

test("what is no request, or one with too much of a head, is refused", async (t) => {
  const { listening, errors } = await listen(t);
  t.regex(await talk(listening, "nonsense\r\n\r\n"), /^HTTP\/1\.1 400 /);
  const long = `X-Long: ${"x".repeat(9000)}\r\n`;
  t.regex(await talk(listening, REQUEST("GET", "/", long)), /^HTTP\/1\.1 431 /);
  t.deepEqual(errors, []);
});

test("a request whose body never ends is answered, and its connection closed", async (t) => {
  const { listening } = await listen(t);
  const { place } = listening;
  const socket = net.connect(place.port, place.address);
  const end = ended(socket);
  socket.write("POST / HTTP/1.1\r\nHost: node\r\nTransfer-Encoding: chunked\r\n\r\n");
  const [piece] = (await once(socket, "data")) as [Buffer];
  t.regex(piece.toString(), /^HTTP\/1\.1 200 OK/);
  const flood = setInterval(() => socket.write(`400\r\n${"x".repeat(1024)}\r\n`), 1);
  await end;
  clearInterval(flood);
  t.pass();
});

/** Opens a connection and says nothing. */
async function connect({ place }: Listening): Promise<net.Socket> {
  const socket = net.connect(place.port, place.address);
  await once(socket, "connect");
  return socket;
}

test("connections beyond the limit are closed at once, and the others served", async (t) => {
  const { listening } = await listen(t, { maxConnections: 2 });
  const held = [await connect(listening), await connect(listening)];
  t.is(await talk(listening, REQUEST("GET", "/")), "");
  for (const socket of held) {
    socket.write(REQUEST("GET", "/"));
    const [piece] = (await once(socket, "data")) as [Buffer];
    t.regex(piece.toString(), /^HTTP\/1\.1 200 OK/);
    await ended(socket);
  }
});

test("from half of the limit on no answer keeps its connection", async (t) => {
  const { listening } = await listen(t, { maxConnections: 4 });
  const kept: net.Socket[] = [];
  for (const connection of ["keep-alive", "keep-alive", "close", "close", "close"]) {
    const socket = await connect(listening);
    kept.push(socket);
    socket.write("GET / HTTP/1.1\r\nHost: node\r\n\r\n");
    const [piece] = (await once(socket, "data")) as [Buffer];
    t.regex(piece.toString(), new RegExp(`^HTTP/1.1 200 [^]*\r\nConnection: ${connection}\r\n`));
    if (connection === "close") await ended(socket);
  }
  for (const socket of kept) socket.destroy();
});

test("a request that is not sent to its end is given up", async (t) => {
  const { listening } = await listen(t);
  t.timeout(60_000);
  t.regex(await talk(listening, "GET / HTTP/1.1\r\nHost: node\r\nX-Slow: "), /^HTTP\/1\.1 408 /);
});

test("closing ends connections that wait, with no answer", async (t) => {
  let onAsked = () => {};
  const asked = new Promise<void>((resolve) => {
    onAsked = resolve;
  });
  const answer: Answerer = () => {
    onAsked();
    return new Promise(() => {});
  };
  const { listening } = await listen(t, { answer });
  const waiting = talk(listening, REQUEST("GET", "/"));
  const idle = talk(listening, "GET ");
  await asked;
  listening.close();
  t.deepEqual(await Promise.all([waiting, idle]), ["", ""]);
});

test("a place that is taken is refused with the system's code", async (t) => {
  const { listening } = await listen(t);
  const options = { answer: () => textReply(200, ""), maxConnections: 1, onError: () => {} };
  await t.throwsAsync(listenHttp(listening.place, options), { code: "EADDRINUSE" });
});
