// How the command ends, errors that are for the user to read rather than for a stack trace, and
// defaults that several verbs share.

export const ExitCode = { done: 0, failed: 1, usage: 2, notRunning: 3 } as const;
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode];

/** An error whose message says all: printed without a stack, ends with the given code. */
export class UserError extends Error {
  readonly exitCode: ExitCode;

  constructor(message: string, exitCode: ExitCode = ExitCode.failed) {
    super(message);
    this.name = "UserError";
    this.exitCode = exitCode;
  }
}

/** Where maps and links are pinned unless --pins says otherwise. */
export const DEFAULT_PINS = "/sys/fs/bpf/bpfsvc";
