// A node of a lab with Services in maps of its own and the programs of the packet path on them,
// loaded as the agent loads them but attached nowhere: they are run on frames that never come in.
// Knows no clock.
import { execFileSync } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { device as deviceLayout } from "../bindings/layout.ts";
import type { RunningProgram } from "../bindings/running.ts";
import { insideNetns } from "../bindings/system.ts";
import { DevicePrograms, type ProgramName } from "../control/dataplane/devices/programs.ts";
import { NodeFilter } from "../control/dataplane/filter.ts";
import type { Flow } from "../control/dataplane/flows.ts";
import { addressBytes } from "../control/dataplane/maps.ts";
import type { LabNode } from "../lab/lab.ts";
import { Programmed, type Wanted } from "./programmed.ts";

/** What frames come in by, and most leave by again. */
const UPLINK = "eth0";
export const ROUTERS = { 4: "192.168.50.1", 6: "2001:db8:50::1" } as const;
export const ROUTER_MAC = "02:00:00:00:00:01";
const HOST_PORTS = { first: 32_768, last: 60_999 } as const;

export interface Link {
  ifindex: number;
  mac: string;
}

/** A device of a node. */
function readLink(node: LabNode, device: string): Link {
  const command = [`--net=${node.netns}`, "ip", "-j", "link", "show", device];
  const [link] = JSON.parse(execFileSync("nsenter", command, { encoding: "utf8" }));
  return { ifindex: link.ifindex, mac: link.address };
}

/** Has a node know where its router is, which nobody asks for by frames that never leave. */
export async function knowRouter(node: LabNode): Promise<void> {
  const addresses = Object.values(ROUTERS);
  await node.ip(
    ...addresses.map((one) => `neigh replace ${one} lladdr ${ROUTER_MAC} dev eth0 nud permanent`),
  );
}

export class Gateway {
  readonly uplink: Link;
  readonly programmed: Programmed;
  readonly #programs: DevicePrograms;
  readonly #netns: number;
  /** How often the flows were forgotten: what has warmed up before has done so in vain. */
  forgotten = 0;

  /** On a node whose router is known; `name` is that of its folder for pins. Throws BpfError. */
  constructor(node: LabNode, { name, ...wanted }: Wanted & { name: string }) {
    this.uplink = readLink(node, UPLINK);
    this.programmed = Programmed.create(`${node.pins}/${name}`, wanted);
    const { pins, maps } = this.programmed;
    this.#programs = new DevicePrograms({ pins, maps, rodata: {} });
    this.#describe(node);
    this.#netns = openSync(node.netns, "r");
  }

  program(name: ProgramName): RunningProgram {
    return this.#programs.get(name);
  }

  /** Does something in the node's network namespace, at once: there devices and routes are. */
  inside<T>(action: () => T): T {
    return insideNetns(this.#netns, action);
  }

  /** Ends every connection. */
  forget(): void {
    this.forgotten += 1;
    this.programmed.maps.svc_flows.withMemory((memory) => memory.fill(0));
  }

  /** The connections that there are. */
  flows(): Flow[] {
    return [...this.programmed.storage.flows.list()];
  }

  close(): void {
    this.#programs.close();
    closeSync(this.#netns);
  }

  /** What the agent says of the node and of the uplink. */
  #describe({ addresses }: LabNode): void {
    const { node, filter, devices } = this.programmed.storage;
    const own = [addresses.ipv4, addresses.ipv6];
    const [sourceIpv4 = 0, sourceIpv6 = 0] = own.map((address) => node.indexOf(address));
    node.setHostPorts(HOST_PORTS);
    new NodeFilter(filter).set(own.map(addressBytes));
    const value = new Uint8Array(deviceLayout.bytes);
    deviceLayout.write(new DataView(value.buffer), 0, {
      mac: Uint8Array.from(this.uplink.mac.split(":"), (byte) => Number.parseInt(byte, 16)),
      sendsFrames: 1,
      isUplink: 1,
      isPod: 0,
      isInside: 0,
      sourceIpv4,
      sourceIpv6,
      note: 0,
      error: 0,
    });
    devices.setBatch(new Uint8Array(Uint32Array.of(this.uplink.ifindex).buffer), value);
  }
}
