// Keeps the programs attached while the agent runs: at the start, and again when somebody removed
// a link, a pin or the cgroup. Knows links and pins, nothing of what the maps hold.
import { attachAll, checkCgroup, missingHooks, programsHash } from "../dataplane/attach.ts";
import { loadObject, type Rodata, restorePins } from "../dataplane/kernel.ts";
import { claim, type Kernel, settle } from "../dataplane/takeover.ts";
import type { Logger } from "../log.ts";

/** How often links and pins are looked at. */
const LOOK_MS = 5000;

export interface ServingOptions {
  kernel: Kernel;
  cgroup: string;
  rodata: Rodata;
  log: Logger;
  /** Told after every look whether all is attached and pinned. */
  onLook: (isWhole: boolean) => void;
}

export class Serving {
  readonly #options: ServingOptions;
  #timer: NodeJS.Timeout | undefined;
  /** What is wrong, as last told; empty if nothing is. */
  #fault = "";

  constructor(options: ServingOptions) {
    this.#options = options;
  }

  /** Whether all was attached and pinned at the last look; undefined before start(). */
  get isWhole(): boolean | undefined {
    return this.#timer && this.#fault === "";
  }

  /** Attaches the programs, unless just these are attached already, and looks after them. */
  start(): void {
    const { kernel, cgroup, rodata, log } = this.#options;
    const isCurrent = kernel.loaded === undefined && kernel.meta.programs === programsHash(rodata);
    if (isCurrent && missingHooks(kernel.pins, cgroup).length === 0)
      log.info(`The programs on cgroup "${cgroup}" are up to date`);
    else {
      log.info(`Attaching to cgroup "${cgroup}": every process in it is served from now on`);
      claim(kernel);
      this.#attach();
    }
    this.#settle().catch(({ message }: Error) => {
      const { folder } = kernel.pins;
      log.error(`Cannot remove maps that no longer serve in "${folder}": ${message}`);
    });
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
  }

  /** Looks no more. What is attached stays so. */
  stop(): void {
    clearInterval(this.#timer);
  }

  async #settle(): Promise<void> {
    const { kernel, log } = this.#options;
    const lost = await settle(kernel);
    if (lost > 0)
      log.warn(`${lost} connections found no room in svc_flows: their packets get endpoints anew`);
  }

  #attach(): void {
    const { kernel, cgroup, rodata } = this.#options;
    const { pins, meta } = kernel;
    const loaded = kernel.loaded ?? loadObject(pins, { rodata, capacities: {} });
    attachAll(loaded, { pins, cgroup, meta });
    loaded.object.close();
    kernel.loaded = undefined;
  }

  #look(): void {
    const { kernel, cgroup, log } = this.#options;
    try {
      checkCgroup(cgroup);
      const pinned = restorePins(kernel);
      if (kernel.pins.serving === undefined) kernel.pins.serve();
      if (pinned.length > 0) log.warn(`Pins of ${pinned.join(", ")} were gone: pinned again`);
      const missing = missingHooks(kernel.pins, cgroup);
      if (missing.length > 0) {
        log.warn(`Links of ${missing.join(", ")} were gone: attaching to "${cgroup}" again`);
        this.#attach();
      }
      if (this.#fault !== "") log.info(`Serving cgroup "${cgroup}" again`);
      this.#fault = "";
    } catch (error) {
      const { message } = error as Error;
      if (message !== this.#fault) log.error(`Not everything is served: ${message}`);
      this.#fault = message;
    }
    this.#options.onLook(this.#fault === "");
  }
}
