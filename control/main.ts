// The bpfsvc command: verbs, flags, exit codes. Each verb loads its own code, so that `dump` does
// not pay for what `run` needs.
import { readFileSync } from "node:fs";
import path from "node:path";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { MAP_SIZES, type SizeFlag } from "./command/capacities.ts";
import {
  addDevice,
  type DeviceChoice,
  DeviceOptionError,
  FORWARDING,
  MASQUERADE,
} from "./command/deviceoptions.ts";
import type { DumpDevicesOptions } from "./command/dumpdevices.ts";
import type { DumpFlowsOptions } from "./command/dumpflows.ts";
import type { RunOptions } from "./command/runoptions.ts";
import { BOOLEAN } from "./config/kinds.ts";
import { DEFAULT_PINS, ExitCode, UserError } from "./exit.ts";
import { addFlags, FLAGS, SERVING_FLAGS, typedFlags } from "./flags.ts";
import { LOG_LEVELS } from "./levels.ts";
import { type PlaceFilter, parsePlace } from "./model/place.ts";
import { PROTOCOLS } from "./model/rows.ts";
import { FORMATS } from "./print.ts";
import { parseChoice, type SeriesChoice } from "./serve/metrics/series.ts";

declare const BPFSVC_VERSION: string | undefined;

const ABOUT =
  "Serves Kubernetes Services on this node with eBPF, in place of kube-proxy.\n" +
  "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running or nothing pinned.";
const INERT_FLAGS =
  "\nThe other flags of kube-proxy are accepted, and each that has no effect is told in the log.";

/** What commander makes of the flags of `run`; those of the table of settings among them. */
type RunFlags = Omit<RunOptions, "flags" | "version"> & {
  [flag: string]: unknown;
  writeConfigTo?: string;
  cleanup?: boolean;
};

/** What stands below an error in how the command was typed. */
function helpHint(verb?: string): string {
  if (verb === undefined) return 'Run "bpfsvc --help" for all verbs.';
  return `Run "bpfsvc ${verb} --help" for all that may be given.`;
}

/** A variable of a shell that is not set would name the working directory. */
function pathOf(text: string): string {
  if (text !== "") return text;
  throw new InvalidArgumentError("It must not be empty.");
}

function pinsOption(): Option {
  return new Option("--pins <folder>", "where maps and links are pinned, in a BPF file system")
    .argParser(pathOf)
    .default(DEFAULT_PINS)
    .env("BPFSVC_PINS");
}

function manifestsOption(): Option {
  return new Option(
    "--manifests <path>",
    "a file or folder of YAML or JSON: Services, EndpointSlices, Nodes, ServiceCIDRs",
  ).argParser(pathOf);
}

function configOption(): Option {
  return new Option("--config <file>", "a KubeProxyConfiguration, instead of the flags below");
}

function outputOption(): Option {
  return new Option("-o, --output <format>", "how to print").choices(FORMATS).default("table");
}

/** How much of something fits. */
function sizeOption(flag: SizeFlag, help: string): Option {
  const { usual, most } = MAP_SIZES[flag];
  const option = new Option(`--${flag} <count>`, `${help} (default: ${usual})`);
  return option.argParser((text) => {
    const value = Number(text);
    if (/^\d+$/.test(text) && value >= 1 && value <= most) return value;
    throw new InvalidArgumentError(`It must be a whole number from 1 to ${most}.`);
  });
}

function deviceOption(): Option {
  const help =
    "an uplink, and how to serve it: auto, xdp, tc or generic; repeatable, these and no others; " +
    "none: no packet path (default: found by their routes, auto)";
  const option = new Option("--device <name[=mode]>", help);
  return option.argParser((text: string, before?: DeviceChoice) => {
    try {
      return addDevice(text, before);
    } catch (error) {
      if (!(error instanceof DeviceOptionError)) throw error;
      throw new InvalidArgumentError(error.message);
    }
  });
}

function masqueradeOption(): Option {
  const help = "whose source is rewritten: auto, where replies would go astray; or always";
  return new Option("--masquerade <when>", help).choices(MASQUERADE).default("auto");
}

function forwardingOption(): Option {
  const help = "how endpoints elsewhere are reached: snat, dsr (replies go straight), hybrid";
  return new Option("--forwarding <how>", help).choices(FORWARDING).default("snat");
}

/** A flag that is no field, and may stand alone or be given a value, as in Go. */
function switchOption(flag: string, help: string): Option {
  return new Option(`--${flag} [${BOOLEAN.placeholder}]`, help).argParser((text: string) => {
    const value = BOOLEAN.fromText(text);
    if (typeof value === "boolean") return value;
    throw new InvalidArgumentError("It must be true or false.");
  });
}

/** How many service ports, or which Services. */
function services(text: string): SeriesChoice {
  const choice = parseChoice(text);
  if (choice !== undefined) return choice;
  throw new InvalidArgumentError('It must be a number, or names such as "shop/web,shop/dns".');
}

function runCommand(): Command {
  const command = new Command("run")
    .description("run the agent: keep the maps true to the objects, until SIGTERM")
    .addOption(manifestsOption())
    .addOption(configOption())
    .option("--state-file <path>", "keep the API server's addresses here, for the next start")
    .option("--cgroup <folder>", "serve the processes below it (default: root of the v2 tree)")
    .addOption(pinsOption())
    .addOption(deviceOption())
    .addOption(masqueradeOption())
    .addOption(forwardingOption())
    .option("--remember-tcp", "getpeername() shows the Service for TCP too", false)
    .addOption(
      sizeOption("max-frontends", "how many frontends fit; maps move to other sizes at a start"),
    )
    .addOption(sizeOption("max-services", "service ports, likewise; each family counts"))
    .addOption(sizeOption("max-backends", "endpoints of service ports, likewise"))
    .addOption(
      sizeOption(
        "max-slots",
        "slots of tables that are too large for their Service's row, likewise",
      ),
    )
    .addOption(sizeOption("max-flows", "connections through the node, likewise"))
    .option(
      "--metrics-services <which>",
      "whose connections /metrics counts: so many, the busiest, or namespace/name,… (default: 100)",
      services,
    )
    .addOption(
      new Option("--log-level <level>", "what to log (default: info)").choices(LOG_LEVELS),
    );
  return addFlags(command, FLAGS)
    .optionsGroup("As kube-proxy has them:")
    .option("--master <url>", "the Kubernetes API, whatever the kubeconfig says")
    .option("--write-config-to <file>", "write the configuration with every default, and end")
    .addOption(switchOption("cleanup", "remove what is pinned, and end, as bpfsvc cleanup does"))
    .addOption(switchOption("init-only", "check the configuration, and end"))
    .addHelpText("after", INERT_FLAGS)
    .action(startRun);
}

/** kube-proxy has on one command what are verbs here. */
async function startRun(options: RunFlags): Promise<void> {
  const flags = typedFlags(options);
  const { writeConfigTo } = options;
  if (writeConfigTo !== undefined) {
    const { writeConfig } = await import("./command/writeconfig.ts");
    writeConfig({ ...options, writeConfigTo, flags });
  } else if (options.cleanup) {
    await (await import("./command/cleanup.ts")).cleanup(options);
  } else {
    await (await import("./command/run.ts")).run({ ...options, flags, version: version() });
  }
}

/** A verb below dump: it ends and tells of errors as the others do, and has dump's own flags. */
function dumpedPart(name: string): Command {
  return new Command(name)
    .exitOverride()
    .showHelpAfterError(helpHint(`dump ${name}`))
    .configureHelp({ showGlobalOptions: true });
}

function dumpDevicesCommand(): Command {
  return dumpedPart("devices")
    .description("print the devices that the packet path serves, how and why so")
    .action(async (_, command: Command) => {
      const { dumpDevices } = await import("./command/dumpdevices.ts");
      const { namespace, ...options } = command.optsWithGlobals();
      if (namespace !== undefined)
        throw new UserError("Devices are of no namespace: leave out --namespace", ExitCode.usage);
      await dumpDevices(options as DumpDevicesOptions);
    });
}

/** An address, a range, or one of these with a port. */
function place(text: string): PlaceFilter {
  const parsed = parsePlace(text);
  if (parsed !== undefined) return parsed;
  throw new InvalidArgumentError(
    'It must be like "10.0.0.1", "10.0.0.0/8", "10.0.0.1:80", "[2001:db8::1]:80" or ":80".',
  );
}

function protocolOption(): Option {
  const option = new Option("--protocol <protocol>", "only connections of it");
  const choices = Object.keys(PROTOCOLS);
  return option.choices(choices).argParser((text: string) => {
    if (choices.includes(text.toUpperCase())) return text.toUpperCase();
    throw new InvalidArgumentError(`It must be one of ${choices.join(", ")}.`);
  });
}

function dumpFlowsCommand(): Command {
  return dumpedPart("flows")
    .description("print the connections that pass through this node, as the packet path has them")
    .argument("[name]", "only connections to the Service of this name, or namespace/name")
    .option(
      "--client <place>",
      "only from there: an address or range, or either with a port",
      place,
    )
    .option("--frontend <place>", "only to there, as the client asked", place)
    .option("--endpoint <place>", "only to there, as bpfsvc chose", place)
    .addOption(protocolOption())
    .action(async (name: string | undefined, _, command: Command) => {
      const { dumpFlows } = await import("./command/dumpflows.ts");
      const { namespace, ...options } = command.optsWithGlobals();
      await dumpFlows({ ...(options as DumpFlowsOptions), ...splitName(name, namespace) });
    });
}

function dumpCommand(): Command {
  return new Command("dump")
    .description("print what the kernel holds, read from the pinned maps, agent or no agent")
    .addCommand(dumpDevicesCommand())
    .addCommand(dumpFlowsCommand())
    .argument("[name]", "only the Service of this name, or namespace/name")
    .option("-n, --namespace <namespace>", "only Services of this namespace")
    .addOption(outputOption())
    .option("-w, --watch", "print again whenever something changed", false)
    .addOption(pinsOption())
    .action(async (name: string | undefined, options) => {
      const { dump } = await import("./command/dump.ts");
      await dump({ ...options, ...splitName(name, options.namespace) });
    });
}

function planCommand(): Command {
  const command = new Command("plan")
    .description("print what would be programmed and why, without kernel and root")
    .addOption(manifestsOption().makeOptionMandatory())
    .addOption(configOption())
    .addOption(outputOption());
  return addFlags(command, SERVING_FLAGS).action(async (options) => {
    const { plan } = await import("./command/plan.ts");
    await plan({ ...options, flags: typedFlags(options) });
  });
}

function cleanupCommand(): Command {
  return new Command("cleanup")
    .description(
      "remove every pin and link of bpfsvc, and nothing else: Services are no longer served",
    )
    .addOption(pinsOption())
    .action(async (options) => (await import("./command/cleanup.ts")).cleanup(options));
}

/** "shop/web" names the namespace too. */
function splitName(
  name: string | undefined,
  namespace: string | undefined,
): { namespace: string | undefined; name: string | undefined } {
  const [left, right, ...rest] = name?.split("/") ?? [];
  if (right === undefined) return { namespace, name };
  const isOne = left !== "" && right !== "" && rest.length === 0;
  if (isOne && (namespace === undefined || namespace === left))
    return { namespace: left, name: right };
  const fault = isOne ? `and --namespace "${namespace}" exclude each other` : "is no name";
  throw new UserError(`"${name}" ${fault}: write NAME or NAMESPACE/NAME`, ExitCode.usage);
}

function version(): string {
  if (typeof BPFSVC_VERSION === "string") return BPFSVC_VERSION;
  const file = path.join(import.meta.dirname, "../../package.json");
  return (JSON.parse(readFileSync(file, "utf8")) as { version: string }).version;
}

async function main(): Promise<void> {
  const program = new Command("bpfsvc")
    .description(ABOUT)
    .version(version())
    .showHelpAfterError(helpHint())
    .exitOverride();
  // To make the others' many flags is a twentieth of what `dump` takes.
  const commands =
    process.argv[2] === "dump"
      ? [dumpCommand()]
      : [runCommand(), dumpCommand(), planCommand(), cleanupCommand()];
  for (const command of commands) {
    command.copyInheritedSettings(program).showHelpAfterError(helpHint(command.name()));
    program.addCommand(command);
  }
  await program.parseAsync();
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
  // Not by its class: a verb, a bundle of its own, has another one of the same name.
  return (error as Partial<UserError>).exitCode ?? ExitCode.failed;
}

/** Tells what went wrong, if anybody can still be told. */
function tell(text: string): void {
  process.stderr.on("error", () => {});
  process.stderr.write(text);
}

// Whoever reads the output may have seen enough; a disk may be full.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit();
  tell(`bpfsvc: Cannot write the output: ${error.message}\n`);
  process.exit(ExitCode.failed);
});

main().catch((error: unknown) => {
  process.exitCode = exitCodeOf(error);
  if (error instanceof CommanderError) return;
  const { message, stack } = error as Error;
  tell(`bpfsvc: ${message}\n${process.env.BPFSVC_STACK ? `${stack}\n` : ""}`);
});
