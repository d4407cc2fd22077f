// Medians and quartiles: what is said about samples of a shared machine, where means are the
// noise of others. Pure; knows nothing of what was sampled.

/** The value below which a share `at` (0 to 1) of samples lies, interpolated. Throws for none. */
export function quantile(samples: readonly number[], at: number): number {
  if (samples.length === 0) throw new RangeError("No samples have no quantiles: measure first");
  const sorted = [...samples].sort((a, b) => a - b);
  const place = at * (sorted.length - 1);
  const below = sorted[Math.floor(place)]!;
  const above = sorted[Math.ceil(place)]!;
  return below + (above - below) * (place - Math.floor(place));
}

/** The median. Throws for no samples. */
export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

/** The first and third quartile. Throws for no samples. */
export function quartiles(samples: readonly number[]): [number, number] {
  return [quantile(samples, 0.25), quantile(samples, 0.75)];
}

/** Sample by sample what two cases of the same rounds make together. Throws if lengths differ. */
export function paired(
  samples: readonly number[],
  base: readonly number[],
  combine: (sample: number, base: number) => number,
): number[] {
  if (samples.length !== base.length)
    throw new RangeError(`${samples.length} samples cannot be paired with ${base.length}`);
  return samples.map((sample, round) => combine(sample, base[round]!));
}

/** The differences within each round: slow drifts of the machine fall out. */
export function differences(samples: readonly number[], base: readonly number[]): number[] {
  return paired(samples, base, (one, other) => one - other);
}

/** The ratios within each round. */
export function ratios(samples: readonly number[], base: readonly number[]): number[] {
  return paired(samples, base, (one, other) => one / other);
}
