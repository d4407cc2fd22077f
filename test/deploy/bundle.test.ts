// What the command that ships reads only when it needs it: that it is beside it, and whole.
import { createRequire } from "node:module";
import path from "node:path";
import test from "ava";

const DIST = path.resolve(import.meta.dirname, "../../../dist");
const load = createRequire(import.meta.url);

/** A name that users of each package ask for. */
const PIECES = {
  yaml: "parseAllDocuments",
  "jsonpath-plus": "JSONPath",
  "openid-client": "discovery",
  "socks-proxy-agent": "SocksProxyAgent",
};

for (const [piece, name] of Object.entries(PIECES))
  test(`${piece} is beside the command`, (t) => {
    t.is(typeof load(path.join(DIST, `${piece}.js`))[name], "function");
  });
