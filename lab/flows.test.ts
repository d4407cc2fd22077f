// Flows and their record, over loopback and over a cable that is pulled.
import test from "ava";
import type { FlowReport } from "./flows.ts";
import type { Helper } from "./host.ts";
import { Lab } from "./lab.ts";
import { plug, unplug } from "./links.ts";
import { needsLab } from "./needs.ts";
import { waitFor } from "./wait.ts";

const labTest = needsLab(test.serial);

let opened: Promise<Lab> | undefined;
function open(): Promise<Lab> {
  opened ??= Lab.create({ name: "flows" });
  return opened;
}
test.after.always(async () => (await opened)?.close());

function until(
  client: Helper,
  flow: number,
  { what, isSo }: { what: string; isSo(report: FlowReport): boolean },
): Promise<FlowReport> {
  return waitFor(
    async () => {
      const report = await client.reportFlow(flow);
      return isSo(report) && report;
    },
    { what },
  );
}

labTest("a flow asks on, from the port it was given, and notes no fault without one", async (t) => {
  const lab = await open();
  const server = await lab.pods["pod-b1"]!.helper();
  const client = await lab.outside.helper();
  for (const [place, address] of Object.values(lab.pods["pod-b1"]!.addresses).entries()) {
    await server.serveEcho({ identity: "echo", address, port: 80 });
    await server.serveUdp({ identity: "echo", address, port: 80 });
    for (const protocol of ["TCP", "UDP"] as const) {
      const local = { port: 7000 + place };
      const options = { protocol, address, port: 80, local, bytes: 5000, pauseMs: 1 };
      const flow = await client.startFlow(options);
      await until(client, flow, { what: `ten rounds`, isSo: ({ rounds }) => rounds >= 10 });
      const report = await client.stopFlow(flow);
      t.like(report, { identities: ["echo"], stalls: [], lost: 0, wrong: 0, local });
      t.is(report.broken, undefined);
      await t.throwsAsync(client.reportFlow(flow), { message: /no flow/ });
    }
  }
});

labTest(
  "a cable pulled for more than a second is a stall, over UDP a loss, no break",
  async (t) => {
    const lab = await open();
    const pod = lab.pods["pod-a1"]!;
    const server = await pod.helper();
    const client = await lab.outside.helper();
    const peer = { address: pod.addresses.ipv4, port: 80 };
    await server.serveEcho({ identity: "echo", ...peer });
    await server.serveUdp({ identity: "echo", ...peer });
    const tcp = await client.startFlow({ protocol: "TCP", ...peer });
    const udp = await client.startFlow({ protocol: "UDP", ...peer });
    await unplug(lab, pod);
    await until(client, tcp, { what: "a stall", isSo: ({ stalls }) => stalls.length > 0 });
    await until(client, udp, { what: "a loss", isSo: ({ lost }) => lost > 0 });
    await plug(lab, pod);
    const { rounds } = await client.reportFlow(tcp);
    await until(client, tcp, { what: "TCP to go on", isSo: (report) => report.rounds > rounds });
    const after = await client.reportFlow(udp);
    await until(client, udp, {
      what: "UDP to go on",
      isSo: (report) => report.rounds > after.rounds,
    });
    const report = await client.stopFlow(tcp);
    t.is(report.stalls.length, 1);
    t.true(report.stalls[0]!.seconds > 1);
    t.is(report.wrong + (await client.stopFlow(udp)).wrong, 0);
    t.is(report.broken, undefined);
  },
);

labTest("a server that dies breaks its flows, and one that is not there starts none", async (t) => {
  const lab = await open();
  const pod = lab.pods["pod-b2"]!;
  const server = await pod.helper();
  const client = await lab.outside.helper();
  const peer = { address: pod.addresses.ipv4, port: 80 };
  await server.serveEcho({ identity: "echo", ...peer });
  const flow = await client.startFlow({ protocol: "TCP", ...peer, pauseMs: 1 });
  const before = Date.now();
  await server.close();
  const isSo = ({ broken }: FlowReport) => broken !== undefined;
  const { broken } = await until(client, flow, { what: "the flow to break", isSo });
  t.regex(broken!.code, /^(ECONNRESET|CLOSED|EPIPE)$/);
  t.true(Math.abs(broken!.at - before) < 5000);
  await t.throwsAsync(client.startFlow({ protocol: "TCP", ...peer }), { code: "ECONNREFUSED" });
  await t.throwsAsync(client.startFlow({ protocol: "UDP", ...peer }), { message: /No answer/ });
});

labTest("an answer of another server, or with another byte, is wrong", async (t) => {
  const lab = await open();
  const pod = lab.pods["pod-a2"]!;
  const client = await lab.outside.helper();
  const { ipv4: address } = pod.addresses;
  // Swaps one byte of every answer.
  const script = `
    const net = require("node:net");
    const dgram = require("node:dgram");
    const socket = dgram.createSocket("udp4");
    socket.on("message", (data, { port, address }) => {
      const payload = String(data).replace(/./, "!");
      socket.send(JSON.stringify({ identity: "liar", payload }), port, address);
    });
    socket.bind(80, "${address}");
    net.createServer((connection) => {
      connection.write("liar\\n");
      connection.on("data", (data) => connection.write(data.fill(33, 0, 1)));
    }).listen(80, "${address}", () => console.log("ready"));`;
  await pod.start([process.execPath, "-e", script], { ready: /ready/ });
  for (const protocol of ["TCP", "UDP"] as const) {
    const flow = await client.startFlow({ protocol, address, port: 80 });
    const isSo = ({ wrong, rounds }: FlowReport) => wrong === rounds && rounds >= 3;
    t.like(await until(client, flow, { what: "wrong answers", isSo }), { identities: ["liar"] });
  }
});

labTest(
  "hundreds of connections leave from the ports they were given, again and again",
  async (t) => {
    const lab = await open();
    const pod = lab.pods["pod-b1"]!;
    const server = await pod.helper();
    const client = await lab.outside.helper();
    const peer = { address: pod.addresses.ipv6, port: 81 };
    await server.serveTcp({ identity: "many", ...peer });
    const questions = Array.from({ length: 300 }, (_, index) => ({
      ...peer,
      local: { address: "2001:db8:ffff:1::77", port: 20_000 + index },
      reset: true,
    }));
    for (let round = 0; round < 2; round++) {
      const outcomes = await client.tcpMany(questions, { atOnce: 100 });
      const ports = outcomes.map((outcome) =>
        "error" in outcome ? outcome.error : outcome.localPort,
      );
      t.deepEqual(
        ports,
        questions.map(({ local }) => local.port),
      );
    }
  },
);
