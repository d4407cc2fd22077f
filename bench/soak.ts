// Real clients outside at work for minutes in every network of the lab, while endpoints, MAC
// addresses and agents change: which connections broke. No clock is read for a ratio.
import type { Network } from "../lab/cni.ts";
import { formatSoak, type SoakReport, soak as soakLab } from "../lab/soak.ts";
import type { Bench, Context, Figure, Goal, Measured } from "./bench.ts";
import { figure } from "./rounds.ts";
import { CHANGES, type Change, SoakBed } from "./soakbed.ts";

/** With what it takes to begin, within three minutes. */
const SECONDS = 120;
const QUICK_SECONDS = 20;
/** What each iperf3 sends, and receives: all of them together leave CPU time to the others. */
const MEGABITS = 4;
export const NETWORKS: readonly Network[] = ["routed", "bridge", "vxlan"];

export interface Soaked {
  network: Network;
  reports: SoakReport[];
  changes: readonly Change[];
  complaints: string[];
}

/** Soaks one network for so long. Throws when a flow cannot even be started. */
export async function soakNetwork(network: Network, seconds: number): Promise<Soaked> {
  const bed = await SoakBed.open(network);
  try {
    const reports = await soakLab({
      client: bed.lab.outside,
      targets: bed.targets,
      seconds,
      churn: (signal) => bed.churn(signal),
      megabits: MEGABITS,
    });
    return { network, reports, changes: bed.changes, complaints: bed.complaints() };
  } finally {
    await bed.close();
  }
}

/** Everything at once in all networks. */
export function soakAll(seconds: number): Promise<Soaked[]> {
  return Promise.all(NETWORKS.map((network) => soakNetwork(network, seconds)));
}

/**
 * A datagram that was lost, with its question's clock, is no broken connection: UDP may lose, and
 * whoever uses it asks again. All else that failed is.
 */
export function isBroken({ tool }: SoakReport, { kind, detail }: SoakReport["faults"][number]) {
  return kind !== "stall" && !(tool === "dig" && /timed out/.test(detail));
}

/** The reports of what broke, each with those faults alone. */
export function brokenOf(reports: readonly SoakReport[]): SoakReport[] {
  return reports
    .map((report) => ({
      ...report,
      faults: report.faults.filter((each) => isBroken(report, each)),
    }))
    .filter(({ faults }) => faults.length > 0);
}

function count(reports: readonly SoakReport[], of: (report: SoakReport) => number): number {
  return reports.reduce((sum, report) => sum + of(report), 0);
}

function figuresOf({ network, reports, changes }: Soaked): Figure[] {
  const one = (claim: string, value: number, rest: { unit: string; goal?: Goal }) =>
    figure(`${network}: ${claim}`, { values: [value], ...rest });
  const broken = count(brokenOf(reports), ({ faults }) => faults.length);
  const others = count(reports, ({ faults }) => faults.length) - broken;
  return [
    one("connections broken, refused or told wrong", broken, {
      unit: "times",
      goal: { atMost: 0 },
    }),
    one("answers later than a second, or datagrams lost", others, { unit: "times" }),
    one(
      "questions answered",
      count(reports, ({ tool, done }) => (tool === "iperf3" ? 0 : done)),
      {
        unit: "times",
      },
    ),
    one(
      "sent by iperf3",
      count(reports, ({ tool, done }) => (tool === "iperf3" ? done : 0)),
      {
        unit: "MB",
      },
    ),
    ...CHANGES.map((what) =>
      one(`changes of ${what}`, changes.filter((change) => change.what === what).length, {
        unit: "times",
      }),
    ),
  ];
}

async function run(context: Context): Promise<Measured> {
  const seconds = context.quick ? QUICK_SECONDS : SECONDS;
  context.progress(`${seconds} s in ${NETWORKS.length} networks at once`);
  const soaked = await soakAll(seconds);
  const figures = soaked.flatMap(figuresOf);
  const samples = Object.fromEntries(figures.map(({ claim, value }) => [claim, [value]]));
  const notes = soaked.flatMap(({ network, reports, complaints }) => [
    ...reports
      .filter(({ faults }) => faults.length > 0)
      .map((report) => `${network}: ${formatSoak([report])}`),
    ...complaints.map((line) => `${network}: an agent: ${line}`),
  ]);
  return { figures, samples, notes };
}

export const soak: Bench = {
  name: "soak",
  claim: "No connection breaks while endpoints, MAC addresses and agents change",
  goal: "curl, dig, iperf3, TCP, UDP and SCTP from outside for minutes: none broken or told wrong",
  run,
};
