// Waiting for a condition instead of for a time. Knows nothing of the lab: tests of other rooms
// use it as well.
import { setTimeout as delay } from "node:timers/promises";

/** By what all waiting for something is longer: for slow machines, such as emulated ones. */
export const PATIENCE = Number(process.env.BPFSVC_PATIENCE ?? 1);

/**
 * Calls `condition` until it gives something else than false or undefined, and returns that. An
 * error thrown on the way counts as "not yet". Throws when `timeoutSeconds` (default 10) are over,
 * naming `what` and, as cause, the last error.
 */
export async function waitFor<T>(
  condition: () => T | false | undefined | Promise<T | false | undefined>,
  options: { what: string; timeoutSeconds?: number },
): Promise<T> {
  const seconds = (options.timeoutSeconds ?? 10) * PATIENCE;
  const deadline = performance.now() + seconds * 1000;
  let cause: unknown;
  do {
    try {
      const value = await condition();
      if (value !== false && value !== undefined) return value;
      cause = undefined;
    } catch (error) {
      cause = error;
    }
    await delay(10);
  } while (performance.now() < deadline);
  throw new Error(`Waited ${seconds} s in vain for ${options.what}`, { cause });
}
