// Errors as kube-apiserver words them: Status objects with the codes, reasons and details that its
// clients read. Knows no encoding.
import { qualifiedName, type Resource } from "./resources.ts";

interface StatusDetails {
  name?: string;
  group?: string;
  kind?: string;
  causes?: { reason: string; message: string; field?: string }[];
  retryAfterSeconds?: number;
}

/** The JSON form of a meta/v1 Status, without its kind. */
export interface Status {
  metadata: { continue?: string };
  status: "Failure";
  message: string;
  reason: string;
  details?: StatusDetails;
  code: number;
}

/** An answer that is not the one asked for; `status` goes to the client. */
export class ApiError extends Error {
  readonly status: Status;

  constructor(status: Omit<Status, "metadata" | "status"> & { continue?: string }) {
    super(status.message);
    const { continue: token, message, reason, details, code } = status;
    this.status = {
      metadata: token === undefined ? {} : { continue: token },
      status: "Failure",
      message,
      reason,
      ...(details && { details }),
      code,
    };
  }
}

export function badRequest(message: string): ApiError {
  return new ApiError({ message, reason: "BadRequest", code: 400 });
}

export function unauthorized(): ApiError {
  return new ApiError({ message: "Unauthorized", reason: "Unauthorized", code: 401 });
}

/** What was asked, as far as a right to it matters. */
export interface Attempt {
  user: string;
  verb: string;
  resource: Resource;
  namespace: string;
  name: string;
}

export function forbidden({ user, verb, resource, namespace, name }: Attempt): ApiError {
  const where = namespace === "" ? "at the cluster scope" : `in the namespace "${namespace}"`;
  const subject = name === "" ? qualifiedName(resource) : `${qualifiedName(resource)} "${name}"`;
  const { plural, group } = resource;
  return new ApiError({
    message:
      `${subject} is forbidden: User "${user}" cannot ${verb} resource "${plural}" ` +
      `in API group "${group}" ${where}`,
    reason: "Forbidden",
    details: { ...(name && { name }), ...(group && { group }), kind: plural },
    code: 403,
  });
}

/** A path that leads to no resource. */
export function unknownPath(): ApiError {
  const message = "the server could not find the requested resource";
  return new ApiError({ message, reason: "NotFound", details: {}, code: 404 });
}

export function notFound(resource: Resource, name: string): ApiError {
  const { plural, group } = resource;
  return new ApiError({
    message: `${qualifiedName(resource)} "${name}" not found`,
    reason: "NotFound",
    details: { name, ...(group && { group }), kind: plural },
    code: 404,
  });
}

export function methodNotAllowed(): ApiError {
  const message = "the server does not allow this method on the requested resource";
  return new ApiError({ message, reason: "MethodNotAllowed", details: {}, code: 405 });
}

export function notAcceptable(accepted: readonly string[]): ApiError {
  const message = `only the following media types are accepted: ${accepted.join(", ")}`;
  return new ApiError({ message, reason: "NotAcceptable", code: 406 });
}

/** A watch from a resource version whose events are gone. */
export function watchExpired(resourceVersion: number, compacted: number): ApiError {
  const message = `too old resource version: ${resourceVersion} (${compacted})`;
  return new ApiError({ message, reason: "Expired", code: 410 });
}

/** A list at a resource version that is gone. */
export function listExpired(): ApiError {
  const message = "The resourceVersion for the provided list is too old.";
  return new ApiError({ message, reason: "Expired", code: 410 });
}

/** A page of a list that is gone; `token` leads on through what there is now. */
export function continueExpired(token: string): ApiError {
  const message =
    "The provided continue parameter is too old to display a consistent list result. You can " +
    "start a new list without the continue parameter, or use the continue token in this response " +
    "to retrieve the remainder of the results. Continuing with the provided token results in an " +
    "inconsistent list - objects that were created, modified, or deleted between the time the " +
    "first chunk was returned and now may show up in the list.";
  return new ApiError({ message, reason: "Expired", continue: token, code: 410 });
}

/** List options that exclude each other; `field` is the option to blame. */
export function invalidOptions(faults: readonly { field: string; message: string }[]): ApiError {
  const texts = faults.map(({ field, message }) => `${field}: Forbidden: ${message}`);
  const list = texts.length === 1 ? texts[0] : `[${texts.join(", ")}]`;
  return new ApiError({
    message: `ListOptions.meta.k8s.io "" is invalid: ${list}`,
    reason: "Invalid",
    details: {
      group: "meta.k8s.io",
      kind: "ListOptions",
      causes: faults.map(({ field, message }) => {
        return { reason: "FieldValueForbidden", message: `Forbidden: ${message}`, field };
      }),
    },
    code: 422,
  });
}

/** A resource version that is still to come. */
export function tooLargeResourceVersion(asked: number, current: number): ApiError {
  const cause = "Too large resource version";
  return new ApiError({
    message: `Timeout: ${cause}: ${asked}, current: ${current}`,
    reason: "Timeout",
    details: {
      causes: [{ reason: "ResourceVersionTooLarge", message: cause }],
      retryAfterSeconds: 1,
    },
    code: 504,
  });
}

export function unavailable(retryAfterSeconds: number | undefined): ApiError {
  return new ApiError({
    message: "the server is currently unable to handle the request",
    reason: "ServiceUnavailable",
    ...(retryAfterSeconds !== undefined && { details: { retryAfterSeconds } }),
    code: 503,
  });
}

export function internalError(message: string): ApiError {
  return new ApiError({
    message: `Internal error occurred: ${message}`,
    reason: "InternalError",
    details: { causes: [{ reason: "", message }] },
    code: 500,
  });
}
