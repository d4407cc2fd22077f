// TCP connects per second of CPU from a pod to an endpoint in another pod, through a Service and
// directly. Both pods' work, all the way through the node, is on the connecting thread.
import { Lab } from "../lab/lab.ts";
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { lastCpu } from "./machine.ts";
import { Probe, type Targets } from "./probe.ts";
import { Programmed, type Programs } from "./programmed.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import {
  ENDPOINT_PORT,
  ENDPOINT_PREFIX,
  endpointAddress,
  makeRows,
  SERVICE_PORT,
  serviceAddress,
} from "./services.ts";
import { ratios } from "./statistics.ts";

const SERVICES = 1000;
const ENDPOINTS = 10;
const ROUNDS = 40;
const CALLS = 256;
const NS_PER_SECOND = 1e9;

const direct: Targets = {
  address: endpointAddress(0),
  port: ENDPOINT_PORT,
  span: SERVICES * ENDPOINTS,
  step: 1,
};
const service: Targets = {
  address: serviceAddress(0),
  port: SERVICE_PORT,
  span: SERVICES,
  step: 1,
};

/** Leads all endpoints' addresses to the pod "server". */
async function routeEndpoints(lab: Lab): Promise<void> {
  const { node } = lab.nodes;
  const { server } = lab.pods;
  const via = server!.addresses.ipv4;
  for (const [host, route] of [
    [server!, `local ${ENDPOINT_PREFIX} dev lo`],
    [node!, `${ENDPOINT_PREFIX} via ${via} dev server onlink`],
  ] as const) {
    const command = ["ip", "route", "add", ...route.split(" ")];
    const { code, stderr } = await host.run(command);
    if (code !== 0) throw new Error(`'${command.join(" ")}' on '${host.name}': ${stderr}`);
  }
}

function readFigures(samples: Samples): Figure[] {
  const rate = (claim: string, name: string) =>
    figure(claim, { values: of(samples, name), unit: "per CPU second" });
  const ratio = (claim: string, name: string) => ({
    claim,
    values: ratios(of(samples, name), of(samples, "direct")),
    unit: "×",
  });
  const held = ratio("connects per CPU second through a Service over direct", "service");
  const remember = ratio("the same with --remember-tcp", "remember");
  const beside = ratio("direct with programs attached over direct without", "attached");
  const goal = { atLeast: 0.97 };
  return [
    figure(held.claim, { ...held, goal }),
    figure(remember.claim, remember),
    figure(beside.claim, beside),
    rate("direct, no program", "direct"),
    rate("through a Service", "service"),
  ];
}

async function measure(lab: Lab, context: Context): Promise<Samples> {
  const node = lab.nodes.node!;
  await routeEndpoints(lab);
  const protocolOf = () => "TCP" as const;
  const rows = makeRows({ services: SERVICES, endpoints: ENDPOINTS, protocolOf });
  const programmed = Programmed.create(`${node.pins}/bench`, { rows });
  const plain = programmed.programs();
  const remember = programmed.programs({ remember_tcp: 1 });
  const { client, server } = lab.pods;
  const probe = Probe.start(client!, { cpu: lastCpu(), port: ENDPOINT_PORT, servers: server! });
  const makeCase = (name: string, targets: Targets, programs?: Programs): Case => {
    const work = async () => {
      const time = await probe.time("tcp-life", { count: CALLS, targets });
      return { [name]: NS_PER_SECOND / time };
    };
    return () => programs?.attached(node.cgroup, work) ?? work();
  };
  try {
    const count = context.rounds(ROUNDS);
    return await interleave(
      [
        makeCase("direct", direct),
        makeCase("attached", direct, plain),
        makeCase("service", service, plain),
        makeCase("remember", service, remember),
      ],
      { count, progress: (round) => context.progress(`round ${round + 1} of ${count}`) },
    );
  } finally {
    await probe.close();
    plain.close();
    remember.close();
  }
}

async function run(context: Context): Promise<Measured> {
  const lab = await Lab.create({ name: "pod", topology: { node: ["client", "server"] } });
  try {
    const samples = await measure(lab, context);
    return { figures: readFigures(samples), samples, notes: [] };
  } finally {
    await lab.close();
  }
}

export const pod: Bench = {
  name: "pod",
  claim: "A pod's TCP connects through a Service cost what direct ones cost",
  goal: "at least 0.97 × as many connects per CPU second as without any program",
  run,
};
