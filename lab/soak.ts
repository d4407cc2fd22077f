// Real clients that ask real servers for as long as is wanted, while the caller's churn goes on:
// curl, dig, iperf3, echo flows over TCP and UDP, and an SCTP-shaped exchange. What broke, stalled
// or answered wrong is reported. Knows no Service: addresses are given.
import { once, setMaxListeners } from "node:events";
import { setTimeout as delay } from "node:timers/promises";
import type { FlowReport } from "./flows.ts";
import type { Helper, Host, Running } from "./host.ts";
import { serveSctp, startSctp } from "./sctp.ts";
import { dnsCommand } from "./shop.ts";

/** Where serveSoak() serves what. */
export const SOAK_PORTS = { web: 80, dns: 53, speed: 5201, echo: 7, sctp: 9000 } as const;

const STALL_MS = 1000;
/** The port of an SCTP source, one more for each target. */
const SCTP_SOURCE = 6100;
/** Long-lived TCP connections to each target. */
const ECHO_FLOWS = 4;
const START_TRIES = 5;
const ECHO_BYTES = 3000;

export type Tool = "curl" | "dig" | "iperf3" | "TCP" | "UDP" | "SCTP";

export interface SoakTarget {
  /** For people, such as "VIP over IPv6". */
  what: string;
  address: string;
  /** Those of SOAK_PORTS unless given; a tool whose port is 0 does not ask. */
  ports?: Partial<Record<keyof typeof SOAK_PORTS, number>>;
}

export interface SoakOptions {
  client: Host;
  targets: readonly SoakTarget[];
  seconds: number;
  /** Runs meanwhile; is to end when the signal says that the time is over. */
  churn?: (signal: AbortSignal) => Promise<void>;
  /** What iperf3 sends, and receives, in Mbit/s: 20. */
  megabits?: number;
}

export interface Fault {
  kind: "failed" | "broken" | "stall" | "wrong";
  /** When, as Date.now() gives it. */
  at: number;
  /** Who answered before, as far as that is known. */
  identity?: string;
  detail: string;
}

/** What one tool met at one target. */
export interface SoakReport {
  what: string;
  tool: Tool;
  /** Questions answered; of iperf3, megabytes that were sent. */
  done: number;
  identities: string[];
  faults: Fault[];
}

/** Serves everything that a soak asks in a pod, over both families. */
export async function serveSoak(pod: Host): Promise<void> {
  const identity = pod.name;
  const helper = await pod.helper();
  await Promise.all([
    ...Object.values(pod.addresses).flatMap((address) => [
      helper.serveWeb({ identity, address, port: SOAK_PORTS.web }),
      helper.serveEcho({ identity, address, port: SOAK_PORTS.echo }),
      helper.serveUdp({ identity, address, port: SOAK_PORTS.echo }),
      serveSctp(pod, { identity, address, port: SOAK_PORTS.sctp }),
      serveSpeed(pod, address),
    ]),
    pod.start(dnsCommand(identity), { ready: /started/ }),
  ]);
}

/** A server of iperf3 talks to one client at a time, so that each address has its own. */
function serveSpeed(pod: Host, address: string): Promise<Running> {
  const options = ["--bind", address, "--port", String(SOAK_PORTS.speed)];
  return pod.start(["iperf3", "--server", "--forceflush", ...options], { ready: /listening/ });
}

/** A tool at work: ends some time after the signal with what it met. */
type Work = (signal: AbortSignal) => Promise<SoakReport>;

/**
 * Asks until the time is over and the churn has ended. All connections of iperf3 must reach the
 * same server: one endpoint, or affinity. Throws when a flow cannot even be started.
 */
export async function soak(options: SoakOptions): Promise<SoakReport[]> {
  const helper = await options.client.helper();
  try {
    const started = await Promise.all(
      options.targets.map((target, place) => startTarget(target, { ...options, helper, place })),
    );
    const over = AbortSignal.timeout(options.seconds * 1000);
    setMaxListeners(0, over);
    const works = started.flat().map((work) => work(over));
    const [reports] = await Promise.all([Promise.all(works), options.churn?.(over)]);
    return reports;
  } finally {
    await helper.close();
  }
}

/** One line for each report, and one for each fault, for people. */
export function formatSoak(reports: readonly SoakReport[]): string {
  const lines = reports.flatMap(({ what, tool, done, identities, faults }) => [
    `${what}, ${tool}: ${tool === "iperf3" ? `${done} MB` : `${done} answers by ${identities}`}` +
      `, ${faults.length} faults`,
    ...faults.map(
      ({ kind, at, detail }) => `  ${new Date(at).toISOString().slice(11, 23)} ${kind}: ${detail}`,
    ),
  ]);
  return lines.join("\n");
}

interface Start extends SoakOptions {
  helper: Helper;
  place: number;
}

function startTarget(target: SoakTarget, start: Start): Promise<Work[]> {
  const ports = { ...SOAK_PORTS, ...target.ports };
  const at = (port: number) => ({ ...target, port });
  const works: (Work | Promise<Work>)[] = [];
  if (ports.web) works.push(askWeb(at(ports.web), start));
  if (ports.dns) works.push(askDns(at(ports.dns), start));
  if (ports.speed) works.push(askSpeed(at(ports.speed), start));
  if (ports.echo) {
    for (let flow = 0; flow < ECHO_FLOWS; flow++)
      works.push(startFlow("TCP", at(ports.echo), start));
    works.push(startFlow("UDP", at(ports.echo), start));
  }
  if (ports.sctp) works.push(startAssociation(at(ports.sctp), start));
  return Promise.all(works);
}

interface Place {
  what: string;
  address: string;
  port: number;
}

function newReport({ what }: Place, tool: Tool): SoakReport {
  return { what, tool, done: 0, identities: [], faults: [] };
}

interface Often {
  tool: Tool;
  /** Run in turn. */
  commands: readonly string[][];
  /** Matches a right answer; its groups are the server's identity and the time it took. */
  expected: RegExp;
  /** Of that time. */
  unitMs: number;
}

/** Runs commands over and over. Their own clock tells a stall: starting them can take as long. */
function askOften(place: Place, { client }: Start, often: Often): Work {
  const { tool, commands, expected, unitMs } = often;
  return async (signal) => {
    const report = newReport(place, tool);
    for (let round = 0; !signal.aborted; round++) {
      const at = Date.now();
      const command = commands[round % commands.length] ?? [];
      const { code, stdout, stderr } = await client.run(command, { timeoutSeconds: 30 });
      const [, identity, time] = expected.exec(stdout) ?? [];
      const detail = `${stdout}${stderr}`.trim();
      if (code !== 0) report.faults.push({ kind: "failed", at, detail });
      else if (identity === undefined) report.faults.push({ kind: "wrong", at, detail });
      else {
        if (!report.identities.includes(identity)) report.identities.push(identity);
        report.done += 1;
        const ms = Number(time) * unitMs;
        if (ms > STALL_MS) report.faults.push({ kind: "stall", at, identity, detail: `${ms} ms` });
      }
      await delay(100);
    }
    return report;
  };
}

function askWeb(place: Place, start: Start): Work {
  const host = place.address.includes(":") ? `[${place.address}]` : place.address;
  const url = `http://${host}:${place.port}/`;
  const commands = [["curl", "-sSg", "--max-time", "10", "--write-out", "%{time_total}", url]];
  const expected = /^(\S+) \S+\n([\d.]+)$/;
  return askOften(place, start, { tool: "curl", commands, expected, unitMs: 1000 });
}

function askDns(place: Place, start: Start): Work {
  const how = ["+noall", "+answer", "+stats", "+tries=1", "+time=3"];
  const question = [`@${place.address}`, "-p", String(place.port), "TXT", "whoami.shop"];
  const commands = ["+notcp", "+tcp"].map((by) => ["dig", ...how, by, ...question]);
  const expected = /TXT\s+"(\S+)"\s+;; Query time: (\d+) msec/;
  return askOften(place, start, { tool: "dig", commands, expected, unitMs: 1 });
}

interface Iperf {
  error?: string;
  intervals?: { sum: { bytes: number }; sum_bidir_reverse?: { bytes: number } }[];
}

/** Some seconds more than it was to take: a client whose server is gone may wait for ever. */
async function runIperf(
  client: Host,
  { command, seconds }: { command: string[]; seconds: number },
): Promise<Iperf> {
  try {
    const { stdout } = await client.run(command, { timeoutSeconds: seconds + 5 });
    return JSON.parse(stdout) as Iperf;
  } catch (error) {
    return { error: String(error) };
  }
}

/** Both ways at once; a second without a byte in one of them is a stall. */
function askSpeed(place: Place, { client, seconds, megabits = 20 }: Start): Work {
  const { address, port } = place;
  const options = ["--bidir", "--json", "--bitrate", `${megabits}M`, "--time", String(seconds)];
  const command = ["iperf3", "--client", address, "--port", String(port), ...options];
  return async () => {
    const report = newReport(place, "iperf3");
    const at = Date.now();
    const { error, intervals = [] } = await runIperf(client, { command, seconds });
    if (error !== undefined) report.faults.push({ kind: "failed", at: Date.now(), detail: error });
    for (const [second, { sum, sum_bidir_reverse: reverse }] of intervals.entries()) {
      report.done += sum.bytes / 1e6;
      if (sum.bytes > 0 && reverse?.bytes !== 0) continue;
      const detail = `nothing ${sum.bytes === 0 ? "sent" : "received"} for a second`;
      report.faults.push({ kind: "stall", at: at + second * 1000, detail });
    }
    report.done = Math.round(report.done);
    return report;
  };
}

function reportFlow(place: Place, tool: Tool, record: FlowReport): SoakReport {
  const { identities, rounds, stalls, wrong, broken, local } = record;
  const from = `${identities.join(", ")}, from port ${local.port}`;
  const faults: Pick<Fault, "kind" | "at" | "detail">[] = [
    ...stalls.map(({ at, seconds }) => ({
      kind: "stall" as const,
      at,
      detail: `${seconds} s by ${from}`,
    })),
    ...(wrong === 0
      ? []
      : [{ kind: "wrong" as const, at: Date.now(), detail: `${wrong} by ${from}` }]),
    ...(broken === undefined
      ? []
      : [{ kind: "broken" as const, at: broken.at, detail: `${broken.code} by ${from}` }]),
  ];
  const identity = identities.at(-1) ?? "nobody";
  return {
    ...newReport(place, tool),
    done: rounds,
    identities,
    faults: faults.map((fault) => ({ ...fault, identity })),
  };
}

/** Waits for the end. */
async function ending(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

async function startFlow(protocol: "TCP" | "UDP", place: Place, start: Start): Promise<Work> {
  const { address, port } = place;
  const begin = () => start.helper.startFlow({ protocol, address, port, bytes: ECHO_BYTES });
  const flow = await (protocol === "UDP" ? tryAgain(begin) : begin());
  return async (signal) => {
    await ending(signal);
    return reportFlow(place, protocol, await start.helper.stopFlow(flow));
  };
}

/**
 * The first datagrams may be lost in finding out how large a packet may be: either end learns of
 * each way that is too small by losing one.
 */
async function tryAgain<T>(begin: () => Promise<T>): Promise<T> {
  for (let left = START_TRIES; left > 1; left--)
    try {
      return await begin();
    } catch {
      // Lost: the next may come through.
    }
  return begin();
}

async function startAssociation(place: Place, { client, place: index }: Start): Promise<Work> {
  const flow = await startSctp(client, { ...place, local: { port: SCTP_SOURCE + index } });
  return async (signal) => {
    await ending(signal);
    return reportFlow(place, "SCTP", await flow.stop());
  };
}
