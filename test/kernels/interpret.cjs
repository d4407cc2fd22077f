// For Node in an emulated machine: JavaScript is interpreted, which takes half the time there.
const v8 = require("node:v8");

for (const flag of ["--no-opt", "--no-sparkplug"]) v8.setFlagsFromString(flag);
