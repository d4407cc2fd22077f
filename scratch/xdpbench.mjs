import { execSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { BpfObject } from "../build/bindings/object.js";
import { BpfMap } from "../build/bindings/map.js";
import { loadObject, openPinned, kernelStorage, Meta } from "../build/control/dataplane/kernel.js";
import { Pins } from "../build/control/dataplane/pins.js";
import { Maps, addressBytes } from "../build/control/dataplane/maps.js";
import { Dataplane } from "../build/control/dataplane/dataplane.js";
import * as L from "../build/bindings/layout.js";

const sh = (c) => execSync(c, { stdio: ["ignore", "pipe", "inherit"] }).toString();
const IPC = "203.0.113.9";
// devices: up0 <-> peer in another netns
sh(`ip netns add bx; ip link add up0 type veth peer name gw0 netns bx; ip addr add 192.168.50.2/24 dev up0; ip -6 addr add 2001:db8:50::2/64 dev up0 nodad; ip link set up0 up; ip -n bx addr add 192.168.50.1/24 dev gw0; ip -n bx link set gw0 up; sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1; ip route add default via 192.168.50.1; ip route add default via 2001:db8:50::1; ip neigh replace 192.168.50.1 lladdr 02:00:00:00:00:01 dev up0 nud permanent; ip neigh replace 2001:db8:50::1 lladdr 02:00:00:00:00:01 dev up0 nud permanent;`);
const link = JSON.parse(sh("ip -j link show up0"))[0];
const idx = link.ifindex, mac = link.address.split(":").map((x) => parseInt(x, 16));
const pins = new Pins("/sys/fs/bpf/xb"); const lock = pins.open();
const loaded = loadObject(pins, { rodata: {}, capacities: {} });
const maps = {}; for (const n of Object.keys(L.maps)) maps[n] = BpfMap.openPinned(pins.mapPath(n));
const meta = new Meta(maps.svc_meta, { readOnly: false });
const storage = kernelStorage(maps, meta);
const dp = new Dataplane(new Maps(storage));
const SERVICES = Number(process.env.SERVICES ?? 1000), EPS = 10;
const rows = [];
for (let s = 0; s < SERVICES; s++) for (const family of [4, 6]) {
  const a = family === 4 ? (x) => `198.51.${x >> 8}.${x & 255}` : (x) => `2001:db8:51::${(x + 1).toString(16)}`;
  const e = family === 4 ? (x) => `10.244.${(x >> 8) & 255}.${x & 255}` : (x) => `fd00:10:244::${(x + 1).toString(16)}`;
  const c = family === 4 ? (x) => `10.96.${x >> 8}.${x & 255}` : (x) => `fd00:10:96::${(x + 1).toString(16)}`;
  const backends = Array.from({ length: EPS }, (_, i) => ({ address: e((s * EPS + i) & 0xffff), port: 8080, state: "ready", weight: 1, local: false }));
  const members = backends.map((_, i) => i);
  rows.push({ key: `n/s${s}:/TCP/${family}`, namespace: "n", name: `s${s}`, port: "", protocol: "TCP", family, type: "LoadBalancer", externalPolicy: "Cluster", affinitySeconds: 0, sources: undefined,
    frontends: [{ kind: "clusterIP", address: c(s), port: 80 }, { kind: "loadBalancer", address: a(s), port: 80 }],
    backends, internal: { kind: "uniform", members, whenEmpty: "refuse" }, inside: { kind: "uniform", members, whenEmpty: "refuse" }, outside: { kind: "maglev", members, whenEmpty: "refuse" } });
}
dp.replace(rows); console.log("errors", dp.flush().length);
// node
const nodeBytes = new Uint8Array(L.node.bytes); const nv = new DataView(nodeBytes.buffer);
nodeBytes.set(addressBytes("192.168.50.2"), L.node.offset.source + 16);
nodeBytes.set(addressBytes("2001:db8:50::2"), L.node.offset.source + 32);
for (let i = 0; i < 10; i++) nv.setUint32(L.node.offset.hashKey + 4 * i, (Math.random() * 2 ** 32) >>> 0, true);
nv.setUint16(L.node.offset.natFirst, 1024, true); nv.setUint16(L.node.offset.natCount, 28976, true);
nv.setUint16(L.node.offset.hostFirst, 32768, true); nv.setUint16(L.node.offset.hostLast, 60999, true);
nv.setUint16(L.node.offset.nodePortFirst, 30000, true); nv.setUint16(L.node.offset.nodePortLast, 32767, true);
maps.svc_node.set(Uint8Array.from([0, 0, 0, 0]), nodeBytes);
const dev = new Uint8Array(L.device.bytes); dev.set(mac, 0); dev[L.device.offset.sendsFrames] = 1; dev[L.device.offset.isUplink] = 1; dev[L.device.offset.sourceIpv4] = 1; dev[L.device.offset.sourceIpv6] = 2;
const k = new Uint8Array(4); new DataView(k.buffer).setUint32(0, idx, true); maps.svc_devices.set(k, dev);
function frame({ dst, src, sport = 2000, dport = 80, v6 = false }) {
  const f = new Uint8Array(v6 ? 90 : 90); const v = new DataView(f.buffer);
  f.set(mac, 0); f.set([2, 0, 0, 0, 0, 1], 6);
  v.setUint16(12, v6 ? 0x86dd : 0x0800);
  const t = v6 ? 54 : 34;
  if (!v6) { v.setUint8(14, 0x45); v.setUint16(16, 90 - 14); v.setUint8(22, 64); v.setUint8(23, 6); f.set(addressBytes(src).subarray(12), 26); f.set(addressBytes(dst).subarray(12), 30);
    let s = 0; for (let i = 14; i < 34; i += 2) s += v.getUint16(i); while (s >> 16) s = (s & 0xffff) + (s >> 16); v.setUint16(24, ~s & 0xffff);
  } else { v.setUint8(14, 0x60); v.setUint16(18, 90 - 54); v.setUint8(20, 6); v.setUint8(21, 64); f.set(addressBytes(src), 22); f.set(addressBytes(dst), 38); }
  v.setUint16(t, sport); v.setUint16(t + 2, dport); v.setUint8(t + 12, 0x50); v.setUint8(t + 13, process.env.SYN ? 2 : 0x10); v.setUint16(t + 16, 0x1234);
  return f;
}
function load(rodata) {
  const o = BpfObject.open("build/bench/testdata/xdp.bpf.o");
  for (const [n, val] of Object.entries(rodata)) o.setRodata(n, val);
  for (const m of o.maps()) if (maps[m.name]) m.reuse(maps[m.name]);
  o.program("svc_xdp").setAutoload(false);
  o.load(); return o;
}
const ctx = () => { const c = new Uint8Array(24), v = new DataView(c.buffer); v.setUint32(4, 90, true); v.setUint32(12, idx, true); return c; };
function measure(name, { clients = 1, f, repeat = 300_000, prog = "bench_xdp", clear = true, warm = true }) {
  const header = new Uint8Array(80); header.set(f.subarray(0, 80));
  const o = load({ header, clients });
  const p = o.program(prog);
  if (clear) for (let i = 0; i < 1; i++) { const m = maps.svc_flows; m.withMemory ? m.withMemory((b) => b.fill(0)) : 0; }
  if (warm) p.testPacket({ data: f, context: ctx(), repeat: Math.max(clients, 1000) });
  const runs = []; let verdict;
  for (let i = 0; i < 15; i++) { const r = p.testPacket({ data: f, context: ctx(), repeat: warm ? repeat : Math.floor(clients / 15) }); runs.push(r.durationNs); verdict = r.verdict; }
  const info = p.info();
  console.log(name.padEnd(32), "verdict", verdict, "ns", runs.sort((a, b) => a - b).join(" "), "insns", info.verifiedInstructions, "jited", info.jitedBytes);
  o.close(); return runs[2];
}
const v4 = frame({ dst: "198.51.0.5", src: IPC }), v6 = frame({ dst: "2001:db8:51::6", src: "2001:db8:ffff::9", v6: true });
const no4 = frame({ dst: "192.0.2.77", src: IPC }), no6 = frame({ dst: "2001:db8:52::6", src: "2001:db8:ffff::9", v6: true });
measure("bare v4", { f: v4, prog: "bench_bare" });
measure("bare v6", { f: v6, prog: "bench_bare" });
measure("not ours v4", { f: no4 });
measure("not ours v6", { f: no6 });
measure("established 1 v4", { f: v4 });
measure("established 1 v6", { f: v6 });
measure("bare 64k", { f: v4, prog: "bench_bare", clients: 65536 });
measure("established 64k v4", { f: v4, clients: 65536 });
measure("established 64k v6", { f: v6, clients: 65536 });
measure("new v4 (64k into empty)", { f: v4, clients: 65535, warm: false });
measure("new v4 (evict)", { f: v4, clients: 2_000_000, repeat: 400000 });
measure("new v6 (64k)", { f: v6, clients: 65535, warm: false });
for (const r of ["refused"]) {}
const reasons = maps.svc_reasons; 
for (const [w, i] of Object.entries(L.reason)) { const kk = new Uint8Array(4); kk[0] = i; try { const val = reasons.get(kk); if (val) { let s = 0n; const d = new DataView(val.buffer, val.byteOffset, val.byteLength); for (let q = 0; q < val.byteLength; q += 8) s += d.getBigUint64(q, true); if (s) console.log(w, s); } } catch {} }
process.exit(0);
