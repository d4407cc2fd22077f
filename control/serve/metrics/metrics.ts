// Everything that /metrics tells, as text. Knows which metrics there are, not where their values
// come from.
import { Registry } from "prom-client";
import { KUBE_PROXY_READINGS, KubeProxyMetrics, type KubeProxyState } from "./kubeproxy.ts";
import { OWN_READINGS, type OwnState } from "./own.ts";
import { PROCESS_READINGS, readProcess } from "./process.ts";
import { addReadings } from "./readings.ts";

export type MetricsState = KubeProxyState & OwnState;

export class Metrics {
  readonly registry = new Registry();
  readonly kubeProxy = new KubeProxyMetrics(this.registry);
  readonly #refresh = addReadings<MetricsState>(this.registry, [
    ...KUBE_PROXY_READINGS,
    ...OWN_READINGS,
  ]);
  readonly #refreshProcess = addReadings(this.registry, PROCESS_READINGS);
  #running: Promise<string> | undefined;

  /** The text format of Prometheus. Who asks while it is made gets the same. */
  scrape(readState: () => MetricsState): Promise<string> {
    this.#running ??= this.#make(readState).finally(() => {
      this.#running = undefined;
    });
    return this.#running;
  }

  async #make(readState: () => MetricsState): Promise<string> {
    this.#refresh(readState());
    this.#refreshProcess(readProcess());
    return this.registry.metrics();
  }
}
