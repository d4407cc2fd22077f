// When what an EndpointSlice tells of came about, by its annotation. What came about before this
// process is of no interest (§18.2): that is nearly every slice of a first list, and is told from
// the text's first bytes.
import { decodeText, enter, leave, type Reader, skip } from "./wire.ts";

export const TRIGGER_ANNOTATION = "endpoints.kubernetes.io/last-change-trigger-time";
const KEY = Buffer.from(TRIGGER_ANNOTATION);
const START_MS = Math.floor(performance.timeOrigin / 1000) * 1000;
/** To the second: "2026-01-31T12:00:00". Times in UTC sort as their texts do. */
const START = Buffer.from(new Date(START_MS).toISOString().slice(0, 19));
const Z = 0x5a;

/** The time in annotations, in ms since the epoch; 0 if there is none that is of interest. */
export function readTriggerTime(annotations: unknown): number {
  const text = (annotations as Record<string, unknown> | undefined)?.[TRIGGER_ANNOTATION];
  return typeof text === "string" ? parse(text) : 0;
}

/** The same of the entry of annotations that ends at `end`. */
export function readTriggerEntry(reader: Reader, end: number): number {
  let isTrigger = false;
  let valueAt = 0;
  let valueEnd = 0;
  while (reader.pos < end) {
    const tag = reader.tag();
    const number = tag >>> 3;
    if (number !== 1 && number !== 2) {
      skip(reader, tag, end);
      continue;
    }
    const fieldEnd = enter(reader, tag, end);
    if (number === 1) isTrigger = isKey(reader.buf, reader.pos, fieldEnd);
    else {
      valueAt = reader.pos;
      valueEnd = fieldEnd;
    }
    reader.pos = fieldEnd;
  }
  leave(reader, end);
  if (!isTrigger || isBeforeStart(reader.buf, valueAt, valueEnd)) return 0;
  return parse(decodeText(reader, valueAt, valueEnd));
}

function parse(text: string): number {
  const time = Date.parse(text);
  return time >= START_MS ? time : 0;
}

function isKey(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start !== KEY.length) return false;
  for (let index = 0; index < KEY.length; index++)
    if (bytes[start + index] !== KEY[index]) return false;
  return true;
}

/** True if it is sure; what is in no usual form is left to who can read it. */
function isBeforeStart(bytes: Uint8Array, start: number, end: number): boolean {
  if (end - start <= START.length || bytes[end - 1] !== Z) return false;
  for (let index = 0; index < START.length; index++) {
    const difference = bytes[start + index]! - START[index]!;
    if (difference !== 0) return difference < 0;
  }
  return false;
}
