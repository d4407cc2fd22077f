// Both ends of the smoke test, in pods: a server that says who it is, and a client that tells who
// answered. Needs Node alone, which the image has. Knows no Kubernetes.
//
//   smoke.mjs serve PORT                    TCP and UDP; says "NODE POD" of the environment
//   smoke.mjs wait                          for somebody to run "ask" beside it
//   smoke.mjs ask tcp|udp HOST PORT COUNT   so many questions; prints each different answer, or the
//                                           error that came instead, with how often it did
import { createSocket } from "node:dgram";
import { lookup } from "node:dns/promises";
import { once } from "node:events";
import { connect, createServer } from "node:net";

const PATIENCE_MS = 5000;

async function serve(port) {
  const name = `${process.env.NODE} ${process.env.POD}`;
  const tcp = createServer((socket) => socket.on("error", () => {}).end(name));
  const udp = createSocket("udp4");
  udp.on("message", (_, { port: to, address }) => udp.send(name, to, address));
  await Promise.all([
    once(tcp.listen(port, "0.0.0.0"), "listening"),
    once(udp.bind(port, "0.0.0.0"), "listening"),
  ]);
  console.log(`serving at port ${port}`);
}

async function askTcp(address, port) {
  const socket = connect({ host: address, port, timeout: PATIENCE_MS });
  socket.on("timeout", () => socket.destroy(Object.assign(new Error(), { code: "ETIMEDOUT" })));
  let answer = "";
  socket.setEncoding("utf8").on("data", (text) => {
    answer += text;
  });
  await once(socket, "close");
  return answer;
}

/** A socket for each question: an endpoint is chosen anew. */
async function askUdp(address, port) {
  const socket = createSocket("udp4");
  try {
    socket.connect(port, address);
    await once(socket, "connect");
    socket.send("who?");
    const [answer] = await once(socket, "message", { signal: AbortSignal.timeout(PATIENCE_MS) });
    return answer.toString();
  } finally {
    socket.close();
  }
}

async function ask(protocol, host, port, count) {
  const one = { tcp: askTcp, udp: askUdp }[protocol];
  const answers = new Map();
  for (let turn = 0; turn < count; turn++) {
    let answer;
    try {
      const { address } = await lookup(host, 4);
      answer = await one(address, port);
    } catch (error) {
      answer = error.code === "ABORT_ERR" ? "ETIMEDOUT" : error.code;
    }
    answers.set(answer, (answers.get(answer) ?? 0) + 1);
  }
  for (const [answer, times] of [...answers].sort()) console.log(`${times} ${answer}`);
}

// Process 1 of a container has no default for the signal.
process.on("SIGTERM", () => process.exit());
const [verb, ...rest] = process.argv.slice(2);
if (verb === "serve") await serve(Number(rest[0]));
else if (verb === "wait") setInterval(() => {}, 60_000);
else if (verb === "ask") await ask(rest[0], rest[1], Number(rest[2]), Number(rest[3]));
else throw new Error(`No verb "${verb}": there are serve, wait and ask`);
