// Every program under every setting that the agent gives it: the verifier takes each one. It prunes
// by the settings, so that what it takes under one of them proves nothing for another.
import test from "ava";
import { BpfObject } from "../../bindings/object.ts";
import { kernelHas } from "../../bindings/system.ts";
import type { Rodata } from "../../control/dataplane/kernel.ts";
import { objectPath } from "../../control/dataplane/objects.ts";
import { needsLab } from "../../lab/needs.ts";

const labTest = needsLab(test.serial);

const DEVICES: readonly Rodata[] = [
  {},
  { masquerade_always: 1 },
  { masquerade_always: 1, masquerade_all: 1 },
  { forwarding: 1 },
  { forwarding: 2 },
  { fib_has_source: 1, reads_reorder: 1 },
  ...(kernelHas("bpf_skb_ct_lookup") ? [{ asks_conntrack: 1 }] : []),
];

const SETTINGS: Readonly<Record<string, readonly Rodata[]>> = {
  "sock.bpf.o": [
    {},
    { remember_tcp: 1 },
    ...(kernelHas("bpf_rdonly_cast") ? [{ reads_sockets: 1, remember_tcp: 1 }] : []),
    { node_netns: 1, pods_inside_ipv4: 0, pods_inside_ipv6: 0 },
  ],
  "xdp.bpf.o": DEVICES,
  "tc.bpf.o": DEVICES,
};

function describe(rodata: Rodata): string {
  const parts = Object.entries(rodata).map(([name, value]) => `${name}=${value}`);
  return parts.length > 0 ? parts.join(" ") : "the settings it is compiled with";
}

function programsOf(file: string): string[] {
  const object = BpfObject.open(objectPath(file));
  const names = object.programs().map(({ name }) => name);
  object.close();
  return names;
}

for (const [file, settings] of Object.entries(SETTINGS))
  for (const rodata of settings)
    labTest(`every program of ${file} loads with ${describe(rodata)}`, async (t) => {
      const faults = programsOf(file).flatMap((name) => {
        const object = BpfObject.open(objectPath(file));
        t.teardown(() => object.close());
        for (const [variable, value] of Object.entries(rodata)) object.setRodata(variable, value);
        for (const program of object.programs()) program.setAutoload(program.name === name);
        try {
          object.load();
          return [];
        } catch (error) {
          return [(error as Error).message];
        }
      });
      t.deepEqual(faults, []);
    });
