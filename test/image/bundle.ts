// Writes the tests of daemonset.ts as one script for npm run test:image. They are no part of npm
// test, which would then need all that builds an image.
import path from "node:path";
import { BUILD, bundleTests } from "../kernels/bundle.ts";

const file = "test/image/daemonset.js";
await bundleTests({
  files: [file],
  parts: `[{ file: "${file}" }]`,
  outfile: path.join(BUILD, "image/tests.mjs"),
});
