// Where things stand in a JSON text, and duplicate keys, both of which JSON.parse does not tell.
// For texts that JSON.parse accepts; knows nothing of their meaning.

/** The keys and indexes that lead to a value. */
export type JsonPath = readonly (string | number)[];

interface Level {
  /** The keys seen so far; undefined in a list. */
  keys: Set<string> | undefined;
  at: string | number;
}

interface Place {
  /** The levels down to this key or list entry; changes as the scan goes on. */
  levels: readonly Level[];
  offset: number;
  duplicate: boolean;
}

/** The offset of the quote that ends the string starting at `start`. */
function stringEnd(text: string, start: number): number {
  let end = start + 1;
  while (text.charAt(end) !== '"') end += text.charAt(end) === "\\" ? 2 : 1;
  return end;
}

/** Every key of a map and every entry of a list, in the order of the text. */
function* places(text: string): Generator<Place> {
  const levels: Level[] = [];
  let expectKey = false;
  for (let offset = 0; offset < text.length; offset++) {
    const character = text.charAt(offset);
    const level = levels.at(-1);
    if (character === '"') {
      const end = stringEnd(text, offset);
      if (expectKey && level?.keys !== undefined) {
        const key: string = JSON.parse(text.slice(offset, end + 1));
        level.at = key;
        yield { levels, offset, duplicate: level.keys.has(key) };
        level.keys.add(key);
        expectKey = false;
      }
      offset = end;
    } else if (character === "{" || character === "[") {
      expectKey = character === "{";
      levels.push({ keys: expectKey ? new Set() : undefined, at: 0 });
      if (!expectKey) yield { levels, offset: offset + 1, duplicate: false };
    } else if (character === "}" || character === "]") {
      levels.pop();
    } else if (character === "," && level !== undefined) {
      expectKey = level.keys !== undefined;
      if (typeof level.at === "number" && !expectKey) {
        level.at++;
        yield { levels, offset: offset + 1, duplicate: false };
      }
    }
  }
}

/** The first key that its map already has, or undefined. */
export function findDuplicateKey(text: string): { key: string; offset: number } | undefined {
  for (const { levels, offset, duplicate } of places(text)) {
    if (duplicate) return { key: String(levels.at(-1)!.at), offset };
  }
  return undefined;
}

/** The offset of the value at `path`, or of the nearest one around it. */
export function findOffset(text: string, path: JsonPath): number {
  let best = { depth: 0, offset: 0 };
  for (const { levels, offset } of places(text)) {
    const depth = levels.length;
    if (depth <= best.depth || depth > path.length) continue;
    if (!levels.every((level, index) => level.at === path[index])) continue;
    best = { depth, offset };
    if (depth === path.length) break;
  }
  const blanks = text.slice(best.offset).search(/\S/);
  return best.offset + Math.max(0, blanks);
}

/** Line and column, counted from 1, of an offset in a text. */
export function linePosition(text: string, offset: number): { line: number; column: number } {
  const before = text.slice(0, offset);
  const start = before.lastIndexOf("\n") + 1;
  return { line: before.split("\n").length, column: offset - start + 1 };
}
