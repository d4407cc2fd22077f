// Who may ask what: bearer tokens, users named by client certificates, and rights that can be taken
// away. Knows no connection and no object.
import { randomBytes } from "node:crypto";
import type { Target, Verb } from "./request.ts";
import type { Resource } from "./resources.ts";
import { forbidden, unauthorized } from "./status.ts";

/** What is forbidden; what is not given means "any". */
export interface Denial {
  verb?: Verb;
  /** The plural: "services". */
  resource?: string;
  user?: string;
  namespace?: string;
}

interface Token {
  user: string;
  expiresMs: number;
}

/** Everything is allowed to whom is known, until it is denied. */
export class Access {
  readonly #tokens = new Map<string, Token>();
  readonly #denials = new Set<Denial>();

  /** A new bearer token for a user; without an end if no seconds are given. */
  issueToken(user: string, expiresInSeconds = Number.POSITIVE_INFINITY): string {
    const token = randomBytes(24).toString("base64url");
    this.#tokens.set(token, { user, expiresMs: Date.now() + expiresInSeconds * 1000 });
    return token;
  }

  /** From now on the token is answered with 401. */
  expireToken(token: string): void {
    this.#tokens.delete(token);
  }

  /** Forbids until the function that it returns is called. */
  deny(denial: Denial): () => void {
    this.#denials.add(denial);
    return () => this.#denials.delete(denial);
  }

  /** The user that a request proves to be; throws the API's 401. */
  authenticate(authorization: string | undefined, certificateUser: string | undefined): string {
    if (certificateUser !== undefined) return certificateUser;
    const [, token = ""] = /^Bearer (.+)$/.exec(authorization ?? "") ?? [];
    const known = this.#tokens.get(token);
    if (!known || known.expiresMs <= Date.now()) throw unauthorized();
    return known.user;
  }

  /** Throws the API's 403 if the user may not do this. */
  authorize(user: string, { verb, resource, namespace, name }: Target): void {
    const attempt = { user, verb, resource, namespace, name };
    for (const denial of this.#denials) if (isDenied(denial, attempt)) throw forbidden(attempt);
  }
}

interface Tried {
  user: string;
  verb: Verb;
  resource: Resource;
  namespace: string;
}

function isDenied(denial: Denial, { user, verb, resource, namespace }: Tried): boolean {
  return (
    (denial.verb ?? verb) === verb &&
    (denial.resource ?? resource.plural) === resource.plural &&
    (denial.user ?? user) === user &&
    (denial.namespace ?? namespace) === namespace
  );
}
