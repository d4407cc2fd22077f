// Programs on devices of network namespaces that the test made: links (TCX and XDP), filters before
// TCX, and what drivers can do.
import path from "node:path";
import test, { type ExecutionContext } from "ava";
import { BpfError } from "./errors.ts";
import {
  attachFilter,
  detachFilter,
  type FilterPlace,
  filterPoint,
  findFilter,
  removeEmptyQdisc,
} from "./filter.ts";
import { BpfLink, deviceHook, xdpFlag } from "./link.ts";
import { NetlinkSocket, netlinkProtocol } from "./netlink.ts";
import { BpfObject } from "./object.ts";
import { listLinks, xdpMode } from "./rtnetlink.ts";
import { RunningProgram } from "./running.ts";
import { bpffsFolder, hasRoot, type TestNetwork, testdata, testNetwork } from "./testing.ts";
import { canSendFrames } from "./xdp.ts";

const LEFT = { ifindex: 10, name: "left" };

async function pair(t: ExecutionContext): Promise<TestNetwork> {
  const network = await testNetwork(t);
  network.ip(
    "link add name left index 10 type veth peer name right",
    "address add 192.0.2.1/24 dev left",
    "link set left up",
    "link set right up",
  );
  return network;
}

function load(t: ExecutionContext): BpfObject {
  const object = BpfObject.open(testdata("device"));
  t.teardown(() => object.close());
  object.load();
  return object;
}

test("a program on a device is seen by its link, until the device is gone", async (t) => {
  if (!hasRoot(t)) return;
  const network = await pair(t);
  const [object, other] = [load(t), load(t)];
  const program = object.program("pass_tc");
  for (const hook of [deviceHook.TCX_INGRESS, deviceHook.TCX_EGRESS]) {
    const link = network.run(() => BpfLink.attachDevice(program, LEFT, { hook }));
    t.teardown(() => link.close());
    t.like(link.info, { ifindex: 10, attachType: hook, programId: program.info().id });
    link.update(other.program("pass_tc"));
    t.is(link.info.programId, other.program("pass_tc").info().id);
  }
  const hook = deviceHook.TCX_INGRESS;
  const link = network.run(() => BpfLink.attachDevice(program, LEFT, { hook }));
  t.throws(
    () => network.run(() => BpfLink.attachDevice(program, { ifindex: 99, name: "gone" }, { hook })),
    { instanceOf: BpfError, message: /Cannot attach "pass_tc to gone": ENODEV/ },
  );
  network.ip("link delete left");
  t.like(link.info, { ifindex: 0, attachType: deviceHook.TCX_INGRESS });
  link.close();
});

test("one XDP program is on a device, and both it and the device name who refuses", async (t) => {
  if (!hasRoot(t)) return;
  const network = await pair(t);
  const program = load(t).program("pass_xdp");
  const attach = (device: typeof LEFT, flags: number) =>
    network.run(() => BpfLink.attachDevice(program, device, { hook: deviceHook.XDP, flags }));
  const link = attach(LEFT, xdpFlag.NATIVE);
  t.like(link.info, { ifindex: 10, attachType: deviceHook.XDP, programId: program.info().id });
  const socket = network.run(() => new NetlinkSocket(netlinkProtocol.ROUTE));
  const seen = listLinks(socket).find(({ name }) => name === "left")!;
  t.deepEqual(seen.xdp, { mode: xdpMode.NATIVE, programId: program.info().id });
  t.throws(() => attach(LEFT, xdpFlag.NATIVE), {
    instanceOf: BpfError,
    message: /Cannot attach "pass_xdp to left": (EBUSY|EEXIST)/,
  });
  t.throws(() => attach({ ifindex: 99, name: "gone" }, xdpFlag.NATIVE), {
    message: /Cannot attach "pass_xdp to gone": EINVAL/,
  });
  link.close();
  t.is(listLinks(socket).find(({ name }) => name === "left")!.xdp.mode, xdpMode.NONE);
  socket.close();
});

test("a pinned program is loaded no more, and attached as it is", async (t) => {
  if (!hasRoot(t)) return;
  const network = await pair(t);
  const file = path.join(bpffsFolder(t), "program");
  const object = load(t);
  const { id } = object.program("pass_tc").info();
  object.program("pass_tc").pin(file);
  object.close();
  const program = RunningProgram.openPinned(file);
  t.is(program.id, id);
  t.is(program.name, "pass_tc");
  const hook = deviceHook.TCX_INGRESS;
  const link = network.run(() =>
    BpfLink.attachDevice({ ...program, expectedAttachType: hook }, LEFT, { hook }),
  );
  program.close();
  t.is(link.info.programId, id);
  link.close();
});

test("filters are replaced in their place, and those of others stay", async (t) => {
  if (!hasRoot(t)) return;
  const network = await pair(t);
  const [object, other] = [load(t), load(t)];
  const place = (handle: number, point: number = filterPoint.EGRESS): FilterPlace => ({
    device: LEFT,
    point,
    handle,
    priority: 50_000,
  });
  network.run(() => {
    t.is(findFilter(place(1)), undefined);
    t.false(detachFilter(place(1)));
    attachFilter(object.program("pass_tc"), place(1));
    attachFilter(object.program("pass_tc"), place(2));
    t.is(findFilter(place(1)), object.program("pass_tc").info().id);
    t.is(findFilter(place(1, filterPoint.INGRESS)), undefined);
    attachFilter(other.program("pass_tc"), place(1));
    t.is(findFilter(place(1)), other.program("pass_tc").info().id);
    t.is(findFilter(place(2)), object.program("pass_tc").info().id);
    t.true(detachFilter(place(1)));
    removeEmptyQdisc(LEFT);
    t.is(findFilter(place(2)), object.program("pass_tc").info().id);
    t.true(detachFilter(place(2)));
  });
  t.regex(network.command("tc", "qdisc", "show", "dev", "left"), /clsact/);
  network.run(() => removeEmptyQdisc(LEFT));
  t.notRegex(network.command("tc", "qdisc", "show", "dev", "left"), /clsact/);
  network.run(() => {
    const gone = { ifindex: 99, name: "gone" };
    t.throws(() => attachFilter(object.program("pass_tc"), { ...place(1), device: gone }), {
      instanceOf: BpfError,
      message: /Cannot attach "pass_tc to gone": /,
    });
    t.is(findFilter({ ...place(1), device: gone }), undefined);
    t.notThrows(() => removeEmptyQdisc(gone));
  });
});

test("a veth can be sent frames once its other end polls for them", async (t) => {
  if (!hasRoot(t)) return;
  const network = await pair(t);
  t.false(network.run(() => canSendFrames(LEFT)));
  network.command("ethtool", "-K", "right", "gro", "on");
  t.true(network.run(() => canSendFrames(LEFT)));
  t.false(network.run(() => canSendFrames({ ifindex: 99, name: "gone" })));
});
