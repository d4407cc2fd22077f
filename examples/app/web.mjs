// The web front end: answers HTTP with its own name and a counter that it keeps in the store, which
// it asks at the store's Service address.
//   node web.mjs NAME PORT STORE-ADDRESS STORE-PORT
import http from "node:http";
import { ask } from "./ask.mjs";

const [name, port, storeAddress, storePort] = process.argv.slice(2);

const server = http.createServer(async (request, response) => {
  const client = request.socket.remoteAddress.replace("::ffff:", "");
  try {
    const counted = await ask(storeAddress, Number(storePort), "add visits");
    response.end(`${name}: hello ${client}, ${counted}\n`);
  } catch (error) {
    response.writeHead(503).end(`${name}: no store: ${error.code ?? error.message}\n`);
  }
});
server.listen(Number(port), () => console.log(`${name} ready`));
