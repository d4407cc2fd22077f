// `bpfsvc run --write-config-to FILE`: the configuration that flags or a file mean, with every
// default, as kube-proxy writes it. Decides nothing; what is in it is config.ts' business.
import { writeFileSync } from "node:fs";
import { formatConfigFile, openConfigFile } from "../config/file.ts";
import { effectiveValues, type Flags } from "../config.ts";
import { UserError } from "../exit.ts";

export interface WriteConfigOptions {
  flags: Flags;
  config?: string;
  writeConfigTo: string;
}

/** Writes the file and says so. Throws UserError for a fault in what was given, or of the disk. */
export function writeConfig({ flags, config, writeConfigTo }: WriteConfigOptions): void {
  const file = config === undefined ? undefined : openConfigFile(config);
  const text = formatConfigFile(effectiveValues({ flags, file }));
  try {
    writeFileSync(writeConfigTo, text);
  } catch (error) {
    const { message } = error as Error;
    const fix = "give --write-config-to a file that can be written";
    const fault = new UserError(`Cannot write "${writeConfigTo}": ${message}; ${fix}`);
    throw Object.assign(fault, { cause: error });
  }
  process.stdout.write(`Wrote the configuration to "${writeConfigTo}".\n`);
}
