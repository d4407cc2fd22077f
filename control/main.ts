// The bpfsvc command: verbs, flags, exit codes. Each verb loads its own code, so that `dump` does
// not pay for what `run` needs.
import { readFileSync } from "node:fs";
import path from "node:path";
import { Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { DEFAULT_PINS, ExitCode, UserError } from "./exit.ts";
import { LOG_FORMATS, LOG_LEVELS } from "./levels.ts";
import { FORMATS } from "./print.ts";

declare const BPFSVC_VERSION: string | undefined;

const ABOUT =
  "Serves Kubernetes Services on this node with eBPF, in place of kube-proxy.\n" +
  "Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not running or nothing pinned.";

function pinsOption(): Option {
  return new Option("--pins <folder>", "where maps and links are pinned, in a BPF file system")
    .default(DEFAULT_PINS)
    .env("BPFSVC_PINS");
}

function manifestsOption(): Option {
  return new Option(
    "--manifests <path>",
    "a file or folder of YAML or JSON: Services, EndpointSlices, Nodes, ServiceCIDRs",
  ).makeOptionMandatory();
}

function nodeOption(): Option {
  return new Option("--node <name>", "the name of this node (default: the host name)");
}

/** The settings that decide about Services, named as kube-proxy names them (config.ts). */
function addProxyOptions(command: Command): Command {
  return command
    .option("--nodeport-addresses <list>", 'ranges that serve node ports, or "primary"; "": all')
    .option("--detect-local-mode <mode>", "how pods are told from others (default: ClusterCIDR)")
    .option("--cluster-cidr <list>", "the pods' range, one of each family")
    .option("--pod-bridge-interface <name>", "for mode BridgeInterface")
    .option("--pod-interface-name-prefix <prefix>", "for mode InterfaceNamePrefix")
    .option("--masquerade-all", "rewrite the source of all traffic to cluster IPs", false);
}

function outputOption(): Option {
  return new Option("-o, --output <format>", "how to print").choices(FORMATS).default("table");
}

/** A whole number of at least 1. */
function count(text: string): number {
  const value = Number(text);
  if (Number.isSafeInteger(value) && value >= 1 && value <= 0xffffffff) return value;
  throw new InvalidArgumentError("it must be a whole number of at least 1.");
}

function runCommand(): Command {
  return addProxyOptions(new Command("run"))
    .description("run the agent: keep the maps true to the objects, until SIGTERM")
    .addOption(manifestsOption())
    .addOption(nodeOption())
    .option("--cgroup <folder>", "serve the processes below it (default: root of the v2 tree)")
    .addOption(pinsOption())
    .option("--remember-tcp", "getpeername() shows the Service for TCP too", false)
    .option(
      "--max-frontends <count>",
      "how many frontends fit, fixed when the maps are created",
      count,
    )
    .option("--max-services <count>", "service ports, likewise; each family counts", count)
    .option("--max-backends <count>", "endpoints of service ports, likewise", count)
    .option("--max-slots <count>", "slots of all selection tables together, likewise", count)
    .addOption(new Option("--log-level <level>").choices(LOG_LEVELS).default("info"))
    .addOption(new Option("--log-format <format>").choices(LOG_FORMATS).default("text"))
    .action(async (options) => (await import("./command/run.ts")).run(options));
}

function dumpCommand(): Command {
  return new Command("dump")
    .description("print what the kernel holds, read from the pinned maps, agent or no agent")
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
  return addProxyOptions(new Command("plan"))
    .description("print what would be programmed and why, without kernel and root")
    .addOption(manifestsOption())
    .addOption(nodeOption())
    .addOption(outputOption())
    .action(async (options) => (await import("./command/plan.ts")).plan(options));
}

function cleanupCommand(): Command {
  return new Command("cleanup")
    .description(
      "remove every pin and link of bpfsvc, and nothing else: Services are no longer served",
    )
    .addOption(pinsOption())
    .action(async (options) => (await import("./command/cleanup.ts")).cleanup(options));
}

/** "shop/web" names the namespace too, unless --namespace does. */
function splitName(
  name: string | undefined,
  namespace: string | undefined,
): { namespace: string | undefined; name: string | undefined } {
  const [left, right] = name?.split("/") ?? [];
  return right === undefined ? { namespace, name } : { namespace: namespace ?? left, name: right };
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
    .showHelpAfterError("Run bpfsvc --help for all verbs and flags.")
    .exitOverride();
  for (const command of [runCommand(), dumpCommand(), planCommand(), cleanupCommand()])
    program.addCommand(command.copyInheritedSettings(program));
  await program.parseAsync();
}

function exitCodeOf(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? ExitCode.done : ExitCode.usage;
  return error instanceof UserError ? error.exitCode : ExitCode.failed;
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

try {
  await main();
} catch (error) {
  process.exitCode = exitCodeOf(error);
  if (!(error instanceof CommanderError)) {
    const { message, stack } = error as Error;
    tell(`bpfsvc: ${message}\n${process.env.BPFSVC_STACK ? `${stack}\n` : ""}`);
  }
}
