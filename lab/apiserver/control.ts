// What a running API server can be told from outside, as plain data: one command, one reply. Knows
// the server, not the channel that commands come over.
import type { Denial } from "./access.ts";
import { timeOfLastWrite } from "./body.ts";
import type { Aim, BodyEffect, Fault } from "./faults.ts";
import type { ApiObject, Identity } from "./objects.ts";
import type { ApiServer, RequestRecord } from "./server.ts";

/** One thing to do. */
export type Command =
  | { do: "apply"; object: ApiObject }
  | { do: "delete"; identity: Identity }
  | { do: "compact" | "bookmark" | "clearFaults" | "renewAuthority" | "describe" }
  | { do: "fault"; fault: Fault }
  | { do: "strike"; aim: Aim; effect: BodyEffect }
  | { do: "deny"; denial: Denial }
  | { do: "countOpen"; aim: Aim }
  | { do: "issueToken"; user: string; expiresInSeconds?: number }
  | { do: "expireToken"; token: string }
  | { do: "requests" | "lastWrite" };

/** How to reach the server. */
export interface Description {
  url: string;
  ca: string;
  token: string;
  kubeconfig: string;
}

/** What came of a command; `nanoseconds` is process.hrtime() just before it was obeyed. */
export type Reply = { nanoseconds: string; value: Value } | { error: string };

type Value = number | string | Description | RequestRecord[] | undefined;

export function describe({ url, ca, token, kubeconfig }: ApiServer): Description {
  return { url, ca, token, kubeconfig };
}

function obey(server: ApiServer, command: Command): Value {
  switch (command.do) {
    case "apply":
      return server.apply(command.object);
    case "delete":
      return server.delete(command.identity);
    case "compact":
      return void server.compact();
    case "bookmark":
      return void server.bookmark();
    case "clearFaults":
      return void server.faults.clear();
    case "renewAuthority":
      return void server.renewAuthority();
    case "describe":
      return describe(server);
    case "fault":
      return void server.faults.add(command.fault);
    case "strike":
      return server.strike(command.aim, command.effect);
    case "deny":
      return void server.access.deny(command.denial);
    case "countOpen":
      return server.countOpen(command.aim);
    case "issueToken":
      return server.access.issueToken(command.user, command.expiresInSeconds);
    case "expireToken":
      return void server.access.expireToken(command.token);
    case "requests":
      return server.requests;
    case "lastWrite":
      return String(timeOfLastWrite());
    default: {
      const { do: unknown } = command as { do?: unknown };
      throw new Error(`There is no command '${unknown}'; give one of control.ts in "do"`);
    }
  }
}

/** Does what a command in JSON says; what goes wrong is the reply, never an exception. */
export function execute(server: ApiServer, line: string): Reply {
  try {
    const command = JSON.parse(line);
    const nanoseconds = String(process.hrtime.bigint());
    return { nanoseconds, value: obey(server, command) };
  } catch (error) {
    return { error: (error as Error).message };
  }
}
