// Objects from a file or a folder of manifests, watched: an edit takes effect, a fault leaves the
// last good objects in force. Knows files and time; what is in a file is manifest.ts', which file
// counts is catalogue.ts'.
import { type BigIntStats, type FSWatcher, watch } from "node:fs";
import { lstat, readdir, readFile, stat } from "node:fs/promises";
import path from "node:path";
import { Catalogue } from "./catalogue.ts";
import { readManifest } from "./manifest.ts";
import { StandingProblems } from "./problems.ts";
import type { Sink, Source, SourceProblem } from "./source.ts";

const EXTENSIONS = [".yaml", ".yml", ".json"];
const MAX_BYTES = 64 * 1024 * 1024;
/** A file written this recently may change again without its time stamp showing it. */
const SETTLED_MILLISECONDS = 50;
/** Events that keep coming delay a look by so many quiet periods at most. */
const MAX_DELAYS = 10;
const WATCH_GROUP = "watch";
const FOLDER_GROUP = "folder";

export interface ManifestOptions {
  /** How long it must be quiet after an event before files are looked at. */
  quietMilliseconds?: number;
  /** How often files are looked at without any event: what no event tells is seen then. */
  pollMilliseconds?: number;
  /** Larger files are refused. */
  maxBytes?: number;
}

function errorCode(error: unknown): string {
  return (error as NodeJS.ErrnoException).code ?? "";
}

const FIXES: Record<string, string> = {
  EACCES: "permission denied; make it readable for this process",
  EPERM: "permission denied; make it readable for this process",
  ENOENT: "it does not exist; put it back, or remove what links to it",
  ENOTDIR: "it is no folder any more; put the folder back",
  EISDIR: "it is a folder, not a file; move it away",
  ELOOP: "its symbolic links go in circles; correct them",
};

function explain(error: unknown): string {
  return FIXES[errorCode(error)] ?? `${(error as Error).message}; make it readable`;
}

/** Tells versions of a file apart without reading it. */
function signature({ dev, ino, size, mtimeNs, ctimeNs }: BigIntStats): string {
  return `${dev} ${ino} ${size} ${mtimeNs} ${ctimeNs}`;
}

function isSettled({ mtimeMs }: BigIntStats): boolean {
  const age = Date.now() - Number(mtimeMs);
  return age < 0 || age >= SETTLED_MILLISECONDS;
}

function isManifestName(name: string): boolean {
  return !name.startsWith(".") && EXTENSIONS.some((extension) => name.endsWith(extension));
}

/** A file or folder of manifests (*.yaml, *.yml, *.json; not recursive, hidden files skipped). */
export class ManifestSource implements Source {
  readonly #path: string;
  readonly #options: Required<ManifestOptions>;
  readonly #catalogue = new Catalogue();
  /** What was last read of each file; "" if it must be looked at again. */
  readonly #signatures = new Map<string, string>();
  #sink: Sink | undefined;
  #problems: StandingProblems | undefined;
  #isFolder = false;
  #watcher: FSWatcher | undefined;
  #watched = "";
  #timer: NodeJS.Timeout | undefined;
  #poll: NodeJS.Timeout | undefined;
  #delays = 0;
  #scan: Promise<void> | undefined;
  #scanAgain = false;
  #closed = false;

  constructor(location: string, options: ManifestOptions = {}) {
    this.#path = path.resolve(location);
    const defaults = { quietMilliseconds: 50, pollMilliseconds: 5000, maxBytes: MAX_BYTES };
    this.#options = { ...defaults, ...options };
  }

  /** Rejects if the path does not exist, is neither file nor folder, or cannot be listed. */
  async start(sink: Sink): Promise<void> {
    await this.#examine();
    this.#sink = sink;
    this.#problems = new StandingProblems(sink);
    await this.#look();
    if (this.#closed) return;
    sink.synced();
    sink.changed();
    this.#poll = setInterval(() => this.#request(), this.#options.pollMilliseconds);
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    clearInterval(this.#poll);
    this.#watcher?.close();
    await this.#scan;
  }

  async #examine(): Promise<void> {
    const subject = `Cannot read manifests from "${this.#path}"`;
    try {
      const stats = await stat(this.#path);
      this.#isFolder = stats.isDirectory();
      if (!this.#isFolder && !stats.isFile()) {
        throw new Error(`${subject}: it is neither a file nor a folder; give one of these`);
      }
      if (this.#isFolder) await readdir(this.#path);
    } catch (error) {
      const code = errorCode(error);
      if (code === "") throw error;
      const missing = "it does not exist; create it, or give the path of a file or folder";
      const fault = code === "ENOENT" ? missing : explain(error);
      throw new Error(`${subject}: ${fault}`, { cause: error });
    }
  }

  /** Asks for a look at the files once it has been quiet for a while. */
  #schedule(): void {
    if (this.#closed) return;
    if (this.#timer !== undefined && this.#delays++ >= MAX_DELAYS) return;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = undefined;
      this.#delays = 0;
      this.#request();
    }, this.#options.quietMilliseconds);
  }

  /** Looks at the files now, or again once the present look has ended. */
  #request(): void {
    if (this.#closed) return;
    if (this.#scan !== undefined) {
      this.#scanAgain = true;
      return;
    }
    void this.#look();
  }

  #look(): Promise<void> {
    this.#scanAgain = false;
    this.#scan = this.#scanFiles().finally(() => {
      this.#scan = undefined;
      if (this.#scanAgain) this.#request();
    });
    return this.#scan;
  }

  async #scanFiles(): Promise<void> {
    // Watching starts before reading, so that no change falls between the two.
    await this.#rewatch();
    const paths = await this.#list();
    if (paths !== undefined) {
      const present = new Set(paths);
      for (const known of [...this.#signatures.keys()]) {
        if (!present.has(known)) this.#forget(known);
      }
      for (const file of paths) await this.#examineFile(file);
    }
    if (this.#closed) return;
    const changed = this.#catalogue.settle(this.#sink!, this.#problems!);
    if (changed) this.#sink!.changed();
  }

  #setProblems(group: string, problems: readonly SourceProblem[]): void {
    if (!this.#closed) this.#problems!.replace(group, problems);
  }

  #fault(group: string, { file, message }: { file: string; message: string }): void {
    const nowhere = { kind: "", namespace: "", name: "", field: "", line: 0, column: 0 };
    this.#setProblems(group, [{ ...nowhere, file, message }]);
  }

  #forget(file: string): void {
    this.#signatures.delete(file);
    this.#catalogue.remove(file);
    this.#setProblems(`file ${file}`, []);
  }

  /** The files to read, in order; undefined if that cannot be told: then all stays as it is. */
  async #list(): Promise<string[] | undefined> {
    try {
      if (!this.#isFolder) return await this.#listFile();
      const names = (await readdir(this.#path)).filter(isManifestName).sort();
      this.#setProblems(FOLDER_GROUP, []);
      return names.map((name) => path.join(this.#path, name));
    } catch (error) {
      const message = `Cannot list the folder: ${explain(error)}; its last good objects are used`;
      this.#fault(FOLDER_GROUP, { file: this.#path, message });
      return undefined;
    }
  }

  async #listFile(): Promise<string[]> {
    try {
      await lstat(this.#path);
    } catch (error) {
      if (errorCode(error) !== "ENOENT") throw error;
      const message = "The file does not exist any more, so its objects are withdrawn; put it back";
      this.#fault(FOLDER_GROUP, { file: this.#path, message });
      return [];
    }
    this.#setProblems(FOLDER_GROUP, []);
    return [this.#path];
  }

  async #examineFile(file: string): Promise<void> {
    const group = `file ${file}`;
    const content = await this.#readFile(file);
    if (content === undefined || this.#closed) return;
    if ("fault" in content) {
      const message = `Cannot read the file: ${content.fault}; its last good objects are used`;
      this.#fault(group, { file, message });
      return;
    }
    const manifest = readManifest(content.text, { file });
    this.#catalogue.replace(file, manifest);
    this.#setProblems(group, manifest.problems);
  }

  /** A file's text or why it cannot be had; undefined if it is as it was when last read. */
  async #readFile(file: string): Promise<{ text: string } | { fault: string } | undefined> {
    const known = this.#signatures.get(file);
    this.#signatures.set(file, "");
    try {
      const stats = await stat(file, { bigint: true });
      const present = signature(stats);
      if (isSettled(stats)) this.#signatures.set(file, present);
      else this.#schedule();
      if (present === known) return undefined;
      const fault = this.#refusal(stats);
      return fault === undefined ? { text: await readFile(file, "utf8") } : { fault };
    } catch (error) {
      this.#signatures.set(file, "");
      return { fault: explain(error) };
    }
  }

  /** Why a file is not read, or undefined. A pipe would block for ever. */
  #refusal(stats: BigIntStats): string | undefined {
    const { maxBytes } = this.#options;
    if (stats.isDirectory()) return FIXES.EISDIR;
    if (!stats.isFile()) return "it is no regular file; move it away";
    if (stats.size <= maxBytes) return undefined;
    return `its ${stats.size} bytes are more than ${maxBytes}; split it into several`;
  }

  /** Watches the folder that is at the path now: it may be another one than before. */
  async #rewatch(): Promise<void> {
    const folder = this.#isFolder ? this.#path : path.dirname(this.#path);
    try {
      const { dev, ino } = await stat(folder, { bigint: true });
      const present = `${dev} ${ino}`;
      if (this.#closed || (present === this.#watched && this.#watcher !== undefined)) return;
      this.#watcher?.close();
      const watcher = watch(folder, () => this.#schedule());
      watcher.on("error", () => this.#unwatch(watcher));
      this.#watcher = watcher;
      this.#watched = present;
      this.#setProblems(WATCH_GROUP, []);
    } catch (error) {
      this.#watcher?.close();
      this.#watcher = undefined;
      // A folder that is gone is reported where it is listed.
      if (errorCode(error) === "ENOENT") return;
      const seconds = this.#options.pollMilliseconds / 1000;
      const cause = (error as Error).message;
      const message = `Cannot watch the folder: ${cause}; changes are seen every ${seconds} s`;
      this.#fault(WATCH_GROUP, { file: folder, message });
    }
  }

  #unwatch(watcher: FSWatcher): void {
    watcher.close();
    if (this.#watcher === watcher) this.#watcher = undefined;
    this.#schedule();
  }
}
