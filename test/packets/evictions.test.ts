// Which flows give way when the table is full: a model of one page of the table, told each time
// where the new connection's halves have gone, says whether less could have been lost.
import test, { type ExecutionContext } from "ava";
import { flowState, limit } from "../../bindings/layout.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { Bed, type FlowRecord } from "./bed.ts";
import { repair } from "./fuzz/read.ts";
import { ENDPOINT_PORT, LOCAL_PORT, makeServices, PORT } from "./services.ts";
import { tcp, udp, wordsOf } from "./words.ts";

const labTest = needsLab(test.serial);
const ETHERNET_AND_IPV4 = 34;
const FLAGS = ETHERNET_AND_IPV4 + 13;
const LAST_OF_SOURCE = ETHERNET_AND_IPV4 - 5;
const FIN_ACK = 0x11;
const RST = 0x04;
const ACK = 0x10;
const FIRST_CLIENT_PORT = 2000;
const { FLOW_WAYS: WAYS } = limit;

let bed: Bed;
let request: Uint8Array;
let reply: Uint8Array;

test.before(async () => {
  if (whyNoLab() !== undefined) return;
  // Every flow may be in the first set, and in one of the page's others.
  bed = await Bed.open({ rodata: { flow_set_mask: 0 } });
  bed.program(makeServices());
  const { at, ip } = wordsOf(4);
  request = await bed.frame(`${ip(at.client, at.vip)}/${tcp(FIRST_CLIENT_PORT, PORT)}`);
  reply = await bed.frame(`${ip(at.remote, at.node)}/${tcp(ENDPOINT_PORT, FIRST_CLIENT_PORT)}`);
});

test.after.always(async () => {
  await bed?.close();
});

/** A packet of the connection from this port, whose checksum nothing looks at here. */
function send(direction: "request" | "reply", port: number, flags: number): boolean {
  const frame = Uint8Array.from(direction === "request" ? request : reply);
  const at = ETHERNET_AND_IPV4 + (direction === "request" ? 0 : 2);
  new DataView(frame.buffer).setUint16(at, port);
  frame[FLAGS] = flags;
  return bed.run(frame, { hook: "ingress" }).verdict === "sent";
}

/** Numbers from 0 to below 1, the same each time (a linear congruential generator). */
function makeRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
}

const isClosed = (state: number) =>
  (state & flowState.FLOW_RESET) !== 0 ||
  (~state & (flowState.FLOW_CLOSED | flowState.FLOW_PEER_CLOSED)) === 0;

/** What is lost with a flow: its rank first, and among equals the longest idle is the least. */
function worthOf({ state, lastUsed }: FlowRecord, now: number): { rank: number; worth: number } {
  const idle = (now - lastUsed) & 0xffff;
  const isReplied = (state & flowState.FLOW_REPLIED) !== 0;
  const isHalfClosed = (state & (flowState.FLOW_CLOSED | flowState.FLOW_PEER_CLOSED)) !== 0;
  const answered = isHalfClosed ? limit.FLOW_IDLE_HALF_CLOSED : limit.FLOW_IDLE_TCP;
  const open = isReplied ? answered : limit.FLOW_IDLE_UNREPLIED;
  const patience = isClosed(state) ? limit.FLOW_IDLE_CLOSED : open;
  const rank = idle > patience ? 0 : isClosed(state) ? 1 : isReplied ? 3 : 2;
  return { rank, worth: rank * 65536 + (65535 - idle) };
}

/** The table as it should be, by place. */
class Model {
  readonly #flows: Map<number, FlowRecord>;
  evicted = 0;

  constructor(flows: readonly FlowRecord[]) {
    this.#flows = new Map(flows.map((flow) => [flow.place, flow]));
  }

  /** Puts a half in its place, and says what is wrong with that place. */
  insert(half: FlowRecord): string[] {
    const sets = new Set([0, Math.floor(half.place / WAYS)]);
    const places = [...sets].flatMap((set) =>
      Array.from({ length: WAYS }, (_, way) => set * WAYS + way),
    );
    const faults: string[] = [];
    const old = this.#flows.get(half.place);
    const isFree = (place: number) => !this.#flows.has(place);
    if (old && places.some(isFree)) faults.push(`${half.place} is taken, others are free`);
    if (old) {
      const worths = places
        .map((place) => this.#flows.get(place))
        .filter((flow) => flow !== undefined && flow.content !== half.content)
        .map((flow) => worthOf(flow!, half.lastUsed).worth);
      const { rank, worth } = worthOf(old, half.lastUsed);
      if (worth > Math.min(...worths))
        faults.push(`${JSON.stringify(old)} is worth more than others`);
      if (old.content === half.content) faults.push("it has taken its other half's place");
      if (rank > 1) this.evicted++;
      for (const [place, { content }] of this.#flows)
        if (content === old.content) this.#flows.delete(place);
    }
    this.#flows.set(half.place, half);
    return faults;
  }

  /** What is where, as text. */
  summary(): string[] {
    return [...this.#flows.values()].map(describe).sort();
  }
}

function describe({ place, kind, content }: FlowRecord): string {
  return `${String(place).padStart(2, "0")} ${kind} ${content}`;
}

labTest(
  "of the places that a flow may have, the one with the least to lose gives way",
  async (t) => {
    bed.forget();
    const random = makeRandom(7);
    let counted = 0;
    for (let step = 0; step < 600; step++) {
      const port = FIRST_CLIENT_PORT + step;
      const before = bed.flows();
      t.true(send("request", port, step % 3 ? ACK : 0x02));
      const after = bed.flows();
      const model = new Model(before);
      const halves = after.filter(({ clientPort }) => clientPort === port);
      // The half that replies meet comes first.
      halves.sort((one, other) => (one.kind < other.kind ? 1 : -1));
      t.deepEqual(
        halves.map(({ kind }) => kind),
        ["reverse", "forward"],
        `step ${step}`,
      );
      const faults = halves.flatMap((half) => model.insert(half));
      t.deepEqual(faults, [], `step ${step}`);
      t.deepEqual(model.summary(), after.map(describe).sort(), `step ${step}`);
      counted += model.evicted;
      // Then it lives for a while, or not.
      if (random() < 0.6) send("reply", port, ACK);
      if (random() < 0.2) send("request", port, FIN_ACK);
      if (random() < 0.2) send("reply", port, FIN_ACK);
      if (random() < 0.1) send("reply", port, RST);
      const seconds = [0, 5, 40, 70, 400, 17 * 3600][Math.floor(random() * 6)]!;
      bed.age(seconds, ({ clientPort }) => clientPort === port);
    }
    const { flow_evicted: evicted = 0 } = bed.reasons();
    t.is(evicted, counted);
    t.true(evicted > 50);
  },
);

async function flood(t: ExecutionContext, isAnswered: boolean): Promise<void> {
  bed.forget();
  const established = Array.from({ length: 6 }, (_, index) => FIRST_CLIENT_PORT + index);
  // The first set is the flood's.
  for (const port of [5000, 5001]) send("request", port, 0x02);
  for (const port of established) {
    t.true(send("request", port, 0x02));
    t.true(send("reply", port, 0x12));
    t.true(send("request", port, ACK));
  }
  bed.age(60, ({ clientPort }) => established.includes(clientPort));
  for (let port = 6000; port < 8000; port++) {
    t.true(send("request", port, 0x02));
    if (isAnswered) t.true(send("reply", port, 0x12));
  }
  for (const port of established) {
    const halves = bed.flows().filter(({ clientPort }) => clientPort === port);
    t.is(halves.length, 2, `flows of ${port}`);
    t.true(send("request", port, ACK), `requests of ${port}`);
    t.true(send("reply", port, ACK), `replies to ${port}`);
  }
  const { flow_evicted: evicted = 0 } = bed.reasons();
  t.true(evicted > 1000);
}

labTest("a flood that nobody answers leaves established connections alone", (t) => flood(t, false));
labTest("a flood that endpoints answer leaves established ones alone, too", (t) => flood(t, true));

labTest(
  "clients that all ask from one port, as of NTP and SIP, give way to each other",
  async (t) => {
    bed.forget();
    const { at, ip } = wordsOf(4);
    const first = await bed.frame(`${ip(at.client, at.vip)}/${udp(5060, LOCAL_PORT)}`);
    for (let client = 1; client < 250; client++) {
      const frame = Uint8Array.from(first);
      frame[LAST_OF_SOURCE] = client;
      repair(frame);
      const run = bed.run(frame, { hook: "ingress" });
      t.is(run.verdict, "next");
      t.notDeepEqual(run.frame, frame, `client ${client} was not led anywhere`);
    }
    const { flow_lost: lost = 0, flow_evicted: evicted = 0 } = bed.reasons();
    t.is(lost, 0);
    t.true(evicted > 100);
  },
);
