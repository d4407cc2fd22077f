// Sends one line over TCP and returns the line that comes back. As a program it prints that line,
// or the code of the error alone.
//   node ask.mjs ADDRESS PORT TEXT
import net from "node:net";
import { pathToFileURL } from "node:url";

export function ask(address, port, text) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: address, port }, () => socket.write(`${text}\n`));
    socket.setTimeout(5000, () => socket.destroy(new Error("no answer within 5 s")));
    let reply = "";
    socket.on("data", (data) => {
      reply += data;
      if (!reply.includes("\n")) return;
      resolve(reply.trimEnd());
      socket.destroy();
    });
    socket.on("error", reject);
    socket.on("end", () => reject(new Error("the server closed without an answer")));
  });
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const [address, port, text] = process.argv.slice(2);
  console.log(await ask(address, Number(port), text).catch((error) => error.code ?? error.message));
}
