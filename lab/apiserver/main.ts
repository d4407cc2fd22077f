// The API server of the lab as a program: `node build/lab/apiserver/main.js --services 100`. Says
// how to reach it in one line of JSON, then obeys one command of control.ts a line, until its
// standard input ends. Knows options and lines.
import { writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { describe, execute } from "./control.ts";
import { readFolder } from "./folder.ts";
import { generateObjects } from "./generate.ts";
import type { ApiObject } from "./objects.ts";
import { startApiServer } from "./server.ts";

const USAGE = `Usage: node build/lab/apiserver/main.js [options]
  --objects FOLDER     begin with the objects of a folder of manifests; may be repeated
  --services N         begin with so many generated Services
  --endpoints N        so many endpoints for each of them (default 10)
  --address ADDRESS    listen there (default 127.0.0.1)
  --port PORT          and there (default: any free port)
  --kubeconfig FILE    write a kubeconfig
  --json               offer no protobuf
  --no-watch-list      refuse sendInitialEvents, as old servers do
  --http1              offer no HTTP/2
It ends when its standard input ends.`;

const { values } = parseArgs({
  options: {
    objects: { type: "string", multiple: true, default: [] },
    services: { type: "string", default: "0" },
    endpoints: { type: "string", default: "10" },
    address: { type: "string", default: "127.0.0.1" },
    port: { type: "string", default: "0" },
    kubeconfig: { type: "string" },
    json: { type: "boolean", default: false },
    "no-watch-list": { type: "boolean", default: false },
    http1: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});

function wholeNumber(option: "services" | "endpoints" | "port"): number {
  const text = values[option];
  if (/^\d+$/.test(text)) return Number(text);
  throw new Error(`--${option} is '${text}'; give a whole number`);
}

function* objects(): Generator<ApiObject> {
  for (const folder of values.objects) {
    const contents = readFolder(folder);
    if (contents.leftOut.length > 0)
      console.error(`'${folder}': left out ${contents.leftOut.join(", ")}, which is not served`);
    yield* contents.objects;
  }
  yield* generateObjects({
    services: wholeNumber("services"),
    endpoints: wholeNumber("endpoints"),
  });
}

async function main(): Promise<void> {
  const server = await startApiServer({
    objects: objects(),
    address: values.address,
    port: wholeNumber("port"),
    protobuf: !values.json,
    watchList: !values["no-watch-list"],
    http2: !values.http1,
  });
  if (values.kubeconfig !== undefined) writeFileSync(values.kubeconfig, server.kubeconfig);
  console.log(JSON.stringify(describe(server)));
  for await (const line of createInterface({ input: process.stdin })) {
    if (line.trim() === "") continue;
    console.log(JSON.stringify(execute(server, line)));
  }
  await server.close();
}

if (values.help) console.log(USAGE);
else await main();
