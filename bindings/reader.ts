// Little-endian reads that never leave their bytes: what the readers of ELF and BTF stand on.
// It knows neither format; anything out of bounds is a BtfError.

/** An object file that cannot be understood: truncated, garbage, or a feature we do not read. */
export class BtfError extends Error {
  override readonly name = "BtfError";
}

/** Bytes called `what` in errors, read at offsets counted from their start. */
export class Reader {
  readonly bytes: Uint8Array;
  readonly what: string;
  readonly #view: DataView;

  constructor(bytes: Uint8Array, what: string) {
    this.bytes = bytes;
    this.what = what;
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  u8(at: number): number {
    this.#check(at, 1);
    return this.#view.getUint8(at);
  }

  u16(at: number): number {
    this.#check(at, 2);
    return this.#view.getUint16(at, true);
  }

  u32(at: number): number {
    this.#check(at, 4);
    return this.#view.getUint32(at, true);
  }

  /** An unsigned 64-bit offset or size, which must fit the integers of a number. */
  u64(at: number): number {
    this.#check(at, 8);
    const value = this.#view.getBigUint64(at, true);
    if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw this.error(`number ${value} is too large`);
    return Number(value);
  }

  /** The text from `at` to the next NUL, which must be there. */
  text(at: number): string {
    this.#check(at, 1);
    const end = this.bytes.indexOf(0, at);
    if (end < 0) throw this.error(`the string at ${at} has no end`);
    return new TextDecoder().decode(this.bytes.subarray(at, end));
  }

  /** A reader of `length` bytes from `at` on, which must all be there. */
  slice(at: number, length: number, what: string): Reader {
    this.#check(at, length);
    return new Reader(this.bytes.subarray(at, at + length), what);
  }

  error(reason: string): BtfError {
    return new BtfError(`Cannot read ${this.what}: ${reason}`);
  }

  #check(at: number, length: number): void {
    if (at < 0 || length < 0 || at + length > this.bytes.length) {
      const end = this.bytes.length;
      throw this.error(`bytes ${at} to ${at + length} are wanted, it ends at ${end}`);
    }
  }
}
