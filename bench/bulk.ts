// Bulk TCP from outside to an endpoint on the node: by plain routing, through bpfsvc's programs in
// TC, which translate both directions and leave the rest to the stack, and through the rules of
// kube-proxy's modes. Both ends are on one thread, so that its CPU time is that of all the way.
import type { Bench, Context, Figure, Measured } from "./bench.ts";
import { startAgent } from "./commands.ts";
import { lastCpu } from "./machine.ts";
import { Manifests } from "./manifests.ts";
import { makePlaces, type Place, serveByRules } from "./pods.ts";
import { Probe, type Targets } from "./probe.ts";
import { RIVALS } from "./rivals/rivals.ts";
import { type Case, figure, interleave, of, type Samples } from "./rounds.ts";
import { ENDPOINT_PORT, ENDPOINT_PREFIX, endpointAddress, type Shape } from "./services.ts";
import { ratios } from "./statistics.ts";

const SERVICES = 100;
const FIRST_NODE_PORT = 30_000;
const ROUNDS = 15;
const TRIES = 10;
/** Each run has a connection of its own. */
const STREAM = { runs: 4, count: 64 } as const;
const BLOCK_BITS = 32_768 * 8;

const PLAIN = "plain routing";
const BESIDE = "plain routing beside bpfsvc";
const OURS = "bpfsvc";

/** Services at the node's ports, all endpoints of which are on the node. */
function shapeOf({ node }: Place): Shape {
  return {
    services: SERVICES,
    endpoints: 10,
    protocolOf: () => "TCP",
    nodePortOf: (service) => ({
      address: node.addresses.ipv4,
      port: FIRST_NODE_PORT + service,
    }),
    endpointsOn: node.name,
  };
}

async function serve(place: Place): Promise<void> {
  const { node } = place;
  const manifests = new Manifests(shapeOf(place), {
    name: node.name,
    address: node.addresses.ipv4,
  });
  try {
    await startAgent(node, ["--manifests", manifests.folder, "--device", "eth0=tc"]);
  } finally {
    manifests.remove();
  }
}

/** One block after the other to these, from outside. */
function makeCase(name: string, probe: Probe, targets: Targets): Case {
  return async () => ({ [name]: (await probe.time("tcp-stream", { ...STREAM, targets })).cpu });
}

const endpoints: Targets = {
  address: endpointAddress(0),
  port: ENDPOINT_PORT,
  span: SERVICES,
  step: 1,
};
/** Endpoints of the node with the agent, those of plain routing being elsewhere. */
const besides: Targets = { ...endpoints, address: endpointAddress(1 << 20) };

function nodePort({ node }: Place): Targets {
  return { address: node.addresses.ipv4, port: FIRST_NODE_PORT, span: 1, step: 0 };
}

async function measure(context: Context): Promise<Samples> {
  const { lab, places } = await makePlaces("bulk", ["plain", "ours", ...RIVALS]);
  const probes: Probe[] = [];
  const start = ({ server }: Place) => {
    const options = { cpu: lastCpu(), port: ENDPOINT_PORT, servers: server };
    const probe = Probe.start(lab.outside, options);
    probes.push(probe);
    return probe;
  };
  try {
    const { plain, ours } = places;
    await lab.router.ip(
      `route add ${ENDPOINT_PREFIX} via ${plain.node.addresses.ipv4}`,
      `route add ${besides.address}/16 via ${ours.node.addresses.ipv4}`,
    );
    context.progress("an agent");
    await serve(ours);
    const through = start(ours);
    const cases = [
      makeCase(PLAIN, start(plain), endpoints),
      makeCase(BESIDE, through, besides),
      makeCase(OURS, through, nodePort(ours)),
    ];
    for (const rival of RIVALS) {
      const place = places[rival];
      await serveByRules(place, { rival, shape: shapeOf(place) });
      cases.push(makeCase(rival, start(place), nodePort(place)));
    }
    return await interleave(cases, { usual: ROUNDS, tries: TRIES, context });
  } finally {
    for (const probe of probes) await probe.close();
    await lab.close();
  }
}

function readFigures(samples: Samples): Figure[] {
  const over = (way: string, other: string) => ratios(of(samples, other), of(samples, way));
  const what = "bytes per CPU second to an endpoint on the node";
  return [
    figure(`${what}: through ${OURS} over ${PLAIN}`, {
      values: over(OURS, PLAIN),
      unit: "×",
      goal: { atLeast: 0.9 },
    }),
    figure(`${what}: ${BESIDE} over ${PLAIN}`, { values: over(BESIDE, PLAIN), unit: "×" }),
    ...RIVALS.map((rival) =>
      figure(`${what}: through ${OURS} over ${rival}`, { values: over(OURS, rival), unit: "×" }),
    ),
    ...[PLAIN, BESIDE, OURS, ...RIVALS].map((way) =>
      figure(`throughput, ${way}`, {
        values: of(samples, way).map((ns) => BLOCK_BITS / ns),
        unit: "Gbit per CPU second",
      }),
    ),
  ];
}

async function run(context: Context): Promise<Measured> {
  const samples = await measure(context);
  const notes = [
    "From a client outside through a router to a node port, whose endpoint is a pod of " +
      "that node. " +
      "The client's address stays with bpfsvc; rules rewrite it, as kube-proxy has them do.",
  ];
  return { figures: readFigures(samples), samples, notes };
}

export const bulk: Bench = {
  name: "bulk",
  claim: "Bulk TCP from outside through an endpoint on the node goes as if it were routed",
  goal: "bytes per CPU second ≥ 0.9 × of plain routing",
  run,
};
