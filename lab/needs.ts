// Tests that need the lab or a program: declared as usual where it is, left out aloud elsewhere,
// and a failure on CI, where nothing may be left out. Knows nothing of what they test.
import type { ExecutionContext } from "ava";
import { whyNoLab } from "./lab.ts";

/** What is used of AVA's `test` and `test.serial`. */
interface Declare {
  (title: string, implementation: (t: ExecutionContext) => Promise<void>): void;
  (title: string, implementation: (t: ExecutionContext) => void): void;
  skip(title: string, implementation: (t: ExecutionContext) => Promise<void>): void;
}

type Implementation = (t: ExecutionContext) => Promise<void>;
type LabTest = (title: string, implementation: Implementation) => void;

/** AVA's `test` or `test.serial`, declaring a test only where a lab can be made. */
export function needsLab(test: Declare): LabTest {
  return needs(test, whyNoLab());
}

/** The same for anything else; the reason says what is missing, undefined that nothing is. */
export function needs(test: Declare, reason: string | undefined): LabTest {
  if (reason === undefined) return (title, implementation) => test(title, implementation);
  if ((process.env.CI ?? "") !== "") {
    return (title) => test(title, (t) => t.fail(reason));
  }
  console.error(`Left out, tests of this file. ${reason}`);
  return (title, implementation) => test.skip(title, implementation);
}
