// The ways that packets take through the programs of the packet path, each as the frame that takes
// it. Knows neither how they are timed nor what that should give, but for what is asked of them.
import type { ProgramName } from "../control/dataplane/devices/programs.ts";
import type { Family } from "../control/model/rows.ts";
import type { Goal } from "./bench.ts";
import type { FrameFields } from "./frame.ts";
import { Frames, type Hook, VERDICTS } from "./frames.ts";
import { type Gateway, ROUTER_MAC } from "./gateway.ts";
import { ENDPOINT_PORT, SERVICE_PORT } from "./services.ts";
import { type Special, specialService, vipAddress } from "./vips.ts";

const CLIENTS = { 4: "203.0.113.10", 6: "2001:db8:ffff::10" } as const;
const STRANGERS = { 4: "192.0.2.77", 6: "2001:db8:52::77" } as const;
const CLIENT_PORT = 1024;
const MANY = 1 << 16;
/** Of a node's ports there are enough for as many connections to one endpoint. */
const TO_ONE = 1 << 14;
/** Few enough for caches. */
const FEW = 1 << 9;
/** So many that a flow is long gone when it comes again. */
const TOO_MANY = 1 << 22;
/** Connections after which svc_flows of the usual size has no place free. */
const TO_FILL = 400_000;

/** Frames that are run through a program. */
interface Run {
  frames: Frames;
  program: ProgramName;
  verdict: number;
  repeat: number;
}

/** A way through a program. */
export interface Path {
  name: string;
  gateway: Gateway;
  program: ProgramName;
  hook: Hook;
  frames: Frames;
  /** How many of them the frames are of. */
  flows: number;
  verdict: number;
  /** Each frame is the first of its flow. */
  begins: boolean;
  /** What has to come by before. */
  before: readonly Run[];
  isDrawn: boolean;
  /** Whether what the program adds to one that does nothing is what counts. */
  isAdded: boolean;
  /** Of the time over that of the program that only parses and sends back, or of what is added. */
  goal?: Goal | undefined;
}

/** A number of services in a gateway's maps. */
export interface Served {
  services: number;
  gateway: Gateway;
}

export interface Places {
  few: Served;
  /** With a table of flows that stays in a processor's caches, as does all else of one Service. */
  small: Served;
  more: readonly Served[];
  /** Where no flow is ever forgotten. */
  full: Served | undefined;
  large: (Served & { flows: number }) | undefined;
  /** The address of the endpoint on the gateway's node. */
  pod: string;
}

interface Wanted extends Partial<Pick<Path, "begins" | "isDrawn" | "isAdded" | "goal" | "before">> {
  program?: ProgramName;
  verdict?: keyof typeof VERDICTS;
  fields?: Partial<FrameFields>;
  family?: Family;
  flows?: number;
  /** Whom frames are for; by default all services. */
  special?: Special;
}

/** A path, by default that of a connection that stands through XDP. */
function makePath(name: string, { services, gateway }: Served, wanted: Wanted): Path {
  const { family = 4, flows = 1, special, program = "svc_xdp", begins = false } = wanted;
  const service = special ? specialService(services, special) : 0;
  const fields: FrameFields = {
    destinationMac: gateway.uplink.mac,
    sourceMac: ROUTER_MAC,
    source: CLIENTS[family],
    destination: vipAddress(service, family),
    protocol: special === "udp" ? "UDP" : "TCP",
    sourcePort: CLIENT_PORT,
    destinationPort: SERVICE_PORT,
    ...wanted.fields,
  };
  const spread = flows > 1 && !special ? services : 1;
  const frames = new Frames({ fields, flows, services: spread });
  const verdict = VERDICTS[wanted.verdict ?? "tx"];
  return {
    name,
    gateway,
    program,
    hook: program === "svc_xdp" ? "xdp" : "tc",
    frames,
    flows,
    verdict,
    begins,
    before: wanted.before ?? (begins ? [] : [{ frames, program, verdict, repeat: flows }]),
    isDrawn: wanted.isDrawn ?? false,
    isAdded: wanted.isAdded ?? false,
    goal: wanted.goal,
  };
}

function makeStrangers(few: Served): Path[] {
  const to = (family: Family) => ({ family, fields: { destination: STRANGERS[family] } });
  const atTc = { verdict: "next", isAdded: true } as const;
  return [
    makePath("not ours", few, {
      ...to(4),
      verdict: "pass",
      goal: { atMost: 2 },
      isDrawn: true,
    }),
    makePath("not ours, IPv6", few, { ...to(6), verdict: "pass" }),
    makePath("not ours at TC egress", few, {
      ...to(4),
      ...atTc,
      program: "svc_tc_egress",
      goal: { atMost: 25 },
    }),
    makePath("not ours at TC egress, IPv6", few, {
      ...to(6),
      ...atTc,
      program: "svc_tc_egress",
    }),
    makePath("not ours at TC ingress", few, { ...to(4), ...atTc, program: "svc_tc_ingress" }),
  ];
}

function makeEstablished({ few, more, large }: Places): Path[] {
  return [
    makePath("established, 1 flow", few, { goal: { atMost: 6 }, isDrawn: true }),
    makePath("established, 1 flow, IPv6", few, { family: 6 }),
    makePath("established, 1 flow, UDP", few, { special: "udp" }),
    makePath("established, 64k flows", few, {
      flows: MANY,
      goal: { atMost: 20 },
      isDrawn: true,
    }),
    makePath("established, 64k flows, IPv6", few, { flows: MANY, family: 6 }),
    ...more.map((served) =>
      makePath(`established, 64k flows, ${served.services} services`, served, { flows: MANY }),
    ),
    ...(large
      ? [makePath("established, 1M flows", large, { flows: large.flows, isDrawn: true })]
      : []),
  ];
}

function makeNew({ few, small, more }: Places): Path[] {
  const begins = true;
  return [
    makePath("new flow", few, { begins, flows: MANY, goal: { atMost: 25 }, isDrawn: true }),
    makePath("new flow, IPv6", few, { begins, flows: MANY, family: 6 }),
    makePath("new flow, in caches", { ...small, services: 1 }, { begins, flows: FEW }),
    makePath("new flow, affinity", few, { begins, flows: TO_ONE, special: "sticky" }),
    makePath("new flow, source ranges", few, { begins, flows: MANY, special: "guarded" }),
    ...more.map((served) =>
      makePath(`new flow, ${served.services} services`, served, { begins, flows: MANY }),
    ),
  ];
}

/** The frames of what comes back: the endpoint's answer to a request that has been seen. */
function makeReply({ few }: Places, request: Path): Path {
  const { gateway } = few;
  const [run] = request.before;
  const ifindex = gateway.uplink.ifindex;
  gateway.forget();
  gateway.inside(() => request.frames.time(gateway.program(request.program), { ...run!, ifindex }));
  const [flow] = gateway.flows();
  if (!flow) throw new Error("A request has made no flow");
  return makePath("reply of an endpoint, 1 flow", few, {
    fields: {
      source: flow.backend.address,
      sourcePort: flow.backend.port,
      destination: flow.source.address,
      destinationPort: flow.source.port,
    },
    before: request.before,
  });
}

/** What TC alone does, or does where XDP cannot send. */
function makeTc({ few, pod }: Places): Path[] {
  const ingress = { program: "svc_tc_ingress", verdict: "sent" } as const;
  const first = makePath("first fragment at TC ingress", few, {
    ...ingress,
    special: "udp",
    fields: { fragment: "first" },
  });
  const local = makePath("established at TC ingress, endpoint on this node", few, {
    ...ingress,
    verdict: "next",
    special: "local",
  });
  return [
    makePath("established at TC ingress", few, ingress),
    local,
    makePath("reply at TC egress, endpoint on this node", few, {
      program: "svc_tc_egress",
      verdict: "next",
      fields: {
        source: pod,
        sourcePort: ENDPOINT_PORT,
        destination: CLIENTS[4],
        destinationPort: CLIENT_PORT,
      },
      before: local.before,
    }),
    first,
    makePath("last fragment at TC ingress", few, {
      ...ingress,
      special: "udp",
      fields: { fragment: "last" },
      before: first.before,
    }),
  ];
}

/** What finds no free place: a flow in use gives way, with its other half. */
function makeEvicting(full: Served): Path {
  const path = makePath("new flow in place of another one", full, { flows: TOO_MANY });
  return { ...path, before: path.before.map((run) => ({ ...run, repeat: TO_FILL })) };
}

/** All paths; those of the most interest first. */
export function makePaths(places: Places): Path[] {
  const { few, full } = places;
  const established = makeEstablished(places);
  return [
    ...makeStrangers(few),
    ...established,
    makeReply(places, established[0]!),
    ...makeNew(places),
    ...(full ? [makeEvicting(full)] : []),
    ...makeTc(places),
  ];
}
