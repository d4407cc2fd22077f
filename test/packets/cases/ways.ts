// Packets of whole connections, each way that a connection can take through the node. Other cases
// begin with them.
import type { HookName } from "../bed.ts";
import { ENDPOINT_PORT, LOCAL_PORT, PORT } from "../services.ts";
import { KEPT, TAKEN, TRANSPORTS, type Transport, type Words } from "../words.ts";
import type { Step } from "./cases.ts";

/** Request and reply of a connection through this node to another one. */
export function throughNode(
  { at, ip }: Words,
  transport: Transport,
  { hook = "ingress" as HookName, sport = KEPT, port = PORT } = {},
): Step[] {
  const write = TRANSPORTS[transport];
  return [
    {
      hook,
      packet: `${ip(at.client, at.vip)}/${write(sport, port)}`,
      verdict: "sent",
      becomes: `${ip(at.node, at.remote, { ttl: 63 })}/${write(sport, ENDPOINT_PORT)}`,
      to: "nodeB",
    },
    {
      hook,
      packet: `${ip(at.remote, at.node)}/${write(ENDPOINT_PORT, sport)}`,
      verdict: "sent",
      becomes: `${ip(at.vip, at.client, { ttl: 63 })}/${write(port, sport)}`,
      to: "router",
    },
  ];
}

/** The same to a pod of this node: the stack sees client and endpoint. */
export function throughStack({ at, ip }: Words, transport: Transport): Step[] {
  const write = TRANSPORTS[transport];
  const request = `${ip(at.client, at.vip)}/${write(TAKEN, LOCAL_PORT)}`;
  const reply = `${ip(at.local, at.client)}/${write(ENDPOINT_PORT, TAKEN)}`;
  return [
    {
      hook: "ingress",
      packet: request,
      verdict: "next",
      becomes: `${ip(at.client, at.local)}/${write(TAKEN, ENDPOINT_PORT)}`,
    },
    {
      hook: "egress",
      packet: reply,
      verdict: "next",
      becomes: `${ip(at.vip, at.client)}/${write(LOCAL_PORT, TAKEN)}`,
    },
  ];
}
