// How much the flags of `run` can tell the maps to hold. Knows no map: dataplane/ makes them, and
// test/command holds these numbers against theirs.

/** What one flag of `run` may say. */
interface MapSize {
  /** What the maps have room for unless told otherwise. */
  usual: number;
  /**
   * What numbers in the maps can tell apart (bpf/maps.h), or what takes some GiB of memory: more
   * can only be a slip.
   */
  most: number;
}

export const MAP_SIZES = {
  "max-frontends": { usual: 131_072, most: 2 ** 24 },
  "max-services": { usual: 65_536, most: 2 ** 22 },
  "max-backends": { usual: 262_144, most: 2 ** 22 },
  "max-slots": { usual: 4_194_304, most: 2 ** 28 },
  "max-flows": { usual: 131_072, most: 2 ** 25 },
} as const satisfies Record<string, MapSize>;
export type SizeFlag = keyof typeof MAP_SIZES;
