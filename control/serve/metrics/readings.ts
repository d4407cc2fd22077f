// Metrics whose values are counted or known elsewhere, and read when somebody asks. Knows no metric
// by name.
import { Counter, Gauge, type LabelValues, type Registry } from "prom-client";

/** One value of a metric, with its labels. */
export type Sample = readonly [labels: LabelValues<string>, value: number];

/** A metric and where its values come from; series that are not read any more are gone. */
export interface Reading<Source> {
  type: "counter" | "gauge";
  name: string;
  help: string;
  labels?: readonly string[];
  read: (source: Source) => Iterable<Sample>;
}

/** A value without labels. */
export function single(value: number): readonly Sample[] {
  return [[{}, value]];
}

/** Adds the metrics to a registry; the function that it returns reads all of them. */
export function addReadings<Source>(
  registry: Registry,
  readings: readonly Reading<Source>[],
): (source: Source) => void {
  const registers = [registry];
  const refreshes = readings.map(({ type, name, help, labels = [], read }) => {
    const options = { name, help, labelNames: [...labels], registers };
    if (type === "gauge") {
      const gauge = new Gauge(options);
      return (source: Source) => {
        gauge.reset();
        for (const [values, value] of read(source)) gauge.set(values, value);
      };
    }
    const counter = new Counter(options);
    return (source: Source) => {
      counter.reset();
      for (const [values, value] of read(source)) counter.inc(values, value);
    };
  });
  return (source) => {
    for (const refresh of refreshes) refresh(source);
  };
}
