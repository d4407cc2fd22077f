// What the verifier says of its work on a program, as numbers. Pure; knows the kernel's wording,
// not where it was said.

export interface VerifierStatistics {
  /** Instructions that it followed, over all paths; the kernel's limit is a million. */
  instructions: number;
  /** States that it remembered. */
  states: number;
  /** The most of them at one time. */
  peakStates: number;
}

/** Reads the line that ends with statistics. Throws if the text has none. */
export function parseVerifierStatistics(text: string): VerifierStatistics {
  const line = /processed (\d+) insns .*total_states (\d+) peak_states (\d+)/.exec(text);
  if (!line) throw new Error(`The verifier's statistics are not among: ${text.slice(0, 200)}`);
  const [instructions, states, peakStates] = line.slice(1).map(Number) as [number, number, number];
  return { instructions, states, peakStates };
}
