// The addresses of the API server: the one that is configured, and those that the Service
// "kubernetes" has, kept in a file so that a start finds one while another is gone.
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { SliceObject } from "../../model/objects.ts";

const PORT_NAME = "https";
/** A URL never has more. */
const MOST_SERVERS = 16;

/** What the file holds. */
interface State {
  /** The configured server that these belong to: another cluster's are of no use. */
  configured: string;
  servers: string[];
}

/** True for a slice of the API server's own Service. */
export function isApiServerSlice(slice: { namespace: string; serviceName?: string }): boolean {
  return slice.namespace === "default" && slice.serviceName === "kubernetes";
}

/** The URLs of the endpoints of such slices, sorted. */
export function serversOf(slices: Iterable<SliceObject>): string[] {
  const servers = new Set<string>();
  for (const { ports, endpoints, family } of slices) {
    const port = ports.find(({ name }) => name === PORT_NAME)?.port;
    if (port === undefined) continue;
    for (const { address, ready } of endpoints)
      if (ready) servers.add(`https://${family === 6 ? `[${address}]` : address}:${port}`);
  }
  return [...servers].sort().slice(0, MOST_SERVERS);
}

/** Which server is asked, and which next when it fails. */
export class Servers {
  readonly #file: string | undefined;
  #configured = "";
  #isVerified = false;
  #learned: readonly string[] = [];
  #current = "";

  /** `file` is where learned servers are kept; undefined: nowhere. */
  constructor(file: string | undefined) {
    this.#file = file;
  }

  /**
   * Takes the configured server; one that is new is asked first. One that does not prove who it is
   * stays the only one: whoever can write EndpointSlices could name another.
   */
  configure({ href }: URL, { isVerified }: { isVerified: boolean }): void {
    if (href === this.#configured && isVerified === this.#isVerified) return;
    this.#configured = href;
    this.#current = href;
    this.#isVerified = isVerified;
    this.#learned = isVerified ? this.#load() : [];
  }

  /** The one to ask. */
  get current(): URL {
    return new URL(this.#current);
  }

  get count(): number {
    return this.#all().length;
  }

  /** True if it is the configured one, and not one of the Service's endpoints. */
  isConfigured(url: URL): boolean {
    return url.href === this.#configured;
  }

  /** This one failed: the next is asked from now on, if it was asked until now. */
  fail(url: URL): void {
    if (url.href !== this.#current) return;
    const all = this.#all();
    this.#current = all[(all.indexOf(url.href) + 1) % all.length]!;
  }

  /** Takes the endpoints that the Service has now. Throws if the file cannot be written. */
  learn(servers: readonly string[]): void {
    // Without endpoints the last known ones are better than none.
    if (servers.length === 0 || !this.#isVerified) return;
    const learned = servers.map((server) => new URL(server).href);
    if (learned.join() === this.#learned.join()) return;
    this.#learned = learned;
    if (!this.#all().includes(this.#current)) this.#current = this.#configured;
    this.#store({ configured: this.#configured, servers: learned });
  }

  #all(): string[] {
    return [...new Set([this.#configured, ...this.#learned])];
  }

  #load(): string[] {
    if (this.#file === undefined) return [];
    try {
      const state = JSON.parse(readFileSync(this.#file, "utf8")) as Partial<State>;
      if (state.configured !== this.#configured || !Array.isArray(state.servers)) return [];
      return state.servers.slice(0, MOST_SERVERS).map((server) => new URL(server).href);
    } catch {
      return []; // It is a help, not a need: the first start has none either.
    }
  }

  #store(state: State): void {
    if (this.#file === undefined) return;
    mkdirSync(path.dirname(this.#file), { recursive: true });
    const next = `${this.#file}.new`;
    writeFileSync(next, `${JSON.stringify(state)}\n`, { mode: 0o600 });
    renameSync(next, this.#file);
  }
}
