// A Kubernetes source on an API server of the lab, what it should deliver, and what it did: for the
// tests of this folder. Knows no fault.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { ExecutionContext } from "ava";
import type { KubernetesObject, ObjectIdentity } from "../../control/model/objects.ts";
import { objectKey } from "../../control/model/objects.ts";
import { readObject } from "../../control/model/read.ts";
import {
  type KubernetesOptions,
  KubernetesSource,
} from "../../control/source/kubernetes/kubernetes.ts";
import type { Sink } from "../../control/source/source.ts";
import type { ApiObject } from "../../lab/apiserver/objects.ts";
import { RESOURCES } from "../../lab/apiserver/resources.ts";
import {
  type ApiServer,
  type ApiServerOptions,
  startApiServer,
} from "../../lab/apiserver/server.ts";
import { waitFor } from "../../lab/wait.ts";

export const NODE = "node-a";
/** For tests in which answers do not come: they are soon given up. */
export const IMPATIENT = { connectMs: 500, answerMs: 300, silenceMs: 300 };

/** What a source told, in order, and what stands of it. */
export class Recorder implements Sink {
  readonly objects = new Map<string, KubernetesObject>();
  readonly problems: string[] = [];
  readonly resolutions: string[] = [];
  /** Keys of objects that were taken away. */
  readonly removed: string[] = [];
  /** When what was applied came about, as far as it was told. */
  readonly triggers: number[] = [];
  applied = 0;
  syncs = 0;
  changes = 0;
  /** How many objects there were when it was synced. */
  syncedWith = 0;

  apply(object: KubernetesObject, triggeredMs = 0): void {
    this.applied++;
    if (triggeredMs !== 0) this.triggers.push(triggeredMs);
    this.objects.set(objectKey(object), object);
  }

  remove(identity: ObjectIdentity): void {
    this.removed.push(objectKey(identity));
    this.objects.delete(objectKey(identity));
  }

  problem(message: string): void {
    this.problems.push(message);
  }

  resolved(message: string): void {
    this.resolutions.push(message);
  }

  synced(): void {
    this.syncs++;
    this.syncedWith = this.objects.size;
  }

  changed(): void {
    this.changes++;
  }
}

export function makeService(name: string, more: Record<string, unknown> = {}): ApiObject {
  const number = [...name].reduce((sum, letter) => (sum * 31 + letter.charCodeAt(0)) % 60_000, 7);
  const clusterIP = `10.96.${number >> 8}.${number & 255 || 1}`;
  return {
    apiVersion: "v1",
    kind: "Service",
    metadata: { namespace: "shop", name },
    spec: {
      type: "ClusterIP",
      clusterIP,
      clusterIPs: [clusterIP],
      ipFamilies: ["IPv4"],
      ports: [{ name: "http", protocol: "TCP", port: 80, targetPort: 8080, nodePort: 0 }],
      ...more,
    },
    status: { loadBalancer: {} },
  };
}

export function withLabels(object: ApiObject, labels: Record<string, string>): ApiObject {
  return { ...object, metadata: { ...object.metadata, labels } };
}

export function makeSlice(
  service: string,
  addresses: readonly string[],
  { namespace = "shop" } = {},
): ApiObject {
  return {
    apiVersion: "discovery.k8s.io/v1",
    kind: "EndpointSlice",
    metadata: {
      namespace,
      name: `${service}-x`,
      labels: { "kubernetes.io/service-name": service },
    },
    addressType: "IPv4",
    endpoints: addresses.map((address) => ({ addresses: [address], conditions: { ready: true } })),
    ports: [{ name: service === "kubernetes" ? "https" : "http", protocol: "TCP", port: 8080 }],
  };
}

export function makeNode(name: string): ApiObject {
  return {
    apiVersion: "v1",
    kind: "Node",
    metadata: { name, labels: { "topology.kubernetes.io/zone": "zone-a" } },
    spec: { podCIDRs: ["10.244.1.0/24"] },
    status: { addresses: [{ type: "InternalIP", address: "192.168.50.2" }] },
  };
}

/** Services with a slice each, the nodes of a cluster, and a range of Services. */
export function makeObjects(services: number): ApiObject[] {
  const objects = [makeNode(NODE), makeNode("node-b")];
  for (let index = 0; index < services; index++) {
    objects.push(makeService(`web-${index}`));
    objects.push(makeSlice(`web-${index}`, [`10.244.1.${(index % 250) + 1}`, "10.244.2.9"]));
  }
  return objects;
}

/** What the server's state makes for the agent of a node, by the rules of §1. */
export function expected(server: ApiServer): Map<string, KubernetesObject> {
  const objects = new Map<string, KubernetesObject>();
  for (const resource of RESOURCES)
    for (const { object: listed, name } of server.store.list(resource)) {
      const { kind } = resource;
      const labels = listed.metadata.labels ?? {};
      const clusterIP = (listed.spec as { clusterIP?: string } | undefined)?.clusterIP;
      if (kind === "Service" && clusterIP === "None") continue;
      if (kind === "EndpointSlice" && "service.kubernetes.io/headless" in labels) continue;
      if (kind === "Node" && name !== NODE) continue;
      const { object } = readObject({ kind, ...listed });
      if (object !== undefined) objects.set(objectKey(object), object);
    }
  return objects;
}

/** A server and a source on it, with short waits; both end with the test. */
export class Scene {
  readonly server: ApiServer;
  readonly recorder = new Recorder();
  readonly folder: string;
  readonly kubeconfig: string;
  readonly #t: ExecutionContext;

  private constructor(t: ExecutionContext, server: ApiServer) {
    this.#t = t;
    this.server = server;
    this.folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-source-"));
    this.kubeconfig = path.join(this.folder, "kubeconfig");
    this.writeKubeconfig();
    t.teardown(() => rmSync(this.folder, { recursive: true }));
    t.teardown(() => server.close());
  }

  static async create(t: ExecutionContext, options: ApiServerOptions = {}): Promise<Scene> {
    return new Scene(t, await startApiServer({ objects: makeObjects(3), ...options }));
  }

  writeKubeconfig(text = this.server.kubeconfig): void {
    writeFileSync(this.kubeconfig, text);
  }

  /** A source that is not started. */
  makeSource(options: Partial<KubernetesOptions> = {}): KubernetesSource {
    const source = new KubernetesSource({
      kubeconfig: this.kubeconfig,
      nodeName: NODE,
      log: { debug: () => {} },
      timeouts: { connectMs: 5000, answerMs: 5000, silenceMs: 10_000 },
      backoff: { firstMs: 10, lastMs: 100 },
      ...options,
    });
    this.#t.teardown(() => source.close());
    return source;
  }

  /** Starts a source, and returns when it is synced. */
  async start(options: Partial<KubernetesOptions> = {}): Promise<KubernetesSource> {
    const source = this.makeSource(options);
    await source.start(this.recorder);
    return source;
  }

  /** Waits until the recorder has what the server has. */
  async settle(what: string): Promise<void> {
    try {
      await waitFor(() => isSame(this.recorder.objects, expected(this.server)), { what });
    } catch (error) {
      this.#t.log(this.recorder.problems.slice(-3));
      this.#t.deepEqual(sorted(this.recorder.objects), sorted(expected(this.server)), what);
      throw error;
    }
  }
}

function sorted(objects: ReadonlyMap<string, KubernetesObject>): unknown[] {
  return [...objects].sort(([left], [right]) => (left < right ? -1 : 1));
}

function isSame(
  left: ReadonlyMap<string, KubernetesObject>,
  right: ReadonlyMap<string, KubernetesObject>,
): boolean {
  return JSON.stringify(sorted(left)) === JSON.stringify(sorted(right));
}
