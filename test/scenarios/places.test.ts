// Where the records of sockets lie: a place for one destination, the socket's own storage for more
// or when no place is free. What an application sees is the same.
import test from "ava";
import { limit, socketSet } from "../../bindings/layout.ts";
import { BpfMap } from "../../bindings/map.ts";
import { Pins } from "../../control/dataplane/pins.ts";
import type { Answer } from "../../lab/helper.ts";
import type { Helper } from "../../lab/host.ts";
import { whyNoLab } from "../../lab/lab.ts";
import { needsLab } from "../../lab/needs.ts";
import { waitFor } from "../../lab/wait.ts";
import { makeService, makeSlices } from "./objects.ts";
import { POD_PORT, Stage } from "./stage.ts";

const labTest = needsLab(test.serial);
let stage: Stage;
const DNS = [{ name: "dns", protocol: "UDP", port: 53 }] as const;
const SERVICES = ["10.96.1.1", "10.96.1.2", "10.96.1.3", "10.96.1.4"];
/** A cookie that no socket has. */
const NOBODY = 0x7fffffffffffffffn;

test.before(async () => {
  if (whyNoLab() === undefined) stage = await Stage.open(["client", "pod-b"]);
});

test.after.always(async () => {
  await stage?.close();
});

async function start(...flags: string[]): Promise<void> {
  const endpoints = [stage.pod("pod-b").addresses.ipv4];
  for (const [index, address] of SERVICES.entries())
    await stage.apply(`s${index}`, [
      makeService({ name: `s${index}`, addresses: [address], ports: [...DNS] }),
      ...makeSlices({ service: `s${index}`, ports: [{ ...DNS[0], port: POD_PORT }], endpoints }),
    ]);
  await stage.startAgent({ arguments: flags });
}

/** Does something with the bytes of all sets, and writes them back if it changed any. */
function withSets<T>(work: (sets: Uint8Array) => T): T {
  const map = BpfMap.openPinned(new Pins(stage.node.pins).mapPath("svc_socket_one"));
  try {
    const sets = new Uint8Array(limit.SOCKET_SETS * socketSet.bytes);
    for (const { keys, values, count } of map.entries()) {
      const first = new DataView(keys.buffer, keys.byteOffset).getUint32(0, true);
      sets.set(values.subarray(0, count * socketSet.bytes), first * socketSet.bytes);
    }
    const before = sets.slice();
    const result = work(sets);
    const indexes = Uint32Array.from({ length: limit.SOCKET_SETS }, (_, index) => index);
    if (Buffer.compare(sets, before) !== 0) map.setBatch(new Uint8Array(indexes.buffer), sets);
    return result;
  } finally {
    map.close();
  }
}

/** Does something with the cookies of all places. */
function withPlaces<T>(work: (cookies: BigUint64Array) => T): T {
  return withSets((sets) => {
    const words = new BigUint64Array(sets.buffer);
    const stride = socketSet.bytes / 8;
    const cookies = new BigUint64Array(limit.SOCKET_SETS * limit.SOCKET_PLACES);
    const wordOf = (place: number) =>
      Math.floor(place / limit.SOCKET_PLACES) * stride + (place % limit.SOCKET_PLACES);
    for (const place of cookies.keys()) cookies[place] = words[wordOf(place)]!;
    const result = work(cookies);
    for (const [place, cookie] of cookies.entries()) words[wordOf(place)] = cookie;
    return result;
  });
}

function placesInUse(): number {
  return withPlaces((cookies) => cookies.filter((cookie) => cookie !== 0n).length);
}

/** One datagram and its answer: the sender is the Service that was asked. */
async function exchange(client: Helper, fd: number, address: string): Promise<string> {
  await client.sockets.sendTo(fd, { address, port: 53, payload: "hello" });
  const { payload, from } = await client.sockets.receive(fd);
  return `${(JSON.parse(payload) as Answer).identity} as ${from!.address}`;
}

labTest("a socket with one destination has a place, which is free when it is closed", async (t) => {
  await start();
  const client = await stage.pod("client").helper();
  const open = () => client.sockets.open({ protocol: "UDP", family: 4 });
  const fds = await Promise.all(Array.from({ length: 50 }, open));
  const before = placesInUse();
  for (const fd of fds) t.is(await exchange(client, fd, SERVICES[0]!), "pod-b as 10.96.1.1");
  t.is(placesInUse(), before + 50);
  for (const fd of fds) t.is(await exchange(client, fd, SERVICES[0]!), "pod-b as 10.96.1.1");
  t.is(placesInUse(), before + 50);
  for (const fd of fds) await client.sockets.close(fd);
  t.is(placesInUse(), before);
  await client.close();
});

labTest("a socket that talks to a second Service moves to its storage, for good", async (t) => {
  const client = await stage.pod("client").helper();
  const fd = await client.sockets.open({ protocol: "UDP", family: 4 });
  const before = placesInUse();
  for (const address of [...SERVICES, ...SERVICES])
    t.is(await exchange(client, fd, address), `pod-b as ${address}`);
  t.is(placesInUse(), before);
  await client.close();
});

labTest("what a closed socket left in its place is nobody's", async (t) => {
  const client = await stage.pod("client").helper();
  const first = await client.sockets.open({ protocol: "UDP", family: 4 });
  await exchange(client, first, SERVICES[0]!);
  withSets((sets) => {
    const words = new BigUint64Array(sets.buffer);
    const set = words.findIndex((word, at) => word !== 0n && at % (socketSet.bytes / 8) < 4);
    const from = Math.floor((set * 8) / socketSet.bytes) * socketSet.bytes;
    // The first set is where a socket without a cookie would look, and free places have none.
    for (let place = 0; place < limit.SOCKET_PLACES; place++)
      sets.copyWithin(
        socketSet.offset.record + place * socketSet.stride.record,
        from + socketSet.offset.record,
        from + socketSet.offset.record + socketSet.stride.record,
      );
  });
  await client.sockets.close(first);
  const fd = await client.sockets.open({ protocol: "UDP", family: 4 });
  await client.sockets.bind(fd, { address: "0.0.0.0", port: 4000 });
  const before = placesInUse();
  t.is(await exchange(client, fd, SERVICES[0]!), "pod-b as 10.96.1.1");
  t.is(placesInUse(), before + 1);
  await client.close();
});

labTest("a killed process leaves no place in use", async (t) => {
  const before = placesInUse();
  const client = await stage.pod("client").helper();
  const fd = await client.sockets.open({ protocol: "UDP", family: 4 });
  await client.sockets.connect(fd, { address: SERVICES[0]!, port: 53 });
  t.is(placesInUse(), before + 1);
  await client.close();
  await waitFor(() => placesInUse() === before, { what: "the place to be free" });
});

labTest("when no place is free, sockets are served from their storage", async (t) => {
  const client = await stage.pod("client").helper();
  const taken = withPlaces((cookies) => {
    const free = cookies.map((cookie) => (cookie === 0n ? 1n : 0n));
    for (const [place, isFree] of free.entries()) if (isFree) cookies[place] = NOBODY;
    return free;
  });
  const fd = await client.sockets.open({ protocol: "UDP", family: 4 });
  for (const address of [...SERVICES, ...SERVICES])
    t.is(await exchange(client, fd, address), `pod-b as ${address}`);
  withPlaces((cookies) => {
    for (const [place, isFree] of taken.entries()) if (isFree) cookies[place] = 0n;
  });
  t.is(await exchange(client, fd, SERVICES[0]!), "pod-b as 10.96.1.1");
  await client.close();
});

labTest("with --remember-tcp a connection has a place too", async (t) => {
  await stage.agent.stop();
  await stage.apply("tcp", [
    makeService({ name: "tcp", addresses: ["10.96.1.9"], ports: [{ port: 80 }] }),
    ...makeSlices({
      service: "tcp",
      ports: [{ port: POD_PORT }],
      endpoints: [stage.pod("pod-b").addresses.ipv4],
    }),
  ]);
  await start("--remember-tcp");
  const client = await stage.pod("client").helper();
  const before = placesInUse();
  const fd = await client.sockets.open({ protocol: "TCP", family: 4 });
  await client.sockets.connect(fd, { address: "10.96.1.9", port: 80 });
  t.deepEqual(await client.sockets.peerAddress(fd), { address: "10.96.1.9", port: 80 });
  t.is(placesInUse(), before + 1);
  await client.sockets.close(fd);
  await waitFor(() => placesInUse() === before, { what: "the place to be free" });
  await client.close();
});
