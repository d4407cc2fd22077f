// Memory that a start leaves behind, given back once. Knows the runtime, not what the memory was
// for.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** By then what a start had under way is over. */
const WAIT_MS = 3000;

/**
 * Gives back, a while after it is called, what the runtime holds and nobody uses any more. By
 * itself it would do so when much has been allocated since, which an agent never does that has
 * little to do.
 */
export function collectLeftovers(waitMs = WAIT_MS): void {
  setTimeout(() => {
    setFlagsFromString("--expose-gc");
    const collect = runInNewContext("gc") as () => void;
    collect();
  }, waitMs).unref();
}
