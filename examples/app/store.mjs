// A key-value store over TCP, one line each way: "get KEY", "set KEY VALUE", "add KEY" (counts up).
//   node store.mjs NAME PORT
import net from "node:net";
import { createInterface } from "node:readline";

const [name, port] = process.argv.slice(2);
const values = new Map();

const commands = {
  get: (key) => values.get(key),
  set: (key, value) => values.set(key, value).get(key),
  add: (key) => values.set(key, Number(values.get(key) ?? 0) + 1).get(key),
};

const server = net.createServer((socket) => {
  socket.on("error", () => socket.destroy());
  createInterface({ input: socket }).on("line", (line) => {
    const [command, key, value] = line.split(" ");
    const result = Object.hasOwn(commands, command) ? commands[command](key, value) : undefined;
    socket.write(`${name} has ${key} = ${result ?? "nothing"}\n`);
  });
});
server.listen(Number(port), () => console.log(`${name} ready`));
