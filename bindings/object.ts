// A BPF object file on its way into the kernel: open, configure, load, and its maps and programs.
// It knows neither what programs do nor where they are attached (link.ts).
import { closeSync, readFileSync } from "node:fs";
import { type Btf, readBtf, resolve, sectionVariables } from "./btf.ts";
import { describe, pinDescriptor, readName } from "./descriptor.ts";
import { readSections } from "./elf.ts";
import { BpfError } from "./errors.ts";
import {
  addressOf,
  lastErrno,
  loadLibbpf,
  loadLibc,
  type MapHandle,
  type ObjectHandle,
  type Pointer,
  type ProgramHandle,
  takeWarnings,
  textAt,
} from "./libbpf.ts";
import { BpfMap } from "./map.ts";

/** The largest log the kernel writes; memory is used only as far as it is written. */
const LOG_BYTES = 16 * 1024 * 1024 - 1;
const LOG_LINES_SHOWN = 5;
/** BPF_LOG_STATS: three lines a program, and nothing else. */
const LOG_STATISTICS = 4;
const STATISTICS_BYTES = 4096;
const TEST_RUN_BYTES = 80;
/** How much longer a program may make a frame in a test run. */
const TEST_HEADROOM = 512;
const BPF_F_TEST_SKB_CHECKSUM_COMPLETE = 1 << 2;
const TAG_BYTES = 8;

/** What the kernel says about a program; the tag is a hash of its instructions. */
export interface ProgramInfo {
  id: number;
  tag: string;
  name: string;
  jitedBytes: number;
  xlatedBytes: number;
  verifiedInstructions: number;
}

/** What BPF_PROG_TEST_RUN gives a program. */
export interface TestRun {
  context?: Uint8Array;
  data?: Uint8Array;
  repeat?: number;
}

/** A frame for a SEC("xdp") or SEC("tc") program. */
export interface TestPacket extends TestRun {
  data: Uint8Array;
  /**
   * For SEC("tc"), Linux 6.16 or later: the frame is as from a device that has summed all of it,
   * and that sum must follow what the program changes, else the run fails with EBADMSG.
   */
  isSummed?: boolean;
}

/** What became of a frame that a SEC("xdp") or SEC("tc") program was given. */
export interface PacketRun {
  /** The program's result, an unsigned 32-bit number. */
  verdict: number;
  /** The frame as the last run left it. */
  data: Uint8Array;
  /** Nanoseconds a run by the kernel's own clock, the mean of all. */
  durationNs: number;
}

/** An object file and, once loaded, its maps and programs. All of it ends with close(). */
export class BpfObject {
  readonly path: string;
  readonly #btf: Btf;
  readonly #rodata: Uint8Array;
  #handle: ObjectHandle | undefined;
  #loaded = false;

  private constructor(path: string, handle: ObjectHandle, file: Uint8Array) {
    this.path = path;
    this.#handle = handle;
    this.#btf = readBtf(file);
    const rodata = readSections(file).find(({ name }) => name === ".rodata");
    this.#rodata = new Uint8Array(rodata?.data.bytes ?? []);
  }

  /** Throws BpfError if the file is absent or no BPF object, BtfError if it has no BTF. */
  static open(path: string): BpfObject {
    takeWarnings();
    const handle = loadLibbpf().objectOpen(path, null);
    const code = lastErrno();
    if (handle === null) {
      const log = takeWarnings().join("\n");
      throw new BpfError({
        operation: "open BPF object",
        subject: path,
        code,
        reason: log || undefined,
        log,
      });
    }
    try {
      return new BpfObject(path, handle, readFileSync(path));
    } catch (error) {
      loadLibbpf().objectClose(handle);
      throw error;
    }
  }

  /**
   * Sets a `const volatile` variable before load(). Numbers must fit the variable, bytes must have
   * its exact size: else RangeError. Throws for a name that the object does not have.
   */
  setRodata(variable: string, value: number | bigint | Uint8Array): void {
    const handle = this.#open();
    if (this.#loaded) throw new Error(`Cannot set "${variable}": ${this.path} is loaded already`);
    const variables = sectionVariables(this.#btf, ".rodata");
    const found = variables.find(({ name }) => name === variable);
    if (found === undefined) {
      const known = variables.map(({ name }) => name).join(", ");
      throw new RangeError(`"${this.path}" has no variable "${variable}", only: ${known}`);
    }
    const { offset, size } = found;
    const type = resolve(this.#btf, found.type).type;
    const signed = type.kind === "int" && type.signed;
    const bytes =
      value instanceof Uint8Array ? value : encodeInteger(value, { size, signed, variable });
    if (bytes.length !== size) {
      const given = `${bytes.length} bytes given`;
      throw new RangeError(`Wrong size of "${variable}": ${given}, ${size} wanted`);
    }
    this.#rodata.set(bytes, offset);
    const map = loadLibbpf().objectFindMap(handle, ".rodata");
    if (map === null) throw new BpfError({ operation: "set", subject: variable, code: "ENOENT" });
    const error = loadLibbpf().mapSetInitialValue(map, this.#rodata, this.#rodata.length);
    if (error !== 0) throw new BpfError({ operation: "set", subject: variable, code: error });
  }

  /** Names of the `const volatile` variables that setRodata() can set. */
  get rodataVariables(): string[] {
    return sectionVariables(this.#btf, ".rodata").map(({ name }) => name);
  }

  /** The maps that the source defines; those of global variables are not among them. */
  maps(): ObjectMap[] {
    const bpf = loadLibbpf();
    const object = this.#open();
    const maps: ObjectMap[] = [];
    for (let map = bpf.objectNextMap(object, null); map; map = bpf.objectNextMap(object, map)) {
      if (!bpf.mapIsInternal(map)) maps.push(new ObjectMap(map, () => this.#open()));
    }
    return maps;
  }

  /** Throws if the object has no map of this name. */
  map(name: string): ObjectMap {
    const found = this.maps().find((map) => map.name === name);
    if (found === undefined) throw new Error(`"${this.path}" has no map "${name}"`);
    return found;
  }

  programs(): Program[] {
    const bpf = loadLibbpf();
    const object = this.#open();
    const programs: Program[] = [];
    let program = bpf.objectNextProgram(object, null);
    for (; program; program = bpf.objectNextProgram(object, program)) {
      programs.push(new Program(program, () => this.#open()));
    }
    return programs;
  }

  /** Throws if the object has no program of this name. */
  program(name: string): Program {
    const found = this.programs().find((program) => program.name === name);
    if (found === undefined) throw new Error(`"${this.path}" has no program "${name}"`);
    return found;
  }

  /**
   * Creates the maps and loads the programs. Throws BpfError naming the program that the verifier
   * refused, with the last lines of its log in the message and all of it in `log`.
   */
  load(): void {
    const object = this.#open();
    const bpf = loadLibbpf();
    const { calloc, free } = loadLibc();
    const buffer = calloc(LOG_BYTES, 1);
    if (buffer === null)
      throw new BpfError({ operation: "load", subject: this.path, code: "ENOMEM" });
    try {
      for (const program of this.programs()) program.setLog(buffer, LOG_BYTES);
      takeWarnings();
      const error = bpf.objectLoad(object);
      if (error !== 0) throw this.#loadError(error, textAt(buffer));
      this.#loaded = true;
    } finally {
      // libbpf keeps the address, but an object cannot be loaded twice, whatever came of it.
      free(buffer);
    }
  }

  /**
   * The same, and returns what the verifier says of its work on each program that it took, by name.
   * Throws BpfError without the verifier's reasons: load() tells them.
   */
  loadWithStatistics(): Map<string, string> {
    const { calloc, free } = loadLibc();
    const programs = this.programs();
    const buffer = calloc(programs.length, STATISTICS_BYTES);
    if (buffer === null)
      throw new BpfError({ operation: "load", subject: this.path, code: "ENOMEM" });
    const textOf = (index: number) => (buffer + BigInt(index * STATISTICS_BYTES)) as Pointer;
    try {
      for (const [index, program] of programs.entries())
        program.setLog(textOf(index), STATISTICS_BYTES, LOG_STATISTICS);
      takeWarnings();
      const error = loadLibbpf().objectLoad(this.#open());
      if (error !== 0) throw this.#loadError(error, "");
      this.#loaded = true;
      return new Map(programs.map(({ name }, index) => [name, textAt(textOf(index))]));
    } finally {
      free(buffer);
    }
  }

  /** Frees the object; pinned maps and links stay. Any use of it or its parts then throws. */
  close(): void {
    if (this.#handle !== undefined) loadLibbpf().objectClose(this.#handle);
    this.#handle = undefined;
  }

  #open(): ObjectHandle {
    if (this.#handle === undefined) throw new Error(`BPF object "${this.path}" is closed`);
    return this.#handle;
  }

  #loadError(code: number, verifierLog: string): BpfError {
    const warnings = takeWarnings().join("\n");
    const program = /prog '([^']+)'/.exec(warnings)?.[1];
    const lines = (verifierLog || warnings).trimEnd().split("\n");
    // The verifier ends with statistics; what it objects to stands right above.
    const telling = lines.filter((line) => !/^(processed \d+ insns|verification time)/.test(line));
    return new BpfError({
      operation: program === undefined ? "load BPF object" : "load program",
      subject: program ?? this.path,
      code,
      reason: `${causeOf(code)}:\n${telling.slice(-LOG_LINES_SHOWN).join("\n")}`,
      log: verifierLog || warnings,
    });
  }
}

/** A map of an object file; sizes in bytes. */
class ObjectMap {
  readonly name: string;
  readonly #handle: MapHandle;
  readonly #check: () => void;

  /** Only for BpfObject: `check` throws once the object is closed. */
  constructor(handle: MapHandle, check: () => void) {
    this.#handle = handle;
    this.#check = check;
    this.name = loadLibbpf().mapName(handle);
  }

  get type(): number {
    return loadLibbpf().mapType(this.#open());
  }

  get keySize(): number {
    return loadLibbpf().mapKeySize(this.#open());
  }

  get valueSize(): number {
    return loadLibbpf().mapValueSize(this.#open());
  }

  get maxEntries(): number {
    return loadLibbpf().mapMaxEntries(this.#open());
  }

  get flags(): number {
    return loadLibbpf().mapFlags(this.#open());
  }

  /** Before load(). Throws BpfError. */
  setMaxEntries(count: number): void {
    if (!Number.isInteger(count) || count < 1 || count > 0xffffffff) {
      throw new RangeError(`Map "${this.name}" cannot have ${count} entries`);
    }
    this.#try("resize", loadLibbpf().mapSetMaxEntries(this.#open(), count));
  }

  /**
   * Before load(): the programs will use this map instead of a new one. Throws RangeError unless
   * type, flags and sizes are equal (the number of entries may differ), BpfError by libbpf.
   */
  reuse(map: BpfMap): void {
    const handle = this.#open();
    const wanted = { type: this.type, key: this.keySize, value: this.valueSize, flags: this.flags };
    const { type, keySize, valueSize, flags } = map.info;
    const given = { type, key: keySize, value: valueSize, flags };
    if (JSON.stringify(given) !== JSON.stringify(wanted)) {
      const difference = `it has ${list(given)}, wanted is ${list(wanted)}`;
      throw new RangeError(`Cannot reuse ${map.info.name} as ${this.name}: ${difference}`);
    }
    this.#try("reuse", loadLibbpf().mapReuseFd(handle, map.fd));
  }

  /** Before load(): reuse what is pinned at `path`, or pin the new map there. Throws BpfError. */
  setPinPath(path: string): void {
    this.#try("set the pin path of", loadLibbpf().mapSetPinPath(this.#open(), path));
  }

  /** After load(): the map itself, by a descriptor of its own. Throws BpfError before. */
  toMap(): BpfMap {
    const fd = loadLibbpf().mapFd(this.#open());
    if (fd < 0) {
      const reason = "its object is not loaded";
      throw new BpfError({ operation: "open map", subject: this.name, code: fd, reason });
    }
    return BpfMap.fromDescriptor(fd, this.name);
  }

  #open(): MapHandle {
    this.#check();
    return this.#handle;
  }

  #try(operation: string, code: number): void {
    if (code !== 0) throw new BpfError({ operation, subject: this.name, code });
  }
}

/** A program of an object file. */
export class Program {
  readonly name: string;
  readonly section: string;
  readonly #handle: ProgramHandle;
  readonly #check: () => void;

  /** Only for BpfObject: `check` throws once the object is closed. */
  constructor(handle: ProgramHandle, check: () => void) {
    this.#handle = handle;
    this.#check = check;
    this.name = loadLibbpf().programName(handle);
    this.section = loadLibbpf().programSection(handle);
  }

  /** The loaded program; it stays the object's. Throws BpfError before load(). */
  get fd(): number {
    const fd = loadLibbpf().programFd(this.#open());
    if (fd >= 0) return fd;
    const reason = "its object is not loaded";
    throw new BpfError({ operation: "use program", subject: this.name, code: fd, reason });
  }

  /** Where its section says it attaches (enum bpf_attach_type). */
  get expectedAttachType(): number {
    return loadLibbpf().programAttachType(this.#open());
  }

  /** After load(). Throws BpfError. */
  info(): ProgramInfo {
    return describeProgram(this.fd, this.name);
  }

  /** Before load(): whether load() takes this program along. Throws BpfError. */
  setAutoload(wanted: boolean): void {
    const code = loadLibbpf().programSetAutoload(this.#open(), wanted);
    if (code !== 0) throw new BpfError({ operation: "configure", subject: this.name, code });
  }

  /** After load(): pins the program, so that it outlives this process. Throws BpfError. */
  pin(path: string): void {
    pinDescriptor(this.fd, path);
  }

  /**
   * Only for BpfObject: where the verifier writes, when it refuses the program or, with a level,
   * what that asks for.
   */
  setLog(buffer: Pointer, length: number, level = 0): void {
    const bpf = loadLibbpf();
    const code =
      bpf.programSetLog(this.#open(), buffer, length) ||
      bpf.programSetLogLevel(this.#open(), level);
    if (code !== 0) throw new BpfError({ operation: "configure", subject: this.name, code });
  }

  /**
   * Runs the program and returns the result of its last run, an unsigned 32-bit number. `context`
   * is for SEC("syscall"), which reads and writes it in place; `data` is the frame, at least 14
   * bytes, that a SEC("tc") or SEC("xdp") program is given `repeat` times (1). Throws BpfError.
   */
  testRun({ context, data, repeat }: TestRun = {}): number {
    const options = new DataView(new ArrayBuffer(TEST_RUN_BYTES));
    options.setBigUint64(0, BigInt(TEST_RUN_BYTES), true);
    if (data !== undefined) {
      options.setBigUint64(8, addressOf(data), true);
      options.setUint32(24, data.length, true);
    }
    if (context !== undefined && context.length > 0) {
      options.setBigUint64(32, addressOf(context), true);
      options.setUint32(48, context.length, true);
    }
    if (repeat !== undefined) options.setUint32(60, repeat, true);
    const code = loadLibbpf().programTestRun(this.fd, new Uint8Array(options.buffer));
    if (code !== 0) throw new BpfError({ operation: "run", subject: this.name, code });
    return options.getUint32(56, true);
  }

  /**
   * Runs the program on a frame and returns what it made of it; every further run gets what the one
   * before left. `context` is struct xdp_md or struct __sk_buff. Throws BpfError.
   */
  testPacket({ data, context, repeat, isSummed }: TestPacket): PacketRun {
    const out = new Uint8Array(data.length + TEST_HEADROOM);
    const options = new DataView(new ArrayBuffer(TEST_RUN_BYTES));
    options.setBigUint64(0, BigInt(TEST_RUN_BYTES), true);
    options.setBigUint64(8, addressOf(data), true);
    options.setBigUint64(16, addressOf(out), true);
    options.setUint32(24, data.length, true);
    options.setUint32(28, out.length, true);
    if (context !== undefined) {
      options.setBigUint64(32, addressOf(context), true);
      options.setUint32(48, context.length, true);
    }
    options.setUint32(60, repeat ?? 1, true);
    if (isSummed) options.setUint32(68, BPF_F_TEST_SKB_CHECKSUM_COMPLETE, true);
    const code = loadLibbpf().programTestRun(this.fd, new Uint8Array(options.buffer));
    if (code !== 0) throw new BpfError({ operation: "run", subject: this.name, code });
    return {
      verdict: options.getUint32(56, true),
      data: out.subarray(0, options.getUint32(28, true)),
      durationNs: options.getUint32(64, true),
    };
  }

  #open(): ProgramHandle {
    this.#check();
    return this.#handle;
  }
}

/** The program with this id, such as BpfLink.info names. Throws BpfError if it is gone. */
export function readProgramInfo(id: number): ProgramInfo {
  const fd = loadLibbpf().programFdById(id);
  const subject = `id ${id}`;
  if (fd < 0) throw new BpfError({ operation: "open program", subject, code: fd });
  try {
    return describeProgram(fd, subject);
  } finally {
    closeSync(fd);
  }
}

/** struct bpf_prog_info */
function describeProgram(fd: number, subject: string): ProgramInfo {
  const view = describe(fd, subject);
  return {
    id: view.getUint32(4, true),
    tag: Buffer.from(view.buffer, 8, TAG_BYTES).toString("hex"),
    jitedBytes: view.getUint32(16, true),
    xlatedBytes: view.getUint32(20, true),
    name: readName(view, 64),
    verifiedInstructions: view.getUint32(216, true),
  };
}

function encodeInteger(
  value: number | bigint,
  { size, signed, variable }: { size: number; signed: boolean; variable: string },
): Uint8Array {
  const bits = size * 8;
  const fits = signed ? BigInt.asIntN : BigInt.asUintN;
  const isInteger = typeof value === "bigint" || Number.isSafeInteger(value);
  if (size > 8 || !isInteger || fits(bits, BigInt(value)) !== BigInt(value)) {
    const kind = `${signed ? "signed" : "unsigned"} ${size} bytes`;
    throw new RangeError(`Cannot set "${variable}" to ${value}: it has ${kind}`);
  }
  const bytes = new Uint8Array(8);
  new DataView(bytes.buffer).setBigUint64(0, BigInt.asUintN(64, BigInt(value)), true);
  return bytes.subarray(0, size);
}

function list(values: Readonly<Record<string, number>>): string {
  return Object.entries(values)
    .map(([name, value]) => `${name} ${value}`)
    .join(", ");
}

function causeOf(code: number): string {
  return code === -1 ? "run as root, or with CAP_BPF and CAP_NET_ADMIN" : "the kernel refused it";
}
