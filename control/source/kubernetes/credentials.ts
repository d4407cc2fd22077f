// How to reach the API server and who we are: from a kubeconfig or from the pod, read again when
// they change. KubeConfig of the Kubernetes client does the work; nothing else of that is used.
import { readFileSync, statSync } from "node:fs";
import http, { type Agent } from "node:http";
import https from "node:https";
import path from "node:path";
import { createSecureContext } from "node:tls";
import { KubeConfig } from "@kubernetes/client-node/dist/config.js";
import { parse } from "yaml";
import { CredentialsError } from "./errors.ts";

/** Tokens and certificates in files change at any time; client-go looks as often. */
const FRESH_MS = 60_000;
const KEEP_ALIVE_MS = 15_000;

/** What a request needs. */
export interface Access {
  /** Scheme, host, port and perhaps a path. */
  server: URL;
  headers: Readonly<Record<string, string>>;
  agent: Agent;
  /** Whether the server proves who it is. */
  isVerified: boolean;
}

interface Loaded {
  config: KubeConfig;
  signature: string;
  atMs: number;
  /** A plugin's credentials last as long as it says, and it costs much to ask it. */
  isPlugin: boolean;
}

/** The credentials of a kubeconfig, or without one those of the pod that this runs in. */
export class Credentials {
  readonly #file: string | undefined;
  readonly #master: string | undefined;
  #loaded: Loaded | undefined;
  #agent: { agent: Agent; material: string } | undefined;
  #isDoubted = false;

  /** `master` is the server's URL in place of the kubeconfig's. */
  constructor(kubeconfig: string | undefined, { master }: { master?: string | undefined } = {}) {
    this.#file = kubeconfig === undefined ? undefined : path.resolve(kubeconfig);
    this.#master = master;
  }

  /** Where they come from, for messages. */
  get origin(): string {
    return this.#file === undefined ? "the pod's service account" : `kubeconfig "${this.#file}"`;
  }

  /** The present credentials. Rejects with CredentialsError. */
  async get(): Promise<Access> {
    try {
      const { config } = this.#load();
      const cluster = config.getCurrentCluster();
      if (cluster === null)
        throw new Error(`context "${config.getCurrentContext()}" leads to no cluster`);
      const options: https.RequestOptions = {};
      await config.applyToHTTPSOptions(options);
      const { agent, auth, headers } = options;
      const server = readServer(this.#master ?? cluster.server);
      // A proxy's agent is made by KubeConfig; it keeps no connections.
      const own = cluster.proxyUrl ? (agent as Agent) : this.#ownAgent(server, options);
      const isVerified = server.protocol === "https:" && options.rejectUnauthorized !== false;
      return { server, headers: makeHeaders(headers, auth), agent: own, isVerified };
    } catch (error) {
      // Whatever a plugin printed is kept by KubeConfig, also if it is no credential.
      this.doubt();
      const reason = (error as Error).message.trim();
      throw new CredentialsError(`Cannot use ${this.origin}: ${reason}; correct it`, {
        cause: error,
      });
    }
  }

  /** They were refused: whatever they come from is read again before the next request. */
  doubt(): void {
    this.#isDoubted = true;
  }

  /** Ends all connections. */
  close(): void {
    this.#agent?.agent.destroy();
  }

  #load(): Loaded {
    const signature = this.#signature();
    const known = this.#loaded;
    if (known !== undefined && !this.#isDoubted && known.signature === signature) {
      if (known.isPlugin || performance.now() - known.atMs < FRESH_MS) return known;
    }
    const config = new KubeConfig();
    if (this.#file === undefined) loadFromPod(config);
    else loadFromFile(config, this.#file);
    const { exec, authProvider } = config.getCurrentUser() ?? {};
    const isPlugin = Boolean(exec ?? authProvider?.config?.exec);
    const loaded = { config, signature, atMs: performance.now(), isPlugin };
    this.#loaded = loaded;
    this.#isDoubted = false;
    return loaded;
  }

  #signature(): string {
    if (this.#file === undefined) return "";
    const { ino, size, mtimeMs } = statSync(this.#file);
    return `${ino} ${size} ${mtimeMs}`;
  }

  /** The agent for these certificates: the same as before, with its connections, if they are. */
  #ownAgent(
    { protocol }: URL,
    { ca, cert, key, pfx, passphrase, ...rest }: https.RequestOptions,
  ): Agent {
    const { rejectUnauthorized, servername } = rest;
    const given = { ca, cert, key, pfx, passphrase, rejectUnauthorized, servername };
    const tls = Object.fromEntries(
      Object.entries(given).filter(([, value]) => value !== undefined && value !== null),
    );
    const material = JSON.stringify([protocol, tls]);
    if (this.#agent?.material !== material) {
      // What is no certificate is told as such here; a request would only fail somehow.
      createSecureContext(tls);
      // Streams under way go on over the connections that they have.
      const kept = { keepAlive: true, keepAliveMsecs: KEEP_ALIVE_MS };
      const agent =
        protocol === "http:" ? new http.Agent(kept) : new https.Agent({ ...tls, ...kept });
      this.#agent = { agent, material };
    }
    return this.#agent.agent;
  }
}

/** The URL of a server. Throws if it is none. */
function readServer(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url?.protocol === "https:" || url?.protocol === "http:") return url;
  throw new Error(`the server is "${text}", not a URL such as "https://HOST:6443"`);
}

function makeHeaders(given: unknown, auth: string | null | undefined): Record<string, string> {
  const headers: Record<string, string> = { "user-agent": "bpfsvc" };
  for (const [name, value] of Object.entries((given ?? {}) as Record<string, unknown>))
    headers[name.toLowerCase()] = String(value).trim(); // A file of a token may end with a newline.
  if (auth) headers.authorization = `Basic ${Buffer.from(auth).toString("base64")}`;
  return headers;
}

function loadFromPod(config: KubeConfig): void {
  if (!process.env.KUBERNETES_SERVICE_HOST || !process.env.KUBERNETES_SERVICE_PORT)
    throw new Error(
      "KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set, so this is no pod; give " +
        "--kubeconfig FILE",
    );
  config.loadFromCluster();
}

interface RawUser {
  name?: string;
  user?: { tokenFile?: string };
}

function loadFromFile(config: KubeConfig, file: string): void {
  config.loadFromFile(file);
  // KubeConfig does not know tokenFile, which kubeadm's kubeconfig of kube-proxy has.
  const text = readFileSync(file, "utf8");
  if (!text.includes("tokenFile")) return;
  const raw = parse(text) as { users?: RawUser[] };
  const user = config.getCurrentUser();
  const tokenFile = raw.users?.find(({ name }) => name === user?.name)?.user?.tokenFile;
  if (user === null || tokenFile === undefined) return;
  const resolved = path.resolve(path.dirname(file), tokenFile);
  Object.assign(user, {
    token: undefined,
    authProvider: { name: "tokenFile", config: { tokenFile: resolved } },
  });
}
