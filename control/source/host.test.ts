import test from "ava";
import { cgroup2Root, defaultRouteAddresses, defaultRouteDevices, localAddresses } from "./host.ts";

const HYBRID = `31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw`;
const UNIFIED = "31 23 0:28 / /sys/fs/cgroup rw shared:9 - cgroup2 cgroup2 rw,nsdelegate";
const ODD = "31 23 0:28 / /mnt/my\\040groups rw - cgroup2 none rw";
const UNIFIED_ON_HOST = "0::/system.slice/bpfsvc.service";

/** A process of the machine itself that sees these mounts. */
function onHost(mountinfo: string, isVisible = (_folder: string) => true): string {
  return cgroup2Root({ mountinfo, own: UNIFIED_ON_HOST, isVisible, isMachineRoot: () => true });
}

test("the cgroup v2 tree is found where it is mounted", (t) => {
  t.is(onHost(HYBRID), "/sys/fs/cgroup/unified");
  t.is(onHost(UNIFIED), "/sys/fs/cgroup");
  t.is(onHost(ODD), "/mnt/my groups");
  t.is(onHost(`${ODD}\n${UNIFIED}`), "/sys/fs/cgroup");
});

test("a cgroup v2 mount that another mount hides is not taken", (t) => {
  t.is(
    onHost(`${HYBRID}\n${UNIFIED}`, (folder) => folder === "/sys/fs/cgroup"),
    "/sys/fs/cgroup",
  );
});

test("without a cgroup v2 tree the error names the fix", (t) => {
  t.throws(() => onHost("31 23 0:28 / /proc rw - proc proc rw"), {
    message: /mount -t cgroup2 none \/sys\/fs\/cgroup/,
  });
});

/** The mounts of a container's own cgroup and of the host's, as a container sees them. */
const CONTAINERS = [
  {
    namespace: "of its own",
    own: "0::/",
    inner: UNIFIED,
    outer: "32 23 0:28 /../../../.. /host/cgroup ro - cgroup2 cgroup2 rw",
  },
  {
    namespace: "of the host",
    own: "0::/kubepods.slice/pod1/bpfsvc",
    inner: UNIFIED.replace(" / ", " /kubepods.slice/pod1/bpfsvc "),
    outer: "32 23 0:28 / /host/cgroup ro - cgroup2 cgroup2 rw",
  },
] as const;

for (const { namespace, own, inner, outer } of CONTAINERS)
  test(`in a container with a cgroup namespace ${namespace} the host's tree is taken`, (t) => {
    for (const mountinfo of [`${inner}\n${outer}`, `${outer}\n${inner}`])
      t.is(
        cgroup2Root({ mountinfo, own, isVisible: () => true, isMachineRoot: () => false }),
        "/host/cgroup",
      );
  });

test("a container's own cgroup is refused, with the fix", (t) => {
  const view = { mountinfo: UNIFIED, own: "0::/", isVisible: () => true };
  t.throws(() => cgroup2Root({ ...view, isMachineRoot: () => false }), {
    message: /mount the host's \/sys\/fs\/cgroup into the container/,
  });
  t.is(cgroup2Root({ ...view, isMachineRoot: () => true }), "/sys/fs/cgroup");
});

const ROUTES: Readonly<Record<string, string>> = {
  "/proc/net/route": `Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU
eth0\t00000000\t0132A8C0\t0003\t0\t0\t0\t00000000\t0
eth1\t0032A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0`,
  "/proc/net/ipv6_route": [
    `${"0".repeat(32)} 00 ${"0".repeat(32)} 00 ${"f".repeat(32)} 1 1 0 00000003 eth2`,
    `${"0".repeat(32)} 00 ${"0".repeat(32)} 00 ${"0".repeat(32)} ffffffff 1 0 00200200 lo`,
    `fd00${"0".repeat(28)} 40 ${"0".repeat(32)} 00 ${"0".repeat(32)} 100 1 0 00000001 eth1`,
  ].join("\n"),
};

test("the devices with a default route are found in both families", (t) => {
  t.deepEqual([...defaultRouteDevices((file) => ROUTES[file]!)], ["eth0", "eth2"]);
});

test("a kernel without a family has no default route of that family", (t) => {
  const read = (file: string) => {
    if (file.endsWith("ipv6_route")) throw new Error("ENOENT");
    return ROUTES[file]!;
  };
  t.deepEqual([...defaultRouteDevices(read)], ["eth0"]);
});

test("local addresses are those of all devices but loopback and link-local ones", (t) => {
  const common = { netmask: "", mac: "", cidr: null };
  const addresses = localAddresses({
    lo: [
      { ...common, internal: true, family: "IPv4", address: "127.0.0.1" },
      { ...common, internal: true, family: "IPv6", address: "::1", scopeid: 0 },
      { ...common, internal: true, family: "IPv4", address: "198.51.100.7" },
    ],
    eth0: [
      { ...common, internal: false, family: "IPv4", address: "192.168.50.2" },
      { ...common, internal: false, family: "IPv6", address: "fe80::1", scopeid: 2 },
    ],
  });
  t.deepEqual(addresses, ["198.51.100.7", "192.168.50.2"]);
});

test("of a device only global addresses count", (t) => {
  const common = { netmask: "", mac: "", internal: false, cidr: null };
  const addresses = defaultRouteAddresses(new Set(["eth0"]), {
    eth0: [
      { ...common, family: "IPv4", address: "192.168.50.2" },
      { ...common, family: "IPv6", address: "2001:db8:50::2", scopeid: 0 },
      { ...common, family: "IPv6", address: "fe80::1", scopeid: 2 },
    ],
    eth1: [{ ...common, family: "IPv4", address: "10.0.0.1" }],
  });
  t.deepEqual(addresses, ["192.168.50.2", "2001:db8:50::2"]);
});
