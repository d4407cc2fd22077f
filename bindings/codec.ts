// Byte arrays in and out of a DataView: what the generated layouts need beyond DataView itself.
// Loops and no sub-arrays, since these run once for every row that is written.

/** A copy of `length` bytes at `at`. */
export function readBytes(view: DataView, at: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  for (let index = 0; index < length; index++) bytes[index] = view.getUint8(at + index);
  return bytes;
}

/** Writes all of `bytes` at `at`. Throws RangeError unless it is exactly `length` long. */
export function writeBytes(
  view: DataView,
  at: number,
  { bytes, length, field }: { bytes: Uint8Array; length: number; field: string },
): void {
  if (bytes.length !== length) throw wrongLength(field, { given: bytes.length, wanted: length });
  for (let index = 0; index < length; index++) view.setUint8(at + index, bytes[index]!);
}

/** Writes `bytes` at `at`, followed by zeros up to `length`. Throws RangeError if longer. */
export function writePadded(
  view: DataView,
  at: number,
  { bytes, length, field }: { bytes: Uint8Array; length: number; field: string },
): void {
  if (bytes.length > length) throw wrongLength(field, { given: bytes.length, wanted: length });
  for (let index = 0; index < length; index++) view.setUint8(at + index, bytes[index] ?? 0);
}

/** Writes `length` zeros at `at`. */
export function writeZeros(view: DataView, at: number, length: number): void {
  for (let index = 0; index < length; index++) view.setUint8(at + index, 0);
}

function wrongLength(field: string, { given, wanted }: { given: number; wanted: number }) {
  return new RangeError(`Cannot write ${field}: ${given} bytes given, it holds ${wanted}`);
}
