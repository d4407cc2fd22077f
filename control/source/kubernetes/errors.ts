// What can go wrong between the agent and an API server, as messages that name verb, resource,
// server and the fix. Knows no connection and no retry.
import type { Status } from "./decode.ts";
import type { Place } from "./resources.ts";

export type Verb = "list" | "watch" | "create";

/** A request, as far as messages need it. */
export interface Subject {
  verb: Verb;
  resource: Place;
  /** Host and port. */
  host: string;
}

/** The API server answered, but not with what was asked for. */
export class ApiError extends Error {
  /** The HTTP status, or that of a Status. */
  readonly code: number;
  /** How long it asks to be left alone, a minute at most; 0 if it does not. */
  readonly retryAfterMs: number;
  readonly host: string;

  constructor(message: string, answer: { code: number; retryAfterMs: number; host: string }) {
    super(message);
    this.code = answer.code;
    this.retryAfterMs = answer.retryAfterMs;
    this.host = answer.host;
  }
}

/** There was no answer, or it broke off. */
export class ConnectionError extends Error {
  readonly host: string;

  constructor(message: string, { host, cause }: { host: string; cause: Error }) {
    super(message, { cause });
    this.host = host;
  }
}

/** The credentials or the server's address cannot be had. */
export class CredentialsError extends Error {}

/**
 * What is wrong whatever resource was asked for: equal texts for equal troubles, not for people.
 * Undefined if it is the resource's own.
 */
export function commonTrouble(error: Error): string | undefined {
  if (error instanceof CredentialsError) return error.message;
  if (error instanceof ConnectionError) return `${error.host} ${(error.cause as Error).message}`;
  if (!(error instanceof ApiError)) return undefined;
  const { code, host } = error;
  return code === 401 || code === 429 || code >= 500 ? `${host} ${code}` : undefined;
}

function describe({ verb, resource, host }: Subject): string {
  return `Cannot ${verb} ${resource.title} at "${host}"`;
}

const SHOWN_LENGTH = 300;
/** Whatever a server or a proxy asks for: nobody would look for the reason of a longer wait. */
const LONGEST_RETRY_MS = 60_000;

function shorten(text: string): string {
  return text.length <= SHOWN_LENGTH ? text : `${text.slice(0, SHOWN_LENGTH)}…`;
}

function explain(code: number, status: Status | undefined, { verb, resource }: Subject): string {
  const said = status?.message ? shorten(status.message) : `it answered ${code}`;
  const { plural, group } = resource;
  const where = group === "" ? "" : ` in API group "${group}"`;
  if (code === 401)
    return `${said} (401): it does not accept the credentials; renew the token or certificate`;
  if (code === 403)
    return (
      `${said} (403): the right is missing; allow the verb "${verb}" on resource ` +
      `"${plural}"${where} in a ClusterRole, as "system:node-proxier" does`
    );
  if (code === 404) return `${said} (404): it has no resource "${plural}"${where}`;
  if (code === 406) return `${said} (406): it has neither protobuf nor JSON`;
  if (code === 410)
    return `${said} (410): what happened since is forgotten, so all is listed again`;
  if (code === 429) return `${said} (429): it is too busy and is asked again later`;
  return `${said} (${code}); it is asked again`;
}

/** The error for an answer with this status; `retryAfter` is the header's text. */
export function answerError(
  code: number,
  subject: Subject,
  { status, retryAfter = "" }: { status: Status | undefined; retryAfter?: string | undefined },
): ApiError {
  const seconds = Number(retryAfter) || status?.retryAfterSeconds || 0;
  const message = `${describe(subject)}: ${explain(code, status, subject)}`;
  const retryAfterMs = Math.min(Math.max(0, seconds) * 1000, LONGEST_RETRY_MS);
  return new ApiError(message, { code, retryAfterMs, host: subject.host });
}

/** The error for an answer that is not the API's, such as a proxy's page. */
export function strangeAnswer(
  subject: Subject,
  answer: { code: number; mediaType: string },
): Error {
  const what = answer.mediaType === "" ? "no content type" : `"${answer.mediaType}"`;
  return new ContentError(
    `${describe(subject)}: the answer (${answer.code}) has ${what}, not the API's; is a proxy or ` +
      "login page in between?",
  );
}

/** True if the server's certificate is not accepted. */
export function isTrustError(error: Error): boolean {
  const { code = "" } = error as NodeJS.ErrnoException;
  return /CERT|SELF_SIGNED|UNABLE_TO_|ERR_TLS/.test(code);
}

/** The error for a connection that failed. */
export function connectionError(subject: Subject, cause: Error): Error {
  const fix = isTrustError(cause)
    ? "the server's certificate is not trusted; correct the certificate authority or the address"
    : "it is asked again";
  const reason = cause.message || cause.name;
  const message = `${describe(subject)}: ${reason}; ${fix}`;
  return new ConnectionError(message, { host: subject.host, cause });
}

/** What came cannot be understood, or is older than what is known. */
class ContentError extends Error {}

/** The error for content that cannot be used. */
export function contentError(subject: Subject, reason: string): Error {
  return new ContentError(`${describe(subject)}: ${reason}; it is asked again`);
}
