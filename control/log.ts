// One line an event, for people at a terminal or as JSON for a collector. Knows nothing of what is
// logged.
import { pino } from "pino";
import type { LogFormat, LogLevel } from "./levels.ts";

export type Logger = Pick<ReturnType<typeof pino>, "debug" | "info" | "warn" | "error">;

const LEVEL_NAMES: Readonly<Record<number, string>> = {
  20: "debug",
  30: "info ",
  40: "warn ",
  50: "error",
};

/** A logger to standard error. Text has the time, the level, the message and key=value pairs. */
export function createLogger(options: { level: LogLevel; format: LogFormat }): Logger {
  const base = { level: options.level, base: null };
  if (options.format === "json") return pino(base, pino.destination({ dest: 2, sync: true }));
  return pino(base, {
    write(line: string) {
      process.stderr.write(textLine(JSON.parse(line) as Record<string, unknown>));
    },
  });
}

function textLine({ level, time, msg, ...fields }: Record<string, unknown>): string {
  const pairs = Object.entries(fields).map(([key, value]) => ` ${key}=${JSON.stringify(value)}`);
  const date = new Date(Number(time)).toISOString();
  return `${date} ${LEVEL_NAMES[Number(level)] ?? level} ${String(msg)}${pairs.join("")}\n`;
}
