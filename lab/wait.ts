// Waiting for a condition instead of for a time. Knows nothing of the lab: tests of other rooms
// use it as well.
import { setTimeout as delay } from "node:timers/promises";

/** By what all waiting for something is longer: for slow machines, such as emulated ones. */
export const PATIENCE = Number(process.env.BPFSVC_PATIENCE ?? 1);

const PAUSE_MS = 10;
/** A pause that took longer than this was one of the whole machine, or of this process. */
const LONG_PAUSE_MS = 100;

/**
 * Calls `condition` until it gives something else than false or undefined, and returns that. An
 * error thrown on the way counts as "not yet". Throws when `timeoutSeconds` (default 10) are over,
 * naming `what` and, as cause, the last error. Time in which this process stood still is not
 * counted: what it waits for may have come about and not been told yet.
 */
export async function waitFor<T>(
  condition: () => T | false | undefined | Promise<T | false | undefined>,
  options: { what: string; timeoutSeconds?: number },
): Promise<T> {
  const seconds = (options.timeoutSeconds ?? 10) * PATIENCE;
  let leftMs = seconds * 1000;
  while (true) {
    let cause: unknown;
    const asked = performance.now();
    try {
      const value = await condition();
      if (value !== false && value !== undefined) return value;
    } catch (error) {
      cause = error;
    }
    if (leftMs <= 0) throw new Error(`Waited ${seconds} s in vain for ${options.what}`, { cause });
    const answered = performance.now();
    await delay(PAUSE_MS);
    leftMs -= answered - asked + Math.min(performance.now() - answered, LONG_PAUSE_MS);
  }
}
