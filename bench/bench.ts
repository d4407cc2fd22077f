// What a bench is: one file that measures one claim, and what it hands back. Knows neither how
// benches are started (run.ts) nor what they measure.

/** What a figure should be. */
export type Goal = { atMost: number } | { atLeast: number };

/** One number that the bench stands for. */
export interface Figure {
  /** What it says, as a phrase: "repeated connect() of one UDP socket, added to no program". */
  claim: string;
  /** The median of its samples. */
  value: number;
  /** The first and third quartile of its samples. */
  spread: readonly [number, number];
  unit: string;
  /** Absent: shown for what it tells, held to nothing. */
  goal?: Goal;
}

/** A picture of some figures: values over a number, on logarithmic scales, or by name as bars. */
export interface Plot {
  /** Names the picture's file: letters, digits and "-". */
  name: string;
  title: string;
  /** Of the values. */
  unit: string;
  kind: "lines" | "bars";
  /** Of lines: what the number is that values are over, such as "Services". */
  over?: string;
  /** Of lines, points by that number; of bars, one value by name. */
  series: readonly { name: string; points: readonly (readonly [number, number])[] }[];
}

export interface Measured {
  figures: Figure[];
  /** Everything that was read off a clock, by name, in the order in which it was. */
  samples: Record<string, readonly number[]>;
  /** What a reader of the figures must know: what was left out, what disturbed. */
  notes: string[];
  plots?: Plot[];
}

/** What a bench gets. */
export interface Context {
  /** Little time is left: what is costly and steady is measured once, at small sizes. */
  quick: boolean;
  /** Interleaved rounds: `--quick` asks for fewer. */
  rounds(usual: number): number;
  /** Whether the bench has used its time, and ends with what it has. */
  isLate(): boolean;
  /** Tells people that it goes on; not part of the result. */
  progress(text: string): void;
}

export interface Bench {
  /** Its file's name, as `npm run bench NAME` has it. */
  name: string;
  /** The claim in one sentence. */
  claim: string;
  /** What must hold, in words; the figures have the numbers. */
  goal: string;
  /** Measures. Leaves nothing behind. Throws when it cannot measure. */
  run(context: Context): Promise<Measured>;
}

/** Whether a figure is as it should be; null if nothing is asked of it. */
export function holds({ value, goal }: Pick<Figure, "value" | "goal">): boolean | null {
  if (goal === undefined) return null;
  return "atMost" in goal ? value <= goal.atMost : value >= goal.atLeast;
}
