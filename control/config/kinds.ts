// The kinds of values that settings have: how a flag's text and a file's value become one checked
// value, and the sentence for each that means nothing. Knows no setting by name.
import { type AddressRange, canonicalAddress, parseRange } from "../model/address.ts";
import { FEATURE_GATES } from "./gates.ts";

/** A value that means nothing; the message goes on after the name of what holds it. */
export class Wrong extends Error {}

export interface Kind<T> {
  /** How --help shows the value. */
  readonly placeholder: string;
  /** A flag's text in the form that a file has; undefined if that text sets nothing. */
  fromText(text: string): unknown;
  /** Whether a second flag adds to the first, as it does for lists. */
  readonly isList: boolean;
  /** Whether a file's value is Go's zero of the type, which asks for nothing. */
  isZero(value: unknown): boolean;
  /** The checked value of a file's. Throws Wrong. */
  read(value: unknown): T;
}

/** Where a server listens. */
export interface BindAddress {
  /** Canonical. */
  address: string;
  port: number;
}

type Gates = ReadonlyMap<string, boolean>;

const NANOSECONDS: Readonly<Record<string, number>> = {
  ns: 1,
  us: 1e3,
  µs: 1e3,
  μs: 1e3,
  ms: 1e6,
  s: 1e9,
  m: 60e9,
  h: 3600e9,
};
const DURATION = /^[+-]?(?:0|(?:(?:\d+\.?\d*|\.\d+)(?:ns|us|µs|μs|ms|s|m|h))+)$/;
/** The kernel's limit, IFNAMSIZ less the byte that ends it. */
const MAX_DEVICE_NAME = 15;
const RANGE_FIX = 'write an address and a length, such as "192.168.50.0/24" or "2001:db8::/64"';

function isNot(value: unknown, fix: string): never {
  throw new Wrong(`is ${JSON.stringify(value)}: ${fix}`);
}

function isZero(value: unknown): boolean {
  if (typeof value === "object") return value === null || Object.keys(value).length === 0;
  return value === "" || value === 0 || value === false;
}

function kind<T>(options: Pick<Kind<T>, "read"> & Partial<Kind<T>>): Kind<T> {
  const fromText = (text: string) => (text === "" ? undefined : text);
  return { placeholder: "text", fromText, isList: false, isZero, ...options };
}

/** Milliseconds of a duration as Go writes them ("1h2m3.5s"); undefined if it is none. */
function parseDuration(text: string): number | undefined {
  if (!DURATION.test(text)) return undefined;
  let nanoseconds = 0;
  for (const [, count, unit] of text.matchAll(/([\d.]+)([a-zµμ]+)/g))
    nanoseconds += Number(count) * NANOSECONDS[unit!]!;
  return (text.startsWith("-") ? -nanoseconds : nanoseconds) / 1e6;
}

/** The entries of a list with commas, without blanks around them; empty ones do not count. */
function splitList(text: string): string[] {
  const entries = text.split(",").map((entry) => entry.trim());
  return entries.filter((entry) => entry !== "");
}

function readText(value: unknown): string {
  return typeof value === "string" ? value : isNot(value, "write a text, in quotation marks");
}

function readTexts(value: unknown): string[] {
  if (value === null) return [];
  if (Array.isArray(value) && value.every((entry) => typeof entry === "string")) return value;
  return isNot(value, "write a list of texts");
}

function readRange(text: string): AddressRange {
  const range = parseRange(text);
  if (range !== undefined) return range;
  throw new Wrong(`holds ${JSON.stringify(text)}, which is no range: ${RANGE_FIX}`);
}

export const TEXT = kind({ read: readText });

export const PATH: Kind<string> = { ...TEXT, placeholder: "file" };

/** An amount of memory, of which "0" is none. */
export const QUANTITY = kind({
  placeholder: "amount",
  isZero: (value) => isZero(value) || value === "0",
  read: readText,
});

/** Log levels of single files, as klog has them: --vmodule=PATTERN=LEVEL,... */
export const FILE_LEVELS = kind<readonly unknown[]>({
  placeholder: "list",
  isList: true,
  fromText: (text) =>
    splitList(text).map((entry) => {
      const [filePattern, level = ""] = entry.split("=", 2);
      return { filePattern, verbosity: Number.parseInt(level, 10) };
    }),
  read: (value) => {
    if (value === null) return [];
    return Array.isArray(value) ? value : isNot(value, "write a list of patterns and levels");
  },
});

export const BOOLEAN = kind({
  placeholder: "true|false",
  fromText: (text) => {
    if (/^(?:1|t|T|true|True|TRUE)$/.test(text)) return true;
    return /^(?:0|f|F|false|False|FALSE)$/.test(text) ? false : text;
  },
  read: (value) => (typeof value === "boolean" ? value : isNot(value, "write true or false")),
});

/** A whole number within limits. */
export function integer({ least = 0, most = 2 ** 31 - 1 } = {}): Kind<number> {
  const fix = `write a whole number from ${least} to ${most}`;
  return kind({
    placeholder: "number",
    // As klog has it, -v=4 is -v 4.
    fromText: (text) => (/^=?-?\d+$/.test(text) ? Number(text.replace("=", "")) : text),
    read: (value) => {
      if (!Number.isSafeInteger(value)) return isNot(value, fix);
      const number = value as number;
      return number >= least && number <= most ? number : isNot(value, fix);
    },
  });
}

export const NUMBER = kind({
  placeholder: "number",
  fromText: (text) => (/^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : text),
  read: (value) => (typeof value === "number" ? value : isNot(value, "write a number")),
});

/** A duration in milliseconds; 0 is refused where something has to happen again and again. */
export function duration({ isPeriod = false } = {}): Kind<number> {
  return kind({
    placeholder: "duration",
    isZero: (value) => isZero(value) || (typeof value === "string" && parseDuration(value) === 0),
    read: (value) => {
      const milliseconds = typeof value === "string" ? parseDuration(value) : undefined;
      if (milliseconds === undefined)
        return isNot(value, 'write a duration, such as "30s" or "1m30s"');
      if (milliseconds < 0) return isNot(value, "write a duration that is not negative");
      if (isPeriod && milliseconds === 0) return isNot(value, "write a duration of more than 0s");
      return milliseconds;
    },
  });
}

/** A duration, or a number of nanoseconds. */
export const FREQUENCY: Kind<number> = {
  ...duration(),
  read: (value) => (typeof value === "number" ? value / 1e6 : duration().read(value)),
};

/** One of some words. */
export function word<Word extends string>(words: readonly Word[]): Kind<Word> {
  const named = words.filter((each) => each !== "");
  return kind({
    placeholder: named.length > 3 ? "word" : named.join("|"),
    read: (value) => {
      const known = words.find((each) => each === value);
      return known ?? isNot(value, `write one of ${named.join(", ")}`);
    },
  });
}

export const ADDRESS = kind({
  placeholder: "address",
  read: (value) => {
    const address = canonicalAddress(readText(value));
    return address ?? isNot(value, 'write an address alone, such as "192.168.50.2" or "::"');
  },
});

function splitPort(text: string): { host: string; port: string } | undefined {
  const [, bracketed, plain, port] = /^(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text) ?? [];
  return port === undefined ? undefined : { host: bracketed ?? plain ?? "", port };
}

/**
 * An address with a port, or without: then the default is meant; 0 is any free one. A flag may say
 * "": nowhere.
 */
export function bindAddress(defaultPort: number): Kind<BindAddress | undefined> {
  const examples = `"0.0.0.0:${defaultPort}" or "[::]:${defaultPort}"`;
  const fix = `write an address and a port, such as ${examples}`;
  return kind<BindAddress | undefined>({
    placeholder: "address:port",
    fromText: (text) => text,
    read: (value) => {
      const text = readText(value);
      if (text === "") return undefined;
      const { host, port } = splitPort(text) ?? { host: text, port: String(defaultPort) };
      const address = canonicalAddress(host);
      const number = Number(port);
      if (address === undefined || number > 65535) return isNot(value, fix);
      return { address, port: number };
    },
  });
}

export const RANGES = kind({
  placeholder: "list",
  isList: true,
  fromText: (text) => (text === "" ? undefined : splitList(text)),
  read: (value) => readTexts(value).map(readRange),
});

/** Where node ports are served. No entry means "primary", but a flag may say "": everywhere. */
export const NODE_PORT_ADDRESSES = kind<"primary" | readonly AddressRange[]>({
  placeholder: "list",
  isList: true,
  fromText: (text) => (text === "" ? ["0.0.0.0/0", "::/0"] : splitList(text)),
  read: (value) => {
    const entries = readTexts(value);
    if (entries.length === 0) return "primary";
    if (!entries.includes("primary")) return entries.map(readRange);
    if (entries.length === 1) return "primary";
    const fix = 'write "primary" alone, or ranges alone';
    throw new Wrong(`is ${JSON.stringify(entries.join(","))}, "primary" and more: ${fix}`);
  },
});

/** Ranges in one text with commas, one of each family. */
export const CLUSTER_RANGES = kind<readonly AddressRange[]>({
  placeholder: "list",
  isList: true,
  read: (value) => {
    const ranges = splitList(readText(value)).map(readRange);
    for (const family of [4, 6]) {
      if (ranges.filter((range) => range.family === family).length < 2) continue;
      const fix = "name the one that covers all pods";
      throw new Wrong(`is ${JSON.stringify(value)}, with two IPv${family} ranges: ${fix}`);
    }
    return ranges;
  },
});

export const DEVICE = kind({
  placeholder: "name",
  read: (value) => {
    const limit = `no device's name has more than ${MAX_DEVICE_NAME} characters; correct it`;
    return readText(value).length > MAX_DEVICE_NAME ? isNot(value, limit) : (value as string);
  },
});

/** What a Node can be called: an RFC 1123 subdomain. */
const SUBDOMAIN = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/;

export const NODE_NAME = kind({
  placeholder: "name",
  read: (value) => {
    const name = readText(value).trim().toLowerCase();
    if (value === "" || SUBDOMAIN.test(name)) return name;
    return isNot(value, 'write the name of this Node, of letters, digits, "-" and "."');
  },
});

/** Feature gates by name. */
export const GATES = kind<Gates>({
  placeholder: "name=true,...",
  isList: true,
  fromText: (text) => {
    const pairs = splitList(text).map((entry) => entry.split("=", 2));
    return Object.fromEntries(pairs.map(([name, on = ""]) => [name, BOOLEAN.fromText(on)]));
  },
  read: (value) => {
    if (typeof value !== "object" || value === null || Array.isArray(value))
      return isNot(value, "write names of feature gates, each with true or false");
    const gates = new Map<string, boolean>();
    for (const [name, on] of Object.entries(value)) {
      const fix = "is no feature gate of Kubernetes 1.36: correct or remove it";
      if (!FEATURE_GATES.has(name)) throw new Wrong(`names ${JSON.stringify(name)}, which ${fix}`);
      if (typeof on !== "boolean") {
        const found = JSON.stringify(on);
        throw new Wrong(`has ${found} for ${JSON.stringify(name)}: write true or false`);
      }
      gates.set(name, on);
    }
    return gates;
  },
});
