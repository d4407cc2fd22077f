// Events: what people find with "kubectl get events". Sent once and forgotten: whether one arrives
// changes nothing. Knows how an Event is written and sent, not what is told.
import type { Notice } from "../source.ts";
import type { ApiClient } from "./client.ts";
import type { Place } from "./resources.ts";
import { JSON_TYPE } from "./stream.ts";

const GROUP = "events.k8s.io";
const CONTROLLER = "bpfsvc";
/** As the API server has it. */
const LONGEST_NOTE = 1024;
/** More at a time are dropped: a failure of everything is told by its first few. */
const MOST_UNDER_WAY = 16;

export interface EventsOptions {
  client: ApiClient;
  nodeName: string;
  signal: AbortSignal;
  log: { debug(message: string): void };
}

export class Events {
  readonly #options: EventsOptions;
  #underWay = 0;
  #sent = 0;

  constructor(options: EventsOptions) {
    this.#options = options;
  }

  /** Sends a notice. Never throws. */
  async send(notice: Notice): Promise<void> {
    if (this.#underWay >= MOST_UNDER_WAY) return;
    this.#underWay++;
    const { client, signal, log } = this.#options;
    // Events of what is in no namespace are in this one.
    const namespace = notice.about.namespace || "default";
    const body = JSON.stringify(this.#makeEvent(notice, { namespace, now: new Date() }));
    const request = { verb: "create", resource: eventsIn(namespace), query: {} } as const;
    try {
      const answer = await client.open({ ...request, accept: JSON_TYPE, body }, signal);
      await answer.consume(() => {});
    } catch (error) {
      log.debug((error as Error).message);
    } finally {
      this.#underWay--;
    }
  }

  #makeEvent(
    { type, reason, action, note, about }: Notice,
    { namespace, now }: { namespace: string; now: Date },
  ): object {
    const { nodeName } = this.#options;
    const { kind, name } = about;
    const unique = `${now.getTime().toString(16)}${(this.#sent++).toString(16).padStart(3, "0")}`;
    // kubectl finds events of a Node by its name in the place of its uid.
    const uid = kind === "Node" ? { uid: name } : {};
    const where = about.namespace === "" ? {} : { namespace: about.namespace };
    return {
      apiVersion: `${GROUP}/v1`,
      kind: "Event",
      metadata: { name: `${name}.${unique}`, namespace },
      eventTime: now.toISOString().replace("Z", "000Z"),
      reportingController: CONTROLLER,
      reportingInstance: `${CONTROLLER}-${nodeName}`.slice(0, 128),
      type,
      reason,
      action,
      note: note.slice(0, LONGEST_NOTE),
      regarding: { apiVersion: "v1", kind, name, ...where, ...uid },
    };
  }
}

function eventsIn(namespace: string): Place {
  return {
    title: "events",
    plural: "events",
    group: GROUP,
    path: `/apis/${GROUP}/v1/namespaces/${namespace}/events`,
    selectors: {},
  };
}
