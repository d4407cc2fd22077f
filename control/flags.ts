// The flags of kube-proxy, as options of a commander command, made of the table of settings; and
// back: which of them were typed. Knows nothing of what they mean.
import { type Command, Option } from "commander";
import { FIELD_LIST, type Field, fieldsOfFlag } from "./config/fields.ts";
import { BOOLEAN } from "./config/kinds.ts";
import type { Flags } from "./config.ts";

const HEADING = "As kube-proxy has them:";

/** Every flag of the table, once, in its order. */
export const FLAGS: readonly string[] = [...new Set(FIELD_LIST.flatMap(([, { flags }]) => flags))];

/** The flags that decide what a node serves, for `plan`. */
export const SERVING_FLAGS: readonly string[] = [
  "node",
  "hostname-override",
  "bind-address",
  "nodeport-addresses",
  "detect-local-mode",
  "cluster-cidr",
  "pod-bridge-interface",
  "pod-interface-name-prefix",
  "masquerade-all",
  "feature-gates",
  "proxy-mode",
];

/** A first flag is shown with its help, another spelling of it without. */
function isShown(flag: string, { flags, help }: Field<unknown>): boolean {
  return help !== "" && (flag === flags[0] || OWN_SPELLINGS.includes(flag));
}

const OWN_SPELLINGS = ["node", "log-format"];

function makeOption(flag: string): Option {
  const [, field] = fieldsOfFlag(flag)[0]!;
  const { placeholder, isList } = field.kind;
  const isBoolean = field.kind === BOOLEAN;
  const value = isBoolean ? `[${placeholder}]` : `<${placeholder}>`;
  const spelling = flag === "v" ? "-v, --v" : `--${flag}`;
  const option = new Option(`${spelling} ${value}`, field.help);
  // As in Go, a list may be given in parts.
  if (isList)
    option.argParser((text: string, before?: string) =>
      before === undefined ? text : `${before},${text}`,
    );
  return option.hideHelp(!isShown(flag, field));
}

/** Adds flags of the table to a command; those without effect are accepted, and not in --help. */
export function addFlags(command: Command, flags: readonly string[]): Command {
  for (const flag of flags) {
    const option = makeOption(flag);
    command.addOption(OWN_SPELLINGS.includes(flag) ? option : option.helpGroup(HEADING));
  }
  return command;
}

/** The flags of the table that were typed, from the options that commander made of them. */
export function typedFlags(options: Readonly<Record<string, unknown>>): Flags {
  const typed: Record<string, string> = {};
  for (const flag of FLAGS) {
    const value = options[new Option(`--${flag} <x>`).attributeName()];
    if (typeof value === "string") typed[flag] = value;
    // As in Go, a flag of two values may stand alone.
    else if (value === true) typed[flag] = "true";
  }
  return typed;
}
