// What --device accepts, and what it says of the rest.
import test from "ava";
import { addDevice, type DeviceChoice, DeviceOptionError } from "./deviceoptions.ts";

function choose(...texts: string[]): DeviceChoice | undefined {
  let choice: DeviceChoice | undefined;
  for (const text of texts) choice = addDevice(text, choice);
  return choice;
}

for (const { given, expected } of [
  { given: ["eth0"], expected: new Map([["eth0", "auto"]]) },
  {
    given: ["bond0.10=xdp", "eth1=tc"],
    expected: new Map([
      ["bond0.10", "xdp"],
      ["eth1", "tc"],
    ]),
  },
  { given: ["eth0=tc", "eth0=generic"], expected: new Map([["eth0", "generic"]]) },
  { given: ["none"], expected: "none" },
  { given: ["none", "none"], expected: "none" },
])
  test(`--device ${given.join(", ")} is understood`, (t) => {
    t.deepEqual(choose(...given), expected as DeviceChoice);
  });

for (const { given, message } of [
  { given: ["eth0=fast"], message: /one of auto, xdp, tc, generic/ },
  { given: ["eth0=xdp=tc"], message: /name of a device/ },
  { given: [""], message: /name of a device/ },
  { given: ["a-name-of-16-char"], message: /15 characters/ },
  { given: ["none", "eth0"], message: /exclude each other/ },
  { given: ["eth0", "none"], message: /exclude each other/ },
])
  test(`--device ${given.join(", ")} is refused`, (t) => {
    t.throws(() => choose(...given), { instanceOf: DeviceOptionError, message });
  });
