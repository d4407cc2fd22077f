// Folders of manifests for a running agent, with any number of Services, removed after use. Knows
// files; what is in them is services.ts'.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { endpointAddress, makeManifest, makeNodeManifest, type Shape } from "./services.ts";

/** Services to a file, as hands that write manifests might do; Service 0 has its own. */
export const SERVICES_TO_A_FILE = 100;

/** A folder of manifests. */
export class Manifests {
  readonly folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-bench-"));

  /** Writes Services of a shape, and a Node if there is to be one. */
  constructor(shape: Shape, node?: { name: string; address: string }) {
    for (let from = 1; from < shape.services; from += SERVICES_TO_A_FILE) {
      const texts: string[] = [];
      const to = Math.min(shape.services, from + SERVICES_TO_A_FILE);
      for (let service = from; service < to; service++) texts.push(manifestOf(service, shape));
      writeFileSync(path.join(this.folder, `${from}.yaml`), texts.join("\n---\n"));
    }
    this.#writeFirst(manifestOf(0, shape));
    if (node) writeFileSync(path.join(this.folder, "node.json"), makeNodeManifest(node));
  }

  /**
   * Makes Service 0 one of TCP with this endpoint; returns when that stood, of process.hrtime().
   */
  edit(endpoint: string): number {
    this.#writeFirst(makeManifest(0, { protocol: "TCP", endpoints: [endpoint] }));
    return Number(process.hrtime.bigint());
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }

  #writeFirst(text: string): void {
    const file = path.join(this.folder, "0.json");
    writeFileSync(`${file}.new`, text);
    renameSync(`${file}.new`, file);
  }
}

/** The manifest of a Service of a shape with all its endpoints. */
export function manifestOf(service: number, shape: Shape): string {
  const { endpoints, protocolOf, nodePortOf, endpointsOn } = shape;
  return makeManifest(service, {
    protocol: protocolOf(service),
    endpointsOn,
    nodePort: nodePortOf?.(service).port,
    endpoints: Array.from({ length: endpoints }, (_, index) =>
      endpointAddress(service * endpoints + index),
    ),
  });
}
