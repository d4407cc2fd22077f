// Folders of manifests for a running agent, with any number of Services, removed after use. Knows
// files; what is in them is services.ts'.
import { mkdtempSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { endpointAddress, makeManifest } from "./services.ts";

/** Services to a file, as hands that write manifests might do; Service 0 has its own. */
export const SERVICES_TO_A_FILE = 100;

/** A folder of manifests of TCP Services. */
export class Manifests {
  readonly folder = mkdtempSync(path.join(tmpdir(), "bpfsvc-bench-"));

  /** Writes Services with so many endpoints each, Service 0 with its first alone. */
  constructor({ services, endpoints }: { services: number; endpoints: number }) {
    for (let from = 1; from < services; from += SERVICES_TO_A_FILE) {
      const texts: string[] = [];
      for (let service = from; service < Math.min(services, from + SERVICES_TO_A_FILE); service++)
        texts.push(manifestOf(service, endpoints));
      writeFileSync(path.join(this.folder, `${from}.yaml`), texts.join("\n---\n"));
    }
    this.edit(endpointAddress(0));
  }

  /** Gives Service 0 this one endpoint; returns the time, of process.hrtime(), when that stood. */
  edit(endpoint: string): number {
    const file = path.join(this.folder, "0.json");
    writeFileSync(`${file}.new`, makeManifest(0, { protocol: "TCP", endpoints: [endpoint] }));
    renameSync(`${file}.new`, file);
    return Number(process.hrtime.bigint());
  }

  remove(): void {
    rmSync(this.folder, { recursive: true });
  }
}

/** The manifest of a TCP Service with all its endpoints. */
export function manifestOf(service: number, endpoints: number): string {
  return makeManifest(service, {
    protocol: "TCP",
    endpoints: Array.from({ length: endpoints }, (_, index) =>
      endpointAddress(service * endpoints + index),
    ),
  });
}
