// The functions of libbpf and libc as typed values: the only file that knows koffi.
// Nothing here checks a size or a handle; object.ts, map.ts, link.ts and system.ts do, and they
// alone call it. Sizes and layouts of C arguments are those of libbpf 1.1, the floor.
import koffi, { type LibraryHandle } from "koffi";
import { BpfError } from "./errors.ts";

declare const brand: unique symbol;

/** Pointers that C would accept for each other; TypeScript does not. */
export type ObjectHandle = bigint & { readonly [brand]: "bpf_object" };
export type MapHandle = bigint & { readonly [brand]: "bpf_map" };
export type ProgramHandle = bigint & { readonly [brand]: "bpf_program" };
export type BtfHandle = bigint & { readonly [brand]: "btf" };
/** The address of bytes that C owns. */
export type Pointer = bigint & { readonly [brand]: "memory" };

const PRINT_WARNING = 0;
const WARNING_BYTES = 8192;

/**
 * libbpf's functions. An int result below zero is a negated errno; a null pointer leaves the
 * number in lastErrno(). Bytes are passed by address: C reads and writes the caller's own.
 */
export interface Libbpf {
  objectOpen(path: string, options: null): ObjectHandle | null;
  objectLoad(object: ObjectHandle): number;
  objectClose(object: ObjectHandle): void;
  objectNextMap(object: ObjectHandle, previous: MapHandle | null): MapHandle | null;
  objectNextProgram(object: ObjectHandle, previous: ProgramHandle | null): ProgramHandle | null;
  objectFindMap(object: ObjectHandle, name: string): MapHandle | null;
  mapName(map: MapHandle): string;
  mapIsInternal(map: MapHandle): boolean;
  mapType(map: MapHandle): number;
  mapKeySize(map: MapHandle): number;
  mapValueSize(map: MapHandle): number;
  mapMaxEntries(map: MapHandle): number;
  mapSetMaxEntries(map: MapHandle, count: number): number;
  mapFlags(map: MapHandle): number;
  mapReuseFd(map: MapHandle, fd: number): number;
  mapSetPinPath(map: MapHandle, path: string): number;
  mapSetInitialValue(map: MapHandle, value: Uint8Array, length: number): number;
  mapFd(map: MapHandle): number;
  programName(program: ProgramHandle): string;
  programSection(program: ProgramHandle): string;
  programFd(program: ProgramHandle): number;
  programAttachType(program: ProgramHandle): number;
  programSetAutoload(program: ProgramHandle, wanted: boolean): number;
  programSetLog(program: ProgramHandle, buffer: Pointer | null, length: number): number;
  programSetLogLevel(program: ProgramHandle, level: number): number;
  programFdById(id: number): number;
  btfLoad(id: number): BtfHandle | null;
  btfData(btf: BtfHandle, length: Uint32Array): Pointer | null;
  btfFree(btf: BtfHandle): void;
  programTestRun(fd: number, options: Uint8Array): number;
  mapCreate(...options: [number, string, number, number, number, Uint8Array]): number;
  mapFdById(id: number): number;
  lookup(fd: number, key: Uint8Array, value: Uint8Array): number;
  update(fd: number, key: Uint8Array, value: Uint8Array, flags: number): number;
  delete(fd: number, key: Uint8Array): number;
  nextKey(fd: number, key: Uint8Array | null, next: Uint8Array): number;
  lookupBatch(...options: [number, Uint8Array | null, Uint8Array, ...BatchArguments]): number;
  updateBatch(...options: [number, ...BatchArguments]): number;
  deleteBatch(fd: number, keys: Uint8Array, count: Uint32Array, options: null): number;
  pin(fd: number, path: string): number;
  openPinned(path: string): number;
  info(fd: number, info: Uint8Array, length: Uint32Array): number;
  linkCreate(...options: [number, number, number, Uint8Array | null]): number;
  linkUpdate(fd: number, programFd: number, options: null): number;
  linkDetach(fd: number): number;
  iteratorCreate(linkFd: number): number;
  tcHookCreate(hook: Uint8Array): number;
  tcHookDestroy(hook: Uint8Array): number;
  tcAttach(hook: Uint8Array, options: Uint8Array): number;
  tcDetach(hook: Uint8Array, options: Uint8Array): number;
  tcQuery(hook: Uint8Array, options: Uint8Array): number;
  possibleCpus(): number;
}

/** Keys, values, how many (in and out), options. */
type BatchArguments = [Uint8Array, Uint8Array, Uint32Array, null];

/** libc's functions: a result of -1 leaves the number in lastErrno(). */
export interface Libc {
  calloc(count: number, bytes: number): Pointer | null;
  free(memory: Pointer): void;
  mmap(...options: [null, number, number, number, number, number]): Pointer | null;
  munmap(memory: Pointer, length: number): number;
  duplicate(fd: number, command: number, lowest: number): number;
  flock(fd: number, operation: number): number;
  socket(family: number, type: number, protocol: number): number;
  getsockopt(...options: [number, number, number, Uint8Array, Uint32Array]): number;
  setsockopt(...options: [number, number, number, Uint8Array, number]): number;
  bind(fd: number, address: Uint8Array, length: number): number;
  send(...options: [number, Uint8Array, number, number]): number;
  recv(...options: [number, Uint8Array, number, number]): number;
  ioctl(fd: number, request: number, argument: Uint8Array): number;
  setns(fd: number, kind: number): number;
  mount(...options: [string, string, string, number, null]): number;
  unmount(path: string, flags: number): number;
  mallopt(parameter: number, value: number): number;
  onlineCpus(): number;
  /** syscall(2) on a thread of its own; errno is not to be had. */
  syscallAsync(...options: [number, number, number, number]): Promise<number>;
}

const LIBBPF: { readonly [name in keyof Libbpf]: string } = {
  objectOpen: "void *bpf_object__open_file(const char *, const void *)",
  objectLoad: "int bpf_object__load(void *)",
  objectClose: "void bpf_object__close(void *)",
  objectNextMap: "void *bpf_object__next_map(void *, void *)",
  objectNextProgram: "void *bpf_object__next_program(void *, void *)",
  objectFindMap: "void *bpf_object__find_map_by_name(void *, const char *)",
  mapName: "const char *bpf_map__name(void *)",
  mapIsInternal: "bool bpf_map__is_internal(void *)",
  mapType: "int bpf_map__type(void *)",
  mapKeySize: "uint32_t bpf_map__key_size(void *)",
  mapValueSize: "uint32_t bpf_map__value_size(void *)",
  mapMaxEntries: "uint32_t bpf_map__max_entries(void *)",
  mapSetMaxEntries: "int bpf_map__set_max_entries(void *, uint32_t)",
  mapFlags: "uint32_t bpf_map__map_flags(void *)",
  mapReuseFd: "int bpf_map__reuse_fd(void *, int)",
  mapSetPinPath: "int bpf_map__set_pin_path(void *, const char *)",
  mapSetInitialValue: "int bpf_map__set_initial_value(void *, const void *, size_t)",
  mapFd: "int bpf_map__fd(void *)",
  programName: "const char *bpf_program__name(void *)",
  programSection: "const char *bpf_program__section_name(void *)",
  programFd: "int bpf_program__fd(void *)",
  programAttachType: "int bpf_program__expected_attach_type(void *)",
  programSetAutoload: "int bpf_program__set_autoload(void *, bool)",
  programSetLog: "int bpf_program__set_log_buf(void *, void *, size_t)",
  programSetLogLevel: "int bpf_program__set_log_level(void *, uint32_t)",
  programFdById: "int bpf_prog_get_fd_by_id(uint32_t)",
  btfLoad: "void *btf__load_from_kernel_by_id(uint32_t)",
  btfData: "const void *btf__raw_data(const void *, void *)",
  btfFree: "void btf__free(void *)",
  programTestRun: "int bpf_prog_test_run_opts(int, void *)",
  mapCreate: "int bpf_map_create(int, const char *, uint32_t, uint32_t, uint32_t, const void *)",
  mapFdById: "int bpf_map_get_fd_by_id(uint32_t)",
  lookup: "int bpf_map_lookup_elem(int, const void *, void *)",
  update: "int bpf_map_update_elem(int, const void *, const void *, uint64_t)",
  delete: "int bpf_map_delete_elem(int, const void *)",
  nextKey: "int bpf_map_get_next_key(int, const void *, void *)",
  lookupBatch:
    "int bpf_map_lookup_batch(int, void *, void *, void *, void *, void *, const void *)",
  updateBatch: "int bpf_map_update_batch(int, const void *, const void *, void *, const void *)",
  deleteBatch: "int bpf_map_delete_batch(int, const void *, void *, const void *)",
  pin: "int bpf_obj_pin(int, const char *)",
  openPinned: "int bpf_obj_get(const char *)",
  info: "int bpf_obj_get_info_by_fd(int, void *, void *)",
  linkCreate: "int bpf_link_create(int, int, int, const void *)",
  linkUpdate: "int bpf_link_update(int, int, const void *)",
  linkDetach: "int bpf_link_detach(int)",
  iteratorCreate: "int bpf_iter_create(int)",
  tcHookCreate: "int bpf_tc_hook_create(void *)",
  tcHookDestroy: "int bpf_tc_hook_destroy(void *)",
  tcAttach: "int bpf_tc_attach(const void *, void *)",
  tcDetach: "int bpf_tc_detach(const void *, const void *)",
  tcQuery: "int bpf_tc_query(const void *, void *)",
  possibleCpus: "int libbpf_num_possible_cpus(void)",
};

// fcntl, ioctl and syscall are variadic in C; both calling conventions pass these few alike.
const LIBC: { readonly [name in keyof Libc]: string } = {
  calloc: "void *calloc(size_t, size_t)",
  free: "void free(void *)",
  mmap: "void *mmap(void *, size_t, int, int, int, int64_t)",
  munmap: "int munmap(void *, size_t)",
  duplicate: "int fcntl(int, int, int)",
  flock: "int flock(int, int)",
  socket: "int socket(int, int, int)",
  getsockopt: "int getsockopt(int, int, int, void *, void *)",
  setsockopt: "int setsockopt(int, int, int, const void *, uint32_t)",
  bind: "int bind(int, const void *, uint32_t)",
  send: "long send(int, const void *, size_t, int)",
  recv: "long recv(int, void *, size_t, int)",
  ioctl: "int ioctl(int, unsigned long, void *)",
  setns: "int setns(int, int)",
  mount: "int mount(const char *, const char *, const char *, unsigned long, const void *)",
  unmount: "int umount2(const char *, int)",
  mallopt: "int mallopt(int, int)",
  onlineCpus: "int get_nprocs(void)",
  syscallAsync: "long syscall(long, long, long, long)",
};

let libbpf: Libbpf | undefined;
let libc: Libc | undefined;
let warnings: string[] = [];

/** libbpf, loaded at the first call. Throws BpfError if the machine does not have it. */
export function loadLibbpf(): Libbpf {
  if (libbpf === undefined) {
    const library = openLibrary("libbpf.so.1", "libbpf1");
    libbpf = declare<Libbpf>(library, LIBBPF);
    keepWarnings(library);
  }
  return libbpf;
}

/** libc, loaded at the first call. */
export function loadLibc(): Libc {
  if (libc === undefined) {
    const library = openLibrary("libc.so.6", "libc6");
    const { syscallAsync, ...prototypes } = LIBC;
    const syscall = library.func(syscallAsync);
    libc = {
      ...declare<Omit<Libc, "syscallAsync">>(library, prototypes),
      syscallAsync: (...options) =>
        new Promise((resolve, reject) => {
          syscall.async(...options, (error: unknown, result: number) =>
            error === null ? resolve(result) : reject(error),
          );
        }),
    };
  }
  return libc;
}

/** Opens a shared library; BpfError names the Debian package that has it. */
export function openLibrary(file: string, debianPackage: string): LibraryHandle {
  try {
    return koffi.load(file);
  } catch (cause) {
    const reason = `install the Debian package "${debianPackage}"`;
    throw new BpfError({ operation: "load", subject: file, code: "ENOENT", reason, cause });
  }
}

/** The errno of the last call; read it before anything else is called. */
export function lastErrno(): number {
  return koffi.errno();
}

/** What libbpf has complained about since the last call of this function. */
export function takeWarnings(): string[] {
  const taken = warnings;
  warnings = [];
  return taken;
}

/** The text at `pointer`, up to its NUL. */
export function textAt(pointer: Pointer): string {
  return koffi.decode.string(pointer);
}

/** The memory itself, without a copy: it must stay mapped for as long as the result lives. */
export function bytesAt(pointer: Pointer, length: number): Uint8Array {
  return new Uint8Array(koffi.view(pointer, length));
}

/** Where the bytes lie, for C structs that hold pointers; keep the bytes alive meanwhile. */
export function addressOf(bytes: Uint8Array): bigint {
  return koffi.address(bytes);
}

/** Tells when a descriptor can be read from; see watchReadable(). */
export interface Watch {
  /** Goes on after it told: it tells again at once if there is something left to read. */
  resume(): void;
  close(): void;
}

/**
 * Calls back once, from the event loop and not from within, when a socket has something to read or
 * an error to tell; resume() arms it again. No thread waits meanwhile (uv_poll_t).
 */
export function watchReadable(fd: number, onReadable: () => void): Watch {
  // An error ends the polling too, and what is called from here has no tick queue of its own.
  const told = () => {
    handle.stop();
    setImmediate(onReadable);
  };
  const handle = koffi.node.poll(fd, { readable: true }, told);
  return { resume: () => handle.start({ readable: true }, told), close: () => handle.close() };
}

function declare<T>(library: LibraryHandle, prototypes: Readonly<Record<string, string>>): T {
  const functions = Object.entries(prototypes).map(([name, prototype]) => [
    name,
    library.func(prototype),
  ]);
  return Object.fromEntries(functions) as T;
}

/** libbpf prints to stderr unless told otherwise; its warnings make its errors understandable. */
function keepWarnings(library: LibraryHandle): void {
  const format = openLibrary("libc.so.6", "libc6").func(
    "int vsnprintf(void *, size_t, void *, void *)",
  );
  const line = new Uint8Array(WARNING_BYTES);
  const print = koffi.register(
    (level: number, pattern: bigint, values: bigint) => {
      if (level !== PRINT_WARNING) return 0;
      const length = Math.min(format(line, line.length, pattern, values), line.length - 1);
      warnings.push(new TextDecoder().decode(line.subarray(0, length)).trim());
      return 0;
    },
    // A va_list argument is a pointer in the calling conventions of x86-64 and arm64.
    koffi.pointer(koffi.proto("int libbpf_print(int level, void *format, void *values)")),
  );
  library.func("void *libbpf_set_print(void *)")(print);
}
