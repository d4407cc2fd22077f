// `bpfsvc cleanup`: takes every pin, link and filter of ours away, and nothing else. Which those
// are is known to dataplane/.
import { releaseDevices } from "../dataplane/devices/release.ts";
import { Pins } from "../dataplane/pins.ts";
import { ExitCode, UserError } from "../exit.ts";

/** Removes a folder's pins, after which nothing is translated. Throws if an agent runs on it. */
export async function cleanup({ pins: folder }: { pins: string }): Promise<void> {
  const pins = new Pins(folder);
  if (!pins.exists())
    throw new UserError(`Nothing of bpfsvc is pinned in "${pins.folder}"`, ExitCode.notRunning);
  const lock = pins.lock();
  try {
    // Filters and neighbours outlive pins: those of the devices that are here.
    const { filters, problems } = releaseDevices(pins);
    const { removed, foreign } = pins.remove();
    if (filters > 0) process.stdout.write(`Removed the filters of ${filters} devices.\n`);
    for (const problem of problems) process.stdout.write(`Left: ${problem}\n`);
    process.stdout.write(`Removed ${removed.length} pins from "${pins.folder}".\n`);
    for (const file of foreign) process.stdout.write(`Left alone: "${file}" is not ours.\n`);
  } finally {
    lock.release();
  }
}
