// Of which Services /metrics tells single numbers: those with the most, or those that are named. A
// large cluster has too many for a series each. Knows keys and numbers, not where they come from.

/** What one service port has counted since it was first programmed. */
export interface ServiceCounters {
  /** The key of its row, "namespace/name:port/protocol/family". */
  key: string;
  connections: number;
  refused: number;
  dropped: number;
}

/** So many of the busiest service ports, or all of these Services ("namespace/name"). */
export type SeriesChoice = { most: number } | { names: ReadonlySet<string> };

/** Enough to see what matters on a node, and few beside what other exporters have. */
export const DEFAULT_CHOICE: SeriesChoice = { most: 100 };

/** "100", or "shop/web,shop/dns". Undefined if it is neither. */
export function parseChoice(text: string): SeriesChoice | undefined {
  if (/^\d{1,5}$/.test(text)) return { most: Number(text) };
  const names = text.split(",").map((name) => name.trim());
  return names.every((name) => /^[^/\s]+\/[^/\s]+$/.test(name))
    ? { names: new Set(names) }
    : undefined;
}

/** The first entries of a list that is sorted by a number, greatest first. */
class Greatest {
  readonly #count: number;
  readonly #measure: (counters: ServiceCounters) => number;
  #found: ServiceCounters[] = [];
  /** What has less cannot be among them any more. */
  #least = 1;

  constructor(count: number, measure: (counters: ServiceCounters) => number) {
    this.#count = count;
    this.#measure = measure;
  }

  add(counters: ServiceCounters): void {
    if (this.#measure(counters) < this.#least) return;
    this.#found.push(counters);
    if (this.#found.length > 4 * this.#count) this.#cut();
  }

  take(): readonly ServiceCounters[] {
    this.#cut();
    return this.#found;
  }

  /** Of equal ones the first by name stay, so that a series does not come and go. */
  #cut(): void {
    const measure = this.#measure;
    this.#found.sort((a, b) => measure(b) - measure(a) || (a.key < b.key ? -1 : 1));
    this.#found = this.#found.slice(0, this.#count);
    const last = this.#found.at(-1);
    if (last !== undefined && this.#found.length === this.#count) this.#least = measure(last);
  }
}

/** The service ports that are told of: for their connections, and for what was refused of them. */
export function chooseServices(
  all: Iterable<ServiceCounters>,
  choice: SeriesChoice,
): { connected: readonly ServiceCounters[]; refused: readonly ServiceCounters[] } {
  if ("names" in choice) {
    // One by one: an array of all would hold as many objects as there are Services at once.
    const named: ServiceCounters[] = [];
    for (const counters of all)
      if (choice.names.has(counters.key.slice(0, counters.key.indexOf(":")))) named.push(counters);
    return { connected: named, refused: named };
  }
  const connected = new Greatest(choice.most, ({ connections }) => connections);
  const refused = new Greatest(choice.most, ({ refused, dropped }) => refused + dropped);
  if (choice.most > 0)
    for (const counters of all) {
      connected.add(counters);
      refused.add(counters);
    }
  return { connected: connected.take(), refused: refused.take() };
}

/** A service port as labels. */
export function serviceLabels(key: string): Record<string, string> {
  const [, namespace = "", service = "", port = "", protocol = "", family = ""] =
    /^([^/]*)\/([^:]*):([^/]*)\/([^/]*)\/(.*)$/.exec(key) ?? [];
  return { namespace, service, port, protocol, ip_family: `IPv${family}` };
}

/** The names of those labels. */
export const SERVICE_LABELS: readonly string[] = Object.keys(serviceLabels(""));
