// The flags of the packet path: which uplinks there are, how each is served, and how packets get to
// endpoints. Knows no device.
import type { DeviceMode, NamedUplinks } from "../dataplane/devices/roles.ts";

/** "none": no device has programs. */
export type DeviceChoice = NamedUplinks | "none";

const DEVICE_MODES = ["auto", "xdp", "tc", "generic"] as const satisfies DeviceMode[];
/** Whose source is rewritten; "always" is what kube-proxy does. */
export const MASQUERADE = ["auto", "always"] as const;
/** How packets get to endpoints on other nodes; programs know these by their index. */
export const FORWARDING = ["snat", "dsr", "hybrid"] as const;

const NONE = "none";
/** The kernel's limit, without the NUL. */
const NAME_LENGTH = 15;

/** A wrong value, in words that go after it. */
export class DeviceOptionError extends Error {}

/** Adds one "NAME[=MODE]" or "none" to those before. Throws DeviceOptionError. */
export function addDevice(text: string, before?: DeviceChoice): DeviceChoice {
  const [name = "", mode = "auto", ...rest] = text.split("=");
  if (name === NONE && mode === "auto") {
    if (before !== undefined && before !== NONE)
      throw new DeviceOptionError("Names of devices and none exclude each other.");
    return NONE;
  }
  if (before === NONE) throw new DeviceOptionError("Names of devices and none exclude each other.");
  if (name === "" || name.length > NAME_LENGTH || /[\s/:]/.test(name) || rest.length > 0)
    throw new DeviceOptionError(
      `It must be the name of a device, which has ${NAME_LENGTH} characters at most.`,
    );
  const known = DEVICE_MODES.find((each) => each === mode);
  if (known === undefined)
    throw new DeviceOptionError(`After "=" it must be one of ${DEVICE_MODES.join(", ")}.`);
  return new Map(before).set(name, known);
}
