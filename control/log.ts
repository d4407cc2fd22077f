// One line an event, for people at a terminal or as JSON for a collector. Knows nothing of what is
// logged. A log that cannot be written loses lines, and nothing else: the agent goes on.
import { writeSync } from "node:fs";
import { pino } from "pino";
import type { LogFormat, LogLevel } from "./levels.ts";

export type Logger = Pick<ReturnType<typeof pino>, "debug" | "info" | "warn" | "error">;

const STDERR = 2;
/** The longest name of a level. */
const LEVEL_WIDTH = 5;
/** How often a pipe that is full is tried again, and after how long. */
const PATIENCE = { attempts: 100, pauseMs: 1 };

/**
 * A logger to standard error. Text has the time (ISO 8601), the level, the message and key=value
 * pairs; JSON is an object a line with `level`, `time` and `msg`.
 */
export function createLogger(options: { level: LogLevel; format: LogFormat }): Logger {
  const textOf = options.format === "json" ? (line: string) => line : textLine;
  let lost = 0;
  const put = (line: string) => {
    const isWritten = tryWrite(textOf(line));
    if (!isWritten) lost++;
    return isWritten;
  };
  const write = (line: string) => {
    const count = lost;
    if (!put(line) || count === 0) return;
    lost = 0;
    const msg = `${count} lines of this log are lost: they could not be written`;
    put(`${JSON.stringify({ level: "warn", time: new Date().toISOString(), msg })}\n`);
  };
  const formatters = { level: (level: string) => ({ level }) };
  const timestamp = pino.stdTimeFunctions.isoTime;
  return pino({ level: options.level, base: null, formatters, timestamp }, { write });
}

/** Whether a line got to standard error. A full pipe is waited for, briefly. */
function tryWrite(line: string): boolean {
  for (let attempt = 0; ; attempt++)
    try {
      writeSync(STDERR, line);
      return true;
    } catch (error) {
      const isFull = (error as NodeJS.ErrnoException).code === "EAGAIN";
      if (!isFull || attempt === PATIENCE.attempts) return false;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PATIENCE.pauseMs);
    }
}

function textLine(line: string): string {
  const { level, time, msg, ...fields } = JSON.parse(line) as Record<string, unknown>;
  const pairs = Object.entries(fields).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`);
  return `${time} ${String(level).padEnd(LEVEL_WIDTH)} ${msg}${pairs.join("")}\n`;
}
