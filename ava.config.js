// How AVA runs the tests that the build has made.
export default {
  files: ["build/**/*.test.js"],
  workerThreads: false,
  nodeArguments: ["--enable-source-maps"],
  timeout: "120s",
  // From the end of the alphabet: what takes minutes is in test/, and begun last it would run on by
  // itself when everything else is done.
  sortTestFiles: (one, other) => (one < other ? 1 : -1),
};
