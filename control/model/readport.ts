// What is read alike for the ports of a Service and of an EndpointSlice, and the shapes that the
// readers hand to each other. Knows no whole object.
import { type FieldMap, type Fields, isAbsent, isName, showValue } from "./fields.ts";
import { PROTOCOLS, type Protocol } from "./rows.ts";

/** Namespaces, Services and ports have DNS labels for names. */
export const LABEL_LENGTH = 63;

/** A value to read, and where its problems go. */
export interface Reading {
  value: FieldMap;
  fields: Fields;
}

/** Where a value stands in its object, and where its problems go. */
export interface Place {
  field: string;
  fields: Fields;
}

/** What all objects have. */
export interface Metadata {
  namespace: string;
  name: string;
  createdMs: number;
  /** Whether there is a deletionTimestamp. */
  isDeleted: boolean;
  labels: FieldMap;
}

/** A protocol, TCP if absent; undefined with a problem if it is no protocol of a Service. */
export function readProtocol(value: unknown, { field, fields }: Place): Protocol | undefined {
  if (isAbsent(value) || value === "") return "TCP";
  if (typeof value === "string" && Object.hasOwn(PROTOCOLS, value)) return value as Protocol;
  fields.report(field, `is ${showValue(value)}, not TCP, UDP or SCTP; the port is skipped`);
  return undefined;
}

/** A port name, "" if absent; undefined with a problem if it cannot be one. */
export function readPortName(value: unknown, { field, fields }: Place): string | undefined {
  if (isAbsent(value) || value === "") return "";
  if (isName(value, LABEL_LENGTH)) return value;
  const wanted = `not a name of at most ${LABEL_LENGTH} letters, digits and "-"`;
  fields.report(field, `is ${showValue(value)}, ${wanted}; the port is skipped`);
  return undefined;
}
