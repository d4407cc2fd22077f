// Programs on devices of a network namespace that the test made: as links and as filters, replaced,
// put back, and taken off without touching those of others.
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { BpfError } from "../../../bindings/errors.ts";
import { attachFilter, detachFilter, filterPoint, findFilter } from "../../../bindings/filter.ts";
import { BpfLink, deviceHook, xdpFlag } from "../../../bindings/link.ts";
import { NetlinkSocket, netlinkProtocol } from "../../../bindings/netlink.ts";
import { BpfObject } from "../../../bindings/object.ts";
import { listLinks } from "../../../bindings/rtnetlink.ts";
import { RunningProgram } from "../../../bindings/running.ts";
import { bpffsFolder, hasRoot, type TestNetwork, testNetwork } from "../../../bindings/testing.ts";
import { Pins } from "../pins.ts";
import { DeviceHooks, filterPlace, type Served, type Verify } from "./hooks.ts";
import type { Note, WantedDevice, XdpWish } from "./modes.ts";
import { ProgramError, type ProgramName } from "./programs.ts";

const BOTH = { links: true, filters: true };
const TESTDATA = path.join(import.meta.dirname, "../../../bindings/testdata/device.bpf.o");

interface Bench {
  network: TestNetwork;
  pins: Pins;
  serve(hooks: DeviceHooks, xdp?: XdpWish, note?: Note, verify?: Verify): Served;
}

async function open(t: ExecutionContext): Promise<Bench> {
  const network = await testNetwork(t);
  network.ip("link add name left index 10 type veth peer name right", "link set left up");
  const pins = new Pins(path.join(bpffsFolder(t), "node"));
  t.teardown(() => pins.remove());
  return {
    network,
    pins,
    serve: (hooks, xdp = "none", note = "none", verify = BOTH) =>
      network.run(() => {
        const socket = new NetlinkSocket(netlinkProtocol.ROUTE);
        const link = listLinks(socket).find(({ name }) => name === "left")!;
        socket.close();
        const device: WantedDevice = {
          ...{ link, xdp, note },
          ...{ role: "uplink", ipv4: undefined, ipv6: undefined },
        };
        return hooks.serve(device, verify);
      }),
  };
}

/** Programs of a build, in the kernel until the end of the test. */
function programs(t: ExecutionContext): { get: (name: ProgramName) => RunningProgram } {
  const object = BpfObject.open(TESTDATA);
  object.load();
  const [tc, xdp] = ["pass_tc", "pass_xdp"].map((name) =>
    RunningProgram.openById(object.program(name).info().id),
  );
  object.close();
  t.teardown(() => {
    tc!.close();
    xdp!.close();
  });
  return { get: (name) => (name === "svc_xdp" ? xdp! : tc!) };
}

const USUAL: Served = { xdp: "none", note: "none", code: "" };

test("links are taken over, updated for another build, and gone when withdrawn", async (t) => {
  if (!hasRoot(t)) return;
  const { network, pins, serve } = await open(t);
  const [one, two] = [programs(t), programs(t)];
  const first = new DeviceHooks({ pins, programs: one });
  t.deepEqual(serve(first), USUAL);
  const infos = () =>
    pins.deviceLinks.map(({ hook, ifindex }) => {
      const link = BpfLink.openPinned(pins.deviceLinkPath(hook, ifindex));
      const { info } = link;
      link.close();
      return info;
    });
  const before = infos();
  t.is(before.length, 2);
  first.close();
  const next = new DeviceHooks({ pins, programs: two });
  t.deepEqual([...next.ifindexes], [10]);
  serve(next, "native");
  t.deepEqual(
    infos().filter(({ attachType }) => attachType !== deviceHook.XDP),
    before.map((info) => ({ ...info, programId: two.get("svc_tc_ingress").id })),
  );
  t.true(next.isOwnXdp(two.get("svc_xdp").id));
  t.is(next.damaged.size, 0);
  network.run(() => next.withdraw({ ifindex: 10, name: "left" }));
  t.deepEqual(infos(), []);
  t.is(next.ifindexes.size, 0);
});

test("native and generic XDP replace each other, and none takes them off", async (t) => {
  if (!hasRoot(t)) return;
  const { network, pins, serve } = await open(t);
  const hooks = new DeviceHooks({ pins, programs: programs(t) });
  const shown = () => network.command("ip", "link", "show", "left");
  for (const [wish, pattern] of [
    ["native", /prog\/xdp /],
    ["generic", /prog\/xdpgeneric|xdpgeneric /],
    ["native", /prog\/xdp /],
  ] as const) {
    t.like(serve(hooks, wish, "asked"), { xdp: wish, note: "asked" });
    t.regex(shown(), pattern);
  }
  serve(hooks, "none");
  t.notRegex(shown(), /xdp/);
  hooks.close();
});

test("before TCX, filters are attached, replaced, put back and removed", async (t) => {
  if (!hasRoot(t)) return;
  const { network, pins, serve } = await open(t);
  const [one, two] = [programs(t), programs(t)];
  const device = { ifindex: 10, name: "left" };
  const present = () =>
    network.run(() =>
      [filterPoint.INGRESS, filterPoint.EGRESS].map((point) =>
        findFilter(filterPlace(pins, device, point)),
      ),
    );
  const first = new DeviceHooks({ pins, programs: one, hasTcx: false });
  t.deepEqual(serve(first), USUAL);
  t.deepEqual(present(), Array(2).fill(one.get("svc_tc_ingress").id));
  const next = new DeviceHooks({ pins, programs: two, hasTcx: false });
  // As of a device that comes later, about which nobody says that filters have gone.
  serve(next, "none", "none", { links: false, filters: false });
  t.deepEqual(present(), Array(2).fill(two.get("svc_tc_ingress").id));
  network.run(() => detachFilter(filterPlace(pins, device, filterPoint.EGRESS)));
  serve(next);
  t.deepEqual(present(), Array(2).fill(two.get("svc_tc_ingress").id));
  const stranger = { device, point: filterPoint.INGRESS, handle: 1, priority: 1 };
  const program = { ...one.get("svc_tc_ingress"), expectedAttachType: 0 };
  network.run(() => attachFilter(program, stranger));
  network.run(() => next.withdraw(device));
  t.deepEqual(present(), [undefined, undefined]);
  t.is(
    network.run(() => findFilter(stranger)),
    program.id,
  );
  network.run(() => detachFilter(stranger));
  serve(next);
  network.run(() => next.withdraw(device));
  t.notRegex(network.command("tc", "qdisc", "show", "dev", "left"), /clsact/);
});

test("what cannot be attached is told with what serves instead", async (t) => {
  if (!hasRoot(t)) return;
  const { network, pins, serve } = await open(t);
  const own = programs(t);
  const refusing = (refused: (name: ProgramName) => boolean) => ({
    get: (name: ProgramName) => {
      const cause = new BpfError({ operation: "load program", subject: name, code: "EACCES" });
      if (refused(name)) throw new ProgramError(name, cause);
      return own.get(name);
    },
  });
  const isXdp = (name: ProgramName) => name === "svc_xdp";
  const withoutXdp = new DeviceHooks({ pins, programs: refusing(isXdp) });
  const served = serve(withoutXdp, "native");
  t.like(served, { xdp: "none", note: "not_loaded", code: "EACCES" });
  t.regex(served.problem!, /^Cannot load program svc_xdp: EACCES, .*\. TC serves it instead$/);
  withoutXdp.close();

  const withoutTc = new DeviceHooks({ pins, programs: refusing((name) => !isXdp(name)) });
  t.like(serve(withoutTc, "native"), { xdp: "none", note: "no_tc", code: "EACCES" });
  withoutTc.close();

  const foreign = network.run(() =>
    BpfLink.attachDevice(
      { ...own.get("svc_xdp"), expectedAttachType: 0 },
      { ifindex: 10, name: "left" },
      { hook: deviceHook.XDP, flags: xdpFlag.NATIVE },
    ),
  );
  const hooks = new DeviceHooks({ pins, programs: own });
  t.like(serve(hooks, "native"), { xdp: "none", note: "foreign" });
  foreign.close();
  t.like(serve(hooks, "native"), { xdp: "native", note: "none" });
  network.ip("link delete left");
  t.deepEqual([...hooks.damaged], [10]);
  hooks.close();
});
